"""Columns of prompts from CSV, JSON, JSON Lines and plain text files in any common encoding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import PromptError
from ..rows import Row, RowFile, read_rows, shown, text_problem

PROMPT = "prompt"


class Line(NamedTuple):
    """One prompt, and the line of the file where it begins or its item in a JSON list, counted from 1."""

    row: int
    text: str


Columns = dict[str, list[Line]]


def read_columns(path: Path, wanted: Sequence[str]) -> tuple[Columns, tuple[str, ...]]:
    """The `wanted` columns of a prompt file, texts stripped and possibly empty, and notes on how it was read.

    The suffix tells the format. .csv and .tsv have a header in any case and order, may have further columns, and are
    separated by comma, semicolon or tab. .json holds a list of texts, a list of objects, or an object of lists. .jsonl
    holds a text or an object on each line, .txt a prompt on each line. Plain texts form the column `prompt`. Columns
    have equal lengths, except in a JSON object of lists. UTF-8, UTF-16 and, with a note, Windows-1252 are read.

    Raises:
        PromptError: the file cannot be used; the message names it, and the row or the columns.
    """
    file = read_rows(path, wanted, error=PromptError)
    if file.columns is not None:
        _require(path, list(file.columns), wanted)
        return {name: _lines(enumerate(file.columns[name], 1), path, name) for name in wanted}, file.notes
    rows = [(row.number, record(row, path)) for row in file.rows]
    _require(path, _names(file, rows), wanted)
    return {name: _lines(((row, item.get(name)) for row, item in rows), path, name) for name in wanted}, file.notes


def record(row: Row, path: Path) -> dict[str, Any]:
    """A row's values by column; raises PromptError for one that cannot be read or is neither a text nor an object."""
    if row.problem is not None:
        raise PromptError(f"{path}, line {row.number}: {row.problem}.")
    if isinstance(row.value, str):
        return {PROMPT: row.value}
    if not isinstance(row.value, dict):
        raise PromptError(f"{path}, row {row.number}: found {shown(row.value)}, expected a text or an object.")
    return row.value


def _names(file: RowFile, rows: Sequence[tuple[int, dict[str, Any]]]) -> Sequence[str]:
    if file.header is not None:
        return file.header
    # A text file has its one column even if it is empty.
    return [PROMPT] if file.path.suffix.lower() == ".txt" else list(dict.fromkeys(name for _, r in rows for name in r))


def _lines(values: Iterable[tuple[int, Any]], path: Path, name: str) -> list[Line]:
    return [Line(row, text_of("" if value is None else value, path, row, name)) for row, value in values]


def text_of(value: Any, path: Path, row: int, name: str) -> str:
    """A cell without blanks around it; raises PromptError unless it is text."""
    if not isinstance(value, str):
        raise PromptError(f"{path}, row {row}: '{name}' is {shown(value)}, expected a text.")
    if problem := text_problem(value):
        raise PromptError(f"{path}, row {row}: '{name}' holds {problem}.")
    return value.strip()


def spelled(names: Sequence[str]) -> str:
    """The first of some columns' names, for a message."""
    return ", ".join(f"'{name[:40]}'" for name in names[:10]).encode("utf-8", "backslashreplace").decode() or "none"


def _require(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        raise PromptError(
            f"{path} lacks the column {' and '.join(repr(name) for name in missing)}; "
            f"the columns found: {spelled(found)}. "
            "Expected: the column 'prompt' in a list of prompts, 'safe' and 'unsafe' in a file of pairs."
        )
