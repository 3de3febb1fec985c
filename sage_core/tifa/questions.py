"""Questions in TIFA's format: the type, and reading, checking and writing of question files."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import QuestionError
from ..files import write_json, write_text

ELEMENT_TYPES = (
    "object",
    "animal/human",
    "location",
    "color",
    "food",
    "material",
    "attribute",
    "counting",
    "shape",
    "activity",
    "spatial",
    "other",
)
"""TIFA's element types in the order of its result tables; "other" is in question files but not in those tables."""

_OLDER_TYPES = {"animal": "animal/human", "human": "animal/human"}
_TEXT_FIELDS = ("id", "caption", "question", "answer", "element_type", "element")
_FIELDS = ("id", "caption", "question", "choices", "answer", "element_type", "element")


@dataclass(frozen=True)
class Question:
    """One multiple-choice question about the image of one caption.

    `id` names the caption (all questions of a caption share it), `choices` are distinct and `answer` is exactly one
    of them, `element_type` is one of ELEMENT_TYPES, `element` is the word of the caption that is asked about.

    Raises QuestionError, naming the field, the value found and the value expected.
    """

    id: str
    caption: str
    question: str
    choices: tuple[str, ...]
    answer: str
    element_type: str
    element: str
    coco_val_id: str | None = None

    def __post_init__(self) -> None:
        for name in _TEXT_FIELDS:
            value = getattr(self, name)
            if not isinstance(value, str):
                raise QuestionError(f"{name} is {value!r}, expected text")
            if not value.strip():
                raise QuestionError(f"{name} is empty")
        if not isinstance(self.choices, tuple) or not all(isinstance(c, str) and c.strip() for c in self.choices):
            raise QuestionError(f"choices are {self.choices!r}, expected texts, none of them empty")
        if len(set(self.choices)) != len(self.choices):
            raise QuestionError(f"choices {list(self.choices)} name one choice twice")
        if len(self.choices) < 2:
            raise QuestionError(f"choices {list(self.choices)} leave nothing to choose, expected two or more")
        if self.answer not in self.choices:
            raise QuestionError(f"answer {self.answer!r} is not among the choices {list(self.choices)}")
        if self.element_type not in ELEMENT_TYPES:
            raise QuestionError(
                f"element_type {self.element_type!r} is unknown, expected one of {_list(ELEMENT_TYPES)}"
            )

    @property
    def key(self) -> tuple[str, str]:
        """(id, question): unique within a question file."""
        return self.id, self.question

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Question:
        """Check one row with the official keys; older type names are mapped, a choice given twice is read once.

        `choices` is a list, or, as CSV has no lists, text holding a JSON list or choices separated by "|".
        """
        missing = [name for name in _FIELDS if row.get(name) is None]
        if missing:
            raise QuestionError(f"missing {_list(missing)}; a row needs {_list(_FIELDS)}")
        element_type = row["element_type"]
        return cls(
            **{name: row[name] for name in ("id", "caption", "question", "answer", "element")},
            choices=_read_choices(row["choices"]),
            element_type=_OLDER_TYPES.get(element_type, element_type)
            if isinstance(element_type, str)
            else element_type,
            coco_val_id=row.get("coco_val_id") or None,
        )

    def to_row(self) -> dict[str, Any]:
        """The official keys in the official order; `coco_val_id` only where the caption is of COCO."""
        row: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        row["choices"] = list(self.choices)
        if self.coco_val_id is not None:
            row["coco_val_id"] = self.coco_val_id
        return row


@dataclass(frozen=True)
class SkippedRow:
    """A row that was left out. `row` counts from 1: list position in JSON, the row's first line in CSV and JSONL."""

    row: int
    reason: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.reason}"


@dataclass(frozen=True)
class QuestionReport:
    """What reading a question file found."""

    source: str
    kept: int
    captions: int
    types: dict[str, int]
    skipped: tuple[SkippedRow, ...]
    renamed_types: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "source": self.source,
            "kept": self.kept,
            "captions": self.captions,
            "types": self.types,
            "skipped": [{"row": s.row, "reason": s.reason} for s in self.skipped],
            "renamed_types": self.renamed_types,
        }

    def summary(self, most: int = 20) -> str:
        """Counts by type and the first `most` skipped rows with their reasons, as text."""
        lines = [f"{self.kept} questions about {self.captions} captions from {self.source}"]
        lines += [f"  {name}: {count}" for name, count in self.types.items()]
        if self.renamed_types:
            lines.append(f"{self.renamed_types} rows with older type names (animal, human) read as animal/human")
        if self.skipped:
            lines.append(f"{len(self.skipped)} rows skipped:")
            lines += [f"  {skipped}" for skipped in self.skipped[:most]]
            if len(self.skipped) > most:
                lines.append(f"  … and {len(self.skipped) - most} more")
        return "\n".join(lines)


def count_types(questions: Iterable[Question]) -> dict[str, int]:
    """Questions per element type, in the order of ELEMENT_TYPES, types without a question left out."""
    counts = Counter(question.element_type for question in questions)
    return {name: counts[name] for name in ELEMENT_TYPES if counts[name]}


