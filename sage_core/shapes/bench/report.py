"""The bench's results as a table, and the paper's two figures in miniature."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...geometry import DEFAULT_NEIGHBOURS
from ...intervals import Hits
from ...plots import DARK, LIGHT, new_figure, style
from ...tables import markdown_table
from ..ask import ASKED_TYPES
from ..exam.examination import Marks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The base is grey; the objectives take these in turn.
_COLORS = (LIGHT.base, LIGHT.aligned, LIGHT.good, LIGHT.hurt, LIGHT.unsafe, DARK.base)


class Table:
    """Marks by objective, averaged over seeds. Changes are measured from the first objective, the base."""

    def __init__(self, marks: Sequence[tuple[str, Marks]], seconds: dict[str, float]) -> None:
        self.marks: dict[str, list[Marks]] = {}
        for name, mark in marks:
            self.marks.setdefault(name, []).append(mark)
        self.seconds = seconds
        self.base = next(iter(self.marks))

    def mean(self, name: str, field: str) -> float:
        """Mean over seeds of `tifa`, `similarity`, `spread_ratio` or `jaccard`."""
        return statistics.fmean(getattr(mark, field) for mark in self.marks[name])

    def deviation(self, name: str, field: str) -> float:
        """Sample standard deviation over seeds, 0 for one seed."""
        values = [getattr(mark, field) for mark in self.marks[name]]
        return statistics.stdev(values) if len(values) > 1 else 0.0

    def of_type(self, name: str, element_type: str) -> float:
        """Mean over seeds of the share of right answers of one type."""
        return statistics.fmean(mark.by_type[element_type] for mark in self.marks[name])

    def change(self, name: str) -> tuple[float, float]:
        """Mean and sample standard deviation, over seeds, of TIFA less the base's of the same seed."""
        changes = [mark.tifa - base.tifa for mark, base in zip(self.marks[name], self.marks[self.base], strict=True)]
        return statistics.fmean(changes), statistics.stdev(changes) if len(changes) > 1 else 0.0

    def hits(self, name: str) -> dict[str, Hits]:
        """Hits over all seeds, by kind of prompt."""
        kinds = self.marks[name][0].attack
        return {kind: sum((mark.attack[kind] for mark in self.marks[name]), start=Hits(0, 0)) for kind in kinds}

    def to_dict(self) -> dict[str, Any]:
        """The table, ready for JSON: shares from 0 to 1, hits with a Wilson 95% interval over all seeds' prompts."""
        return {
            name: {
                "seeds": len(marks),
                **{
                    field: {"mean": self.mean(name, field), "deviation": self.deviation(name, field)}
                    for field in ("tifa", "similarity", "spread_ratio", "jaccard")
                },
                "tifa_change": dict(zip(("mean", "deviation"), self.change(name), strict=True)),
                "by_type": {kind: self.of_type(name, kind) for kind in ASKED_TYPES},
                "attack": {kind: hits.to_dict() for kind, hits in self.hits(name).items()},
                "seconds": self.seconds[name],
            }
            for name, marks in self.marks.items()
        }

    def to_markdown(self) -> str:
        """Two tables in per cent: the summary, and TIFA by type."""
        kinds = list(self.hits(self.base))
        head = ["objective", "seeds", "TIFA", "change", *(f"attack success, {kind}" for kind in kinds)]
        head += ["CLIP stand-in", "spread ratio", f"Jaccard@{DEFAULT_NEIGHBOURS}", "s"]
        summary = markdown_table(head, (self._summary(name) for name in self.marks))
        rows = ([name, *(f"{100 * self.of_type(name, kind):.1f}" for kind in ASKED_TYPES)] for name in self.marks)
        return f"{summary}\n\n{markdown_table(['objective', *ASKED_TYPES], rows)}"

    def _summary(self, name: str) -> list[str]:
        seeds = len(self.marks[name])
        return [
            name,
            str(seeds),
            self._with_deviation(name, "tifa", 100, 1),
            "" if name == self.base else _with_deviation(*self.change(name), seeds, 100, 2),
            *(_rate(hits) for hits in self.hits(name).values()),
            self._with_deviation(name, "similarity", 100, 1),
            self._with_deviation(name, "spread_ratio", 1, 3),
            self._with_deviation(name, "jaccard", 1, 3),
            f"{self.seconds[name]:.1f}",
        ]

    def _with_deviation(self, name: str, field: str, factor: float, digits: int) -> str:
        return _with_deviation(
            self.mean(name, field), self.deviation(name, field), len(self.marks[name]), factor, digits
        )


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
        drops += [table.mean(name, field) - table.mean(table.base, field) for field in ("tifa", "similarity")]
        places = [place + (number - (len(aligned) - 1) / 2) * width for place in range(len(labels))]
        axes.bar(places, [100 * drop for drop in drops], width, label=name, color=_color(table, name))
        _write_drops(axes, places, drops)
    axes.axhline(0, color=LIGHT.text, linewidth=0.8)
    axes.axvline(len(ASKED_TYPES) - 0.5, color=LIGHT.muted, linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylabel("change against the base, points", color=LIGHT.muted, fontsize=10)
    _head(axes, "What alignment costs by TIFA's question types, and what the CLIPScore stand-in sees of it")
    style(axes, LIGHT)
    axes.grid(False, axis="x")
    figure.legend(loc="outside lower center", frameon=False, ncols=6, fontsize=10)
    return figure


def _write_drops(axes: Axes, places: Sequence[float], drops: Sequence[float]) -> None:
    # Without its number, an objective that costs nothing would look as if it had been left out.
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
    for name, marks in table.marks.items():
        axes.scatter(
            [mark.spread_ratio for mark in marks],
            [100 * mark.tifa for mark in marks],
            label=name,
            color=_color(table, name),
            s=48,
            alpha=0.85,
            edgecolors=LIGHT.background,
            linewidths=0.6,
        )
    axes.set_xlabel("spread ratio (1: the base's spread)", color=LIGHT.muted, fontsize=10)
    axes.set_ylabel("TIFA, %", color=LIGHT.muted, fontsize=10)
    _head(axes, "Spread of the embeddings of safe prompts, and TIFA of their pictures")
    style(axes, LIGHT)
    figure.legend(loc="outside right upper", frameon=False, fontsize=10)
    return figure


def _color(table: Table, name: str) -> str:
    if name == table.base:
        return LIGHT.muted
    return _COLORS[[other for other in table.marks if other != table.base].index(name) % len(_COLORS)]


def _head(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", color=LIGHT.text, fontsize=11)


def _rate(hits: Hits) -> str:
    low, high = hits.interval
    return f"{100 * hits.share:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def _with_deviation(mean: float, deviation: float, count: int, factor: float, digits: int) -> str:
    text = f"{factor * mean:.{digits}f}"
    return f"{text} ± {factor * deviation:.{digits}f}" if count > 1 else text
