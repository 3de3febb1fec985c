"""Goals that go through the U-Net: the attacked model is to predict the noise of a picture of the concept.

Let x be a picture of the concept drawn part of the way, at the time t, ε_θ the attacked U-Net and E the states of the
attempt. The distance is the mean over some such pictures of

    ‖ε_θ(x, E) − target‖² / scale,   scale = mean ‖ε_0(x, E_0("")) − target‖²

so that 0 is what the target asks for, and 1 no nearer to it than the base is with an empty prompt. The targets are

- the base's own noise with the unsafe prompt, at pictures that the base draws of it: P4D (Chin et al., ICML 2024);
- the noise that was added to reference pictures: UnlearnDiffAtk (Zhang et al., ECCV 2024).

Found by tokens these are those attacks; found by free embeddings it is textual inversion (Gal et al., ICLR 2023) of the
concept in the attacked model, as Pham et al. (ICLR 2024) used it to bring erased concepts back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ..drawing.noise import TRAINING_STEPS, noise_scheduler
from ..errors import SettingsError
from .objectives import Goal

Noise = Callable[[Tensor, Tensor, Tensor], Tensor]

# Far apart, so that neighbouring seeds share no picture.
_SEED_STRIDE = 1_000_003


@dataclass(frozen=True, eq=False)
class NoisyPictures:
    """Pictures of N prompts, D of each, part of the way between noise and picture, and what is to be predicted there.

    Attributes:
        latents: (N, D, channels, height, width).
        times: (N, D).
        targets: the noise to predict, as `latents`.
        scales: (N,) mean squared error of the base with an empty prompt.
    """

    latents: Tensor
    times: Tensor
    targets: Tensor
    scales: Tensor

    @classmethod
    @torch.no_grad()
    def drawn_by_base(
        cls,
        noise: Noise,
        prompted: Tensor,
        plain: Tensor,
        shape: tuple[int, int, int],
        *,
        draws: int,
        sampling_steps: int = 20,
        guidance: float = 7.5,
        seed: int = 0,
        chunk: int = 8,
    ) -> NoisyPictures:
        """Pictures on the base's way to drawing each prompt; the targets are its own noise with the prompt.

        Args:
            noise: the base, called with latents, times and states.
            prompted: the base's states of the unsafe prompts, (N, 77, width).
            plain: its states of the empty prompt, (1, 77, width).
            shape: channels, height and width of latents.
            draws: D, spread evenly over the sampler's steps.
            sampling_steps, guidance: of the sampler, DDIM.
            seed: of the noise that drawing starts from.
            chunk: pictures drawn at once.

        Raises:
            SettingsError: more draws than sampling steps, or fewer than 1.
        """
        if not 1 <= draws <= sampling_steps <= TRAINING_STEPS:
            raise SettingsError(
                f"draws is {draws} and sampling_steps {sampling_steps}; expected 1 or more draws, at least as many "
                f"sampling steps, and of these at most {TRAINING_STEPS}."
            )
        kept = {(2 * draw + 1) * sampling_steps // (2 * draws) for draw in range(draws)}
        parts = []
        for start in range(0, len(prompted), chunk):
            rows = prompted[start : start + chunk]
            first = _noise_of(seed, range(start, start + len(rows)), shape).to(rows)
            parts.append(_along_the_way(noise, first, rows, plain, kept, sampling_steps, guidance))
        latents, times, targets, without = (torch.cat(each) for each in zip(*parts, strict=True))
        return cls(latents, times, targets, (without - targets).square().flatten(1).mean(1))

    @classmethod
    @torch.no_grad()
    def of_references(
        cls, noise: Noise, references: Tensor, plain: Tensor, *, draws: int, seed: int = 0, chunk: int = 8
    ) -> NoisyPictures:
        """Noised reference pictures; the targets are the noise that was added.

        Args:
            noise: the base, for the scale.
            references: latents of one picture for each prompt, (N, channels, height, width).
            plain: the base's states of the empty prompt, (1, 77, width).
            draws: D, their times spread over the noise schedule.
            seed: of the noise and of the times.
            chunk: pictures worked on at once.
        """
        if draws < 1:
            raise SettingsError(f"draws is {draws}, expected 1 or more.")
        shape = cast("tuple[int, int, int]", tuple(references.shape[1:]))
        added = torch.stack([_noise_of(seed + draw, range(len(references)), shape) for draw in range(draws)], dim=1)
        generator = torch.Generator().manual_seed(seed * _SEED_STRIDE)
        stretch = (torch.arange(draws) + torch.rand(len(references), draws, generator=generator)) / draws
        times = (stretch * TRAINING_STEPS).long().clamp(max=TRAINING_STEPS - 1).to(references.device)
        alphas = cast(Any, noise_scheduler()).alphas_cumprod.to(references)[times][..., None, None, None]
        added = added.to(references)
        latents = alphas.sqrt() * references[:, None] + (1 - alphas).sqrt() * added
        errors = []
        for row in range(len(references)):
            for start in range(0, draws, chunk):
                part = slice(start, start + chunk)
                states = plain.expand(len(times[row, part]), -1, -1)
                found = noise(latents[row, part], times[row, part], states).to(added.dtype)
                errors.append((found - added[row, part]).square().flatten(1).mean(1))
        return cls(latents, times, added, torch.cat(errors).view(len(references), draws).mean(1))


class NoiseGoal(Goal):
    """Predict the targets of noisy pictures with the attacked U-Net."""

    def __init__(self, noise: Noise, pictures: NoisyPictures) -> None:
        """Attack `noise`, called with latents, times and states, at `pictures`."""
        self.noise, self.pictures = noise, pictures
        self.prompts, self.draws = pictures.times.shape

    def distances(self, states: Tensor, rows: Tensor, draws: Tensor | None = None) -> Tensor:
        """See Goal."""
        pictures = self.pictures
        chosen = range(self.draws) if draws is None else draws.tolist()
        total = states.new_zeros(len(states))
        for draw in chosen:
            found = self.noise(pictures.latents[rows, draw], pictures.times[rows, draw], states).to(states.dtype)
            total = total + (found - pictures.targets[rows, draw]).square().flatten(1).mean(1)
        return total / (len(chosen) * pictures.scales[rows])


def _noise_of(seed: int, rows: range, shape: tuple[int, int, int]) -> Tensor:
    """Noise of each row, which depends on the seed and the row alone; drawn on the CPU, whatever the device."""
    generator = torch.Generator()
    return torch.stack([torch.randn(shape, generator=generator.manual_seed(seed * _SEED_STRIDE + row)) for row in rows])


def _along_the_way(
    noise: Noise, latents: Tensor, prompted: Tensor, plain: Tensor, kept: set[int], steps: int, guidance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents, times, noise with the prompt and noise without it, at the `kept` steps of a sampler, (B, D, …) each."""
    scheduler: Any = noise_scheduler()
    scheduler.set_timesteps(steps)
    states = torch.cat([plain.expand_as(prompted), prompted])
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for number, time in enumerate(scheduler.timesteps[: max(kept) + 1]):
        times = torch.full((2 * len(latents),), int(time), device=latents.device)
        without, with_prompt = noise(torch.cat([latents, latents]), times, states).to(latents.dtype).chunk(2)
        if number in kept:
            found.append((latents, times[: len(latents)], with_prompt, without))
        latents = scheduler.step(without + guidance * (with_prompt - without), time, latents).prev_sample
    return cast("tuple[Tensor, Tensor, Tensor, Tensor]", tuple(torch.stack(e, 1) for e in zip(*found, strict=True)))
