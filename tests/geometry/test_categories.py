"""Spread and neighbours by type of question, against slow float64 references; loss in TIFA, correlation, pictures."""

from __future__ import annotations

import csv
import json
import math
import random
from dataclasses import replace

import pytest
import torch

from embedding_spaces import draw, embedders, moved, slow_jaccard, slow_spread
from sage_core.errors import PromptError, SettingsError
from sage_core.geometry.categories import Categories, fewest, lost, lost_interval, measure_categories
from sage_core.geometry.category_plots import methods_figure, types_page
from sage_core.geometry.comparison import GeometrySettings, compare
from sage_core.geometry.estimates import Estimate
from sage_core.geometry.measures import distances
from sage_core.geometry.points import Point, joined, methods_correlation
from sage_core.intervals import Difference, Interval, correlation
from sage_core.plots import DARK, LIGHT, figure_to_image

K = 5
GROUPS = {
    "object": range(60),
    "food": range(20, 44),
    "shape": [3, 50, 3, *range(5, 15)],
    "color": range(1, 60, 2),
    "spatial": range(11),
}


def spaces(count=60):
    base = draw(count)
    return base, moved(base, 0.4)


def change(base, other, half=0.02):
    return Difference(base, other, Interval(other - base - half, other - base + half))


LOSSES = {
    "object": change(0.8, 0.77),
    "food": change(0.84, 0.71),
    "shape": change(0.6, 0.58),
    "color": change(0.8, 0.7),
}


def report(losses=None, groups=GROUPS):
    found = compare(*embedders(*spaces()), GeometrySettings(k=4), groups=groups)
    return found.with_losses(losses) if losses else found


@pytest.mark.parametrize("name", ["object", "food", "shape", "color"])
def test_each_group_is_measured_as_if_it_were_alone(name):
    base, aligned = spaces()
    found = {each.name: each for each in report().categories.measured}[name]
    rows = sorted(set(GROUPS[name]))
    first, second = base[rows], aligned[rows]
    overlaps = slow_jaccard(first, second, K)
    assert found.prompts == len(rows)
    assert found.spread_ratio.value == pytest.approx(slow_spread(second) / slow_spread(first), rel=1e-4)
    assert found.jaccard.value == pytest.approx(sum(overlaps) / len(overlaps), abs=1e-9)


def test_the_spreads_interval_is_that_of_drawing_the_groups_prompts_anew():
    base, aligned = spaces()
    rows = list(GROUPS["food"])
    first, second = (space[rows].double() for space in (base, aligned))
    generator = random.Random(0)
    ratios = []
    for _ in range(1500):
        drawn = [generator.randrange(len(rows)) for _ in rows]
        ratios.append(slow_variance(second[drawn]) / slow_variance(first[drawn]))
    ratios.sort()
    found = {each.name: each for each in report().categories.measured}["food"].spread_ratio
    assert (found.low, found.high) == pytest.approx((ratios[37], ratios[1462]), abs=0.03)


def slow_variance(rows):
    unit = rows / rows.norm(dim=1, keepdim=True)
    return (unit - unit.mean(0)).square().sum().item()


def test_small_groups_are_left_out_and_named():
    found = report().categories
    assert fewest(K) == 12
    assert found.left_out == {"spatial": 11}
    assert [each.name for each in found.measured] == ["object", "food", "shape", "color"]
    assert "Left out, for fewer than 12 prompts leave no choice of 5: spatial (11)." in found.to_markdown()


def test_groups_change_nothing_else_and_are_absent_without():
    plain, grouped = (compare(*embedders(*spaces()), GeometrySettings(k=4), groups=groups) for groups in (None, GROUPS))
    assert plain.categories is None and plain.to_dict()["by_type"] is None
    assert grouped.to_dict() | {"by_type": None} == plain.to_dict()
    assert "By type of question" in grouped.to_markdown() and "By type of question" not in plain.to_markdown()


def test_places_outside_of_the_prompts_and_equal_prompts_are_named():
    before, after = (distances(space) for space in spaces())
    with pytest.raises(PromptError, match="Group 'food' names the prompts 0 to 60; there are 60"):
        measure_categories(before, after, {"food": [0, 60]})
    with pytest.raises(PromptError, match="all 12 prompts of 'food' are equal"):
        measure_categories(torch.zeros(12, 12), torch.zeros(12, 12), {"food": range(12)})


def test_a_wish_to_stop_is_heard_between_groups():
    heard = []

    def stop():
        heard.append(1)
        if len(heard) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_categories(*(distances(space) for space in spaces()), GROUPS, stay=stop)


def slow_correlation(x, y):
    """Pearson's r and Fisher's interval, term by term."""
    n = len(x)
    mean_x, mean_y = sum(x) / n, sum(y) / n
    product = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    squares = sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y)
    r = product / math.sqrt(squares)
    z, half = 0.5 * math.log((1 + r) / (1 - r)), 1.959963984540054 / math.sqrt(n - 3)
    return r, math.tanh(z - half), math.tanh(z + half)


def test_correlation_against_fishers_formula():
    generator = random.Random(1)
    x = [generator.random() for _ in range(11)]
    y = [-a + 0.3 * generator.random() for a in x]
    found = correlation(x, y)
    assert (found.value, found.low, found.high) == pytest.approx(slow_correlation(x, y), rel=1e-9)
    assert found.count == 11
    # Published for the spread of DES over 11 types: r = -0.86. Its interval by the same formula.
    z, half = math.atanh(-0.86), 1.959963984540054 / math.sqrt(8)
    assert (math.tanh(z - half), math.tanh(z + half)) == pytest.approx((-0.963, -0.537), abs=1e-3)


def test_no_correlation_of_three_points_or_of_a_constant():
    assert correlation([1, 2, 3], [1, 2, 4]) is None
    assert correlation([1, 2, 3, 4], [2, 2, 2, 2]) is None
    assert correlation([1, 2, 3, 4], [1, 2, 3, 5]).count == 4


def test_loss_is_correlated_with_both_figures_over_scored_types():
    found = report(LOSSES).categories
    for figure in ("spread_ratio", "jaccard"):
        values = [getattr(each, figure).value for each in found.measured]
        points = [100 * (LOSSES[each.name].base - LOSSES[each.name].other) for each in found.measured]
        r = found.correlation(figure)
        assert (r.value, r.low, r.high, r.count) == pytest.approx((*slow_correlation(values, points), 4), rel=1e-9)
        assert f"r = {r.value:.2f}".replace("-", "−") in found.to_markdown()
    few = report({name: LOSSES[name] for name in ("object", "food", "shape")}).categories
    assert few.correlation("jaccard") is None
    assert "No correlation: 3 types have all figures, and it takes 4." in few.to_markdown()
    assert few.to_dict()["correlation_with_tifa_lost"] == {"spread_ratio": None, "jaccard": None}
    assert "| color | 30 |" in few.to_markdown() and few.to_markdown().count("| – |") == 1
    same = report(dict.fromkeys(LOSSES, change(0.8, 0.7))).categories
    assert "No correlation: a figure is the same in all types." in same.to_markdown()


def test_points_lost_are_positive_and_their_bounds_in_order():
    assert lost(LOSSES["food"]) == pytest.approx(13)
    assert lost_interval(LOSSES["food"]) == pytest.approx((11, 15))
    assert str(lost_interval(Difference(1, 1, Interval(0.0, 0.0)))) == "(0.0, 0.0)"


def test_json_and_csv_hold_the_table():
    found = report({"food": LOSSES["food"]}).categories
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["k"] == K and data["left_out"] == {"spatial": 11}
    assert data["types"]["food"]["prompts"] == 24
    assert data["types"]["food"]["tifa_lost_points"] == pytest.approx(13)
    assert "tifa" not in data["types"]["object"]
    rows = list(csv.DictReader(found.to_csv().splitlines()))
    assert [row["type"] for row in rows] == ["object", "food", "shape", "color"]
    food = rows[1]
    assert (food["prompts"], food["k"], food["tifa_base"], food["tifa_lost_points"]) == ("24", "5", "84", "13")
    assert float(food["spread_ratio"]) == pytest.approx(found.measured[1].spread_ratio.value, rel=1e-5)
    assert (rows[0]["tifa_base"], rows[0]["lost_high"]) == ("", "")


def methods(count=4):
    found: tuple[Point, ...] = ()
    for place in range(count):
        ratio = Estimate(1 - place / 5, 0.9 - place / 5, 1.1 - place / 5)
        one = replace(report(groups=None), spread_ratio=ratio)
        found = joined(found, Point.of(f"method {place}", one, change(0.76, 0.75 - place**2 / 40)))
    return found


def test_methods_keep_their_figures_and_correlate_with_the_base_at_one():
    found = methods()
    again = [Point.from_dict(json.loads(json.dumps(each.to_dict())), "a.json") for each in found]
    assert [each.to_dict() for each in again] == [each.to_dict() for each in found]
    spreads, scores = [1, 1, 0.8, 0.6, 0.4], [0.76, *(0.75 - place**2 / 40 for place in range(4))]
    r = methods_correlation(found)
    assert (r.value, r.low, r.high, r.count) == pytest.approx((*slow_correlation(spreads, scores), 5), rel=1e-9)
    assert methods_correlation(found[:2]) is None


def test_methods_that_do_not_belong_together_are_refused():
    (first, second) = methods(2)
    with pytest.raises(SettingsError, match="Two methods are called 'method 0'"):
        joined((first,), first)
    other = Point(second.name, second.spread_ratio, second.jaccard, second.tifa, {**second.about, "k": 9})
    with pytest.raises(SettingsError, match=r"differ in k \(4 and 9\)"):
        joined((first,), other)
    other = Point(second.name, second.spread_ratio, second.jaccard, change(0.5, 0.4), second.about)
    with pytest.raises(SettingsError, match=r"bases of TIFA 76.00 % and 50.00 %"):
        joined((first,), other)
    for wrong in ({}, None, [1], {**first.to_dict(), "spread_ratio": {"value": "x", "low": 0, "high": 1}}):
        with pytest.raises(SettingsError, match=r"old\.json holds no method"):
            Point.from_dict(wrong, "old.json")


def names_drawn(figure):
    return [text for axes in figure.axes for text in axes.texts if text.get_text()]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_the_page_by_type_names_each_point_within_its_axes_and_apart(theme):
    figure = types_page(report(LOSSES), theme)
    picture = figure_to_image(figure)
    assert picture.width == 1024
    scatters = [axes for axes in figure.axes if axes.get_ylabel().startswith("TIFA lost") or axes.get_xlabel()]
    assert len(scatters) == 2
    for axes in scatters:
        names = [text for text in axes.texts if text.get_text()]
        assert sorted(text.get_text() for text in names) == ["color", "food", "object", "shape"]
        rooms = [text.get_window_extent() for text in names]
        for place, room in enumerate(rooms):
            assert not any(room.overlaps(other) for other in rooms[:place])
            frame = axes.get_window_extent()
            assert frame.x0 <= room.x0 and room.x1 <= frame.x1 and frame.y0 <= room.y0 and room.y1 <= frame.y1


def test_pictures_of_types_without_scores_and_of_methods():
    figure = types_page(report())
    assert len([axes for axes in figure.axes if axes.get_title(loc="left")]) == 2
    assert figure_to_image(figure).height < figure_to_image(types_page(report(LOSSES))).height
    points = methods_figure(methods(3))
    drawn = {text.get_text() for text in names_drawn(points)}
    assert drawn == {"base", "method 0", "method 1", "method 2"}
    assert "r = 0" in points.get_supxlabel() and figure_to_image(points).size == (760, 560)
    with pytest.raises(ValueError, match="no method"):
        methods_figure(())
    empty = report(groups={"food": range(3)})
    assert empty.categories == Categories(K, (), {"food": 3})
    with pytest.raises(ValueError, match="no group"):
        types_page(empty)
