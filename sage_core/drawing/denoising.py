"""The one sampling loop: noise becomes latents, step by step, led by states of texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .guidance import SafeGuidance, guided

# Predicts the noise (B, 4, H, W) of latents at times (B,) under states (B, 77, width).
Noise = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Texts:
    """States that a batch of B prompts is drawn with.

    Attributes:
        plain: of the negative prompt, (1 or B, 77, width).
        prompted: of the prompts, (B, 77, width).
        late: of the prompts, for steps from `until` on; None for `prompted` throughout.
        until: the share of the steps, one for each prompt, for which `prompted` holds, (B,).
        safety: of the safety text, for Safe Latent Diffusion, (1 or B, 77, width).
    """

    plain: Tensor
    prompted: Tensor
    late: Tensor | None = None
    until: Tensor | None = None
    safety: Tensor | None = None

    def at(self, step: int | Tensor, steps: int) -> Tensor:
        """States of the prompts at a step, counted from 0, or of each at a step of its own, (B,)."""
        if self.late is None or self.until is None:
            return self.prompted
        early = (step < self.until * steps)[:, None, None]
        return torch.where(early, self.prompted, self.late)


@dataclass(frozen=True, eq=False)
class Step:
    """What a sampler saw in one step.

    Attributes:
        number: from 0.
        time: of the noise schedule.
        latents: at its beginning, (B, 4, H, W).
        plain, prompted: the noise predicted there, without and with the prompts.
    """

    number: int
    time: Tensor
    latents: Tensor
    plain: Tensor
    prompted: Tensor


@torch.no_grad()
def denoise(
    noise: Noise,
    scheduler: Any,
    latents: Tensor,
    texts: Texts,
    guidance: float,
    *,
    safe: SafeGuidance | None = None,
    steps: int | None = None,
    first: int = 0,
    fill: Callable[[Tensor, int], Tensor] | None = None,
    watch: Callable[[Step], None] | None = None,
) -> Tensor:
    """Latents (B, 4, H, W) after the steps of a sampler with classifier-free guidance.

    Args:
        noise: see Noise. What it predicts is taken to the type of `latents`.
        scheduler: diffusers', with its timesteps set on the CPU.
        latents: noise of deviation 1, on the device of the texts; for a later `first` what the sampler has there.
        texts: what leads where.
        guidance: weight of classifier-free guidance.
        safe: guidance away from the safety text of `texts`.
        steps: how many of the sampler's are taken; None for all.
        first: the step to begin with, counted from 0.
        fill: gives what goes on in the place of latents, called with these and the number of the step before each of
            them, and with one more after the last.
        watch: called with each step before it is taken; may raise to stop.
    """
    if not first:
        latents = latents * float(scheduler.init_noise_sigma)
    count = len(scheduler.timesteps)
    away = [texts.safety] if safe is not None and texts.safety is not None else []
    for number, time in list(enumerate(scheduler.timesteps[:steps]))[first:]:
        if fill is not None:
            latents = fill(latents, number)
        given = texts.at(number, count)
        states = torch.cat([part.expand_as(given) for part in (texts.plain, given, *away)])
        rows = len(states) // len(given)
        seen = torch.cat([scheduler.scale_model_input(latents, time)] * rows)
        times = torch.full((len(seen),), time.item(), dtype=time.dtype, device=latents.device)
        plain, prompted, *safety = noise(seen, times, states).to(latents.dtype).chunk(rows)
        if watch is not None:
            watch(Step(number, time, latents, plain, prompted))
        if safe is not None and safety:
            prompted = safe.prompted(prompted, plain, safety[0], number)
        latents = scheduler.step(guided(prompted, plain, guidance), time, latents).prev_sample
    return latents if fill is None else fill(latents, count)
