"""Tables of numbers with intervals, as Markdown, LaTeX, CSV and HTML."""

from __future__ import annotations

import csv
import html
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..tables import markdown_table

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip
# Columns of numbers that fit into one column of a page.
_NARROW = 4
_NUMBERED = re.compile(r"^Table \d+\. ")
_NEGATIVE = re.compile(r"(?<![\w-])-(?=\d)")
_SPECIAL = re.compile("[" + re.escape("".join(_LATEX)) + "]")
MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """A number with the bounds of its 95% interval, where it has one; `digits` after the point, `sign` before it."""

    value: float | None
    low: float | None = None
    high: float | None = None
    digits: int = 1
    sign: bool = False

    @property
    def number(self) -> str:
        """The number alone."""
        return MISSING if self.value is None else self._text(self.value)

    @property
    def interval(self) -> str:
        """The bounds in brackets; nothing without them."""
        if self.low is None or self.high is None:
            return ""
        return f"({self._text(self.low)} to {self._text(self.high)})"

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
        name: of its files, such as "table_2".
        title: above it.
        note: below it: what the numbers are and how sure.
        columns: titles.
        rows: by method, a cell for each column; missing ones are left blank.
        published: rows of the paper, by method and column.
    """

    name: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Cell]]
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def _lines(self) -> list[tuple[str, list[Cell], bool]]:
        """Name, cells and whether it is published, of every row."""
        lines = [
            (name, [row.get(column, Cell(None)) for column in self.columns], False) for name, row in self.rows.items()
        ]
        for name, numbers in self.published.items():
            cells = [
                Cell(numbers.get(column), digits=2 if column in ("FID", *_RATIOS) else 1) for column in self.columns
            ]
            lines.append((f"{name}, published", cells, True))
        return lines

    def to_markdown(self) -> str:
        """Title, table and note."""
        header = ["", *self.columns]
        rows = [[name, *map(str, cells)] for name, cells, _ in self._lines]
        return f"**{self.title}**\n\n{markdown_table(header, rows, 'l' + 'r' * len(self.columns))}\n\n{self.note}\n"

    def to_latex(self) -> str:
        """A table for LaTeX with the packages booktabs and graphicx; intervals stand small below their numbers.

        A wide one takes both columns of a page and is made to fit. LaTeX numbers its caption itself.
        """
        wide = len(self.columns) > _NARROW
        kind, caption = ("table*" if wide else "table"), _NUMBERED.sub("", self.title)
        lines = [
            rf"\begin{{{kind}}}", r"\centering", rf"\caption{{{_latex(caption)}. {_latex(self.note)}}}",
            rf"\label{{tab:{self.name}}}", *([r"\resizebox{\textwidth}{!}{%"] if wide else []),
            r"\begin{tabular}{l" + "r" * len(self.columns) + "}", r"\toprule",
            " & ".join(["", *map(_latex, self.columns)]) + r" \\", r"\midrule",
        ]  # fmt: skip
        published = False
        for name, cells, is_published in self._lines:
            if is_published and not published:
                lines.append(r"\midrule")
            published = is_published
            lines.append(" & ".join([_latex(name), *(_dash(cell.number) for cell in cells)]) + r" \\")
            if any(cell.interval for cell in cells):
                small = (rf"{{\tiny {_dash(cell.interval)}}}" if cell.interval else "" for cell in cells)
                lines.append(" & ".join(["", *small]) + r" \\")
        ends = [r"\bottomrule", r"\end{tabular}" + ("}" if wide else ""), rf"\end{{{kind}}}"]
        return "\n".join([*lines, *ends]) + "\n"

    def to_csv(self) -> str:
        """A row for each method, and for each column its number and bounds in full precision."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["method", "source", *(f"{c}{end}" for c in self.columns for end in ("", " low", " high"))])
        for name, cells, published in self._lines:
            source = "published" if published else "measured"
            numbers = (_plain(value) for cell in cells for value in (cell.value, cell.low, cell.high))
            writer.writerow([name.removesuffix(", published") if published else name, source, *numbers])
        return text.getvalue()

    def to_html(self) -> str:
        """The table and its note."""
        head = "".join(f"<th>{html.escape(column)}" for column in ("", *self.columns))
        rows = "".join(
            f"<tr{' class=published' if published else ''}><td>{html.escape(name)}"
            + "".join(_NEGATIVE.sub("−", f"<td>{cell.number}<small>{cell.interval}</small>") for cell in cells)
            for name, cells, published in self._lines
        )
        title, note = html.escape(self.title), html.escape(self.note)
        return f"<h2>{title}</h2><div class=table><table><tr>{head}{rows}</table></div><p class=note>{note}</p>"


_RATIOS = ("spread ratio", "Jaccard")


def _latex(text: str) -> str:
    return _dash(_SPECIAL.sub(lambda found: _LATEX[found[0]], text))


def _dash(text: str) -> str:
    text = _NEGATIVE.sub("$-$", text)
    return text.replace(MISSING, "--").replace("≥", r"$\geq$").replace("±", r"$\pm$")


def _plain(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else repr(float(value))


def joined_bounds(values: Sequence[float], bounds: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Interval of the mean of independent numbers: their distances joined by squares (Zou and Donner, 2008)."""
    found = list(zip(values, bounds, strict=True))
    mean = sum(values) / len(values)
    below = math.sqrt(sum((value - low) ** 2 for value, (low, _) in found)) / len(values)
    above = math.sqrt(sum((high - value) ** 2 for value, (_, high) in found)) / len(values)
    return mean - below, mean + above
