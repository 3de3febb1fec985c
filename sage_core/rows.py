"""The one reader of rows: from CSV, TSV, JSON, JSON Lines and plain text files in any common encoding.

The caller decides what rows mean; this module deals with broken files. Every failure is an error of the caller's kind
that names the file and the line, never the traceback of a parser.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .errors import PromptError, SageError

# JSON can spell half a surrogate pair, which is not a character. No tokenizer and no file takes it, nor the NUL.
_NO_TEXT = re.compile(r"[\ud800-\udfff\0]")
# All but line breaks and tabs; what turns the direction of writing; and halves of characters.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SHOWN = 40
# Of TOML: texts on one line, closed or not, a part of a key, and how many parts a key may have.
_QUOTED = re.compile(r"""\"(?:[^\"\\\n]|\\.)*\"?|'[^'\n]*'?""")
_BARE_KEY = re.compile(r"\s*[\w-]+\s*")
_MOST_PARTS = 100


class Row(NamedTuple):
    """One row and where it stands.

    Attributes:
        number: the line of the file where the row begins, or the item of a JSON list, counted from 1.
        value: a text from a plain text file; a dict of lower-case names to cells from a table, empty for a blank line;
            any value from JSON, an object with lower-case names.
        problem: why this row cannot be read, None if it can; the rows after it are read all the same.
    """

    number: int
    value: Any
    problem: str | None = None


@dataclass(frozen=True)
class RowFile:
    """All rows of a file.

    Attributes:
        path: the file.
        rows: in their order.
        header: column names of a table (CSV, TSV), in lower case; None for other formats.
        columns: lists by lower-case name where a JSON object of lists was read; `rows` is empty then.
        notes: what the user should know about how the file was read.
    """

    path: Path
    rows: tuple[Row, ...]
    header: tuple[str, ...] | None = None
    columns: Mapping[str, list[Any]] | None = None
    notes: tuple[str, ...] = ()


class _Source(NamedTuple):
    path: Path
    text: str
    known: frozenset[str]
    error: type[SageError]


def read_rows(
    path: Path, known: Collection[str], *, error: type[SageError], suffixes: Sequence[str] | None = None
) -> RowFile:
    """Read a file by its suffix.

    .csv and .tsv hold a header, then rows, separated by comma, semicolon or tab. .json holds a list, or an object of
    lists. .jsonl holds one value on each line. .txt holds one text on each line, which is kept as it is. UTF-8 and
    UTF-16 are read, and Windows-1252 with a note.

    Args:
        path: the file.
        known: column names, which tell the delimiter of a table.
        error: the kind of error to raise.
        suffixes: those allowed; all by default.

    Raises:
        SageError: of the kind `error`, if the file cannot be read to its end. A fault of a single row is that row's
            `problem` instead.
    """
    allowed = suffixes or tuple(_PARSERS)
    suffix = path.suffix.lower()
    if suffix not in allowed:
        raise error(f"{path} has the suffix '{path.suffix}', expected one of {', '.join(allowed)}.")
    text, notes = read_text(path, error)
    found = _PARSERS[suffix](_Source(path, text, frozenset(known), error))
    return RowFile(path, found.rows, found.header, found.columns, notes)


def typed_lines(texts: Iterable[str], *, error: type[SageError] = PromptError) -> list[str]:
    """The lines that are not blank, stripped, of texts typed with one entry on each line.

    Raises:
        SageError: of the kind `error`, naming the line, if a line holds a character that is not text.
    """
    lines = [line.strip() for text in texts for line in split_lines(text)]
    for number, line in enumerate(lines, 1):
        if problem := text_problem(line):
            raise error(f"Line {number} holds {problem}.")
    return [line for line in lines if line]


def split_lines(text: str) -> list[str]:
    r"""Lines that end in \n, \r\n or \r, without these; a final line end adds no empty line."""
    # str.splitlines would also split at characters such as U+2028, which may stand inside a text.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def text_problem(text: str) -> str | None:
    """What a text holds that no tokenizer and no file takes, in words that follow "holds"; None if nothing."""
    if not (found := _NO_TEXT.search(text)):
        return None
    if found[0] == "\0":
        return "the character NUL, expected text without it. Leave it out"
    return (
        f"{found[0]!a}, half of a character that JSON writes as two, expected whole ones. "
        "Write the file anew with its emoji whole, or leave the half out"
    )


