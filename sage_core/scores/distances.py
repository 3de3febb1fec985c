"""Distances between two sets of pictures: Fréchet (FID), kernel (KID) and CMMD, from their features, in float64.

FID: Heusel et al., 2017. KID: Bińkowski et al., 2018. CMMD: Jayasumana et al., 2024. FID and CMMD have a bias that
depends on the number of pictures, so that they compare only at equal numbers; KID has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import JudgeError, SettingsError
from ..tables import markdown_table
from .features import Features
from .statistics import Statistics

MEASURES = ("FID", "KID", "CMMD")
# Pictures on each side from which FID is computed. With fewer than Inception's 2,048 features the covariance is
# singular, and the bias is larger than what methods differ by.
FEWEST_FOR_FID = 2048
# KID's subsets as in the usual tools, and pictures in each.
SUBSETS, SUBSET_SIZE = 100, 1000
# Leaving one picture out must leave two, between which there is a kernel.
FEWEST_FOR_KID = 3
# CMMD's kernel exp(-|x - y|² / (2 · 10²)), and what it is multiplied by.
_SIGMA, _SCALE = 10.0, 1000.0
# Rows of a kernel matrix at a time: 64 MB against 8,192 columns.
_ROWS = 1024
_NAMES = {"inception": "FID", "dinov2": "FD-DINOv2", "clip": "FD-CLIP"}

OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Distance:
    """One distance and all that it depends on.

    Attributes:
        name: what to call it: a Fréchet distance of other features than Inception's is not an FID.
        value: the distance; CMMD's is multiplied by 1,000.
        counts: pictures on each side, None where statistics do not say.
        extractor: whose features.
        resizing: how the pictures came to the model's size.
        details: further numbers by name.
        notes: what a reader must know, as sentences.
    """

    name: str
    value: float
    counts: tuple[int | None, int | None]
    extractor: str
    resizing: str
    details: dict[str, float | int | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything, fit for JSON."""
        return {
            "measure": self.name,
            "value": self.value,
            "pictures": list(self.counts),
            "extractor": self.extractor,
            "resizing": self.resizing,
            **self.details,
            "notes": list(self.notes),
        }

    def to_markdown(self) -> str:
        """A table of one distance, and the notes."""
        counts = " and ".join("not stated" if count is None else f"{count:,}" for count in self.counts)
        rows = [
            (self.name, f"{self.value:.6g}"),
            *((name, "none" if value is None else f"{value:.6g}") for name, value in self.details.items()),
            ("pictures", counts),
            ("features", self.extractor),
            ("resizing", self.resizing),
        ]
        return "\n\n".join([markdown_table(("distance", "value"), rows), *self.notes])


