"""Runs compared: TIFA, CLIPScore and concept rates of the same prompts, drawn with different text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import QuestionError
from ..tables import markdown_table
from ..tifa.comparison import Comparison, check_alike, compare
from ..tifa.scoring import TifaResult
from .clipscore import ClipScores
from .rates import Rate


@dataclass(frozen=True)
class Run:
    """All that was measured of one run; the rest is empty."""

    name: str
    tifa: TifaResult | None = None
    clip: ClipScores | None = None
    rates: tuple[Rate, ...] = ()

    def adding(
        self, *, tifa: TifaResult | None = None, clip: ClipScores | None = None, rates: Sequence[Rate] = ()
    ) -> Run:
        """This run with new scores: rates join the earlier ones, TIFA and CLIPScore replace them.

        What is not given stays.
        """
        return replace(self, tifa=tifa or self.tifa, clip=clip or self.clip, rates=(*self.rates, *rates))

    def to_dict(self) -> dict[str, Any]:
        """Every score of the run, None for those not measured, fit for JSON."""
        return {
            "name": self.name,
            "tifa": self.tifa.to_dict() if self.tifa else None,
            "clipscore": self.clip.to_dict() if self.clip else None,
            "rates": [rate.to_dict() for rate in self.rates],
        }


def check_runs(runs: Sequence[Run]) -> None:
    """Raise QuestionError unless there are two or more runs with different names, measured in the same ways."""
    if len(runs) < 2:
        raise QuestionError(f"A comparison needs two runs or more, found {len(runs)}.")
    if len({run.name for run in runs}) != len(runs):
        raise QuestionError(f"The runs are called {', '.join(run.name for run in runs)}. Give each a name of its own.")
    for what, measured in (
        ("TIFA", [run.tifa is not None for run in runs]),
        ("CLIPScore", [run.clip is not None for run in runs]),
        ("rates", [bool(run.rates) for run in runs]),
    ):
        if any(measured) and not all(measured):
            without = [run.name for run, done in zip(runs, measured, strict=True) if not done]
            raise QuestionError(f"{', '.join(without)} has no {what}, but other runs have. Measure all alike.")
    if len({tuple((rate.concept, rate.rule) for rate in run.rates) for run in runs}) > 1:
        raise QuestionError("The runs' rates are of different concepts or by different rules. Measure all alike.")
    if not any((runs[0].tifa, runs[0].clip, runs[0].rates)):
        raise QuestionError("The runs hold no scores. Measure TIFA, CLIPScore or a rate first.")
    models = {run.clip.model: run.name for run in runs if run.clip is not None}
    if len(models) > 1:
        found = ", ".join(f"{name!r} by {model}" for model, name in models.items())
        raise QuestionError(f"CLIPScores are of different models ({found}). Measure all with one.")
    for run in runs[1:]:
        if runs[0].tifa is not None and run.tifa is not None:
            check_alike(runs[0].tifa, run.tifa)


def comparisons(runs: Sequence[Run]) -> tuple[Comparison, ...]:
    """TIFA of every other run against the first; empty if TIFA was not measured."""
    base = runs[0].tifa
    return tuple(compare(base, run.tifa) for run in runs[1:] if base is not None and run.tifa is not None)


def report_markdown(runs: Sequence[Run]) -> str:
    """Tables of what was measured: all runs, then each against the first by question type."""
    check_runs(runs)
    rows = [_row(run) for run in runs]
    scores = markdown_table(("run", *rows[0]), [(run.name, *row.values()) for run, row in zip(runs, rows, strict=True)])
    return "\n\n".join([scores, *(comparison.to_markdown() for comparison in comparisons(runs))])


def report_dict(runs: Sequence[Run]) -> dict[str, Any]:
    """Every run whole, and each against the first, fit for JSON."""
    check_runs(runs)
    return {"runs": [run.to_dict() for run in runs], "comparisons": [c.to_dict() for c in comparisons(runs)]}


def _row(run: Run) -> dict[str, str]:
    row = {}
    if run.tifa:
        row["TIFA %"] = f"{100 * run.tifa.average:.1f}"
    if run.tifa and run.tifa.soft_arithmetic is not None:
        row["soft TIFA %"] = f"{100 * run.tifa.soft_arithmetic:.1f}"
    if run.clip:
        row["CLIPScore (100·cos)"] = f"{run.clip.mean_100:.2f}"
    titles: list[str] = []
    for rate in run.rates:
        titles.append(f"{rate.concept} %, by {rate.rule}")
        # A second rate by the same concept and rule is of other pictures, such as those of unseen names.
        again = titles.count(titles[-1])
        row[titles[-1] + (f" ({again})" if again > 1 else "")] = f"{100 * rate.share:.1f} ({rate.interval.percent})"
    return row
