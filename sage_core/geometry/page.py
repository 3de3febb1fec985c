"""Pictures of what alignment did to an embedding space: the map, neighbours, and all figures on one page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..plots import LIGHT, Theme, new_figure, parts
from . import panels
from .report import GeometryReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def prompt_map(report: GeometryReport, theme: Theme = LIGHT, named: int = 8) -> Figure:
    """Prompts in the base's principal plane, with lines from base to aligned; the most hurt are numbered and listed.

    Beyond 300 prompts only an even choice of them has lines. Collapsed prompts, whose neighbours are now at less than
    half their former distance, are crossed out.
    """
    named = min(named, len(report.prompts))
    figure = new_figure(760 + 24 * named, theme)
    upper, lower = parts(figure, theme, heights=[720, 40 + 24 * named])
    places = panels.draw_map(upper, report, theme, named)
    panels.list_hurt(lower, report, theme, named, characters=88)
    panels.number_hurt(figure, places, report, theme, named)
    return figure


def neighbour_lists(report: GeometryReport, rows: Sequence[int], theme: Theme = LIGHT) -> Figure:
    """The k nearest neighbours of chosen prompts in base and aligned; lost ones carry a minus, gained ones a plus."""
    heights = [90 + 23 * report.k] * len(rows)
    figure = new_figure(sum(heights), theme)
    for part, row in zip(parts(figure, theme, heights=heights), rows, strict=True):
        panels.draw_neighbours(part, report, row, theme)
    return figure


def report_page(report: GeometryReport, theme: Theme = LIGHT) -> Figure:
    """All on one page: verdict, figures, map, most hurt prompts, similarities, spectrum."""
    named = min(8, len(report.prompts))
    heights = [125, 165, 600, 390, 400, 40]
    figure = new_figure(sum(heights), theme)
    head, gauges, middle, heat, low, foot = parts(figure, theme, heights=heights)
    panels.draw_verdict(head, report, theme)
    spread, overlap = gauges.subplots(1, 2)
    panels.draw_spread_ratio(spread, report, theme)
    panels.draw_jaccard(overlap, report, theme)
    plane, hurt = parts(middle, theme, widths=[64, 36])
    places = panels.draw_map(plane, report, theme, named)
    panels.list_hurt(hurt, report, theme, named, characters=40)
    panels.draw_similarities(heat, report, theme)
    components, figures = parts(low, theme, widths=[46, 54])
    panels.draw_spectrum(components.add_subplot(), report, theme)
    panels.list_figures(figures, report, theme)
    panels.draw_provenance(foot, report, theme)
    panels.number_hurt(figure, places, report, theme, named)
    return figure
