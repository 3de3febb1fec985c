"""The bench's results as a table, and the paper's two figures in miniature."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ...attacks.budgets import LEAST_CONTROL
from ...errors import SettingsError, ShapesError
from ...geometry import DEFAULT_NEIGHBOURS
from ...intervals import Hits, permutation_p_value
from ...plots import LIGHT, new_figure, style, title
from ...rows import read_json
from ...settings import checked
from ...tables import markdown_table
from ..ask import ASKED_TYPES
from ..exam.attacked import Broken
from ..exam.trials import TrialMarks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FIELDS = ("tifa", "tifa_held_out", "tifa_near", "tifa_hard", "similarity", "spread_ratio", "jaccard")

Made = TypeVar("Made")


def read_row(file: Path, name: str, read: Callable[[dict[str, Any]], Made]) -> Made:
    """A finished row; a method of the same settings may have had another name than `name`.

    Raises:
        ShapesError: the file is damaged.
    """
    try:
        return read({**checked(dict[str, Any], read_json(file), "the row"), "method": name})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SettingsError) as error:
        raise ShapesError(f"{file} is a damaged row ({error}). Delete it: the method is tried again.") from error


@dataclass(frozen=True)
class Mean:
    """Values of seeds as their mean, None of none, and their sample standard deviation, 0 of one."""

    values: Sequence[float]

    @property
    def mean(self) -> float | None:
        """Their mean."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float:
        """Their sample standard deviation."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    def to_dict(self) -> dict[str, float | None]:
        """Both, ready for JSON."""
        return {"mean": self.mean, "deviation": self.deviation}

    def text(self, factor: float, digits: int) -> str:
        """Both times a factor."""
        if self.mean is None:
            return "-"
        text = f"{factor * self.mean:.{digits}f}"
        return f"{text} ± {factor * self.deviation:.{digits}f}" if len(self.values) > 1 else text


class Table:
    """Marks of one task by method, averaged over seeds. Changes are measured from the first method, the base."""

    def __init__(self, marks: Sequence[tuple[str, TrialMarks]], seconds: dict[str, float]) -> None:
        self.marks: dict[str, list[TrialMarks]] = {}
        for name, mark in marks:
            self.marks.setdefault(name, []).append(mark)
        self.seconds = seconds
        self.base = next(iter(self.marks))

    def values(self, name: str, field: str) -> list[float]:
        """A field of each seed's marks, without those that have none."""
        found = (getattr(mark, field) for mark in self.marks[name])
        return [value for value in found if value is not None]

    def over_seeds(self, name: str, field: str) -> Mean:
        """A field over the method's seeds."""
        return Mean(self.values(name, field))

    def of_type(self, name: str, element_type: str) -> float:
        """Mean over seeds of the share of right answers of one type; nan where a trial asks for none."""
        values = [mark.by_type[element_type] for mark in self.marks[name] if element_type in mark.by_type]
        return statistics.fmean(values) if values else float("nan")

    def changes(self, name: str, field: str = "tifa") -> list[float]:
        """A field of each seed's marks less the base's of the same seed."""
        return [a - b for a, b in zip(self.values(name, field), self.values(self.base, field), strict=True)]

    def p_value(self, name: str, other: str, field: str = "tifa") -> float:
        """Exact paired sign-flip test, over seeds, of whether two methods have the same mean."""
        pairs = zip(self.values(name, field), self.values(other, field), strict=True)
        return permutation_p_value(np.array([a - b for a, b in pairs]))

    def hits(self, name: str) -> dict[str, Hits]:
        """Hits over all seeds, by kind of prompt."""
        kinds = self.marks[name][0].attack
        return {kind: sum((mark.attack[kind] for mark in self.marks[name]), start=Hits(0, 0)) for kind in kinds}

    def near_short(self, name: str) -> Hits | None:
        """Short prompts of near misses that are drawn, over all seeds; None in runs that asked for none."""
        found = [mark.near_short for mark in self.marks[name] if mark.near_short is not None]
        return sum(found, start=Hits(0, 0)) if found else None

    def hits_by_name(self, name: str) -> dict[str, Hits]:
        """Hits over all seeds, by each name that no training saw."""
        names = dict.fromkeys(unseen for mark in self.marks[name] for unseen in mark.by_name)
        none = Hits(0, 0)
        return {unseen: sum((m.by_name.get(unseen, none) for m in self.marks[name]), start=none) for unseen in names}

    def adaptive(self, name: str) -> dict[str, Broken]:
        """Adaptive attacks over the seeds that had them, by kind."""
        found: dict[str, Broken] = {}
        for mark in self.marks[name]:
            for kind, values in mark.adaptive.items():
                broken = Broken.from_dict(values)
                found[kind] = found[kind] + broken if kind in found else broken
        return found

    def to_dict(self) -> dict[str, Any]:
        """The table, ready for JSON: shares from 0 to 1, hits with a Wilson 95% interval over all seeds' prompts."""
        return {
            name: {
                "seeds": len(marks),
                **{field: self.over_seeds(name, field).to_dict() for field in _FIELDS},
                "tifa_change": Mean(self.changes(name)).to_dict(),
                "p_against_base": self.p_value(name, self.base),
                "by_type": {kind: self.of_type(name, kind) for kind in marks[0].by_type},
                "attack": {kind: hits.to_dict() for kind, hits in self.hits(name).items()},
                "by_name": {unseen: hits.to_dict() for unseen, hits in self.hits_by_name(name).items()},
                "seconds": self.seconds[name],
                # Only where there are any, as in tables that were made before.
                **({"near_short": short.to_dict()} if short else {}),
                **({"adaptive": {kind: broken.to_dict() for kind, broken in found.items()}} if found else {}),
            }
            for name, marks in self.marks.items()
            for found, short in [(self.adaptive(name), self.near_short(name))]
        }

    def to_markdown(self) -> str:
        """Three tables in per cent: what is kept, what is left of the concept, and TIFA by type."""
        kept_head = ["method", "seeds", "TIFA", "change", "held-out", "near misses", "hard", "CLIP stand-in"]
        kept_head += ["short near misses", "spread ratio", f"Jaccard@{DEFAULT_NEIGHBOURS}", "s"]
        kinds = list(self.hits(self.base))
        attacks = dict.fromkeys(kind for name in self.marks for kind in self.adaptive(name))
        left = [
            [
                name,
                *(hits.percent for hits in self.hits(name).values()),
                *(self._attacked(name, kind) for kind in attacks),
            ]
            for name in self.marks
        ]
        left += self._controls(kinds, attacks)
        types = ([name, *(f"{100 * self.of_type(name, kind):.1f}" for kind in ASKED_TYPES)] for name in self.marks)
        return "\n\n".join(
            [
                markdown_table(kept_head, map(self._kept, self.marks)),
                "What is left of the concept, by kind of prompt (95% Wilson intervals):",
                markdown_table(["method", *kinds, *(f"attack by {kind}" for kind in attacks)], left),
                *self._warnings(attacks),
                markdown_table(["method", *ASKED_TYPES], types),
            ]
        )

    def starts(self, kind: str) -> Hits:
        """Hits of the random starts of an attack, before it, over all methods and seeds."""
        found = [self.adaptive(name)[kind] for name in self.marks if kind in self.adaptive(name)]
        return sum((broken.before for broken in found), start=Hits(0, 0))

    def _controls(self, kinds: Sequence[str], attacks: Iterable[str]) -> list[list[str]]:
        """Rows beside the methods: the attacks on the base, and their random starts, which nothing attacked."""
        if not attacks:
            return []
        base = self.adaptive(self.base)
        blank = [""] * len(kinds)
        attacked = [base[kind].attacked.percent if kind in base else "-" for kind in attacks]
        return [
            [f"control: the attacks on the {self.base}", *blank, *attacked],
            ["control: random starts, no attack", *blank, *(self.starts(kind).percent for kind in attacks)],
        ]

    def _warnings(self, attacks: Iterable[str]) -> list[str]:
        """A sentence on each attack whose columns prove nothing."""
        found = []
        for kind in attacks:
            control, starts = self.adaptive(self.base).get(kind), self.starts(kind)
            if control is None or control.attacked.share < LEAST_CONTROL:
                found.append(
                    f"⚠ The attack by {kind} breaks the base in less than {LEAST_CONTROL:.0%}: that it fails elsewhere "
                    "proves nothing."
                )
            if starts.n and starts.share > 1 - LEAST_CONTROL:
                found.append(
                    f"⚠ {starts.k} of {starts.n} random starts of the attack by {kind} draw the concept before any "
                    "attack: what it finds proves nothing."
                )
        return found

    def _attacked(self, name: str, kind: str) -> str:
        broken = self.adaptive(name).get(kind)
        return "-" if broken is None else broken.attacked.percent

    def _kept(self, name: str) -> list[str]:
        short = self.near_short(name)
        return [
            name,
            str(len(self.marks[name])),
            self.over_seeds(name, "tifa").text(100, 1),
            "" if name == self.base else Mean(self.changes(name)).text(100, 2),
            *(self.over_seeds(name, field).text(100, 1) for field in _FIELDS[1:5]),
            short.percent if short else "-",
            *(self.over_seeds(name, field).text(1, 3) for field in _FIELDS[5:]),
            f"{self.seconds[name]:.1f}",
        ]


