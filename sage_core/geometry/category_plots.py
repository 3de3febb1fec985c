"""Pictures of geometry against TIFA: by type of question, and one point for each method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..plots import LIGHT, Theme, font, label, new_figure, parts, style, title
from .categories import Categories, Figure, lost, lost_interval
from .estimates import Estimate
from .panels import draw_provenance
from .points import Point, methods_correlation
from .report import GeometryReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture
    from matplotlib.figure import SubFigure
    from matplotlib.transforms import Bbox

_NAME_LENGTH = 24
# Where a name may stand around its point: distance in pixels, and direction in quarters of a right angle. Bars go
# straight to the sides; so slanted directions come first.
_PLACES = [(radius, turn) for radius in (7, 14, 24, 38, 56, 80) for turn in (2, 14, 6, 10, 3, 13, 5, 11, 4, 12, 0, 8)]
_LEGEND = "After each type its number of prompts; bars are 95 % intervals; dashed: the spread ratio of all prompts."
_TITLES: dict[Figure, str] = {"spread_ratio": "Spread ratio", "jaccard": "Jaccard overlap"}


def types_page(report: GeometryReport, theme: Theme = LIGHT) -> Picture:
    """Spread ratio and neighbour overlap within the prompts of each type of question.

    If runs were scored, the points of TIFA that each type lost stand next to them, and below both figures are drawn
    against that loss, with the correlation. Bars are 95 % intervals; a dashed line is the figure of all prompts.

    Raises:
        ValueError: the report has no categories, or none is large enough.
    """
    found = report.categories
    if found is None or not found.measured:
        raise ValueError("The report has no group of prompts that is large enough.")
    notes = [_LEGEND, *found.caveats()]
    heights = [86 + 27 * len(found.measured), *([430] if found.scored else []), 44 + 19 * len(notes)]
    figure = new_figure(sum(heights), theme)
    above, *below, foot = parts(figure, theme, heights=heights)
    _draw_rows(above, report, found, theme)
    named = []
    if below:
        for figure_name, axes in zip(_TITLES, below[0].subplots(1, 2, sharey=True), strict=True):
            named.append((axes, _draw_against_loss(axes, found, figure_name, theme)))
        named[1][0].set_ylabel("")
    _draw_foot(foot, report, notes, theme)
    _name_points(figure, named, theme)
    return figure


def methods_figure(methods: Sequence[Point], theme: Theme = LIGHT, places: Sequence[int] | None = None) -> Picture:
    """One point for each method, spread ratio against TIFA, and the base at a spread ratio of 1.

    `places` are those of the methods in a report, which decide their colours; without them 1, 2, 3 and so on. Bars are
    95 % intervals; those of TIFA are of its change against the base. The correlation counts the base.

    Raises:
        ValueError: there is no method.
    """
    if not methods:
        raise ValueError("There is no method to draw.")
    figure = new_figure(560, theme, width=760)
    axes = figure.add_subplot()
    style(axes, theme)
    base = 100 * methods[0].tifa.base
    axes.plot([1], [base], "o", color=theme.base, markersize=10, zorder=4)
    points, names = [(1.0, base)], ["base"]
    for number, method in zip(places or range(1, len(methods) + 1), methods, strict=True):
        place = method.spread_ratio.value, 100 * method.tifa.other
        low, high = lost_interval(method.tifa)
        # A change may reach further than TIFA can.
        reach = max(base - high, 0), min(base - low, 100)
        _cross(axes, method.spread_ratio, place[1], reach, theme.about(number))
        points.append(place)
        names.append(label(method.name, _NAME_LENGTH))
    axes.margins(0.16)
    axes.set_ylim(top=min(axes.get_ylim()[1], 103))
    axes.set_xlabel("spread ratio (1: as wide as before)", color=theme.muted)
    axes.set_ylabel("TIFA, %", color=theme.muted)
    title(axes, "Spread of the prompts and TIFA, a point for each method", theme, bold=True)
    found = methods_correlation(methods)
    about = methods[0].about
    measured = f"{about['embedding'].capitalize()} embedding, prompts {about['prompts_sha256'][:10]}"
    lines = [f"With the base: {found}" if found else "No correlation: it takes three methods or more", measured]
    figure.supxlabel(". ".join(lines), color=theme.muted, fontsize=10)
    _name_points(figure, [(axes, (points, names))], theme)
    return figure


def _draw_rows(part: SubFigure, report: GeometryReport, found: Categories, theme: Theme) -> None:
    """A row for each type: its name and size, its figures with intervals, and what it lost."""
    columns = part.subplots(1, 3 if found.losses else 2, sharey=True, squeeze=False)[0]
    whole = {"spread_ratio": report.spread_ratio.value}
    for axes, (figure, name) in zip(columns, _TITLES.items(), strict=False):
        style(axes, theme)
        axes.grid(False, axis="y")
        axes.locator_params(axis="x", nbins=5)
        for row, each in enumerate(found.measured):
            _bar(axes, getattr(each, figure), row, theme.aligned, theme)
        if figure in whole:
            axes.axvline(whole[figure], color=theme.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        title(axes, name if figure == "spread_ratio" else f"{name} at {found.k}", theme, bold=True)
    if found.losses:
        style(columns[2], theme)
        columns[2].grid(False, axis="y")
        columns[2].axvline(0, color=theme.muted, linewidth=1, zorder=1)
        for row, each in enumerate(found.measured):
            if change := found.losses.get(each.name):
                _bar(columns[2], Estimate(lost(change), *lost_interval(change)), row, theme.hurt, theme)
        title(columns[2], "TIFA lost, points", theme, bold=True)
    names = [f"{each.name}  ({each.prompts:,})" for each in found.measured]
    columns[0].set_yticks(range(len(names)), names)
    columns[0].tick_params(axis="y", labelcolor=theme.text)
    columns[0].set_ylim(len(names) - 0.5, -0.5)


def _bar(axes: Axes, value: Estimate, row: float, color: str, theme: Theme) -> None:
    if math.isfinite(value.low):
        axes.plot([value.low, value.high], [row, row], color=theme.text, linewidth=1.6, zorder=3)
    axes.plot([value.value], [row], "o", color=color, markersize=7, zorder=4)


def _draw_against_loss(
    axes: Axes, found: Categories, figure: Figure, theme: Theme
) -> tuple[list[tuple[float, float]], list[str]]:
    """Draw a figure against the loss; returns the points and their names, which are set when the layout stands."""
    style(axes, theme)
    points = []
    for category, change in found.scored:
        value = getattr(category, figure)
        points.append((value.value, lost(change)))
        _cross(axes, value, points[-1][1], lost_interval(change), theme)
    axes.margins(0.12)
    axes.set_xlabel(_TITLES[figure] + (f" at {found.k}" if figure == "jaccard" else ""), color=theme.muted)
    axes.set_ylabel("TIFA lost, points", color=theme.muted)
    r = found.correlation(figure)
    title(axes, str(r) if r else "no correlation", theme, bold=True)
    return points, [category.name for category, _ in found.scored]


def _cross(axes: Axes, value: Estimate, height: float, vertical: tuple[float, float], theme: Theme) -> None:
    """A point with thin bars for both intervals."""
    look: dict[str, Any] = {"color": theme.muted, "linewidth": 0.9, "alpha": 0.55, "zorder": 2}
    if math.isfinite(value.low):
        axes.plot([value.low, value.high], [height, height], **look)
    axes.plot([value.value, value.value], vertical, **look)
    axes.plot([value.value], [height], "o", color=theme.aligned, markersize=8, zorder=4)


def _draw_foot(part: SubFigure, report: GeometryReport, notes: Sequence[str], theme: Theme) -> None:
    above, below = parts(part, theme, heights=[max(1, 19 * len(notes)), 40])
    height = 1.0
    for note in notes:
        height -= 1 / len(notes)
        above.text(0.012, height + 0.5 / len(notes), note, color=theme.text, fontsize=10, va="center")
    draw_provenance(below, report, theme)


_Named = Sequence[tuple["Axes", tuple[list[tuple[float, float]], list[str]]]]


def _name_points(figure: Picture, named: _Named, theme: Theme) -> None:
    """Write each point's name next to it, clear of points and of other names.

    Call it last: places are chosen in pixels, which settle only when every other part of the figure is there.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, (points, names) in named:
        pixels = [tuple(place) for place in axes.transData.transform(points)] if points else []
        taken: list[Bbox] = []
        # Those in a crowd first: they have the least choice.
        crowd = [sorted(math.dist(place, other) for other in pixels)[min(2, len(pixels) - 1)] for place in pixels]
        for place in sorted(range(len(pixels)), key=crowd.__getitem__):
            taken.append(_name_point(figure, axes, pixels[place], names[place], pixels, taken, theme))