def printable(text: str) -> str:
    r"""A text for a terminal, which takes control characters for commands: they are spelled \u001b, as in JSON."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def parse_json(text: str | bytes, *, constants: bool = False) -> Any:
    """A JSON value whose numbers are finite.

    With `constants` NaN and Infinity, which JSON does not know, and numbers beyond every float are left to who looks at
    each row.

    Raises:
        ValueError: with a message that says why it cannot be read, whatever the parser itself raised.
    """
    try:
        if constants:
            return json.loads(text)
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error.msg}, column {error.colno})") from error
    except RecursionError as error:
        raise ValueError("not readable JSON: it is nested too deep") from error
    except ValueError as error:
        # Python refuses integers of more than 4,300 digits, and bytes that are not UTF-8.
        raise ValueError(f"not readable JSON ({error})") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """The JSON in a file that this program wrote: a record, scores, a report.

    Raises:
        ValueError: as `parse_json`. OSError: the file cannot be read.
    """
    return parse_json(Path(path).read_text(encoding="utf-8"))


def parse_toml(text: str) -> dict[str, Any]:
    """A TOML document.

    Raises:
        ValueError: with a message that says why it cannot be read, whatever the parser itself raised.
        ImportError: this is Python 3.10 without the package tomli.
    """
    # Not at the top: files in other formats are read without tomli.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    # The parser keeps every beginning of a key: the memory goes with the square of its parts.
    for piece in re.split(r"[=,\n{}\[\]]", _QUOTED.sub("key", text)):
        parts = piece.split(".")
        if len(parts) > _MOST_PARTS and all(map(_BARE_KEY.fullmatch, parts)):
            raise ValueError(f"it has a key of {len(parts):,} parts ({shown(piece)}), expected {_MOST_PARTS} at most")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which JSON does not know")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"it holds {digits[:20]}, which is beyond every number")
    return value


def _whole(digits: str) -> int:
    value = int(digits)
    # A whole number can be larger than every float, and fails where it meets one.
    if abs(value) > sys.float_info.max:
        raise ValueError(f"it holds {digits[:20]}…, which is beyond every number")
    return value


def shown(value: Any) -> str:
    """Any value in a few characters, for an error message."""
    try:
        text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else repr(value)
    except (TypeError, ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    # Half a character would make the message itself unprintable.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def read_text(path: Path, error: type[SageError]) -> tuple[str, tuple[str, ...]]:
    """A file's text in UTF-8, UTF-16 or Windows-1252, and notes on how it was read.

    Raises:
        SageError: of the kind `error`, if it is not a file of text. A device, whose content may have no end, is none.
    """
    try:
        if path.exists() and not path.is_file():
            raise error(f"{path} is a folder or device, expected a file.")
        content = path.read_bytes()
    except FileNotFoundError:
        raise error(f"{path} does not exist: there is no such file. Check the name.") from None
    except (OSError, ValueError) as problem:
        # A path can hold NUL, which Python refuses with ValueError.
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"{path} cannot be read ({reason}). Check its name and who may read it.") from problem
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
    raise error(f"{path} is not a text file in UTF-8, UTF-16 or Latin-1. Save it as CSV or text in UTF-8.")


def _parse_table(source: _Source) -> RowFile:
    delimiter = _delimiter(source.text, source.known)
    # strict: without it one unclosed quote swallows the rest of the file unnoticed.
    reader = csv.reader(io.StringIO(source.text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    number = 1
    try:
        names = tuple(cell.strip().lower() for cell in next(reader, []))
        number = reader.line_num + 1
        for cells in reader:
            rows.append(_table_row(number, cells, names, delimiter))
            number = reader.line_num + 1
    except csv.Error as error:
        raise source.error(
            f"{source.path}, line {number}: the row that begins here cannot be read to its end, line {reader.line_num} "
            f'({error}). Check the quotes: one (") that opens a text must be closed, and one inside a quoted text is '
            "written twice."
        ) from error
    return RowFile(source.path, tuple(rows), header=names)


def _table_row(number: int, cells: list[str], names: tuple[str, ...], delimiter: str) -> Row:
    if len(names) == 1 and cells:
        # With a single column a delimiter in an unquoted text separates nothing.
        cells = [delimiter.join(cells)]
    # Spreadsheets fill rows up with empty cells.
    while len(cells) > len(names) and not cells[-1].strip():
        cells.pop()
    if len(cells) > len(names):
        return Row(
            number,
            None,
            f"found {len(cells)} fields, expected {len(names)} ({', '.join(names)}). "
            f"Put a text that contains '{delimiter}' in double quotes",
        )
    found = dict(zip(names, cells, strict=False))
    if len(found) < len(cells):
        # If two columns have one name, the first counts.
        found = dict(reversed(list(zip(names, cells, strict=False))))
    return Row(number, found)


def _delimiter(text: str, known: Collection[str]) -> str:
    header = split_lines(text)[0] if text else ""
    for delimiter in ",;\t":
        if not {cell.strip().strip('"').lower() for cell in header.split(delimiter)}.isdisjoint(known):
            return delimiter
    return ","


def _parse_json(source: _Source) -> RowFile:
    try:
        content = parse_json(source.text, constants=True)
    except ValueError as error:
        line = f", line {error.__cause__.lineno}" if isinstance(error.__cause__, json.JSONDecodeError) else ""
        raise source.error(
            f"{source.path}{line}: {error}. One value a line is read from a file that ends in .jsonl."
        ) from error
    if isinstance(content, list):
        rows = (Row(number, lower_names(item)) for number, item in enumerate(content, 1))
        return RowFile(source.path, tuple(rows))
    if not isinstance(content, dict):
        raise source.error(f"{source.path} holds a {type(content).__name__}, expected a list of rows.")
    columns = lower_names(content)
    for name in source.known & columns.keys():
        if not isinstance(columns[name], list):
            raise source.error(f"{source.path}: '{name}' is a {type(columns[name]).__name__}, expected a list.")
    return RowFile(source.path, (), columns={name: v for name, v in columns.items() if isinstance(v, list)})


def _parse_json_lines(source: _Source) -> RowFile:
    rows = []
    for number, line in enumerate(split_lines(source.text), 1):
        if line.strip():
            try:
                rows.append(Row(number, lower_names(parse_json(line, constants=True))))
            except ValueError as error:
                rows.append(Row(number, None, str(error)))
    return RowFile(source.path, tuple(rows))


def _parse_text(source: _Source) -> RowFile:
    return RowFile(source.path, tuple(Row(number, line) for number, line in enumerate(split_lines(source.text), 1)))


def lower_names(value: Any) -> Any:
    """An object with its names stripped and in lower case; any other value as it is."""
    return {name.strip().lower(): item for name, item in value.items()} if isinstance(value, dict) else value


_PARSERS: dict[str, Callable[[_Source], RowFile]] = {
    ".csv": _parse_table,
    ".tsv": _parse_table,
    ".json": _parse_json,
    ".jsonl": _parse_json_lines,
    ".txt": _parse_text,
}
