"""Intervals against scipy, slow references, and simulations of how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student

from sage_core.intervals import bootstrap_ratio, clustered_proportion, wilson_interval


@pytest.mark.parametrize(("hits", "total"), [(0, 1), (0, 40), (1, 40), (7, 13), (40, 40), (998, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_interval_by_its_formula(hits: int, total: int, confidence: float) -> None:
    """The bounds solve (share - p)² = z² p (1 - p) / n."""
    found = wilson_interval(hits, total, confidence)
    square = student.ppf((1 + confidence) / 2, np.inf) ** 2 / total
    share = hits / total
    roots = np.sort(np.roots([1 + square, -(2 * share + square), share**2]))
    assert (found.low, found.high) == pytest.approx(tuple(np.clip(roots, 0, 1)), abs=1e-9)


def slow_clustered(totals: list[float], counts: list[float], confidence: float) -> tuple[float, float]:
    """One column in plain sums, its bounds the roots of the score equation."""
    pairs = [(total, count) for total, count in zip(totals, counts, strict=True) if count > 0]
    n, asked = len(pairs), sum(count for _, count in pairs)
    share = sum(total for total, _ in pairs) / asked
    size = asked**2 / sum(count**2 for _, count in pairs)
    variance = n / (n - 1) * sum((total - share * count) ** 2 for total, count in pairs) / asked**2
    design = variance / (share * (1 - share) / size) if 0 < share < 1 else 1.0
    informative = min(sum(total < count for total, count in pairs), sum(total > 0 for total, _ in pairs))
    square = student.ppf((1 + confidence) / 2, n - 1) ** 2 * (informative * design + 1) / (informative + 1) / size
    low, high = np.sort(np.roots([1 + square, -(2 * share + square), share**2]))
    return max(low, 0.0), min(high, 1.0)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_clustered_proportion_against_plain_sums(confidence: float) -> None:
    generator = np.random.default_rng(0)
    counts = generator.integers(0, 5, (30, 40)).astype(float)
    totals = generator.binomial(counts.astype(int), generator.choice([0.02, 0.5, 0.9, 0.999], (1, 40))).astype(float)
    low, high = clustered_proportion(totals, counts, confidence=confidence)
    expected = [slow_clustered(list(totals[:, c]), list(counts[:, c]), confidence) for c in range(40)]
    assert list(zip(low, high, strict=True)) == [pytest.approx(bounds, abs=1e-7) for bounds in expected]
    mirrored = clustered_proportion(counts - totals, counts, confidence=confidence)
    assert np.allclose(1 - mirrored[1], low) and np.allclose(1 - mirrored[0], high)


def test_units_of_one_answer_each_are_wilsons() -> None:
    """Of independent answers the design is 1, and only Student's quantile and n - 1 differ from Wilson's."""
    answers = (np.arange(4000) % 5 < 4).astype(float)[:, None]
    low, high = clustered_proportion(answers, np.ones_like(answers))
    found = wilson_interval(3200, 4000)
    assert (low[0], high[0]) == pytest.approx((found.low, found.high), abs=2e-5)
    reference = binomtest(3200, 4000).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_columns_of_fewer_than_two_units_have_no_interval() -> None:
    low, high = clustered_proportion(np.array([[1.0, 0], [0, 0]]), np.array([[2.0, 0], [0, 0]]))
    assert np.isnan(low).all() and np.isnan(high).all()


def draw(generator, kind: str, truth: float, alike: float, captions: int, sets: int) -> tuple[np.ndarray, np.ndarray]:
    """`sets` test sets (captions, sets): right answers of captions whose own rate is beta-distributed."""
    fewest, most = (3, 14) if kind == "tifa" else (0, 4)
    asked = generator.integers(fewest, most, (captions, sets))
    rate = np.full((captions, sets), truth)
    if alike:
        rate = generator.beta(truth * (1 - alike) / alike, (1 - truth) * (1 - alike) / alike, (captions, sets))
    right = generator.binomial(asked, rate).astype(float)
    return (right / asked, np.ones_like(right)) if kind == "tifa" else (right, asked.astype(float))


def check_coverage(sets: int, captions: int, slack: float) -> None:
    generator = np.random.default_rng(1)
    for kind in ("tifa", "type"):
        for truth in (0.5, 0.9, 0.99, 0.996):
            for alike in (0.0, 0.1, 0.5):
                low, high = clustered_proportion(*draw(generator, kind, truth, alike, captions, sets))
                known = np.isfinite(low)
                covered = ((low <= truth) & (truth <= high))[known].mean()
                assert covered >= 0.95 - slack, (kind, truth, alike, captions, covered)


@pytest.mark.parametrize("captions", [12, 48, 300])
def test_tifa_and_types_are_covered_also_near_the_ceiling(captions: int) -> None:
    check_coverage(2000, captions, 0.03)


@pytest.mark.slow
@pytest.mark.parametrize("captions", [8, 24, 48, 100, 1000])
def test_tifa_and_types_are_covered_in_many_more_test_sets(captions: int) -> None:
    check_coverage(10_000 if captions < 1000 else 2000, captions, 0.02)


def test_the_percentile_bootstrap_does_not_cover_near_the_ceiling() -> None:
    """Why it is not used for what has a ceiling."""
    totals, counts = draw(np.random.default_rng(1), "type", 0.996, 0.1, 48, 200)
    low, high = bootstrap_ratio(totals, counts, resamples=400, confidence=0.95, seed=0)
    assert ((low <= 0.996) & (high >= 0.996)).mean() < 0.5


def test_bootstrap_leaves_out_draws_that_count_nothing() -> None:
    totals, counts = np.array([[1.0], [0.0], [0.0]]), np.array([[1.0], [0.0], [0.0]])
    low, high = bootstrap_ratio(totals, counts, resamples=300, confidence=0.9, seed=0)
    assert low == high == 1
