"""How a person finds a node and reads about it: by its name and other words, and on its help page."""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path

import pytest

from node_entries import ENTRIES, NODES, SEARCHES

PAGES = sorted((NODES / "web" / "docs").glob("*.md"))
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


# Letters of the widest words of a table's columns together, and two a column beside them: what fits the side bar.
_WIDEST = 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_nothing_twice_and_its_tables_fit_the_side_bar(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```|^\|.*$", "", text, flags=re.DOTALL | re.MULTILINE)
    sentences = [each for each in re.split(r"(?<=[.:?])\s+|\n+", prose) if len(each.split()) > 5]
    assert len(sentences) == len(set(sentences))
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [line.strip("| ").replace("`", "").split("|") for line in table.splitlines() if "| --- |" not in line]
        columns = zip_longest(*rows, fillvalue="")
        widths = [max(len(word) for cell in column for word in re.split(r"[\s/-]+", cell)) for column in columns]
        assert sum(widths) + 2 * len(widths) <= _WIDEST, widths


def rank(query: str, node: str) -> tuple[int, int, bool]:
    """How the frontend sorts what it finds: what begins with the query, what has it as a word, what has it as alias."""
    query, names = query.lower(), (node, ENTRIES[node].name)
    words = {word.lower() for name in names for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
    begins = [len(name) for name in names if name.lower().startswith(query)]
    other = query not in ENTRIES[node].aliases
    if begins or query in words:
        return (1, min(begins), other) if begins else (2, min(map(len, names)), other)
    return 9, 0, other


def test_names_begin_with_sage_and_every_page_has_its_nodes_name() -> None:
    assert {page.stem for page in PAGES} == set(ENTRIES)
    for page in PAGES:
        name = ENTRIES[page.stem].name
        assert name.startswith("SAGE ") and page.read_text(encoding="utf-8").startswith(f"# {name}\n"), page.stem
    assert {entry.category for entry in ENTRIES.values()} == {
        f"SAGE/{topic}" for topic in ("text", "unet", "train", "score", "inspect")
    }


@pytest.mark.parametrize("query", SEARCHES)
def test_a_search_shows_the_right_node_first_or_second(query: str) -> None:
    ranked = sorted(ENTRIES, key=lambda node: rank(query, node))
    assert SEARCHES[query] & {*ranked[:2]}, ranked[:4]
    assert rank(query, ranked[0]) < (9, 0, True), "nothing is found by it"
