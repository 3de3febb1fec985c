"""Runs compared: TIFA, CLIPScore and concept rates of the same prompts, drawn with different text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import QuestionError
from ..tables import MISSING, markdown_table
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


def alike(runs: Sequence[Run]) -> tuple[tuple[Run, ...], tuple[str, ...]]:
    """The runs as far as they can be set against the first, each with a name of its own, and what was left out.

    Drawing and scoring take hours, so that what does not fit together costs its own column and no more. Runs of one
    name are numbered. A score that the first run has not, or that was measured in another way, is left out.

    Returns:
        The runs, and a sentence for whatever is missing, which begins with ⚠.

    Raises:
        QuestionError: there are fewer than two runs, or the first holds no scores.
    """
    if len(runs) < 2:
        raise QuestionError(f"A comparison needs two runs or more, found {len(runs)}.")
    if not any((runs[0].tifa, runs[0].clip, runs[0].rates)):
        raise QuestionError("The runs hold no scores. Measure TIFA, CLIPScore or a rate first.")
    named, notes = numbered(runs)
    base, *others = named
    fitting = [base]
    for run in others:
        found, left_out = _against(base, run)
        fitting.append(found)
        notes += left_out
    return tuple(fitting), tuple(f"⚠ {note}" for note in notes)


def numbered(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs with those of an earlier one's name numbered, and a sentence for each name that several have."""
    names = [run.name for run in runs]
    taken, found, notes = set(names), list[Run](), list[str]()
    for place, run in enumerate(runs):
        name, number = run.name, names[: place + 1].count(run.name)
        while number > 1 and name in taken:
            name, number = f"{run.name} ({number})", number + 1
        taken.add(name)
        found.append(run if name == run.name else _renamed(run, name))
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        notes.append(
            f"{names.count(name)} runs are called {name}: they are numbered in their order. Give each a name of its "
            "own where it is scored."
        )
    return found, notes


def _renamed(run: Run, name: str) -> Run:
    return replace(run, name=name, tifa=run.tifa and replace(run.tifa, name=name))


def _against(base: Run, run: Run) -> tuple[Run, list[str]]:
    """What of a run can be set against the base, and sentences on the rest."""
    notes = []
    for what, ours, theirs in (("TIFA", base.tifa, run.tifa), ("CLIPScore", base.clip, run.clip)):
        if (ours is None) != (theirs is None):
            notes.append(_lacking(base, run, what, run if theirs is None else base))
    tifa, clip = run.tifa if base.tifa else None, run.clip if base.clip else None
    if base.tifa and tifa:
        try:
            check_alike(base.tifa, tifa)
        except QuestionError as error:
            tifa = None
            notes.append(f"TIFA of {run.name} is left out: {error}")
    if base.clip and clip and base.clip.model != clip.model:
        notes.append(
            f"CLIPScore of {run.name} is left out: it is by {clip.model}, and that of {base.name} by "
            f"{base.clip.model}. Measure all with one."
        )
        clip = None
    known, own = ([(rate.concept, rate.rule) for rate in each.rates] for each in (base, run))
    for concept, rule in dict.fromkeys([*known, *own]):
        if ((concept, rule) in known) != ((concept, rule) in own):
            lacks = base if (concept, rule) in own else run
            notes.append(_lacking(base, run, f"rate of {concept} by {rule}", lacks))
    rates = tuple(rate for rate in run.rates if (rate.concept, rate.rule) in known)
    return replace(run, tifa=tifa, clip=clip, rates=rates), notes


def _lacking(base: Run, run: Run, what: str, lacks: Run) -> str:
    has = run if lacks is base else base
    return f"{lacks.name} has no {what}, and {has.name} has: it is not compared there. Measure all alike."


def comparisons(runs: Sequence[Run]) -> tuple[Comparison, ...]:
    """TIFA of every other run against the first; empty if TIFA was not measured."""
    base = runs[0].tifa
    return tuple(compare(base, run.tifa) for run in runs[1:] if base is not None and run.tifa is not None)


def report_markdown(runs: Sequence[Run]) -> str:
    """What is missing, then tables of what was measured: all runs, and each against the first by question type."""
    runs, notes = alike(runs)
    rows = [_row(run) for run in runs]
    titles = list(dict.fromkeys(title for row in rows for title in row))
    cells = [(run.name, *(row.get(title, MISSING) for title in titles)) for run, row in zip(runs, rows, strict=True)]
    tables = [markdown_table(("run", *titles), cells), *(each.to_markdown() for each in comparisons(runs))]
    return "\n\n".join(["\n".join(notes)] * bool(notes) + tables)


def report_dict(runs: Sequence[Run]) -> dict[str, Any]:
    """Every run whole, each against the first as far as it fits, and what does not; fit for JSON."""
    fitting, notes = alike(runs)
    return {
        "runs": [run.to_dict() for run in numbered(runs)[0]],
        "comparisons": [comparison.to_dict() for comparison in comparisons(fitting)],
        "notes": list(notes),
    }


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