def distance(
    measure: str,
    first: Features | Statistics,
    second: Features | Statistics,
    *,
    fewest: int = FEWEST_FOR_FID,
    different_counts: bool = False,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> Distance:
    """The distance of two sets by one of MEASURES.

    Args:
        measure: FID takes statistics, too; KID and CMMD need features.
        first: one set.
        second: the other.
        fewest: pictures on each side from which FID is computed. The features' width plus one is the least in any case.
        different_counts: whether FID and CMMD may be computed of different numbers of pictures.
        seed: of KID's subsets.
        on_step: is told the steps done and their number; what it raises stops the work.

    Raises:
        JudgeError: the sets are not of the same features, or too small, or of different sizes for a biased measure.
        SettingsError: the measure or `fewest` makes no sense.
    """
    if measure not in MEASURES:
        raise SettingsError(f"measure is {measure!r}; expected one of {', '.join(MEASURES)}.")
    notes = _check_alike(first, second)
    if measure != "KID":
        notes += _check_counts(measure, first, second, different_counts)
    if measure == "FID":
        return _fid(first, second, fewest, notes)
    if not isinstance(first, Features) or not isinstance(second, Features):
        raise JudgeError(
            f"{measure} is of single pictures, and one side gives mean and covariance alone. Give its pictures, or use "
            "FID."
        )
    if measure == "KID":
        return _kid(first, second, seed, notes, on_step)
    return _cmmd(first, second, notes, on_step)


def frechet_distance(first: Statistics, second: Statistics) -> float:
    """|μ1 - μ2|² + tr(Σ1 + Σ2 - 2 (Σ1 Σ2)^½), never negative, even for singular covariances.

    The trace of the root is the sum of the roots of the eigenvalues of Σ1^½ Σ2 Σ1^½, which is symmetric. Raises
    JudgeError where the numbers are so large that it overflows.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            values, vectors = np.linalg.eigh(first.sigma)
            root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
            product = root @ second.sigma @ root
            mixed = np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0)).sum()
            found = ((first.mu - second.mu) ** 2).sum() + np.trace(first.sigma) + np.trace(second.sigma) - 2 * mixed
    except np.linalg.LinAlgError:
        found = np.nan
    if not np.isfinite(found):
        raise JudgeError(
            "The means and covariances hold numbers too large to compute a distance of. Features of pictures are far "
            "smaller: make the statistics again."
        )
    return max(float(found), 0.0)


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased MMD² of the kernel (x·y / D + 1)³; it can be below 0."""
    within = [(_cubic(values, values).sum() - _cubic_self(values).sum()) for values in (first, second)]
    m, n = len(first), len(second)
    between = _cubic(first, second).sum()
    return float(within[0] / (m * (m - 1)) + within[1] / (n * (n - 1)) - 2 * between / (m * n))


def kernel_distance_with_error(
    first: np.ndarray, second: np.ndarray, on_step: OnStep | None = None
) -> tuple[float, float]:
    """Unbiased MMD² of all pictures, and its standard error by leaving out one picture at a time."""
    steps = _Steps(on_step, 2 * _parts(first) + _parts(second))
    own_first = _row_sums(first, first, steps) - _cubic_self(first)
    own_second = _row_sums(second, second, steps) - _cubic_self(second)
    across = np.zeros(len(second))
    mixed = _row_sums(first, second, steps, across)
    m, n = len(first), len(second)
    within = own_first.sum() / (m * (m - 1)), own_second.sum() / (n * (n - 1))
    value = within[0] + within[1] - 2 * mixed.sum() / (m * n)
    without_first = (
        (own_first.sum() - 2 * own_first) / ((m - 1) * (m - 2)) + within[1] - 2 * (mixed.sum() - mixed) / ((m - 1) * n)
    )
    without_second = (
        within[0]
        + (own_second.sum() - 2 * own_second) / ((n - 1) * (n - 2))
        - 2 * (across.sum() - across) / (m * (n - 1))
    )
    variance = sum((len(each) - 1) * each.var() for each in (without_first, without_second))
    return float(value), float(np.sqrt(variance))


def cmmd(first: np.ndarray, second: np.ndarray, on_step: OnStep | None = None) -> float:
    """1,000 · biased MMD² of the kernel exp(-|x - y|² / 200), for embeddings of length 1."""
    steps = _Steps(on_step, 2 * _parts(first) + _parts(second))
    pairs = ((first, first), (second, second), (first, second))
    # The kernel minus 1: the ones cancel, and with them the digits that they would take.
    own_first, own_second, mixed = (
        sum(float(np.expm1(_exponent(part, other)).sum()) for part in steps.over(one)) / (len(one) * len(other))
        for one, other in pairs
    )
    return _SCALE * (own_first + own_second - 2 * mixed)


def _check_alike(first: Features | Statistics, second: Features | Statistics) -> list[str]:
    notes = []
    widths = [_width(each) for each in (first, second)]
    if widths[0] != widths[1]:
        raise JudgeError(f"One side has {widths[0]:,} features a picture, the other {widths[1]:,}: use one model.")
    for name in ("extractor", "resizing"):
        values = [getattr(each, name) for each in (first, second)]
        if None in values:
            notes.append(
                f"Statistics do not state their {name}: the distance means something only if it is the same as that of "
                "the other side."
            )
        elif values[0] != values[1]:
            raise JudgeError(
                f"The {name} of the two sides differs: {values[0]}, and {values[1]}. Compare features of one model and "
                "one way of resizing alone."
            )
    return notes


def _check_counts(
    measure: str, first: Features | Statistics, second: Features | Statistics, allowed: bool
) -> list[str]:
    one, other = first.count, second.count
    if one is None or other is None:
        return [f"Statistics do not state their number of pictures, on which {measure} depends."]
    if one == other:
        return []
    if not allowed:
        # Of one picture there is no distance.
        same = f"Take {min(one, other):,} of both" if min(one, other) > 1 else "Take as many of both, two or more"
        raise JudgeError(
            f"{measure} depends on the number of pictures, and the sides have {one:,} and {other:,}. {same}, use KID, "
            "or allow different numbers: then compare only with distances of the same numbers."
        )
    return [f"The numbers of pictures differ: compare only with a {measure} of the same numbers."]


def _width(side: Features | Statistics) -> int:
    return side.values.shape[1] if isinstance(side, Features) else len(side.mu)


def _fid(first: Features | Statistics, second: Features | Statistics, fewest: int, notes: Sequence[str]) -> Distance:
    if fewest < 2:
        raise SettingsError(f"fewest is {fewest}; expected 2 or more.")
    least = max(fewest, _width(first) + 1)
    for side in (first, second):
        if side.count is not None and side.count < least:
            raise JudgeError(
                f"FID of {side.count:,} pictures would mislead: of fewer than {least:,}, with {_width(first):,} "
                "features, the covariance cannot be estimated, and the distance measures the number of pictures. Give "
                "more pictures, or use KID or CMMD."
            )
    one, other = (Statistics.of(side) if isinstance(side, Features) else side for side in (first, second))
    kind = next((side.kind for side in (first, second) if isinstance(side, Features)), one.kind or other.kind)
    name = _NAMES.get(kind or "", "Fréchet distance")
    return Distance(
        name,
        frechet_distance(one, other),
        (one.count, other.count),
        one.extractor or other.extractor or "not stated",
        one.resizing or other.resizing or "not stated",
        notes=tuple(notes),
    )


def _kid(first: Features, second: Features, seed: int, notes: Sequence[str], on_step: OnStep | None) -> Distance:
    fewer = min(first.count, second.count)
    if fewer < FEWEST_FOR_KID:
        raise JudgeError(f"KID of {fewer} pictures has no error; expected {FEWEST_FOR_KID} or more on each side.")
    size = min(SUBSET_SIZE, fewer)
    # Subsets of everything are all the same.
    subsets = 1 if size == first.count == second.count else SUBSETS
    total = subsets + 2 * _parts(first.values) + _parts(second.values)
    generator = np.random.default_rng(seed)
    values = []
    for place in range(subsets):
        one, other = (side.values[generator.permutation(side.count)[:size]] for side in (first, second))
        values.append(kernel_distance(one, other))
        if on_step is not None:
            on_step(place + 1, total)
    whole, error = kernel_distance_with_error(
        first.values, second.values, on_step and (lambda done, _: on_step(subsets + done, total))
    )
    details: dict[str, float | int | None] = {
        "KID of all pictures": whole,
        "its standard error": error,
        "subsets": subsets,
        "pictures in a subset": size,
        "deviation of subsets": float(np.std(values)) if subsets > 1 else None,
    }
    name = "KID" if first.kind == "inception" else f"KID on {first.kind} features"
    note = (
        "The value is the mean over subsets, as usual tools give it. Subsets share pictures, so that their deviation "
        "is not an error; the standard error leaves out one picture at a time."
    )
    counts = first.count, second.count
    return Distance(name, float(np.mean(values)), counts, first.extractor, first.resizing, details, (*notes, note))


def _cmmd(first: Features, second: Features, notes: Sequence[str], on_step: OnStep | None) -> Distance:
    if first.kind != "clip":
        raise JudgeError(
            f"CMMD is of CLIP's embeddings, and these features are of {first.extractor}. Load a CLIP, such as "
            "openai/clip-vit-large-patch14-336."
        )
    counts = first.count, second.count
    value = cmmd(first.values, second.values, on_step)
    return Distance("CMMD", value, counts, first.extractor, first.resizing, notes=tuple(notes))


class _Steps:
    """Goes through rows part by part and says how far it is."""

    def __init__(self, on_step: OnStep | None, total: int) -> None:
        self._on_step, self._total, self._done = on_step, total, 0

    def over(self, values: np.ndarray) -> Any:
        for start in range(0, len(values), _ROWS):
            yield values[start : start + _ROWS]
            self._done += 1
            if self._on_step is not None:
                self._on_step(self._done, self._total)


def _parts(values: np.ndarray) -> int:
    return -(-len(values) // _ROWS)


def _cubic(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    kernel = first @ second.T / first.shape[1] + 1
    # Not ** 3, which takes several times as long.
    return kernel * kernel * kernel


def _cubic_self(values: np.ndarray) -> np.ndarray:
    return ((values**2).sum(1) / values.shape[1] + 1) ** 3


def _row_sums(first: np.ndarray, second: np.ndarray, steps: _Steps, columns: np.ndarray | None = None) -> np.ndarray:
    """Sums over the kernel's rows; those over its columns are added to `columns`."""
    sums = []
    for part in steps.over(first):
        kernel = _cubic(part, second)
        sums.append(kernel.sum(1))
        if columns is not None:
            columns += kernel.sum(0)
    return np.concatenate(sums)


def _exponent(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T
    return -np.maximum(squares, 0) / (2 * _SIGMA**2)
