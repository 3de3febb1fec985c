"""The comparison of runs as a picture: TIFA by type with what was lost, TIFA next to CLIPScore, concept rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..plots import LIGHT, Theme, label, new_figure, parts, style, title
from ..tifa.scoring import TifaResult
from .results import Run, alike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAME_LENGTH = 24


def runs_page(runs: Sequence[Run], theme: Theme = LIGHT) -> Figure:
    """All runs in one picture, each against the first.

    Top: bars of TIFA by question type, with the change against the first run and how many of the questions that it
    answers right were lost. Bottom: TIFA and CLIPScore in per cent of the first run's, and how often the concept shows,
    with 95% Wilson intervals. What was not measured, or does not fit the first run, is left out: `alike` says what. If
    the first run's TIFA or CLIPScore is not above 0, there are no percentages, and CLIPScore stands alone.

    Raises:
        QuestionError: there is nothing to compare, see `alike`.
    """
    runs, _ = alike(runs)
    base = runs[0]
    below = []
    if base.clip:
        relative = base.tifa is not None and min(base.tifa.average, base.clip.mean_100) > 0
        below.append(_draw_relative if relative else _draw_clip)
    if base.rates:
        below.append(_draw_rates)
    rows = ([460] if runs[0].tifa else []) + ([120 + 46 * len(runs)] if below else [])
    figure = new_figure(sum(rows), theme)
    places = parts(figure, theme, heights=rows)
    if runs[0].tifa:
        _draw_types(places[0].add_subplot(), runs, theme)
    if below:
        for part, draw in zip(parts(places[-1], theme, widths=[1] * len(below)), below, strict=True):
            draw(part.add_subplot(), runs, theme)
    return figure


def _draw_types(axes: Axes, runs: Sequence[Run], theme: Theme) -> None:
    measured = [(place, run, run.tifa) for place, run in enumerate(runs) if run.tifa is not None]
    base = measured[0][2]
    types = list(base.by_type)
    names = ["TIFA", *types]
    width = 0.8 / len(measured)
    # If there are many bars, numbers are wider than they are.
    upright = 90 if len(names) * len(measured) > 30 else 0
    before = [100 * base.average, *(100 * share for share in base.by_type.values())]
    for bar, (place, run, result) in enumerate(measured):
        values = [100 * result.average, *(100 * result.by_type[name] for name in types)]
        lefts = [x - 0.4 + width * (bar + 0.5) for x in range(len(names))]
        axes.bar(lefts, values, 0.92 * width, color=theme.method(place), label=_summary(run, base))
        for left, value, first in zip(lefts, values, before, strict=True):
            change = round(value - first, 1)
            if bar and change:
                color = theme.hurt if change < 0 else theme.good
                axes.text(left, value + 1, f"{change:+.0f}", color=color, ha="center", fontsize=9, rotation=upright)
    style(axes, theme)
    axes.grid(False, axis="x")
    axes.set_xticks(range(len(names)), [name.replace("/", "/\n") for name in names])
    axes.get_xticklabels()[0].set_fontweight("bold")
    axes.axvline(0.5, color=theme.grid, linewidth=1.5)
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 20))
    title(axes, f"Questions answered right, % (numbers: change against {label(runs[0].name, _NAME_LENGTH)})", theme)
    legend = axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, -0.24),
        ncols=len(measured) if sum(map(len, axes.get_legend_handles_labels()[1])) < 90 else 2,
        frameon=False,
        fontsize=11,
    )
    for text in legend.get_texts():
        text.set_color(theme.text)


def _summary(run: Run, base: TifaResult) -> str:
    text = label(run.name, _NAME_LENGTH)
    if run.tifa is None or run.tifa is base:
        return text
    right = {(scored.image, scored.question.question) for scored in base.questions if scored.score}
    wrong = {(scored.image, scored.question.question) for scored in run.tifa.questions if not scored.score}
    lost = len(right & wrong)
    return f"{text}: {lost or 'none'} of {len(base.questions)} questions lost"


def _draw_relative(axes: Axes, runs: Sequence[Run], theme: Theme) -> None:
    tifa = [run.tifa.average if run.tifa else None for run in runs]
    clip = [run.clip.mean_100 if run.clip else None for run in runs]
    for offset, values, name, filled in ((-0.18, clip, "CLIPScore", False), (0.18, tifa, "TIFA", True)):
        for place, value in enumerate(values):
            if value is None or not values[0]:
                _missing(axes, place + offset, theme, name)
                continue
            percent = 100 * value / values[0]
            color = theme.method(place)
            axes.barh(place + offset, percent, 0.32, color=color if filled else "none", edgecolor=color)
            axes.text(percent + 1, place + offset, f"{name} {percent:.1f}", color=theme.text, va="center", fontsize=9)
    _rows(axes, runs, theme, "CLIPScore and TIFA, % of first run's")
    axes.set_xlim(0, 140)
    axes.set_xticks(range(0, 101, 20))


def _draw_clip(axes: Axes, runs: Sequence[Run], theme: Theme) -> None:
    values = {place: run.clip.mean_100 for place, run in enumerate(runs) if run.clip is not None}
    for place in range(len(runs)):
        if place not in values:
            _missing(axes, place, theme)
            continue
        axes.barh(place, values[place], 0.6, color=theme.method(place))
        axes.text(values[place], place, f" {values[place]:.2f}", color=theme.text, va="center", fontsize=9)
    _rows(axes, runs, theme, "CLIPScore, mean of 100 · cos")
    axes.set_xlim(min(*values.values(), 0), 1.2 * max(*values.values(), 1))


def _draw_rates(axes: Axes, runs: Sequence[Run], theme: Theme) -> None:
    """Draw the first run's first rate for each; further ones are in the tables."""
    shown = runs[0].rates[0]
    for place, run in enumerate(runs):
        rate = run.rate_of(runs[0])
        if rate is None:
            _missing(axes, place, theme)
            continue
        low, high = 100 * rate.interval.low, 100 * rate.interval.high
        axes.barh(place, 100 * rate.share, 0.6, color=theme.method(place))
        axes.plot([low, high], [place, place], color=theme.text, linewidth=1.5)
        axes.text(high + 2, place, f"{rate.hits} of {len(rate.shown)}", color=theme.text, va="center", fontsize=11)
    _rows(axes, runs, theme, f"Images that show {label(shown.concept, _NAME_LENGTH)}, %")
    axes.set_xlim(0, 125)
    axes.set_xticks(range(0, 101, 20))


def _missing(axes: Axes, height: float, theme: Theme, what: str = "") -> None:
    axes.text(1, height, f"{what} not measured".strip(), color=theme.muted, va="center", fontsize=9)


def _rows(axes: Axes, runs: Sequence[Run], theme: Theme, text: str) -> None:
    style(axes, theme)
    axes.grid(False, axis="y")
    axes.set_yticks(range(len(runs)), [label(run.name, _NAME_LENGTH) for run in runs])
    axes.set_ylim(len(runs) - 0.4, -0.6)
    title(axes, text, theme)
