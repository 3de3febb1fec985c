"""The curves of a run: its losses, learning rate and geometry over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

from ..plots import LIGHT, Theme, new_figure, style, title, whole_ticks
from .record import StepReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def training_curves(history: Sequence[StepReport], theme: Theme = LIGHT) -> Figure:
    """One small panel for each loss, for the learning rate and, where measured, for spread ratio and Jaccard overlap.

    Losses differ by orders of magnitude, so that each has a panel of its own. Thin lines are single steps, thick lines
    a running mean over a twentieth of the run. The number in a panel is the last value of the thick line.
    An empty history gives a figure that says so.
    """
    curves = _curves(history)
    columns = min(4, max(1, ceil(len(curves) ** 0.5)))
    lines = max(1, ceil(len(curves) / columns))
    figure = new_figure(40 + 200 * lines, theme)
    if not curves:
        figure.text(0.5, 0.5, "No training step yet", color=theme.muted, ha="center", va="center", fontsize=14)
    for place, (name, steps, values, smooth) in enumerate(curves, start=1):
        axes = figure.add_subplot(lines, columns, place)
        style(axes, theme)
        shown = running_mean(values, ceil(len(values) / 20)) if smooth else values
        if smooth:
            axes.plot(steps, values, color=theme.aligned, alpha=0.3, linewidth=0.8)
        # A line through a single point is invisible.
        axes.plot(steps, shown, color=theme.aligned, linewidth=2, marker="o" if len(steps) < 20 else "", markersize=4)
        title(axes, name.replace("_", " "), theme, 11)
        axes.set_title(f"{shown[-1]:.3g}", loc="right", color=theme.aligned, fontsize=11, fontweight="bold")
        axes.locator_params(nbins=4)
        whole_ticks(axes)
        axes.yaxis.set_major_formatter("{x:g}")
        if min(values) >= 0:
            axes.set_ylim(bottom=0)
        if place > len(curves) - columns:
            axes.set_xlabel("step", color=theme.muted, fontsize=10)
    return figure


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of each value and of up to window - 1 values before it."""
    return [sum(part) / len(part) for end in range(1, len(values) + 1) for part in [values[max(0, end - window) : end]]]


def _curves(history: Sequence[StepReport]) -> list[tuple[str, list[int], list[float], bool]]:
    """Each panel's name, steps, values and whether to smooth them, in the order of drawing."""
    names = dict.fromkeys(name for report in history for name in report.losses)
    curves = []
    for name in names:
        having = [report for report in history if name in report.losses]
        curves.append((name, [report.step for report in having], [report.losses[name] for report in having], True))
    if history:
        steps = [report.step for report in history]
        curves.append(("learning rate", steps, [report.learning_rate for report in history], False))
    points = [(report.step, report.geometry) for report in history if report.geometry is not None]
    if points:
        steps = [step for step, _ in points]
        curves.append(("spread ratio", steps, [point.spread_ratio for _, point in points], False))
        curves.append(("Jaccard overlap", steps, [point.jaccard for _, point in points], False))
    return curves
