"""Intervals against scipy, slow references, and simulations of how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student

from sage_core.intervals import clustered_proportion, paired_change, wilson_interval


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


@pytest.mark.parametrize("captions", [12, 48])
def test_tifa_and_types_are_covered_also_near_the_ceiling(captions: int) -> None:
    check_coverage(2000, captions, 0.03)


@pytest.mark.full
@pytest.mark.parametrize("captions", [8, 24, 100, 300, 1000])
def test_tifa_and_types_are_covered_in_many_more_test_sets(captions: int) -> None:
    check_coverage(4000 if captions < 1000 else 2000, captions, 0.02)


def bootstrap(totals: np.ndarray, counts: np.ndarray, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap of sum(totals) / sum(counts) over units."""
    draws = np.random.default_rng(0).multinomial(len(totals), np.full(len(totals), 1 / len(totals)), resamples)
    return tuple(np.quantile((draws @ totals) / (draws @ counts), [0.025, 0.975], axis=0))


def test_the_percentile_bootstrap_does_not_cover_near_the_ceiling() -> None:
    """Why it is not used for what has a ceiling."""
    totals, counts = draw(np.random.default_rng(1), "type", 0.996, 0.1, 48, 200)
    low, high = bootstrap(totals, counts, 400)
    assert ((low <= 0.996) & (high >= 0.996)).mean() < 0.5


def slow_change(gained: list[float], lost: list[float], counts: list[float]) -> tuple[float, float]:
    """Newcombe's tenth method in plain sums, for one column."""
    rows = [row for row in zip(gained, lost, counts, strict=True) if row[2] > 0]
    asked = sum(row[2] for row in rows)
    up, down = (sum(row[part] for row in rows) / asked for part in (0, 1))
    products = [(g - up * n, below - down * n) for g, below, n in rows]
    square = sum(a * a for a, _ in products) * sum(b * b for _, b in products)
    alike = sum(a * b for a, b in products) / square**0.5 if square else 0.0
    up_low, up_high = slow_clustered(gained, counts, 0.95)
    down_low, down_high = slow_clustered(lost, counts, 0.95)

    def joined(first: float, second: float) -> float:
        return (first**2 + second**2 - 2 * alike * first * second) ** 0.5

    low = up - down - joined(up - up_low, down_high - down)
    return max(low, -1.0), min(up - down + joined(up_high - up, down - down_low), 1.0)


def draw_changes(
    generator: np.random.Generator,
    kind: str,
    base: float,
    other: float,
    *,
    alike: float = 0.0,
    apart: float = 1.0,
    captions: int = 48,
    sets: int = 1000,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `sets` pairs of runs gain and lose, (captions, sets); their expected rates are `base` and `other`.

    With `apart` 1 the runs err independently, with 0 they give different answers only where one is better. Gains and
    losses are shared out among the captions by Dirichlet's distribution, the more unevenly the larger `alike`.
    """
    fewest, most = (3, 14) if kind == "tifa" else (0, 4)
    asked = generator.integers(fewest, most, (captions, sets))
    both = apart * min(base, other) * (1 - max(base, other))
    shares = np.array([max(other - base, 0) + both, max(base - other, 0) + both, 0])
    shares[2] = 1 - shares.sum()
    rates = np.broadcast_to(shares, (captions, sets, 3))
    if alike:
        rates = generator.standard_gamma(np.maximum(shares * (1 - alike) / alike, 1e-12), (captions, sets, 3))
        rates = rates / rates.sum(-1, keepdims=True)
    drawn = generator.multinomial(asked, rates).astype(float)
    gained, lost = drawn[..., 0], drawn[..., 1]
    return (gained / asked, lost / asked, np.ones_like(gained)) if kind == "tifa" else (gained, lost, asked + 0.0)


def test_paired_change_against_plain_sums() -> None:
    generator = np.random.default_rng(2)
    for base, other, apart in ((0.9, 0.8, 1.0), (0.99, 0.99, 0.3), (0.2, 0.95, 0.0), (1.0, 1.0, 1.0)):
        parts = draw_changes(generator, "type", base, other, alike=0.2, apart=apart, captions=30, sets=10)
        low, high = paired_change(*parts)
        expected = [slow_change(*(list(part[:, column]) for part in parts)) for column in range(10)]
        assert list(zip(low, high, strict=True)) == [pytest.approx(bounds, abs=1e-7) for bounds in expected]
        turned = paired_change(parts[1], parts[0], parts[2])
        assert np.allclose(-turned[1], low) and np.allclose(-turned[0], high)


@pytest.mark.parametrize("captions", [12, 48, pytest.param(300, marks=pytest.mark.full)])
@pytest.mark.parametrize(
    ("base", "other"), [(0.99, 0.99), (0.99, 0.996), (0.996, 0.97), (0.99, 0.9), (0.9, 0.9), (0.5, 0.6)]
)
def test_changes_are_covered_also_near_the_ceiling(base: float, other: float, captions: int) -> None:
    generator = np.random.default_rng(3)
    for kind in ("tifa", "type"):
        for alike in (0.0, 0.1, 0.5):
            for apart in (1.0, 0.1, 0.0):
                parts = draw_changes(generator, kind, base, other, alike=alike, apart=apart, captions=captions)
                low, high = paired_change(*parts)
                known = np.isfinite(low)
                covered = ((low <= other - base) & (other - base <= high))[known].mean()
                assert covered >= 0.92, (kind, alike, apart, covered)


def test_neither_the_bootstrap_nor_students_interval_covers_changes_near_the_ceiling() -> None:
    """Why both are not used: where most samples hold few changes or none, they take them for certainty."""
    gained, lost, counts = draw_changes(np.random.default_rng(4), "type", 0.996, 0.99, alike=0.1, apart=0.0, sets=400)
    low, high = bootstrap(gained - lost, counts, 400)
    assert ((low <= -0.006) & (high >= -0.006)).mean() < 0.6
    gained, lost, _ = draw_changes(np.random.default_rng(4), "tifa", 0.996, 0.99, alike=0.5, apart=0.0, sets=400)
    change = (gained - lost).mean(0)
    half = student.ppf(0.975, 47) * (gained - lost).std(0, ddof=1) / 48**0.5
    assert (abs(change + 0.006) <= half).mean() < 0.8


def test_runs_without_a_change_leave_room_for_one() -> None:
    nothing, counts = np.zeros((48, 1)), np.ones((48, 1))
    low, high = paired_change(nothing, nothing, counts)
    assert 3 / 48 < high[0] == -low[0] < 0.12
    assert paired_change(counts, nothing, counts)[1][0] == 1
    assert np.isnan(paired_change(*np.ones((3, 1, 1)))).all()