def group_by_caption(questions: Iterable[Question]) -> dict[str, tuple[Question, ...]]:
    """Caption id -> its questions, both in order of first appearance."""
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.id, []).append(question)
    return {caption_id: tuple(group) for caption_id, group in groups.items()}


def read_questions(path: str | os.PathLike[str]) -> tuple[tuple[Question, ...], QuestionReport]:
    """Read a question file: .json (a list, TIFA's own format), .jsonl (one object a line) or .csv (with a header).

    A malformed row is left out and reported with its number and reason, see SkippedRow.
    Raises QuestionError if the file cannot be read to its end, as a CSV with an unclosed quote, or no row is usable.
    """
    path = Path(path)
    questions: list[Question] = []
    skipped: list[SkippedRow] = []
    first_row: dict[tuple[str, str], int] = {}
    captions: dict[str, str] = {}
    renamed = 0
    for number, row in _read_rows(path):
        try:
            if isinstance(row, QuestionError):
                raise row
            if not isinstance(row, Mapping):
                raise QuestionError(f"found {_shorten(row)}, expected an object with the keys {_list(_FIELDS)}")
            question = Question.from_row(row)
            if question.key in first_row:
                raise QuestionError(
                    f"asks {question.id} the same as row {first_row[question.key]}: {question.question}"
                )
            if captions.setdefault(question.id, question.caption) != question.caption:
                raise QuestionError(f"id {question.id!r} already stands for another caption: {captions[question.id]!r}")
        except QuestionError as error:
            skipped.append(SkippedRow(number, str(error)))
            continue
        first_row[question.key] = number
        renamed += row["element_type"] != question.element_type
        questions.append(question)
    if not questions:
        reasons = "; ".join(str(s) for s in skipped[:3]) or "the file holds no rows"
        raise QuestionError(f"{path}: no usable question. {reasons}")
    report = QuestionReport(
        str(path), len(questions), len(captions), count_types(questions), tuple(skipped), renamed_types=renamed
    )
    return tuple(questions), report


def write_questions(path: str | os.PathLike[str], questions: Sequence[Question]) -> None:
    """Write a question file whole, in the format of the suffix: .json, .jsonl or .csv (choices as a JSON list)."""
    path = Path(path)
    rows = [question.to_row() for question in questions]
    suffix = _suffix(path)
    if suffix == ".json":
        write_json(path, rows)
    elif suffix == ".jsonl":
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    else:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, (*_FIELDS, "coco_val_id"), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "choices": json.dumps(row["choices"], ensure_ascii=False)} for row in rows)
        write_text(path, text.getvalue())


def _read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    suffix = _suffix(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise QuestionError(f"{path}: there is no such question file") from None
    except UnicodeDecodeError as error:
        raise QuestionError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from None
    if suffix == ".json":
        yield from _json_rows(path, text)
    elif suffix == ".jsonl":
        yield from _jsonl_rows(text)
    else:
        yield from _csv_rows(path, text)


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise QuestionError(f"{path}: not JSON ({error}); one object a line is read from a .jsonl file") from None
    if not isinstance(rows, list):
        raise QuestionError(f"{path}: holds {_shorten(rows)}, expected a list of question objects")
    yield from enumerate(rows, 1)


def _jsonl_rows(text: str) -> Iterator[tuple[int, Any]]:
    # Not splitlines(): that also breaks at characters such as U+2028, which JSON texts may hold.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            row = QuestionError(f"not JSON ({error})")
        yield number, row


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    # Strict: otherwise a quote that is never closed takes all further rows into one cell without a word.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if header is None:
                header = _checked_header(path, cells)
            elif len(cells) > len(header):
                # Most often a comma in an unquoted caption.
                yield line, QuestionError("more cells than columns; quote texts with commas")
            elif cells:
                yield line, dict(zip(header, cells, strict=False))
            line = reader.line_num + 1
    except csv.Error as error:
        raise QuestionError(
            f'{path}, line {line}: the row that begins here is not CSV ({error}); a quote (") that opens a text '
            f"must be closed, and one inside a quoted text doubled"
        ) from None
    if header is None:
        _checked_header(path, [])


def _checked_header(path: Path, header: list[str]) -> list[str]:
    missing = [name for name in _FIELDS if name not in header]
    if missing:
        raise QuestionError(f"{path}: the header lacks {_list(missing)}; found {_list(header) or 'nothing'}")
    return header


def _read_choices(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.lstrip().startswith("[") else [part.strip() for part in value.split("|")]
        except json.JSONDecodeError as error:
            raise QuestionError(f"choices {value!r} are not a JSON list ({error})") from None
    if not isinstance(value, list | tuple):
        raise QuestionError(f"choices are {value!r}, expected a list")
    if not all(isinstance(choice, str) for choice in value):
        raise QuestionError(f"choices are {value!r}, expected texts")
    return tuple(dict.fromkeys(value))


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".json", ".jsonl", ".csv"):
        raise QuestionError(f"{path}: a question file ends in .json, .jsonl or .csv, found {suffix or 'no ending'!r}")
    return suffix


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
