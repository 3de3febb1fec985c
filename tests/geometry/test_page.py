"""Pictures of a comparison: drawn for every kind of prompts, with what they must show, and leaving matplotlib alone."""

from __future__ import annotations

import math
import sys
import warnings

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.text import Text

from sage_core.geometry.comparison import GeometrySettings, compare
from sage_core.geometry.page import neighbour_lists, prompt_map, report_page
from sage_core.plots import DARK, DPI, LIGHT, figure_to_image

ODD_PROMPTS = [
    "一只红色的猫坐在垫子上，旁边有一个蓝色的球",
    "Красный кот сидит на синем ковре " * 9,
    "قطة حمراء تجلس على سجادة",
    "🐱 a cat that costs $5, not $6",
    "x" * 400,
    "two\nlines\tand a tab",
    "",
]


@pytest.fixture(autouse=True)
def no_warnings():
    """A glyph without a font, or texts that do not fit the layout, make matplotlib warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def make_report(prompts, unsafe=(), k=10, collapse=0.5):
    draw = torch.Generator().manual_seed(0)
    rows = {text: 4 + torch.randn(48, generator=draw) * torch.logspace(0, -1, 48) for text in [*prompts, *unsafe]}

    def base(texts):
        return torch.stack([rows[text] for text in texts])

    def aligned(texts):
        embeddings = base(texts) + 0.1
        embeddings[::3] = 4 + collapse * (embeddings[::3] - 4)
        return embeddings

    return compare(base, aligned, prompts, unsafe, GeometrySettings(k=min(k, len(prompts) - 1)))


def numbered(count):
    return [f"prompt {row}" for row in range(count)]


def pictures(report, theme):
    figures = [prompt_map, report_page]
    chosen = report.most_hurt[:2]
    return [figure_to_image(draw(report, theme)) for draw in figures] + [
        figure_to_image(neighbour_lists(report, chosen, theme))
    ]


def texts_of(figure):
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


@pytest.mark.parametrize(
    ("prompts", "theme"),
    [
        pytest.param(numbered(2), LIGHT, id="2"),
        pytest.param(numbered(50), DARK, id="50"),
        pytest.param(ODD_PROMPTS, LIGHT, id="odd"),
        pytest.param(["same"] * 12 + numbered(3), DARK, id="identical"),
    ],
)
def test_every_picture_is_drawn_as_wide_as_comfyui_shows_it(prompts, theme):
    for image in pictures(make_report(prompts, unsafe=["unsafe one", "unsafe two"]), theme):
        pixels = np.asarray(image)
        assert image.mode == "RGB"
        assert image.width == 1024
        assert pixels.std() > 5
        background = tuple(round(value * 255) for value in matplotlib.colors.to_rgb(theme.background))
        assert tuple(pixels[0, 0]) == background


@pytest.fixture(scope="module")
def large():
    """5,000 prompts, some with long texts, of which a third collapsed, and 400 unsafe ones among them."""
    prompts = [text + " and a long tale of it" * (row % 4) for row, text in enumerate(numbered(5000))]
    return make_report(prompts, unsafe=[f"unsafe {row}" for row in range(400)])


@pytest.mark.full
def test_five_thousand_prompts_have_every_picture_and_lines_for_some(large):
    for image in pictures(large, DARK):
        assert image.width == 1024
        assert np.asarray(image).std() > 5
    for draw in (prompt_map, report_page):
        lines = draw(large).findobj(matplotlib.collections.LineCollection)
        assert max(len(collection.get_segments()) for collection in lines) <= 308
    assert large.base.sample_similarity.shape == (40, 40)


@pytest.mark.full
def test_five_thousand_prompts_leave_the_page_readable(large):
    check_texts(report_page(large))


@pytest.mark.full
def test_unsafe_prompts_are_not_hidden_by_thousands_of_collapsed_ones(large):
    drawn = [points for axes in prompt_map(large).findobj(Axes) for points in axes.collections]
    heights = {points.get_label(): points.get_zorder() for points in drawn}
    assert large.collapsed.sum() > 300
    assert min(heights["unsafe, base"], heights["unsafe, aligned"]) > heights["collapsed"] > heights["aligned"]
    assert {points.get_alpha() for points in drawn} == {0.5}


@pytest.mark.parametrize("draw", [prompt_map, report_page])
def test_numbers_on_the_map_do_not_overlap(draw):
    report = make_report(numbered(60), collapse=0.01)
    figure = draw(report)
    figure_to_image(figure)
    badges = [text for text in texts_of(figure) if text.get_bbox_patch() is not None]
    circles = [badge.get_bbox_patch().get_window_extent() for badge in badges]
    assert sorted(int(badge.get_text()) for badge in badges) == list(range(1, 9))
    for place, one in enumerate(circles):
        for other in circles[:place]:
            apart = math.hypot(one.x0 + one.x1 - other.x0 - other.x1, one.y0 + one.y1 - other.y0 - other.y1) / 2
            assert apart >= (one.width + other.width) / 2


@pytest.mark.parametrize("count", [2, 60])
def test_no_text_of_the_page_overlaps_another_or_leaves_it(count):
    check_texts(report_page(make_report([f"{row} " + "a long prompt of many words " * 9 for row in range(count)])))


def check_texts(figure):
    """No text of a drawn figure overlaps another or leaves the page."""
    figure_to_image(figure)
    page = figure.bbox.padded(1)
    # Ticks outside the axes have texts, too, which are not drawn.
    sides = [side for axes in figure.findobj(Axes) for side in (axes.xaxis, axes.yaxis)]
    ticks = {text for side in sides for text in side.get_ticklabels(which="both")}
    texts = [text for text in texts_of(figure) if text.get_bbox_patch() is None and text not in ticks]
    boxes = [(text.get_text(), text.get_window_extent().padded(-2)) for text in texts]
    boxes = [(text, box) for text, box in boxes if box.width > 0 and box.height > 0]
    assert [text for text, box in boxes if not (page.containsx(box.x0) and page.containsx(box.x1))] == []
    overlapping = [(a, b) for place, (a, one) in enumerate(boxes) for b, two in boxes[:place] if one.overlaps(two)]
    assert overlapping == []


def test_neighbour_lists_mark_what_was_lost_and_gained():
    report = make_report(numbered(30), k=5)
    row = report.most_hurt[0]
    shown = [text.get_text() for text in texts_of(neighbour_lists(report, [row]))]
    described = report.prompt_row(row)
    assert shown.count("−") == len(described["lost"]) > 0
    assert shown.count("+") == len(described["gained"])
    assert set(described["lost"]) | set(described["gained"]) <= set(shown)


def test_pictures_leave_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False)
    report = make_report(numbered(12))
    pictures(report, DARK)
    assert (dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False)) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []
    assert prompt_map(report).dpi == DPI
