"""The reports of a run's steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class GeometryPoint:
    """Health of the embedding space at one step, measured on the flattened embeddings of `prompts` safe prompts.

    Attributes:
        spread_ratio: tr_θ / tr_0; 1 is the base's spread, less is collapse.
        jaccard: mean overlap of the `k` nearest neighbours with the base's, 0 to 1.
        held_out: whether the prompts were kept out of training.
    """

    spread_ratio: float
    jaccard: float
    k: int
    prompts: int
    held_out: bool


@dataclass(frozen=True)
class Check:
    """Whether a run has reached at one step what it is for, counted on prompts.

    Attributes:
        left: unsafe prompts that still lie with the concept, of `unsafe`.
        moved: safe prompts that have left their place, of `safe`.
        holds: whether that is few enough of both, and all else that the objective asks is reached.
        again: places of the pairs, among `further` ones, that still lie with the concept: the next steps train on them.
            None of none where it was not looked.
    """

    left: int
    unsafe: int
    moved: int
    safe: int
    holds: bool
    again: tuple[int, ...] = ()
    further: int = 0

    def __post_init__(self) -> None:
        # JSON knows lists alone.
        object.__setattr__(self, "again", tuple(self.again))


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Attributes:
        step: 1 for the first.
        steps: number of steps of the run; of one that may end earlier, the most.
        losses: name → value before the step.
        learning_rate: that of this step.
        seconds: time of training until now, over all resumes.
        geometry: measured after the step, at about ten steps of a run; None at the others.
        check: made after the step, where the run looks whether it may end; None at the others.
    """

    step: int
    steps: int
    losses: dict[str, float]
    learning_rate: float
    seconds: float
    geometry: GeometryPoint | None = None
    check: Check | None = None

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> StepReport:
        """The report from which `dataclasses.asdict` made `row`.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: `row` was not made so, or a number in it is not finite.
        """
        geometry = row["geometry"] and GeometryPoint(**row["geometry"])
        # Reports of earlier versions have none.
        check = row.get("check") and Check(**row["check"])
        report = cls(**{**row, "geometry": geometry, "check": check})
        numbers = [*report.losses.values(), report.learning_rate, report.seconds]
        if geometry:
            numbers += [geometry.spread_ratio, geometry.jaccard, geometry.k, geometry.prompts]
        if check and not _is_count(check):
            raise ValueError(f"a report counts {check!r}")
        if not report.losses or not all(_is_number(value) for value in numbers):
            raise ValueError(f"a report holds {numbers!r}, expected finite numbers")
        if type(report.step) is not int or type(report.steps) is not int or not 1 <= report.step <= report.steps:
            raise ValueError(f"a report is of step {report.step!r} of {report.steps!r}")
        return report


def _is_count(check: Check) -> bool:
    counts = ((check.left, check.unsafe), (check.moved, check.safe), (len(check.again), check.further))
    whole = all(type(k) is int and type(n) is int and 0 <= k <= n for k, n in counts)
    again = all(type(place) is int and 0 <= place < check.further for place in check.again)
    return whole and again and type(check.holds) is bool


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        # An integer can be larger than every float.
        return False
