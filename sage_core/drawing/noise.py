"""The noise schedule of Stable Diffusion 1.x, and pictures drawn a part of the way by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

TRAINING_STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012


def noise_scheduler() -> DDIMScheduler:
    """SD 1.x's noise schedule: β linear in its square root from 0.00085 to 0.012 over 1,000 steps."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=TRAINING_STEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


@torch.no_grad()
def partly_drawn(
    noise: Callable[[Tensor, Tensor, Tensor], Tensor],
    scheduler: Any,
    latents: Tensor,
    plain: Tensor,
    prompted: Tensor,
    guidance: float,
    steps: int,
) -> Tensor:
    """Latents (B, 4, H, W) after the first `steps` steps of a sampler with classifier-free guidance.

    Args:
        noise: predicts the noise of latents at times (B,) under states (B, 77, width).
        scheduler: diffusers', with its timesteps set.
        plain, prompted: states of what the guidance leads away from and to, one each for a picture.
    """
    both = torch.cat([plain, prompted])
    for time in scheduler.timesteps[:steps]:
        times = torch.full((2 * len(latents),), int(time), device=latents.device)
        without, with_prompt = noise(torch.cat([latents, latents]), times, both).float().chunk(2)
        guided = without + guidance * (with_prompt - without)
        latents = scheduler.step(guided, time, latents).prev_sample
    return latents


def time_between(done: int, steps: int, generator: torch.Generator) -> int:
    """A random time in the stretch that is next after `done` of a sampler's `steps` steps, as ESD's paper has it."""
    left = steps - done
    low, high = TRAINING_STEPS * (left - 1) // steps, TRAINING_STEPS * left // steps
    return int(torch.randint(low, max(high, low + 1), (), generator=generator))
