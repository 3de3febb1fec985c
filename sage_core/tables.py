"""Markdown tables that stay tables, whatever text stands in their cells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_RULES = {"l": "---", "c": ":---:", "r": "---:"}
_BAR = re.compile(r"(\\*)\|")


def markdown_table(header: Sequence[object], rows: Iterable[Sequence[object]], align: str | None = None) -> str:
    r"""A Markdown table, without a line break at its end.

    Args:
        header: one title for each column; a title may be empty.
        rows: one cell for each column. Cells are turned into text and may hold Markdown such as `**bold**`.
        align: one letter for each column, "l", "c" or "r"; without it the viewer decides.

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

    A backslash before a bar is doubled: it would escape the escape. If a backtick has no partner, all are escaped: some
    viewers would pair it with one in the next cell and take the bar between them for code.
    """
    text = _BAR.sub(lambda found: 2 * found[1] + r"\|", " ".join(str(value).split()))
    return text.replace("`", r"\`") if text.count("`") % 2 else text
