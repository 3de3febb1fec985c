"""Markdown tables that stay tables, whatever text stands in their cells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_RULES = {"l": "---", "c": ":---:", "r": "---:"}
_BAR = re.compile(r"(\\*)\|")


def markdown_table(header: Sequence[object], rows: Iterable[Sequence[object]], align: str | None = None) -> str:
    r"""A Markdown table, without a line break at its end.

    Args:
        header: a title a column; it may be empty.
        rows: a cell a column each. Cells are turned to text and may hold Markdown, as `**bold**`.
        align: a letter a column, "l", "c" or "r"; the reader's default if none is given.

    Raises:
        ValueError: a row or `align` has another number of columns than the header.
    """
    rules = [_RULES[letter] for letter in align] if align is not None else ["---"] * len(header)
    lines = [[table_cell(cell) for cell in header], rules, *([table_cell(cell) for cell in row] for row in rows)]
    for cells in lines:
        if len(cells) != len(header):
            raise ValueError(f"A row of {len(cells)} cells in a table of {len(header)} columns: {cells}.")
    return "\n".join("|" + "".join(f" {cell} |" if cell else " |" for cell in cells) for cells in lines)


def table_cell(value: object) -> str:
    r"""A value as the text of one cell: on one line, with its bars escaped, so that no cell begins within it.

    A backslash before a bar is doubled, or it would escape the escape. Backticks are escaped where one of them has no
    partner: some readers would find it in the next cell, and the bar between would be code.
    """
    text = _BAR.sub(lambda found: 2 * found[1] + r"\|", " ".join(str(value).split()))
    return text.replace("`", r"\`") if text.count("`") % 2 else text
