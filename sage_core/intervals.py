"""Confidence intervals and tests: of proportions, of ratios of sums, and of paired differences."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


def bootstrap_ratio(
    totals: np.ndarray, counts: np.ndarray, *, resamples: int, confidence: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap of sum(totals) / sum(counts) per column; both are (units, columns), units are redrawn.

    Returns lower and upper bounds, each (columns,). Draws in which a column counts nothing are left out of it.
    """
    generator = np.random.default_rng(seed)
    units = len(totals)
    draws = []
    # In parts, since the weights of all draws at once would take resamples × units × 8 bytes.
    for start in range(0, resamples, 256):
        size = min(256, resamples - start)
        weights = generator.multinomial(units, np.full(units, 1 / units), size=size).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            draws.append((weights @ totals) / (weights @ counts))
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(np.concatenate(draws), [tail, 1 - tail], axis=0)
    return low, high


def permutation_p_value(differences: np.ndarray, *, resamples: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value that paired differences (N,) have mean 0, by flipping their signs at random.

    (1 + draws at least as extreme) / (1 + draws), after Phipson and Smyth, 2010. With 13 or fewer differences
    that are not 0 all sign patterns are counted instead, and the value is exact.
    """
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
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = hits / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * (share * (1 - share) / total + z**2 / (4 * total**2)) ** 0.5
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


@dataclass(frozen=True)
class Hits:
    """k of n."""

    k: int
    n: int

    @property
    def share(self) -> float:
        return self.k / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson interval of the share."""
        interval = wilson_interval(self.k, self.n)
        return interval.low, interval.high

    def __add__(self, other: Hits) -> Hits:
        return Hits(self.k + other.k, self.n + other.n)

    def to_dict(self) -> dict[str, Any]:
        return {"k": self.k, "n": self.n, "share": self.share, "wilson_95": list(self.interval)}
