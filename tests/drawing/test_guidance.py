"""Safe Latent Diffusion against a step-by-step reference, and its identities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sage_core.drawing.guidance import (
    PRESETS,
    SafeGuidance,
    SafeGuidanceSettings,
    guided,
    safety_term,
    step_of,
)
from sage_core.errors import SettingsError

STEPS, SHAPE, WEIGHT = 12, (2, 4, 3, 3), 7.5


def predictions(seed: int = 0) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Noise of prompt, negative prompt and safety text at each step; the three resemble one another."""
    generator = torch.Generator().manual_seed(seed)

    def draw(size: float) -> Tensor:
        return size * torch.randn(SHAPE, generator=generator, dtype=torch.float64)

    return [(common + draw(0.02), common + draw(0.02), common + draw(0.02)) for common in map(draw, [1.0] * STEPS)]


def slow(noise: list, settings: SafeGuidanceSettings, warmup: int) -> list[np.ndarray]:
    """Value by value, in plain Python."""
    momentum = np.zeros(SHAPE)
    results = []
    for step, (cond, uncond, safety) in enumerate(noise):
        result = np.empty(SHAPE)
        for place in np.ndindex(*SHAPE):
            e_c, e_0, e_s, m = cond[place].item(), uncond[place].item(), safety[place].item(), momentum[place]
            guidance = e_c - e_0
            scale = min(abs(e_c - e_s) * settings.scale, 1.0)
            mu = 0.0 if (e_c - e_s) >= settings.threshold else scale
            term = (e_s - e_0) * mu + settings.momentum_scale * m
            momentum[place] = settings.momentum_beta * m + (1 - settings.momentum_beta) * term
            if step >= warmup:
                guidance -= term
            result[place] = e_0 + WEIGHT * guidance
        results.append(result)
    return results


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_the_formula(preset: str) -> None:
    settings, noise = PRESETS[preset], predictions()
    guidance = SafeGuidance(settings, STEPS)
    assert guidance.warmup == round(settings.warmup * STEPS / 50)
    for step, expected in enumerate(slow(noise, settings, guidance.warmup)):
        cond, uncond, safety = noise[step]
        found = guided(guidance.prompted(cond, uncond, safety, step), uncond, WEIGHT)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.1, 14.6])
def test_denoised_pictures_give_the_same(sigma: float) -> None:
    """Momentum, threshold and scale are in units of noise whatever σ is."""
    settings, noise = PRESETS["strong"], predictions()
    plain, denoising = SafeGuidance(settings, STEPS), SafeGuidance(settings, STEPS)
    for step, three in enumerate(noise):
        x = torch.randn(SHAPE, dtype=torch.float64)
        sigmas = torch.tensor([sigma, sigma / 2], dtype=torch.float64)
        wide = sigmas[:, None, None, None]
        found = denoising.prompted_denoised(x, sigmas, *(x - wide * one for one in three), step=step)
        torch.testing.assert_close((x - found) / wide, plain.prompted(*three, step=step), atol=1e-9, rtol=1e-9)


def test_without_any_value_under_the_threshold_it_is_ordinary_guidance() -> None:
    guidance = SafeGuidance(SafeGuidanceSettings(0, 1000.0, -1e30, 0.0, 0.0), STEPS)
    for step, (cond, uncond, safety) in enumerate(predictions()):
        assert torch.equal(guidance.prompted(cond, uncond, safety, step), cond)


def test_with_all_values_fully_it_guides_from_the_safety_text_to_the_prompt() -> None:
    """μ = 1 everywhere, no momentum: ε_0 + w (ε_c − ε_S)."""
    guidance = SafeGuidance(SafeGuidanceSettings(0, 1e30, 1e30, 0.0, 0.0), STEPS)
    for step, (cond, uncond, safety) in enumerate(predictions()):
        found = guided(guidance.prompted(cond, uncond, safety, step), uncond, WEIGHT)
        torch.testing.assert_close(found, uncond + WEIGHT * (cond - safety))


def test_a_safety_text_that_is_the_negative_prompt_changes_nothing() -> None:
    guidance = SafeGuidance(PRESETS["max"], STEPS)
    for step, (cond, uncond, _) in enumerate(predictions()):
        torch.testing.assert_close(guidance.prompted(cond, uncond, uncond, step), cond, atol=1e-14, rtol=0)


def test_the_warm_up_gathers_momentum() -> None:
    settings, noise = SafeGuidanceSettings(25, 1000.0, 0.01, 0.5, 0.7), predictions()
    warm, cold = SafeGuidance(settings, STEPS), SafeGuidance(settings, STEPS)
    assert warm.warmup == 6
    for step in range(6):
        assert torch.equal(warm.prompted(*noise[step], step=step), noise[step][0])
    assert not torch.equal(warm.prompted(*noise[6], step=6), cold.prompted(*noise[6], step=6))


def test_runs_do_not_know_one_another() -> None:
    guidance, noise = SafeGuidance(PRESETS["max"], STEPS), predictions()

    def run() -> list[Tensor]:
        return [guidance.prompted(*three, step=step) for step, three in enumerate(noise)]

    for first, second in zip(run(), run(), strict=True):
        assert torch.equal(first, second)
    # Nor when a run is cut off, or when the next one has pictures of another size at the same step.
    guidance.prompted(*noise[0], step=5)
    small = [one[:1] for one in noise[0]]
    fresh = SafeGuidance(PRESETS["max"], STEPS)
    assert torch.equal(guidance.prompted(*small, step=5), fresh.prompted(*small, step=5))


def test_a_second_call_in_a_step_leaves_the_momentum() -> None:
    noise = predictions()
    once, twice = SafeGuidance(PRESETS["max"], STEPS), SafeGuidance(PRESETS["max"], STEPS)
    for step, three in enumerate(noise):
        expected = once.prompted(*three, step=step)
        assert torch.equal(twice.prompted(*three, step=step), expected)
        assert torch.equal(twice.prompted(*three, step=step), expected)
        twice.prompted(*noise[(step + 1) % STEPS], step=step)


def test_the_term_alone() -> None:
    settings = SafeGuidanceSettings(0, 10.0, 0.5, 0.3, 0.4)
    cond, uncond, safety = torch.tensor([1.0, 0.0, 0.0]), torch.zeros(3), torch.tensor([0.2, 0.05, 0.3])
    term = safety_term(cond, uncond, safety, 0.0, settings)
    # Above the threshold: 0. A difference of -0.05 counts by half. One of -0.3 counts fully.
    torch.testing.assert_close(term, torch.tensor([0.0, 0.05 * 0.5, 0.3]))


def test_step_of_a_sampler() -> None:
    sigmas = torch.tensor([14.6, 7.0, 3.0, 1.0, 0.0])
    assert [step_of(float(sigma), sigmas) for sigma in sigmas] == [0, 1, 2, 3, 4]
    assert step_of(7.0 * (1 - 5e-5), sigmas) == 1
    # A second-order sampler's call between two levels belongs to the lower one.
    assert step_of(5.0, sigmas) == 2


def test_when_it_acts() -> None:
    assert PRESETS["weak"].acts(7.5)
    assert not PRESETS["weak"].acts(1.0)
    assert not SafeGuidanceSettings(scale=1.0).acts(7.5)
    with pytest.raises(SettingsError, match="0 steps"):
        SafeGuidance(PRESETS["weak"], 0)
