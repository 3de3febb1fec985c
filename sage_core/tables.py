"""Tables of texts and numbers as Markdown, HTML, LaTeX and CSV, whatever text stands in their cells.

Each format has its escaping here and nowhere else.
"""

from __future__ import annotations

import csv
import html
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_RULES = {"l": "---", "c": ":---:", "r": "---:"}
# From the first of the backslashes, or a long row of them would be looked through from each.
_BAR = re.compile(r"(?<!\\)(\\*)\|")
_TAG = re.compile(r"(?<!\\)(\\*)<(?=[A-Za-z/!?])")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "–": "--", "≥": r"$\geq$", "±": r"$\pm$",
}  # fmt: skip
_SPECIAL = re.compile("[" + re.escape("".join(_LATEX)) + "]")
_NEGATIVE = re.compile(r"(?<![\w-])-(?=\d)")
_NUMBERED = re.compile(r"^Table \d+\. ")
# Columns of numbers that fit into one column of a page.
_NARROW = 4
MISSING = "–"
# Percentage points: an interval as wide as this says nothing.
VAGUE = 60.0


@dataclass(frozen=True)
class Cell:
    """A number with the bounds of its 95% interval, where it has one; `digits` after the point, `sign` before it.

    Of percentages `few` says what there may be too few of, such as "captions": words stand in the place of an interval
    that says nothing.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    digits: int = 1
    sign: bool = False
    few: str = ""

    @property
    def number(self) -> str:
        """The number alone."""
        return MISSING if self.value is None else self._text(self.value)

    @property
    def interval(self) -> str:
        """The bounds in brackets, or that there is too little to tell; nothing where there need be none."""
        if self.vague:
            return f"(too few {self.few})"
        if self.low is None or self.high is None:
            return ""
        return f"({self._text(self.low)} to {self._text(self.high)})"

    @property
    def vague(self) -> bool:
        """Whether a percentage comes of so few that its interval says nothing."""
        if not self.few or self.value is None:
            return False
        return self.low is None or self.high is None or not self.high - self.low < VAGUE

    def __str__(self) -> str:
        return f"{self.number} {self.interval}".strip()

    def _text(self, value: float) -> str:
        text = f"{value:{'+' if self.sign else ''}.{self.digits}f}"
        # What rounds to zero has no sign.
        return text.lstrip("+-") if not float(text) else text


def p_cell(value: float | None) -> Cell:
    """A p-value."""
    return Cell(value, digits=4 if value is not None and value < 0.01 else 2)


@dataclass(frozen=True)
class Table:
    """Rows of cells under the same columns.

    Attributes:
        header: one title for each column; a title may be empty.
        rows: one cell for each column: a `Cell`, or anything else as its text.
        align: one letter for each column, "l", "c" or "r"; by default the first is on the left, numbers on the right.
        title: above it.
        note: below it.
        name: what LaTeX refers to it by.
        apart: how many rows at the end are of another origin and look so.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    align: str = ""
    title: str = ""
    note: str = ""
    name: str = ""
    apart: int = 0

    @property
    def _align(self) -> str:
        return self.align or "l" + "r" * (len(self.header) - 1)

    def to_markdown(self) -> str:
        """Title, table and note, without a line break at the end."""
        title = f"**{markdown(self.title)}**" if self.title else ""
        table = markdown_table(self.header, self.rows, self._align)
        return "\n\n".join(filter(None, [title, table, markdown(self.note)]))

    def to_csv(self) -> str:
        """Header and rows; numbers in full precision, the bounds of intervals in columns of their own."""
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.header)
        bounded = [any(isinstance(cell, Cell) and cell.low is not None for cell in column) for column in columns]
        header: list[str] = []
        for title, both in zip(self.header, bounded, strict=True):
            header += [title, f"{title} low", f"{title} high"] if both else [title]
        rows = []
        for row in self.rows:
            values: list[object] = []
            for cell, both in zip(row, bounded, strict=True):
                value, *bounds = (cell.value, cell.low, cell.high) if isinstance(cell, Cell) else (cell, None, None)
                values += [value, *bounds] if both else [value]
            rows.append(values)
        return csv_text(header, rows)

    def to_html(self) -> str:
        """Title, table and note; intervals stand small below their numbers."""
        title = f"<h2>{html.escape(self.title)}</h2>" if self.title else ""
        note = f"<p class=note>{html.escape(self.note)}</p>" if self.note else ""
        sides = [f" class={letter}" if letter != "r" else "" for letter in self._align]
        head = "".join(f"<th{side}>{html.escape(each)}" for side, each in zip(sides, self.header, strict=True))
        rows = "".join(
            f"<tr{' class=apart' if len(self.rows) - place <= self.apart else ''}>"
            + "".join(f"<td{side}>{_html_cell(cell)}" for side, cell in zip(sides, row, strict=True))
            for place, row in enumerate(self.rows)
        )
        return f"{title}<div class=table><table><tr>{head}{rows}</table></div>{note}"

    def to_latex(self) -> str:
        """A table for LaTeX with the packages booktabs and graphicx; intervals stand small below their numbers.

        A wide one takes both columns of a page and is made to fit. LaTeX numbers its caption itself.
        """
        wide = len(self.header) - 1 > _NARROW
        kind, caption = ("table*" if wide else "table"), _NUMBERED.sub("", self.title)
        lines = [
            rf"\begin{{{kind}}}", r"\centering", rf"\caption{{{latex(caption)}. {latex(self.note)}}}",
            rf"\label{{tab:{self.name}}}", *([r"\resizebox{\textwidth}{!}{%"] if wide else []),
            rf"\begin{{tabular}}{{{self._align}}}", r"\toprule", _latex_row(self.header), r"\midrule",
        ]  # fmt: skip
        for place, row in enumerate(self.rows):
            if place == len(self.rows) - self.apart:
                lines.append(r"\midrule")
            lines.append(_latex_row([cell.number if isinstance(cell, Cell) else str(cell) for cell in row]))
            below = [cell.interval if isinstance(cell, Cell) else "" for cell in row]
            if any(below):
                lines.append(_latex_row(below, r"{{\tiny {}}}"))
        ends = [r"\bottomrule", r"\end{tabular}" + ("}" if wide else ""), rf"\end{{{kind}}}"]
        return "\n".join([*lines, *ends]) + "\n"


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


