"""Confidence intervals and tests: of proportions, also of clustered answers, and of paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from .settings import CountOrZero, Limits, checked

# Points from which Fisher's interval of a correlation exists: its width goes with 1 / sqrt(n - 3).
FEWEST_POINTS = 4
# Said where intervals by `paired_change` stand beside p-values.
WIDE_INTERVALS = (
    "Intervals of changes are wide near the ends of the scale, on the safe side: one may hold 0 where the test finds a "
    "difference."
)


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float

    @property
    def percent(self) -> str:
        """The bounds of a share in per cent, such as 12.5-20.0."""
        return f"{100 * self.low:.1f}-{100 * self.high:.1f}"


@dataclass(frozen=True)
class Difference:
    """One number of two runs, from 0 to 1, and the 95% interval of its change, as by `paired_change`.

    The interval is None for what fewer than two captions tell of.
    """

    base: float
    other: float
    interval: Interval | None

    @property
    def change(self) -> float:
        """Other minus base, from -1 to 1."""
        return self.other - self.base

    def to_dict(self) -> dict[str, float | list[float] | None]:
        """Both numbers, the change and its interval, fit for JSON."""
        interval = [self.interval.low, self.interval.high] if self.interval else None
        return {"base": self.base, "other": self.other, "change": self.change, "interval_95": interval}


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation of `count` points, with its 95% interval."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"r = {self.value:.2f} [{self.low:.2f}, {self.high:.2f}], n = {self.count}".replace("-", "−")

    def to_dict(self) -> dict[str, float | int | list[float]]:
        """Correlation, interval and number of points, fit for JSON."""
        return {"r": self.value, "interval_95": [self.low, self.high], "n": self.count}


def correlation(x: Sequence[float], y: Sequence[float]) -> Correlation | None:
    """Pearson's correlation with Fisher's interval, tanh(artanh r ± 1.96 / sqrt(n - 3)).

    The interval supposes that the points are independent of each other.

    Returns:
        None if there are fewer than FEWEST_POINTS points, or if x or y is constant: no interval or no r exists then.
    """
    if len(x) < FEWEST_POINTS or min(np.ptp(x), np.ptp(y)) == 0:
        return None
    from scipy.stats import pearsonr

    found = pearsonr(x, y)
    interval = found.confidence_interval(0.95)
    return Correlation(float(found.statistic), float(interval.low), float(interval.high), len(x))


def clustered_proportion(
    totals: np.ndarray, counts: np.ndarray, *, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Score interval of sum(totals) / sum(counts) per column, for units that are drawn as wholes.

    Wilson's interval with the effective sample size of a cluster sample and Student's quantile of its units, after Korn
    and Graubard, 1998, and Dean and Pagano, 2015. It stays within 0..1 and is not empty where all units agree, as
    the bootstrap is near the ends of the scale.

    The effective size is (sum of counts)² / sum of counts² / design. `design` is the estimated variance of the share
    over the largest variance that such a share can have, which it has if every unit is right or wrong in full. The
    estimate rests on the m units that are not at the end of the scale where the others are. It is therefore averaged
    with 1, at a weight of m to 1: units without a mistake count once each, however many questions they were asked.

    Args:
        totals: (units, columns), from 0 to `counts`.
        counts: (units, columns); a unit with 0 does not belong to the column.
        confidence: nominal coverage.

    Returns:
        Lower and upper bounds, each (columns,); nan where fewer than two units count.
    """
    from scipy.stats import t

    units = (counts > 0).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = totals.sum(0) / counts.sum(0)
        largest_size = counts.sum(0) ** 2 / (counts**2).sum(0)
        variance = ((totals - share * counts) ** 2).sum(0) / counts.sum(0) ** 2 * units / (units - 1)
        informative = np.minimum((totals < counts).sum(0), (totals > 0).sum(0))
        most = share * (1 - share) / largest_size
        design = np.divide(variance, most, out=np.ones_like(most), where=most > 0)
        design = np.maximum((informative * design + 1) / (informative + 1), 1e-6)
        low, high = _wilson(share, largest_size / design, t.ppf((1 + confidence) / 2, units - 1))
    return np.where(units > 1, low, np.nan), np.where(units > 1, high, np.nan)


