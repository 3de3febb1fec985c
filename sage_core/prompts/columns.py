"""Columns of prompts out of CSV, JSON, JSON Lines and plain text files, whatever their encoding."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import PromptError

PROMPT = "prompt"
# JSON can spell half a surrogate pair, which is no text: no tokenizer and no file takes it.
_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")


class Line(NamedTuple):
    """One prompt and where it stands: the line of the file where it begins, or the item of a JSON list; from 1."""

    row: int
    text: str


Columns = dict[str, list[Line]]


def read_columns(path: Path, wanted: Sequence[str]) -> tuple[Columns, tuple[str, ...]]:
    """The `wanted` columns of a prompt file, texts stripped and possibly empty, and notes on how it was read.

    The suffix tells the format. .csv, .tsv: a header in any case and order, further columns allowed, comma, semicolon
    or tab. .json: a list of texts, a list of objects, or an object of lists. .jsonl: a text or an object a line.
    .txt: a prompt a line. Plain texts form the column `prompt`. Columns have equal lengths except in a JSON object of
    lists. UTF-8, UTF-16 and, with a note, Windows-1252 are read. Raises PromptError naming file, row and columns.
    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise PromptError(f"{path} has the suffix '{path.suffix}', expected one of {', '.join(_PARSERS)}.")
    if not path.is_file():
        raise PromptError(f"{path} does not exist: expected a file of prompts.")
    text, notes = _decode(path)
    return parse(text, path, wanted), notes


def _decode(path: Path) -> tuple[str, tuple[str, ...]]:
    content = path.read_bytes()
    encodings = ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        if encoding == "cp1252":
            return text, (f"{path.name} is not UTF-8; it was read as Windows-1252 (Latin-1): check its accents.",)
        return text, ()
    raise PromptError(f"{path} is no text file in UTF-8, UTF-16 or Latin-1. Save it as CSV or text in UTF-8.")


def _parse_csv(text: str, path: Path, wanted: Sequence[str]) -> Columns:
    delimiter = _delimiter(text, wanted)
    # strict: without it one unclosed quote swallows the rest of the file unnoticed.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [cell.strip().lower() for cell in next(reader, [])]
        _require(path, names, wanted)
        places = [names.index(name) for name in wanted]
        columns: Columns = {name: [] for name in wanted}
        row = reader.line_num + 1
        for cells in reader:
            if len(names) == 1:
                # The only column: a delimiter in an unquoted text separates nothing.
                cells = [delimiter.join(cells)]
            # Spreadsheets fill rows up with empty cells.
            while len(cells) > len(names) and not cells[-1].strip():
                cells.pop()
            if len(cells) > len(names):
                raise PromptError(
                    f"{path}, line {row}: found {len(cells)} fields, expected {len(names)} ({', '.join(names)}). "
                    f"Put a text that contains '{delimiter}' in double quotes."
                )
            for name, place in zip(wanted, places, strict=True):
                columns[name].append(Line(row, cells[place].strip() if place < len(cells) else ""))
            row = reader.line_num + 1
    except csv.Error as error:
        raise PromptError(
            f"{path}, line {reader.line_num}: {error}. Check the quotes: a quote inside a quoted text is written twice."
        ) from error
    return columns


def _delimiter(text: str, wanted: Sequence[str]) -> str:
    header = text.splitlines()[0] if text else ""
    for delimiter in ",;\t":
        if {cell.strip().strip('"').lower() for cell in header.split(delimiter)} & set(wanted):
            return delimiter
    return ","


def _parse_json(text: str, path: Path, wanted: Sequence[str]) -> Columns:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise PromptError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}).") from error
    if isinstance(content, dict):
        lists = {str(name).strip().lower(): items for name, items in content.items()}
        _require(path, list(lists), wanted)
        for name in wanted:
            if not isinstance(lists[name], list):
                raise PromptError(f"{path}: '{name}' is a {type(lists[name]).__name__}, expected a list of texts.")
        return {name: _lines(enumerate(lists[name], 1), path, name) for name in wanted}
    if not isinstance(content, list):
        raise PromptError(f"{path} holds a {type(content).__name__}, expected a list of prompts.")
    return _from_records(list(enumerate(content, 1)), path, wanted)


def _parse_json_lines(text: str, path: Path, wanted: Sequence[str]) -> Columns:
    records = []
    for row, line in enumerate(_split_lines(text), 1):
        if line.strip():
            try:
                records.append((row, json.loads(line)))
            except json.JSONDecodeError as error:
                raise PromptError(f"{path}, line {row}: not valid JSON ({error.msg}).") from error
    return _from_records(records, path, wanted)


def _parse_text(text: str, path: Path, wanted: Sequence[str]) -> Columns:
    _require(path, [PROMPT], wanted)
    return {PROMPT: [Line(row, line.strip()) for row, line in enumerate(_split_lines(text), 1)]}


_PARSERS: dict[str, Callable[[str, Path, Sequence[str]], Columns]] = {
    ".csv": _parse_csv,
    ".tsv": _parse_csv,
    ".json": _parse_json,
    ".jsonl": _parse_json_lines,
    ".txt": _parse_text,
}


def _from_records(records: list[tuple[int, Any]], path: Path, wanted: Sequence[str]) -> Columns:
    rows = []
    for row, item in records:
        if isinstance(item, str):
            item = {PROMPT: item}
        if not isinstance(item, dict):
            raise PromptError(f"{path}, row {row}: found {json.dumps(item)[:40]}, expected a text or an object.")
        rows.append((row, {str(name).strip().lower(): value for name, value in item.items()}))
    _require(path, list(dict.fromkeys(name for _, item in rows for name in item)), wanted)
    return {name: _lines(((row, item.get(name)) for row, item in rows), path, name) for name in wanted}


def _lines(values: Any, path: Path, name: str) -> list[Line]:
    lines = []
    for row, value in values:
        if not isinstance(value, str | None):
            raise PromptError(f"{path}, row {row}: '{name}' is {json.dumps(value)[:40]}, expected a text.")
        text = (value or "").strip()
        if half := _HALF_CHARACTER.search(text):
            raise PromptError(
                f"{path}, row {row}: '{name}' holds {half[0]!a}, half of a character that JSON writes as two, "
                "expected whole ones. Write the file anew with its emoji whole, or leave the half out."
            )
        lines.append(Line(row, text))
    return lines


def _require(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        shown = ", ".join(f"'{name[:40]}'" for name in found[:8]) or "none"
        raise PromptError(
            f"{path} lacks the column {' and '.join(repr(name) for name in missing)}; the columns found: {shown}. "
            "Expected: the column 'prompt' in a list of prompts, 'safe' and 'unsafe' in a file of pairs."
        )


def _split_lines(text: str) -> list[str]:
    # str.splitlines would also split at characters such as U+2028, which may stand inside a prompt.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines
