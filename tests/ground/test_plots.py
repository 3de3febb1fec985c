"""The house style: labels, and a colour for each method."""

from __future__ import annotations

import pytest

from sage_core.plots import DARK, LIGHT, label


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", "a cat"),
        ("two\n lines", "two lines"),
        ("abcdefghijklmnop", "abcdefg…mnop"),
        ("猫" * 12, "□" * 3 + "…" + "□" * 2),
    ],
)
def test_labels_are_cut_in_the_middle(text, expected):
    found = label(text, 12)
    assert found.replace("猫", "□") == expected


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_each_method_has_a_colour_of_its_own(theme):
    colors = [theme.method(place) for place in range(9)]
    assert len({*colors, theme.background, theme.text, theme.muted}) == 12 and colors[0] == theme.base
    assert theme.method(9) == colors[1] and theme.about(3).aligned == colors[3] and theme.about(3).base == theme.base
