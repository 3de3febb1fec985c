"""The house style: labels."""

from __future__ import annotations

import pytest

from sage_core.plots import label


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
