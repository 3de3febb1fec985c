"""The panels that `page` puts together; each draws one aspect of a report on axes or on a part of a figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from ..plots import Theme, font, label, style, title, whole_ticks
from .estimates import Estimate
from .report import GeometryReport, Level, Thresholds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase, SubFigure
    from numpy import ndarray

# More lines than this cannot be told apart.
_LINES = 300
# A short list keeps its lines together.
_LEAST_LINES = 8
# Places for a number around its point, in pixels, the nearest first.
_AROUND = [
    (radius * math.cos(turn * math.pi / 6), radius * math.sin(turn * math.pi / 6))
    for radius in (22, 34, 48, 64, 82, 104)
    for turn in range(12)
]
_MARKS: dict[Level, str] = {"healthy": "✔", "strained": "▲", "damaged": "✖"}


def draw_verdict(part: SubFigure, report: GeometryReport, theme: Theme) -> None:
    """Draw the verdict in one word, and the two figures behind it in words."""
    color = _color(report.verdict.level, theme)
    axes = _blank(part)
    word = f"{_MARKS[report.verdict.level]} {report.verdict.level.capitalize()}"
    axes.text(0, 0.5, word, color=color, fontsize=24, fontweight="bold", va="center")
    lines = [*report.verdict.reasons, *report.notes]
    for place, line in enumerate(lines):
        axes.text(0.255, 0.5 + 0.26 * ((len(lines) - 1) / 2 - place), line, color=theme.text, fontsize=11, va="center")


def draw_spread_ratio(axes: Axes, report: GeometryReport, theme: Theme) -> None:
    """Draw the spread ratio and its interval on a scale with the thresholds' zones."""
    limits = Thresholds()
    ratio = report.spread_ratio
    right = max(1.6, 1.1 * ratio.high)
    _scale(axes, theme, right)
    _zones(axes, theme, limits.damaged_spread, limits.healthy_spread, right)
    _interval(axes, ratio, 0, theme)
    axes.set_ylim(-0.7, 0.7)
    axes.set_yticks([])
    title(axes, f"Spread ratio {ratio}", theme, bold=True)


def draw_jaccard(axes: Axes, report: GeometryReport, theme: Theme) -> None:
    """Draw the Jaccard overlap and its interval at every k."""
    limits = Thresholds()
    _scale(axes, theme, 1.0)
    _zones(axes, theme, (limits.damaged_jaccard, 1.0), (limits.healthy_jaccard, 1.0), 1.0)
    for place, interval in enumerate(report.jaccard.values()):
        _interval(axes, interval, -place, theme)
    axes.set_ylim(0.5 - len(report.jaccard), 1.6)
    axes.set_yticks([-place for place in range(len(report.jaccard))], [f"k = {k}" for k in report.jaccard])
    title(axes, f"Jaccard overlap {report.jaccard[report.k]} at k = {report.k}", theme, bold=True)


def draw_map(part: SubFigure, report: GeometryReport, theme: Theme, named: int) -> Axes:
    """Draw where each prompt was and is in the base's principal plane; see `page.prompt_map`."""
    from matplotlib.collections import LineCollection

    axes = part.add_subplot()
    style(axes, theme)
    count = len(report.prompts)
    before, after = report.base.plane.numpy(), report.aligned.plane.numpy()
    evenly = torch.linspace(0, count - 1, min(count, _LINES)).long().tolist()
    lines = [(before[row], after[row]) for row in sorted({*evenly, *report.most_hurt[:named]})]
    axes.add_collection(LineCollection(lines, colors=theme.muted, linewidths=0.8, alpha=0.5, zorder=2))
    for points, color, name, marker in ((before, theme.base, "base", "o"), (after, theme.aligned, "aligned", "D")):
        safe, unsafe = points[:count], points[count:]
        look = _point(count) | {"linewidths": 0, "marker": marker, "zorder": 3, "label": name}
        axes.scatter(safe[:, 0], safe[:, 1], c=color, **look)
        if report.unsafe:
            # Above the crosses of collapsed prompts, which would hide all unsafe ones.
            look = _point(len(unsafe)) | {"marker": marker, "zorder": 4.5, "label": f"unsafe, {name}"}
            axes.scatter(unsafe[:, 0], unsafe[:, 1], facecolors="none", edgecolors=theme.unsafe, **look)
    crossed = after[:count][report.collapsed.numpy()]
    if len(crossed):
        look = _point(len(crossed))
        look |= {"s": 2 * look["s"], "linewidths": 1.2 * look["alpha"], "label": "collapsed"}
        axes.scatter(crossed[:, 0], crossed[:, 1], c=theme.hurt, marker="x", zorder=4, **look)
    shares = (*report.base.spectrum.shares, 0.0)
    axes.set_xlabel(f"1st principal component of the base ({shares[0]:.0%} of its variance)", color=theme.muted)
    axes.set_ylabel(f"2nd ({shares[1]:.0%})", color=theme.muted)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.08)
    title(
        axes, f"Where {count:,} prompts moved" + (f" (lines for {_LINES})" if count > _LINES else ""), theme, bold=True
    )
    part.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=10, labelcolor=theme.text)
    return axes


