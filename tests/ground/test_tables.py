"""Each format of a table keeps the texts in its cells: Markdown is read back by a small reader of GitHub's rules."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_core.tables import Cell, Table, csv_text, latex, markdown_table, table_cell


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


def test_every_format_keeps_names_that_mean_something_to_it() -> None:
    table = Table(("", "x & y"), [("A_1 & b|c", Cell(1.25, 1, 1.5))], title="50% of <b>", note="n_1", name="t")
    page, text = table.to_html(), table.to_latex()
    assert r"| A_1 & b\|c | 1.2 (1.0 to 1.5) |" in table.to_markdown()
    assert r"A\_1 \& b\textbar{}c & 1.2 \\" in text and r"{\tiny (1.0 to 1.5)}" in text and r"50\% of" in text
    assert "<td>1.2<small>(1.0 to 1.5)</small>" in page and "&lt;b&gt;" in page and "<b>" not in page


def test_latex_numbers_its_own_captions_and_fits_wide_tables() -> None:
    cells = [Cell(-1.25, -2, 0.5, sign=True)] * 5
    wide = Table(("", *"abcde"), [("x-1", *cells)], title="Table 2. Quality", note="Note.", name="table_2").to_latex()
    assert r"\caption{Quality. Note.}" in wide and r"\label{tab:table_2}" in wide
    assert r"\begin{table*}" in wide and r"\end{tabular}}" in wide and r"\resizebox{\textwidth}" in wide
    assert r"x-1 & $-$1.2" in wide and r"{\tiny ($-$2.0 to +0.5)}" in wide
    narrow = Table(("", "a"), [("x", cells[0])], title="Table 4. Space", note="Note.")
    assert "resizebox" not in narrow.to_latex() and r"\end{tabular}" + "\n" in narrow.to_latex()
    assert "<td>−1.2<small>(−2.0 to +0.5)</small>" in narrow.to_html()
    assert "| -1.2 (-2.0 to +0.5) |" in narrow.to_markdown()


def test_latex_reads_no_row_as_its_line_breaks_own_star_or_length() -> None:
    rows = [(name, "1") for name in ("[2cm] name", "*", "plain", "- 3")]
    lines = Table(("method", "x"), rows, note="a\n\nb").to_latex().splitlines()
    assert "{}[2cm] name & 1" + r" \\" in lines and "{}* & 1" + r" \\" in lines and "plain & 1" + r" \\" in lines
    assert not any(re.match(r"\s*[\[*]", line) for line in lines) and "" not in lines and ". a b}" in lines[2]
    assert latex("a\n\n10–20 ≥ 3\\") == r"a 10--20 $\geq$ 3\textbackslash{}"


def test_rows_of_another_origin_stand_apart() -> None:
    table = Table(("", "x"), [("ours", 1), ("theirs", 2)], apart=1)
    assert table.to_latex().index("ours") < table.to_latex().index("midrule\ntheirs")
    assert "<tr><td class=l>ours" in table.to_html() and "<tr class=apart><td class=l>theirs" in table.to_html()


def test_a_change_that_rounds_to_nothing_has_no_sign() -> None:
    assert str(Cell(-0.04, sign=True)) == "0.0" and str(Cell(0.3, -0.04, 0.6, sign=True)) == "+0.3 (0.0 to +0.6)"


def test_csv_keeps_numbers_and_lets_no_spreadsheet_compute_a_text() -> None:
    texts = ["=1+1", "+44", "-", "@x", "\t=1", "-1.5e3", 'a, "b"\nc', "SAGE+"]
    numbers = [-1.5, 0.1 + 0.2, float("nan"), float("-inf"), None, 3]
    found = list(csv.reader(io.StringIO(csv_text(["x"], [texts, numbers]), newline="")))
    assert found[1] == ["'=1+1", "+44", "'-", "'@x", "'\t=1", "-1.5e3", 'a, "b"\nc', "SAGE+"]
    assert found[2] == ["-1.5", "0.30000000000000004", "", "", "", "3"]
