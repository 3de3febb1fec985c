"""Safe Latent Diffusion (Schramowski et al., CVPR 2023): guidance away from a safety text, at every step of a sampler.

Per step, in units of predicted noise ε and value by value, with ε_c of the prompt, ε_0 of the negative prompt and ε_S
of the safety text:

    scale = min(|ε_c − ε_S| · s_S, 1)
    μ     = 0 where ε_c − ε_S ≥ λ, else scale
    g_S   = (ε_S − ε_0) · μ + s_m · m
    m     = β m + (1 − β) g_S                     in every step, the warm-up's too
    ε     = ε_0 + w (ε_c − ε_0 − g_S)             g_S from the warm-up's end on

so that ordinary guidance with ε_c − g_S in the place of ε_c is all that a sampler has to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..errors import SettingsError
from ..settings import CountOrZero, Limits, NotNegative, Settings, Share

# The number of steps that the published warm-ups are made for.
PUBLISHED_STEPS = 50

# The published safety text; diffusers puts "an image showing " before it.
SAFETY_TEXT = (
    "hate, harassment, violence, suffering, humiliation, harm, suicide, sexual, nudity, bodily fluids, blood, obscene "
    "gestures, illegal activity, drug use, theft, vandalism, weapons, child abuse, brutality, cruelty"
)


@dataclass(frozen=True)
class SafeGuidanceSettings(Settings):
    """How strong, where and from when on.

    Attributes:
        warmup: steps of 50 in which the picture is left alone.
        scale: s_S, how soon a difference between prompt and safety text counts fully; 1 or less turns it off.
        threshold: λ; values in which the prompt's noise exceeds the safety text's by this much are left alone.
        momentum_scale: s_m, how much of what was added before is added again.
        momentum_beta: β, how long that is remembered; below 1.
    """

    warmup: CountOrZero = 10
    scale: NotNegative = 1000.0
    threshold: float = 0.01
    momentum_scale: Share = 0.3
    momentum_beta: Annotated[float, Limits(least=0, below=1)] = 0.4

    def warmup_of(self, steps: int) -> int:
        """Steps left alone in a run of `steps`, the same share of it as of the published 50."""
        return round(self.warmup * steps / PUBLISHED_STEPS)

    def acts(self, guidance: float) -> bool:
        """Whether it does anything: it is part of guidance, so that a weight of 1 or less turns it off too."""
        return self.scale > 1 and guidance > 1


PRESETS = {
    "weak": SafeGuidanceSettings(15, 20.0, 0.0, 0.0, 0.0),
    "medium": SafeGuidanceSettings(10, 1000.0, 0.01, 0.3, 0.4),
    "strong": SafeGuidanceSettings(7, 2000.0, 0.025, 0.5, 0.7),
    "max": SafeGuidanceSettings(0, 5000.0, 1.0, 0.5, 0.7),
}


def safety_term(
    cond: Tensor, uncond: Tensor, safety: Tensor, momentum: Tensor | float, settings: SafeGuidanceSettings
) -> Tensor:
    """g_S of one step, from three predictions of noise of one shape and the momentum so far."""
    difference = cond - safety
    scale = (difference.abs() * settings.scale).clamp(max=1)
    weight = torch.where(difference >= settings.threshold, torch.zeros_like(scale), scale)
    return (safety - uncond) * weight + settings.momentum_scale * momentum


class SafeGuidance:
    """The guidance of one run at a time, with its momentum.

    A call for an earlier step than the last one, or for another shape, starts a new run. A second call in the same
    step, which samplers of second order make, uses the momentum of the first and leaves it as it is.
    """

    def __init__(self, settings: SafeGuidanceSettings, steps: int) -> None:
        """For runs of `steps` steps.

        Raises:
            SettingsError: there is no step.
        """
        if steps < 1:
            raise SettingsError(f"A run of {steps} steps has none to guide: expected 1 or more.")
        self.settings, self.warmup = settings, settings.warmup_of(steps)
        self.reset()

    def reset(self) -> None:
        """Forget the run."""
        self._step = -1
        self._momentum: Tensor | None = None
        self._next: Tensor | None = None

    def prompted(self, cond: Tensor, uncond: Tensor, safety: Tensor, step: int) -> Tensor:
        """What takes the place of `cond` in ordinary guidance; arguments as in `term`."""
        term = self.term(cond, uncond, safety, step)
        return cond if term is None else cond - term

    def term(self, cond: Tensor, uncond: Tensor, safety: Tensor, step: int) -> Tensor | None:
        """g_S of a step, and None in the warm-up.

        Args:
            cond: predicted noise of the prompt, any shape; ε in the units in which noise has deviation 1.
            uncond: of the negative prompt.
            safety: of the safety text.
            step: of the run, from 0.
        """
        if step < self._step or (self._next is not None and self._next.shape != cond.shape):
            self.reset()
        if step > self._step:
            self._step, self._momentum = step, self._next
        momentum = torch.zeros_like(cond) if self._momentum is None else self._momentum
        term = safety_term(cond, uncond, safety, momentum, self.settings)
        beta = self.settings.momentum_beta
        if self._next is self._momentum:
            self._next = beta * momentum + (1 - beta) * term
        return term if step >= self.warmup else None

    def prompted_denoised(
        self, noisy: Tensor, sigma: Tensor, cond: Tensor, uncond: Tensor, safety: Tensor, step: int
    ) -> Tensor:
        """The same for denoised pictures D = x − σ ε, as k-diffusion's models and ComfyUI's give them.

        Args:
            noisy: x = picture + σ · noise, (N, ...).
            sigma: σ, a number or (N,).
            cond, uncond, safety: denoised pictures.
            step: of the run, from 0.

        Returns:
            What takes the place of `cond`.
        """
        sigma = sigma.reshape(-1, *[1] * (noisy.ndim - 1))
        noise = [(noisy - denoised) / sigma for denoised in (cond, uncond, safety)]
        term = self.term(noise[0], noise[1], noise[2], step)
        # D_c + σ g_S is x − σ (ε_c − g_S), and exactly D_c where nothing is added.
        return cond if term is None else cond + sigma * term


def guided(cond: Tensor, uncond: Tensor, weight: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022): ε_0 + w (ε_c − ε_0)."""
    return uncond + weight * (cond - uncond)


def step_of(sigma: float, sigmas: Tensor) -> int:
    """The step, from 0, that a sampler with these noise levels (falling, the last one 0) is in at `sigma`."""
    # A sampler's own arithmetic may move a level a little.
    return int((sigmas[:-1].double().cpu() > sigma * (1 + 1e-4)).sum())