def paired_change(
    gained: np.ndarray, lost: np.ndarray, counts: np.ndarray, *, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of (sum(gained) - sum(lost)) / sum(counts) per column, for units that two runs answered alike.

    What both runs answer alike says nothing of the change. The share gained and the share lost each get their score
    interval of clusters, and the two are joined by squares with their correlation (Newcombe, 1998, method 10; Zou and
    Donner, 2008). It stays within -1..1, and runs that differ in no answer still leave room for a change.

    Args:
        gained: (units, columns), from 0 to `counts`: answers that only the second run has right.
        lost: (units, columns): answers that only the first run has right.
        counts: (units, columns); a unit with 0 does not belong to the column.
        confidence: nominal coverage.

    Returns:
        Lower and upper bounds, each (columns,); nan where fewer than two units count.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        up, down = gained.sum(0) / counts.sum(0), lost.sum(0) / counts.sum(0)
        above, below = gained - up * counts, lost - down * counts
        spread = np.sqrt((above**2).sum(0) * (below**2).sum(0))
        alike = np.divide((above * below).sum(0), spread, out=np.zeros_like(spread), where=spread > 0)
    (up_low, up_high), (down_low, down_high) = (
        clustered_proportion(part, counts, confidence=confidence) for part in (gained, lost)
    )
    low = up - down - _joined(up - up_low, down_high - down, alike)
    high = up - down + _joined(up_high - up, down - down_low, alike)
    return np.maximum(low, -1), np.minimum(high, 1)


def _joined(first: np.ndarray, second: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """The distance of a difference's bound, from those of its two parts."""
    return np.sqrt(np.maximum(first**2 + second**2 - 2 * correlation * first * second, 0))


def _wilson(share: np.ndarray, size: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval of a share among `size`, which need not be whole."""
    middle = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    # At either end of the scale rounding must not part the bound from the share.
    return np.where(share <= 0, 0.0, np.maximum(middle - half, 0)), np.where(
        share >= 1, 1.0, np.minimum(middle + half, 1)
    )


def permutation_p_value(differences: np.ndarray, *, resamples: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value that paired differences (N,) have mean 0, by flipping their signs at random.

    The value is (1 + draws at least as extreme) / (1 + draws), after Phipson and Smyth, 2010. With 13 or fewer
    differences other than 0 all sign patterns are counted instead, and the value is exact.
    """
    # Not scipy.stats.permutation_test: it gives the same, takes four times as long at 4,081 differences, and names
    # the seed's argument differently from version to version.
    values = differences[differences != 0]
    if not len(values):
        return 1.0
    # Sums of fractions differ in their last digits with the order of addition; a tie must count as one.
    observed = abs(values.sum()) * (1 - 1e-12) - 1e-12
    if len(values) <= 13:
        signs = 1 - 2 * (np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1)
        return float((np.abs(signs @ values) >= observed).mean())
    generator = np.random.default_rng(seed)
    extreme = 0
    for start in range(0, resamples, 256):
        flips = generator.integers(0, 2, size=(min(256, resamples - start), len(values))) * 2.0 - 1
        extreme += int((np.abs(flips @ values) >= observed).sum())
    return (1 + extreme) / (1 + resamples)


def wilson_interval(hits: int, total: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (1927), which stays within 0..1 and is not empty at 0 of n."""
    from scipy.stats import binomtest

    found = binomtest(hits, total).proportion_ci(confidence, method="wilson")
    return Interval(float(found.low), float(found.high))


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Student's interval of a mean; None for fewer than two values."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * spread / math.sqrt(len(values))
    return Interval(mean - half, mean + half)


def joined_bounds(values: Sequence[float], bounds: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Interval of the mean of independent numbers: their distances joined by squares (Zou and Donner, 2008)."""
    found = list(zip(values, bounds, strict=True))
    mean = sum(values) / len(values)
    below = math.sqrt(sum((value - low) ** 2 for value, (low, _) in found)) / len(values)
    above = math.sqrt(sum((high - value) ** 2 for value, (_, high) in found)) / len(values)
    return mean - below, mean + above


@dataclass(frozen=True)
class Hits:
    """A count: k of n."""

    k: int
    n: int

    @classmethod
    def from_dict(cls, content: Any) -> Hits:
        """The count that `to_dict` told. Raises SettingsError where it did not."""
        values = checked(dict[str, Any], content, "hits")
        n = checked(CountOrZero, values.get("n"), "n")
        return cls(checked(Annotated[int, Limits(0, n)], values.get("k"), "k"), n)

    @property
    def share(self) -> float:
        """From 0 to 1; n must not be 0."""
        return self.k / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson interval of the share."""
        interval = wilson_interval(self.k, self.n)
        return interval.low, interval.high

    @property
    def percent(self) -> str:
        """Share and interval in per cent, such as 16.0 (12.5-20.0)."""
        return f"{100 * self.share:.1f} ({Interval(*self.interval).percent})"

    def __add__(self, other: Hits) -> Hits:
        return Hits(self.k + other.k, self.n + other.n)

    def to_dict(self) -> dict[str, Any]:
        """Count, share and its 95% interval, fit for JSON."""
        return {"k": self.k, "n": self.n, "share": self.share, "wilson_95": list(self.interval)}
