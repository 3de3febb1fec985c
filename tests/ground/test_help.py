"""The nodes' help pages answer in the order in which a person asks, and stay short."""

from __future__ import annotations

from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parents[2] / "nodes" / "web" / "docs").glob("*.md"))
# What nearly every page has, in this order; only the first is a must for nodes without numbers.
ORDER = ("**When to use it**:", "**What the numbers mean**", "**Pitfalls**")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_what_it_is_when_to_use_it_and_stays_short(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    title, first, when, *_ = text.split("\n\n")
    assert title.startswith("# ") and "\n" not in title
    assert not first.startswith(("|", "-", "**")), "the first paragraph says what the node does"
    assert when.startswith(ORDER[0])
    places = [text.find(mark) for mark in ORDER if mark in text]
    assert places == sorted(places)
    assert len(text.splitlines()) <= 80 and text.endswith("\n") and "\n\n\n" not in text
    assert text.count(ORDER[0]) == 1
    tables = text.count("| output |") + text.count("**Output**") + text.count("**Outputs**")
    assert tables >= 1, "a page says what comes out"
