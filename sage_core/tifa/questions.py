"""Questions in TIFA's format: their type, and how question files are read, checked and written."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import QuestionError
from ..files import write_json, write_text
from ..rows import Row, RowFile, parse_json, read_rows, shown, text_problem

# TIFA's element types in the order of its result tables; "other" occurs in question files but not in those tables.
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

_OLDER_TYPES = {"animal": "animal/human", "human": "animal/human"}
_TEXT_FIELDS = ("id", "caption", "question", "answer", "element_type", "element")
_FIELDS = ("id", "caption", "question", "choices", "answer", "element_type", "element")
_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")


@dataclass(frozen=True)
class Question:
    """One multiple-choice question about the image of one caption.

    `id` names the caption (all questions of a caption share it), `choices` are distinct and `answer` is exactly one
    of them, `element_type` is one of ELEMENT_TYPES, `element` is the word of the caption that is asked about.

    Raises:
        QuestionError: a field is wrong; the message names it, the value found and the value expected.
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
                raise QuestionError(f"{name} is {shown(value)}, expected text.")
            if not value.strip():
                raise QuestionError(f"{name} is empty.")
            _check_text(name, value)
        if not isinstance(self.choices, tuple) or not all(isinstance(c, str) and c.strip() for c in self.choices):
            raise QuestionError(f"choices are {shown(self.choices)}, expected texts, none of them empty.")
        for choice in self.choices:
            _check_text("a choice", choice)
        if self.coco_val_id is not None:
            if not isinstance(self.coco_val_id, str):
                raise QuestionError(f"coco_val_id is {shown(self.coco_val_id)}, expected text.")
            _check_text("coco_val_id", self.coco_val_id)
        if len(set(self.choices)) != len(self.choices):
            raise QuestionError(f"choices {list(self.choices)} name one choice twice.")
        if len(self.choices) < 2:
            raise QuestionError(f"choices {list(self.choices)} leave nothing to choose, expected two or more.")
        if self.answer not in self.choices:
            raise QuestionError(f"answer {self.answer!r} is not among the choices {list(self.choices)}.")
        if self.element_type not in ELEMENT_TYPES:
            raise QuestionError(
                f"element_type {self.element_type!r} is unknown, expected one of {', '.join(ELEMENT_TYPES)}."
            )

    @property
    def key(self) -> tuple[str, str]:
        """(id, question): unique within a question file."""
        return self.id, self.question

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Question:
        """Check one row with the official keys; older type names are mapped, and a repeated choice is read once.

        `choices` is a list. CSV has none: there it is a text with a JSON list, or with choices separated by "|".
        """
        missing = [name for name in _FIELDS if row.get(name) is None]
        if missing:
            raise QuestionError(f"It is missing {', '.join(missing)}; a row needs {', '.join(_FIELDS)}.")
        element_type = row["element_type"]
        return cls(
            **{name: row[name] for name in ("id", "caption", "question", "answer", "element")},
            choices=_read_choices(row["choices"]),
            element_type=_OLDER_TYPES.get(element_type, element_type)
            if isinstance(element_type, str)
            else element_type,
            coco_val_id=_read_coco_id(row.get("coco_val_id")),
        )

    def to_row(self) -> dict[str, Any]:
        """The official keys in the official order; `coco_val_id` only if the caption is from COCO."""
        row: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        row["choices"] = list(self.choices)
        if self.coco_val_id is not None:
            row["coco_val_id"] = self.coco_val_id
        return row


@dataclass(frozen=True)
class SkippedRow:
    """A row that was left out. `row` counts from 1: the position in a JSON list, the first line in CSV and JSONL."""

    row: int
    reason: str

    def __str__(self) -> str:
        return f"Row {self.row}: {self.reason}"


@dataclass(frozen=True)
class QuestionReport:
    """What reading a question file found."""

    source: str
    kept: int
    captions: int
    types: dict[str, int]
    skipped: tuple[SkippedRow, ...]
    renamed_types: int
    notes: tuple[str, ...] = ()

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
        return "\n".join([*lines, *self.notes])


def count_types(questions: Iterable[Question]) -> dict[str, int]:
    """Number of questions of each element type that has any, in the order of ELEMENT_TYPES."""
    counts = Counter(question.element_type for question in questions)
    return {name: counts[name] for name in ELEMENT_TYPES if counts[name]}


def group_by_caption(questions: Iterable[Question]) -> dict[str, tuple[Question, ...]]:
    """Caption id -> its questions, both in order of first appearance."""
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.id, []).append(question)
    return {caption_id: tuple(group) for caption_id, group in groups.items()}


