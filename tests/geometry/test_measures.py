"""Every measure of an embedding space against a slow float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from embedding_spaces import (
    K,
    draw,
    moved,
    slow_cosines,
    slow_jaccard,
    slow_spread,
    unit,
)
from sage_core.geometry.measures import (
    distances,
    jaccard_overlap,
    principal_directions,
    rank_correlation,
    separation,
    spectrum,
    spread,
    spread_ratio,
)

pytestmark = pytest.mark.usefixtures("small_blocks")


def test_spread_is_the_unbiased_total_variance_of_unit_rows(base):
    assert spread(base) == pytest.approx(slow_spread(base), rel=1e-6)
    assert spread(base) == pytest.approx(np.cov(np.array(unit(base)).T).trace(), rel=1e-6)


def test_spread_does_not_cancel_where_rows_nearly_agree():
    rows = 100 + 1e-3 * torch.randn(30, 50, generator=torch.Generator().manual_seed(0))
    assert spread(rows) == pytest.approx(slow_spread(rows), rel=1e-3)


def test_spread_ratio_against_the_slow_reference(base, aligned):
    assert spread_ratio(base, aligned) == pytest.approx(slow_spread(aligned) / slow_spread(base), rel=1e-6)


def test_distances_are_symmetric_and_one_less_the_cosines(base):
    found = distances(base)
    assert torch.equal(found, found.T)
    assert torch.equal(found.diagonal(), torch.zeros(len(base)))
    assert torch.allclose(1 - found.double(), torch.tensor(slow_cosines(base), dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("size", [1e-2, 1e-3, 2e-4])
def test_a_nearly_collapsed_space_keeps_its_neighbours_and_its_figures(size):
    """Where all cosines are .99999 and more, products in fp32 no longer tell neighbours apart."""
    base = 3 + size * torch.randn(60, 200, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -1.5, 200)
    aligned = moved(base, size / 20)
    exact = np.array(slow_cosines(base))
    assert exact.min() > 1 - 2 * size**2
    assert distances(base).numpy() == pytest.approx(1 - exact, rel=2e-2, abs=1e-4 * (1 - exact.min()))
    expected = slow_jaccard(base, aligned, K)
    assert 0.5 < sum(expected) / 60 < 1
    assert jaccard_overlap(base, aligned, K) == pytest.approx(sum(expected) / 60, abs=0.02)
    upper = np.triu_indices(60, 1)
    ranks = spearmanr(exact[upper], np.array(slow_cosines(aligned))[upper]).statistic
    assert rank_correlation(distances(base), distances(aligned)) == pytest.approx(ranks, abs=2e-3)
    points = np.array(unit(base))
    variances = np.linalg.svd(points - points.mean(0), compute_uv=False) ** 2
    assert spectrum(distances(base)).shares[:5] == pytest.approx(variances[:5] / variances.sum(), rel=5e-3)


@pytest.mark.parametrize("k", [1, K, 39])
def test_jaccard_overlap_against_the_slow_reference(base, aligned, k):
    expected = slow_jaccard(base, aligned, k)
    assert jaccard_overlap(base, aligned, k) == pytest.approx(sum(expected) / len(expected), abs=1e-12)


def test_rank_correlation_is_spearmans_over_all_pairs(base, aligned):
    first, second = distances(base), distances(aligned)
    upper = np.triu_indices(len(base), 1)
    expected = spearmanr(first.numpy()[upper], second.numpy()[upper]).statistic
    assert rank_correlation(first, second) == pytest.approx(expected, abs=1e-4)


def test_rank_correlation_shares_the_ranks_of_ties():
    first = distances(draw(12).repeat(2, 1))
    second = distances(moved(draw(12)).repeat(2, 1))
    upper = np.triu_indices(24, 1)
    expected = spearmanr(first.numpy()[upper].round(5), second.numpy()[upper].round(5)).statistic
    assert rank_correlation(first, second) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("count", "tolerance"), [(30, 3e-5), (900, 1e-4)])
def test_spectrum_against_a_full_decomposition(count, tolerance):
    rows = draw(count, 400)
    points = np.array(unit(rows))
    variances = np.linalg.svd(points - points.mean(0), compute_uv=False) ** 2
    found = spectrum(distances(rows), components=20)
    assert found.shares == pytest.approx(variances[:20] / variances.sum(), rel=tolerance, abs=1e-6)
    assert found.effective_rank == pytest.approx(variances.sum() ** 2 / (variances**2).sum(), rel=1e-3)


def test_coordinates_are_the_projections_on_the_principal_directions(base):
    found = spectrum(distances(base), components=3)
    mean, directions = principal_directions(base, found.coordinates)
    points = torch.tensor(unit(base))
    assert torch.allclose((points - mean) @ directions, found.coordinates.float(), atol=1e-5)
    assert torch.allclose(directions.T @ directions, torch.eye(3), atol=1e-4)


def test_separation_is_fishers_ratio():
    rows = torch.cat([draw(20), draw(15, seed=5) * torch.linspace(1, 3, 24)])
    points = np.array(unit(rows))
    near, far = points[:20], points[20:]
    expected = ((near.mean(0) - far.mean(0)) ** 2).sum() / ((near.var(0).sum() + far.var(0).sum()) / 2)
    assert separation(distances(rows), 20) == pytest.approx(expected, rel=1e-4)
