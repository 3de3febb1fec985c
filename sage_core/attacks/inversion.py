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

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ..drawing.denoising import Noise, Step, Texts, denoise
from ..drawing.noise import TRAINING_STEPS, make_scheduler, noise_of, noised
from ..errors import SettingsError
from ..seeds import generator_of, seed_of
from .objectives import Goal


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
            parts.append(_along_the_way(noise, first, Texts(plain, rows), kept, sampling_steps, guidance))
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
        generator = generator_of(seed, 0)
        stretch = (torch.arange(draws) + torch.rand(len(references), draws, generator=generator)) / draws
        times = (stretch * TRAINING_STEPS).long().clamp(max=TRAINING_STEPS - 1).to(references.device)
        added = added.to(references)
        latents = noised(references[:, None], times, added)
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
    """Noise of each row, which depends on the seed and the row alone."""
    return noise_of((seed_of(seed, row) for row in rows), shape)


def _along_the_way(
    noise: Noise, latents: Tensor, texts: Texts, kept: set[int], steps: int, guidance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents, times, noise with the prompt and noise without it, at the `kept` steps of a sampler, (B, D, …) each."""
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def keep(step: Step) -> None:
        if step.number in kept:
            times = step.time.to(latents.device).expand(len(latents))
            found.append((step.latents, times, step.prompted, step.plain))

    denoise(noise, make_scheduler("ddim", steps), latents, texts, guidance, steps=max(kept) + 1, watch=keep)
    return cast("tuple[Tensor, Tensor, Tensor, Tensor]", tuple(torch.stack(e, 1) for e in zip(*found, strict=True)))
