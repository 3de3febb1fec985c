"""Tables read back by a small reader of GitHub's rules: each cell is the text that went in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_core.tables import markdown_table, table_cell


def cells_of(line: str) -> list[str]:
    """GitHub's rule: a bar ends a cell unless a backslash stands before it that no backslash escapes."""
    cells, cell, position = [], "", 1
    while position < len(line):
        if line[position] == "\\" and line[position + 1 : position + 2] in ("|", "\\", "`"):
            cell += line[position + 1]
            position += 2
        elif line[position] == "|":
            cells.append(cell.strip())
            cell = ""
            position += 1
        else:
            cell += line[position]
            position += 1
    assert not cell, "nothing stands behind the last bar"
    return cells


def test_a_table_as_it_is_written() -> None:
    assert markdown_table(("", "%"), [("a", 1.5), ("", None)]) == "| | % |\n| --- | --- |\n| a | 1.5 |\n| | None |"
    assert markdown_table("abc", [], align="lcr").splitlines()[1] == "| --- | :---: | ---: |"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("a | b", r"a \| b"),
        ("two\nlines\r\nand\ttabs  ", "two lines and tabs"),
        ("line\u2028separator", "line separator"),
        (r"a\|b", r"a\\\|b"),
        ("`code` stays", "`code` stays"),
        ("one ` tick", r"one \` tick"),
        ("**bold**", "**bold**"),
        (3, "3"),
    ],
)
def test_cells(value: object, cell: str) -> None:
    assert table_cell(value) == cell


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(st.lists(st.lists(st.text("a|`\\\n *", max_size=8), min_size=3, max_size=3), max_size=4))
def test_no_text_breaks_a_table(rows: list[list[str]]) -> None:
    lines = markdown_table(("x", "y", "z"), rows).split("\n")
    assert len(lines) == len(rows) + 2
    for line, row in zip(lines[2:], rows, strict=True):
        found = cells_of(line)
        assert len(found) == 3
        # A pair of backslashes reads as one: of texts that hold some only the columns must stay.
        if not any("\\" in text for text in row):
            assert found == [" ".join(text.split()) for text in row]


def test_columns_are_counted() -> None:
    with pytest.raises(ValueError, match="2 cells in a table of 3"):
        markdown_table("abc", [("a", "b")])
    with pytest.raises(ValueError, match="2 cells in a table of 3"):
        markdown_table("abc", [], align="lr")