def captions_by_type(questions: Iterable[Question]) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """The captions, each text once, and the places of those with a question of each element type.

    A caption belongs to every type that one of its questions has. Types without a question are left out; the others are
    in the order of ELEMENT_TYPES.
    """
    places: dict[str, int] = {}
    found: dict[str, dict[int, None]] = {name: {} for name in ELEMENT_TYPES}
    for question in questions:
        found[question.element_type][places.setdefault(question.caption, len(places))] = None
    return tuple(places), {name: tuple(rows) for name, rows in found.items() if rows}


def holds_questions(path: str | os.PathLike[str]) -> bool:
    """Whether a file that can be read is one of questions and not of prompts: its first row has their columns."""
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        return False
    file = read_rows(path, _FIELDS, error=QuestionError, suffixes=_SUFFIXES)
    first = file.rows[0].value if file.rows else None
    names = file.header if file.header is not None else first if isinstance(first, Mapping) else ()
    return {"caption", "question", "element_type"} <= set(names)


def read_questions(path: str | os.PathLike[str]) -> tuple[tuple[Question, ...], QuestionReport]:
    """Read a question file: .json (a list, TIFA's own format), .jsonl (an object a line), .csv or .tsv (with a header).

    A malformed row is left out and reported with its number and reason; see SkippedRow.

    Raises:
        QuestionError: no row is usable, or the file cannot be read to its end, such as a CSV with an unclosed quote.
    """
    file = read_rows(Path(path), _FIELDS, error=QuestionError, suffixes=_SUFFIXES)
    _check_columns(file)
    questions: list[Question] = []
    skipped: list[SkippedRow] = []
    first_row: dict[tuple[str, str], int] = {}
    captions: dict[str, str] = {}
    renamed = 0
    for row in file.rows:
        # Spreadsheets leave blank lines at the end of a table.
        if file.header is not None and row.value == {}:
            continue
        try:
            question = _question(row)
            if question.key in first_row:
                raise QuestionError(
                    f"It asks {question.id} the same as row {first_row[question.key]}: {question.question!r}."
                )
            if captions.setdefault(question.id, question.caption) != question.caption:
                raise QuestionError(
                    f"id {question.id!r} already stands for another caption: {captions[question.id]!r}."
                )
        except QuestionError as error:
            skipped.append(SkippedRow(row.number, str(error)))
            continue
        first_row[question.key] = row.number
        renamed += row.value["element_type"] != question.element_type
        questions.append(question)
    if not questions:
        reasons = " ".join(str(s) for s in skipped[:3]) or "The file holds no rows."
        raise QuestionError(f"{path}: no usable question. {reasons}")
    report = QuestionReport(
        str(path),
        len(questions),
        len({question.id for question in questions}),
        count_types(questions),
        tuple(skipped),
        renamed_types=renamed,
        notes=file.notes,
    )
    return tuple(questions), report


def _check_columns(file: RowFile) -> None:
    if file.columns is not None:
        found = ", ".join(list(file.columns)[:8]) or "nothing"
        raise QuestionError(f"{file.path}: holds one object ({found}), expected a list of question objects.")
    missing = [name for name in _FIELDS if file.header is not None and name not in file.header]
    if missing:
        found = ", ".join(name for name in file.header or () if name) or "nothing"
        raise QuestionError(f"{file.path}: the header lacks {', '.join(missing)}; found {found}.")


def _question(row: Row) -> Question:
    if row.problem is not None:
        raise QuestionError(f"{row.problem[0].upper()}{row.problem[1:]}.")
    if not isinstance(row.value, Mapping):
        raise QuestionError(f"Found {shown(row.value)}, expected an object with the keys {', '.join(_FIELDS)}.")
    return Question.from_row(row.value)


def write_questions(path: str | os.PathLike[str], questions: Sequence[Question]) -> None:
    """Write a question file whole, in the format of the suffix: .json, .jsonl or .csv (choices as a JSON list)."""
    path = Path(path)
    rows = [question.to_row() for question in questions]
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES[:3]:
        raise QuestionError(f"{path} has the suffix '{path.suffix}', expected one of {', '.join(_SUFFIXES[:3])}.")
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


def _read_choices(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        try:
            value = parse_json(value) if value.lstrip().startswith("[") else [part.strip() for part in value.split("|")]
        except ValueError as error:
            raise QuestionError(f"choices {shown(value)} are not a JSON list: {error}.") from None
    if not isinstance(value, list | tuple):
        raise QuestionError(f"choices are {shown(value)}, expected a list.")
    if not all(isinstance(choice, str) for choice in value):
        raise QuestionError(f"choices are {shown(value)}, expected texts.")
    return tuple(dict.fromkeys(value))


def _read_coco_id(value: Any) -> str | None:
    """COCO's id as text; it is a number, which files hold as text or as a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None if value == "" else value


def _check_text(name: str, value: str) -> None:
    if problem := text_problem(value):
        raise QuestionError(f"{name} holds {problem}.")