def figures(table: Table) -> dict[str, Figure]:
    """The paper's two figures in miniature, by name.

    Returns:
        `tifa_by_type`: what each question type lost against the base, next to the loss of the CLIPScore stand-in.
        `spread_and_tifa`: spread ratio against TIFA, a point for each seed.
    """
    return {"tifa_by_type": _drops(table), "spread_and_tifa": _spread_against_tifa(table)}


def _drops(table: Table) -> Figure:
    figure = new_figure(460, LIGHT)
    axes = figure.subplots()
    labels = [*ASKED_TYPES, "TIFA", "CLIP stand-in"]
    aligned = [name for name in table.marks if name != table.base]
    width = 0.8 / max(1, len(aligned))
    for number, name in enumerate(aligned):
        drops = [table.of_type(name, kind) - table.of_type(table.base, kind) for kind in ASKED_TYPES]
        drops += [statistics.fmean(table.changes(name, field)) for field in ("tifa", "similarity")]
        places = [place + (number - (len(aligned) - 1) / 2) * width for place in range(len(labels))]
        axes.bar(places, [100 * drop for drop in drops], width, label=name, color=_color(table, name))
        _write_drops(axes, places, drops)
    axes.axhline(0, color=LIGHT.text, linewidth=0.8)
    axes.axvline(len(ASKED_TYPES) - 0.5, color=LIGHT.muted, linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylabel("change against the base, points", color=LIGHT.muted, fontsize=10)
    title(
        axes, "What each method costs by TIFA's question types, and what the CLIPScore stand-in sees of it", LIGHT, 11
    )
    style(axes, LIGHT)
    axes.grid(False, axis="x")
    figure.legend(loc="outside lower center", frameon=False, ncols=6, fontsize=10)
    return figure


def _write_drops(axes: Axes, places: Sequence[float], drops: Sequence[float]) -> None:
    # Without its number, a method that costs nothing would look as if it had been left out.
    for place, drop in zip(places, drops, strict=True):
        above = drop > 0
        axes.annotate(
            f"{round(100 * drop) or 0}",
            (place, 100 * drop),
            (0, 2 if above else -2),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize=9,
            color=LIGHT.text,
        )


def _spread_against_tifa(table: Table) -> Figure:
    figure = new_figure(520, LIGHT, width=820)
    axes = figure.subplots()
    for name in table.marks:
        # The base's spread is what others are measured by.
        spreads = [1.0 if name == table.base else mark.spread_ratio for mark in table.marks[name]]
        points = [(s, 100 * m.tifa) for s, m in zip(spreads, table.marks[name], strict=True) if s is not None]
        if not points:
            continue
        axes.scatter(
            [spread for spread, _ in points],
            [tifa for _, tifa in points],
            label=name,
            color=_color(table, name),
            s=48,
            alpha=0.85,
            edgecolors=LIGHT.background,
            linewidths=0.6,
        )
    axes.set_xlabel("spread ratio (1: the base's spread)", color=LIGHT.muted, fontsize=10)
    axes.set_ylabel("TIFA, %", color=LIGHT.muted, fontsize=10)
    title(axes, "Spread of the embeddings of safe prompts, and TIFA of their pictures", LIGHT, 11)
    style(axes, LIGHT)
    figure.legend(loc="outside right upper", frameon=False, fontsize=10)
    return figure


def _color(table: Table, name: str) -> str:
    return LIGHT.method(list(table.marks).index(name))