def markdown(text: str) -> str:
    r"""A text as Markdown, in which no tag begins: a viewer would take it for HTML, and a script of it for one to run.

    As before a bar, a backslash before it is doubled: it would escape the escape.
    """
    return _TAG.sub(lambda found: 2 * found[1] + r"\<", text)


def table_cell(value: object) -> str:
    r"""A value as the text of one cell of Markdown: on one line, with its bars escaped, so that no cell begins within.

    A backslash before a bar is doubled: it would escape the escape. If a backtick has no partner, all are escaped: some
    viewers would pair it with one in the next cell and take the bar between them for code.
    """
    text = _BAR.sub(lambda found: 2 * found[1] + r"\|", markdown(" ".join(str(value).split())))
    return text.replace("`", r"\`") if text.count("`") % 2 else text


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV, numbers in full precision, empty where there is none or it is not finite.

    A spreadsheet computes a cell that begins with =, +, - or @: before a text that begins so stands an apostrophe.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_csv_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def latex(text: str) -> str:
    """A text as LaTeX shows it, on one line: an empty one would end a caption before its brace."""
    return _NEGATIVE.sub("$-$", _SPECIAL.sub(lambda found: _LATEX[found[0]], " ".join(text.split())))


def _latex_row(cells: Sequence[str], around: str = "{}") -> str:
    line = " & ".join(around.format(latex(cell)) if cell else "" for cell in cells) + r" \\"
    # After the row before it, a star or a bracket would be read as that line break's own.
    return "{}" + line if line[0] in "[*" else line


def _html_cell(cell: object) -> str:
    if isinstance(cell, Cell):
        return _NEGATIVE.sub("−", f"{cell.number}<small>{cell.interval}</small>")
    return html.escape(str(cell))


def _csv_cell(cell: object) -> str:
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return ""
    text = str(cell)
    return f"'{text}" if isinstance(cell, str) and text[:1] in tuple("=+-@\t\r") and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