def _point(count: int) -> dict[str, Any]:
    """Size and opacity of each point, by their number."""
    return {"s": 26, "alpha": 0.9} if count <= _LINES else {"s": 9, "alpha": 0.5}


def number_hurt(figure: Figure, axes: Axes, report: GeometryReport, theme: Theme, named: int) -> None:
    """Number the most hurt prompts on the map so that no number hides another or lies outside.

    Call it last: places are chosen in pixels, which settle only when every other part of the figure is there.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    frame = axes.get_window_extent()
    points = axes.transData.transform(report.aligned.plane.numpy()[list(report.most_hurt[:named])])
    taken: list[tuple[float, float]] = []
    for number, (x, y) in enumerate(points, start=1):
        around = [(x + right, y + up) for right, up in _AROUND if frame.contains(x + right, y + up)]
        free = (place for place in around if _free(place, taken, points))
        place = next(free, (x, y))
        taken.append(place)
        axes.annotate(
            str(number),
            xy=(x, y),
            xytext=place,
            xycoords="figure pixels",
            textcoords="figure pixels",
            color=theme.background,
            fontsize=10,
            fontweight="bold",
            ha="center",
            va="center",
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": theme.hurt, "edgecolor": theme.background},
            arrowprops={"arrowstyle": "-", "color": theme.hurt, "linewidth": 1},
            zorder=5,
        )


def _free(place: tuple[float, float], taken: list[tuple[float, float]], points: ndarray) -> bool:
    return all(math.dist(place, other) > 29 for other in taken) and all(
        math.dist(place, point) > 14 for point in points
    )


def list_hurt(part: SubFigure, report: GeometryReport, theme: Theme, named: int, characters: int) -> None:
    """List the most hurt prompts with their numbers on the map."""
    axes = _blank(part, titled=True)
    title(axes, "Most hurt", theme, bold=True)
    for place, row in enumerate(report.most_hurt[:named]):
        height = 1 - (place + 0.5) / max(named, _LEAST_LINES)
        text = label(report.prompts[row], characters)
        axes.text(0, height, str(place + 1), color=theme.hurt, fontsize=11, fontweight="bold", va="center")
        figures = f"Jaccard {report.overlap[row]:.2f}, moved {report.displacement[row]:.3f}"
        if characters < 50:
            axes.text(0.06, height, f"{text}\n{figures}", color=theme.text, va="center", **font(fontsize=10))
        else:
            axes.text(0.025, height, text, color=theme.text, va="center", **font(fontsize=10))
            axes.text(1, height, figures, color=theme.muted, fontsize=10, va="center", ha="right")


def draw_similarities(part: FigureBase, report: GeometryReport, theme: Theme) -> None:
    """Draw the cosines among the report's sample of prompts: base, aligned, and the difference."""
    before, after = (space.sample_similarity.numpy() for space in (report.base, report.aligned))
    # The diagonal is always 1 and would stretch the scale.
    low = min(before.min(), after.min())
    high = max(_off_diagonal(before).max(), _off_diagonal(after).max())
    change = max(abs(_off_diagonal(after - before)).max(), 1e-6)
    shown = (
        ("Cosines, base", before, "cividis", low, high),
        ("Cosines, aligned", after, "cividis", low, high),
        ("Aligned − base", after - before, "PuOr_r", -change, change),
    )
    for axes, (name, values, colors, least, most) in zip(part.subplots(1, 3), shown, strict=True):
        style(axes, theme)
        axes.grid(False)
        image = axes.imshow(values, cmap=colors, vmin=least, vmax=most, interpolation="nearest")
        bar = part.colorbar(
            image, ax=axes, location="bottom", pad=0.03, aspect=30, ticks=[least, (least + most) / 2, most]
        )
        bar.ax.tick_params(colors=theme.muted, labelsize=10, length=0)
        bar.ax.xaxis.set_major_formatter("{x:.2g}")
        bar.outline.set_visible(False)
        axes.set_xticks([])
        axes.set_yticks([])
        title(axes, name, theme, bold=True)
    sample = f"{len(before)} of {len(report.prompts):,} prompts, ordered along the base's 1st principal component"
    part.supxlabel(sample, color=theme.muted, fontsize=10)


