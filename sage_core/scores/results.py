"""Runs compared: TIFA, CLIPScore and concept rates of the same prompts, drawn with different text encoders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import QuestionError, SettingsError
from ..files import readable, write_text
from ..intervals import Interval
from ..tables import MISSING, Cell, csv_text, markdown_table
from ..tifa.comparison import Comparison, check_alike, compare
from ..tifa.scoring import TifaResult
from .clipscore import ClipScores
from .conclusion import Outcome, conclusion
from .rates import Rate

_COLUMNS = ("run", "score", "by", "value", "low_95", "high_95", "counted")


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

    def rate_of(self, other: Run) -> Rate | None:
        """This run's rate of the other's first concept, measured by the same rule."""
        first = other.rates[0] if other.rates else None
        return next((r for r in self.rates if first and (r.concept, r.rule) == (first.concept, first.rule)), None)

    def to_dict(self) -> dict[str, Any]:
        """Every score of the run, None for those not measured, fit for JSON."""
        return {
            "name": self.name,
            "tifa": self.tifa.to_dict() if self.tifa else None,
            "clipscore": self.clip.to_dict() if self.clip else None,
            "rates": [rate.to_dict() for rate in self.rates],
        }


def alike(runs: Sequence[Run], fewest: int = 2) -> tuple[tuple[Run, ...], tuple[str, ...]]:
    """The runs as far as they can be set against the first, each with a name of its own, and what was left out.

    Drawing and scoring take hours, so that what does not fit together costs its own column and no more. Runs of one
    name are numbered. A score that the first run has not, or that was measured in another way, is left out.

    Returns:
        The runs, and a sentence for whatever is missing, which begins with ⚠.

    Raises:
        QuestionError: there are fewer runs than `fewest`, two for a comparison, or the first holds no scores.
    """
    if len(runs) < fewest:
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


def report_markdown(runs: Sequence[Run], fewest: int = 2) -> str:
    """What is missing, what it comes to, then tables: all runs, and each against the first by question type."""
    runs, notes = alike(runs, fewest)
    compared = comparisons(runs)
    said = ["\n".join(notes), _conclusion(runs, compared)]
    rows = [_row(run) for run in runs]
    titles = list(dict.fromkeys(title for row in rows for title in row))
    cells = [(run.name, *(row.get(title, MISSING) for title in titles)) for run, row in zip(runs, rows, strict=True)]
    tables = [markdown_table(("run", *titles), cells), *(each.to_markdown() for each in compared)]
    return "\n\n".join([*filter(None, said), *tables])


def _conclusion(runs: Sequence[Run], compared: Sequence[Comparison]) -> str:
    """What the runs come to, by TIFA and the first run's first rate; "" without such figures."""
    p_values = {each.other: each.p_value for each in compared}
    outcomes = []
    for run in runs:
        rate, tifa = run.rate_of(runs[0]), run.tifa
        shown = _cell(rate.share, rate.interval, "pictures") if rate else None
        right = _cell(tifa.average, tifa.intervals().get("TIFA"), "captions") if tifa else None
        outcomes.append(Outcome(run.name, shown, right, p_values.get(run.name)))
    concept = f"'{runs[0].rates[0].concept}'" if runs[0].rates else ""
    # Whether the prompts of a rate ask for the concept is not known here.
    return conclusion(outcomes[0], outcomes[1:], concept, "pictures")


def _cell(share: float, interval: Interval | None, few: str) -> Cell:
    low, high = (100 * interval.low, 100 * interval.high) if interval else (None, None)
    return Cell(100 * share, low, high, few=few)


def report_dict(runs: Sequence[Run], fewest: int = 2) -> dict[str, Any]:
    """Every run whole, each against the first as far as it fits, and what does not; fit for JSON."""
    fitting, notes = alike(runs, fewest)
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


def report_csv(runs: Sequence[Run]) -> str:
    """A row for each score of each run, whether or not it fits the first run's.

    Shares are from 0 to 1, CLIPScore is the mean of 100 · cos. `by` is who measured it and how; `low_95` and `high_95`
    are the bounds of its 95% interval, where it has one; `counted` says of how many captions, questions or pictures.
    """
    return csv_text(_COLUMNS, [(run.name, *row) for run in numbered(runs)[0] for row in _scores(run)])


def _scores(run: Run) -> Iterator[tuple[object, ...]]:
    """Name, by whom, value, both bounds and count of each score of a run."""
    if tifa := run.tifa:
        by, bounds = f"{tifa.judge}, by {tifa.matching}", tifa.intervals()
        values = [("TIFA", "TIFA", tifa.average, len(tifa.caption_scores))]
        for name, value in (("arithmetic", tifa.soft_arithmetic), ("geometric", tifa.soft_geometric)):
            if value is not None:
                values.append((f"soft TIFA, {name}", f"soft {name}", value, tifa.soft_questions))
        values += [(f"TIFA, {kind}", kind, share, tifa.type_counts[kind]) for kind, share in tifa.by_type.items()]
        for title, name, value, count in values:
            interval = bounds.get(name)
            yield title, by, value, interval and interval.low, interval and interval.high, count
    if run.clip:
        yield "CLIPScore, 100 · cos", run.clip.model, run.clip.mean_100, None, None, len(run.clip.cosines)
    for rate in run.rates:
        yield rate.concept, rate.rule, rate.share, rate.interval.low, rate.interval.high, len(rate.shown)


def save_report(runs: Sequence[Run], path: Path, *, overwrite: bool = False) -> dict[Path, str]:
    """Write runs, or one, as JSON to `path`, and as Markdown and CSV beside it: the three files, and what they hold.

    Raises:
        QuestionError: the first run holds no scores.
        SettingsError: one of the files exists with other content, and `overwrite` is off: then none is written.
        FileError: a file cannot be written.
    """
    data = json.dumps(report_dict(runs, 1), indent=2, ensure_ascii=False)
    texts = {
        path: f"{data}\n",
        path.with_suffix(".md"): f"{report_markdown(runs, 1)}\n",
        path.with_suffix(".csv"): report_csv(runs),
    }
    for file, text in texts.items():
        with readable(file, SettingsError):
            # As `write_text` spells what UTF-8 cannot hold.
            spelled = text.encode(errors="backslashreplace").decode()
            if file.is_file() and not overwrite and file.read_text(encoding="utf-8", errors="replace") != spelled:
                raise SettingsError(f"{file} exists and holds other scores. Choose another name, or turn overwrite on.")
    for file, text in texts.items():
        write_text(file, text)
    return texts