def _name_point(
    figure: Picture,
    axes: Axes,
    point: tuple[float, float],
    name: str,
    points: Sequence[tuple[float, float]],
    taken: Sequence[Bbox],
    theme: Theme,
) -> Bbox:
    """Write one name at the first place that is free; returns the room that it takes, in pixels."""
    text = axes.text(0, 0, name, transform=None, color=theme.text, zorder=5, **font(fontsize=10))
    frame, found, best = axes.get_window_extent(), None, math.inf
    for radius, turn in _PLACES:
        across, up = math.cos(turn * math.pi / 8), math.sin(turn * math.pi / 8)
        text.set_horizontalalignment("left" if across > 0.1 else "right" if across < -0.1 else "center")
        text.set_verticalalignment("bottom" if up > 0.1 else "top" if up < -0.1 else "center")
        text.set_position((point[0] + radius * across, point[1] + radius * up))
        room = text.get_window_extent()
        misses = sum(room.overlaps(other) for other in taken) + sum(_near(room, other) for other in points)
        misses += not (frame.x0 <= room.x0 and room.x1 <= frame.x1 and frame.y0 <= room.y0 and room.y1 <= frame.y1)
        if misses < best:
            alignment = text.get_horizontalalignment(), text.get_verticalalignment()
            best, found = misses, (text.get_position(), *alignment, radius)
        if not misses:
            break
    assert found is not None
    text.set_position(found[0])
    text.set_horizontalalignment(found[1])
    text.set_verticalalignment(found[2])
    if found[3] > _PLACES[0][0]:
        axes.plot(
            [point[0], found[0][0]], [point[1], found[0][1]], transform=None, color=theme.muted, linewidth=0.8, zorder=3
        )
    return text.get_window_extent()


def _near(room: Bbox, point: tuple[float, float]) -> bool:
    """Whether a point's mark touches a room."""
    return room.x0 - 5 < point[0] < room.x1 + 5 and room.y0 - 5 < point[1] < room.y1 + 5