def draw_spectrum(axes: Axes, report: GeometryReport, theme: Theme) -> None:
    """Draw the share of the variance in each leading component."""
    style(axes, theme)
    for space, color, name, marker in (
        (report.base, theme.base, "base", "o"),
        (report.aligned, theme.aligned, "aligned", "D"),
    ):
        shares = space.spectrum.shares
        text = f"{name}: effective rank {space.spectrum.effective_rank:.1f}"
        axes.plot(
            range(1, len(shares) + 1), shares, color=color, marker=marker, markersize=4, linewidth=1.5, label=text
        )
    axes.set_yscale("log")
    axes.tick_params(which="both", length=0)
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    axes.yaxis.set_minor_formatter("")
    whole_ticks(axes)
    axes.set_xlim(0, len(report.base.spectrum.shares) + 1)
    axes.set_xlabel("principal component", color=theme.muted)
    axes.legend(frameon=False, fontsize=10, labelcolor=theme.text)
    title(axes, "Share of variance", theme, bold=True)


def draw_neighbours(part: SubFigure, report: GeometryReport, row: int, theme: Theme) -> None:
    """List the neighbours of one prompt, those in the base next to those in the aligned space."""
    axes = _blank(part, titled=True)
    heading = label(report.prompts[row], 84)
    axes.set_title(heading, loc="left", color=theme.text, **font(fontsize=12, fontweight="bold"))
    spaces = {"base": report.neighbours_base, "aligned": report.neighbours_aligned}
    both = [set(neighbours.indices[row].tolist()) for neighbours in spaces.values()]
    kept = both[0] & both[1]
    for left, (name, neighbours), sign in zip((0.0, 0.51), spaces.items(), "−+", strict=True):
        color = theme.base if name == "base" else theme.aligned
        axes.text(left + 0.075, 1, name, color=color, fontsize=11, fontweight="bold", va="top")
        pairs = zip(neighbours.indices[row].tolist(), neighbours.cosines[row].tolist(), strict=True)
        for place, (other, cosine) in enumerate(pairs, start=1):
            height = 1 - (place + 0.5) / (report.k + 1)
            changed = other not in kept
            look: dict[str, Any] = {"color": theme.hurt if changed else theme.text, "va": "center"}
            axes.text(left + 0.055, height, f"{cosine:.3f}", ha="right", color=theme.muted, fontsize=10, va="center")
            axes.text(left + 0.06, height, sign if changed else "", **look, fontsize=11, fontweight="bold")
            axes.text(left + 0.08, height, label(report.prompts[other], 50), **look, **font(fontsize=10))


def list_figures(part: SubFigure, report: GeometryReport, theme: Theme) -> None:
    """List every figure of the report, with its interval where it has one."""
    axes = _blank(part, titled=True)
    rows = report.figures()
    title(axes, "Figures [95 % interval where shown]", theme, bold=True)
    for place, (name, value) in enumerate(rows):
        height = 1 - (place + 0.5) / len(rows)
        axes.text(0, height, name, color=theme.muted, fontsize=10, va="center")
        axes.text(1, height, value, color=theme.text, fontsize=10, va="center", ha="right")


def draw_provenance(part: SubFigure, report: GeometryReport, theme: Theme) -> None:
    """Write what the figures belong to."""
    axes = _blank(part)
    axes.text(0, 0.5, report.provenance(), color=theme.muted, fontsize=10, va="center")


def _color(level: Level, theme: Theme) -> str:
    return {"healthy": theme.good, "strained": theme.aligned, "damaged": theme.hurt}[level]


def _blank(part: SubFigure, titled: bool = False) -> Axes:
    """Axes from 0 to 1 for texts, across a part of a figure; `titled` ones leave room for a title."""
    top = 1 - 36 / part.bbox.height if titled else 1.0
    # Kept out of the automatic layout, which would shrink the axes until no text leaves them.
    axes = part.add_axes((0.012, 0.01, 0.976, top - 0.01))
    axes.axis("off")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    return axes


def _scale(axes: Axes, theme: Theme, right: float) -> None:
    style(axes, theme)
    axes.grid(False)
    axes.set_xlim(0, right)


def _zones(axes: Axes, theme: Theme, strained: tuple[float, float], healthy: tuple[float, float], right: float) -> None:
    edges = [0.0, strained[0], healthy[0], healthy[1], strained[1], right]
    levels: list[Level] = ["damaged", "strained", "healthy", "strained", "damaged"]
    for low, high, level in zip(edges[:-1], edges[1:], levels, strict=True):
        if high > low:
            axes.axvspan(low, high, color=_color(level, theme), alpha=0.22, linewidth=0, zorder=0)
            middle = (low + high) / 2
            above = axes.get_xaxis_transform()
            axes.text(
                middle, 0.97, _MARKS[level], color=theme.muted, fontsize=11, ha="center", va="top", transform=above
            )


def _interval(axes: Axes, interval: Estimate, height: float, theme: Theme) -> None:
    axes.plot([interval.low, interval.high], [height, height], color=theme.text, linewidth=2, zorder=3)
    axes.plot([interval.value], [height], "o", color=theme.text, markersize=7, zorder=4)


def _off_diagonal(values: ndarray) -> ndarray:
    count = len(values)
    return values[~torch.eye(count, dtype=torch.bool).numpy()]
