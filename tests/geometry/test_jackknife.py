"""Jackknife intervals: the figure recomputed without each prompt, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from sage_core.geometry.estimates import Estimate
from sage_core.geometry.jackknife import correlation_estimate, halves, overlap_estimate, reach
from sage_core.geometry.measures import distances, nearest

CENTRES = torch.randn(6, 24, generator=torch.Generator().manual_seed(9))


def draw(count: int, noise: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of six subjects before and after an alignment that moves some regions and blurs all."""
    subjects = torch.randint(6, (count,), generator=generator)
    scales = torch.logspace(0, -1, 24)
    base = 2 + 0.7 * CENTRES[subjects] + torch.randn(count, 24, generator=generator) * scales
    return base, base + noise * (torch.randn(count, 24, generator=generator) + torch.tanh(base))


def estimates(base: torch.Tensor, aligned: torch.Tensor, k: int) -> tuple[Estimate, Estimate]:
    before, after = distances(base), distances(aligned)
    old, new = (nearest(matrix, min(reach(k), len(base) - 1)) for matrix in (before, after))
    return overlap_estimate(old, new, k), correlation_estimate(before, after, old, k)


def slow_figures(base: torch.Tensor, aligned: torch.Tensor, k: int) -> tuple[float, float]:
    """Jaccard overlap and local correlation in float64, prompt by prompt."""
    spaces = [(rows.double() / rows.double().norm(dim=1, keepdim=True)).numpy() for rows in (base, aligned)]
    cosines = [space @ space.T for space in spaces]
    order = [[[j for j in np.argsort(-row) if j != i] for i, row in enumerate(matrix)] for matrix in cosines]
    first, second = ([set(row[:k]) for row in rows] for rows in order)
    overlap = np.mean([len(a & b) / len(a | b) for a, b in zip(first, second, strict=True)])
    pairs = [(i, j) for i, row in enumerate(order[0]) for j in row[:k]]
    return float(overlap), float(np.corrcoef(*([matrix[pair] for pair in pairs] for matrix in cosines))[0, 1])


@pytest.mark.parametrize("k", [4, 10])
def test_bounds_are_those_of_leaving_out_each_prompt_and_starting_anew(k: int) -> None:
    base, aligned = draw(30, 0.5, torch.Generator().manual_seed(0))
    others = [[j for j in range(30) if j != i] for i in range(30)]
    left_out = np.array([slow_figures(base[rows], aligned[rows], k) for rows in others])
    figures = slow_figures(base, aligned, k)
    for found, value, values, least in zip(estimates(base, aligned, k), figures, left_out.T, (0, -1), strict=True):
        assert found.value == pytest.approx(value, abs=1e-5)
        half = student.ppf(0.975, 29) * np.sqrt(29 / 30 * ((values - values.mean()) ** 2).sum())
        place = (value - least) / (1 - least)
        for bound, sign in ((found.low, -1), (found.high, 1)):
            odds = place / (1 - place) * np.exp(sign * half / (1 - least) / (place * (1 - place)))
            assert bound == pytest.approx(least + (1 - least) * odds / (1 + odds), abs=2e-3)


@pytest.mark.parametrize("k", [1, 4])
def test_bounds_are_those_of_halves_started_anew(k: int) -> None:
    base, aligned = draw(40, 0.5, torch.Generator().manual_seed(0))
    found = estimates(base, aligned, k)[0]
    deviation = np.std([slow_figures(base[half], aligned[half], k)[0] for half in halves(40, 0)], ddof=1)
    value = slow_figures(base, aligned, k)[0]
    half = student.ppf(0.975, 59) * deviation / (value * (1 - value))
    for bound, sign in ((found.low, -1), (found.high, 1)):
        odds = value / (1 - value) * np.exp(sign * half)
        assert bound == pytest.approx(odds / (1 + odds), abs=2e-3)


def test_an_untouched_space_and_few_prompts() -> None:
    base, aligned = draw(12, 0.5, torch.Generator().manual_seed(0))
    overlap, correlation = estimates(base, base.clone(), 4)
    assert overlap == Estimate(1.0, 1.0, 1.0)
    assert correlation.value == pytest.approx(1) and correlation.low == pytest.approx(1)
    # All others are neighbours: none can take the place of one that is left out.
    overlap, correlation = estimates(base, aligned, 11)
    assert overlap == Estimate(1.0, 1.0, 1.0)
    assert correlation.value == pytest.approx(slow_figures(base, aligned, 11)[1])
    assert correlation.low < correlation.value < correlation.high
    overlap, correlation = estimates(base[:2], aligned[:2], 1)
    assert "[" not in str(correlation)


def check_coverage(count: int, sets: int, noises: tuple[float, ...] = (0.05, 0.3, 1.0)) -> None:
    """The truth is the mean over all sets, which both intervals must hold in 95 of 100, less what chance allows."""
    for noise in noises:
        generator = torch.Generator().manual_seed(1)
        found = [estimates(*draw(count, noise, generator), 10) for _ in range(sets)]
        for each in zip(*found, strict=True):
            truth = np.mean([estimate.value for estimate in each])
            covered = np.mean([estimate.low <= truth <= estimate.high for estimate in each])
            assert covered >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / sets), (count, noise, covered)


def test_neighbour_figures_are_covered() -> None:
    check_coverage(48, 100, (0.3,))
    check_coverage(100, 60, (0.05,))


@pytest.mark.full
@pytest.mark.parametrize(("count", "sets"), [(48, 600), (150, 300), (400, 60)])
def test_neighbour_figures_are_covered_in_larger_spaces(count: int, sets: int) -> None:
    check_coverage(count, sets)
