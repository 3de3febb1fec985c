"""A scored run read back from a file: the report of `sage score` and of SAGE Score TIFA, or an answer log."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import QuestionError
from ..rows import parse_json, read_text, shown
from .answer_log import is_probability, read_log
from .evaluation import score_log
from .questions import Question
from .scoring import ScoredQuestion, TifaResult

_TEXTS = ("image", "free_answer", "chosen")


def read_result(path: str | os.PathLike[str]) -> TifaResult:
    """The run in a file, by its suffix.

    .json is what `sage score --report` writes and what SAGE Score TIFA gives out as `json`. .jsonl is an answer log;
    its free answers become choices by the judge's likelihoods, as there is no sentence encoder to match them.

    Raises:
        QuestionError: the file holds no such run; the message names it, and the row and field.
        JudgeError: the file ends in .jsonl and is not an answer log, or holds answers that only a sentence encoder
            could match.
    """
    path = Path(path)
    if path.suffix.lower() == ".jsonl":
        found = read_log(path)
        if not found:
            raise QuestionError(f"{path} holds no answer: expected an answer log of `sage score --log`.")
        return score_log(path, found[0].judge, name=path.stem)
    try:
        content = parse_json(read_text(path, QuestionError)[0])
    except ValueError as error:
        raise QuestionError(f"{path}: {error}. Expected a report of `sage score`.") from error
    rows = content.get("questions") if isinstance(content, Mapping) else None
    if not isinstance(rows, list) or not rows:
        raise QuestionError(f"{path} holds no scored questions. Expected a report of `sage score --report`.")
    texts = {name: content.get(name) for name in ("name", "judge", "matching")}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise QuestionError(f"{path}: {name} is {shown(value)}, expected text, as in a report of `sage score`.")
    return TifaResult(**texts, questions=tuple(_scored(path, number, row) for number, row in enumerate(rows, 1)))


def _scored(path: Path, number: int, row: Any) -> ScoredQuestion:
    try:
        if not isinstance(row, Mapping):
            raise QuestionError(f"Found {shown(row)}, expected an object.")
        for name in _TEXTS:
            if not isinstance(row.get(name), str):
                raise QuestionError(f"{name} is {shown(row.get(name))}, expected text.")
        probability = row.get("probability")
        if probability is not None and not is_probability(probability):
            raise QuestionError(f"probability is {shown(probability)}, expected a number from 0 to 1.")
        image, answer, chosen = (row[name] for name in _TEXTS)
        return ScoredQuestion(image, Question.from_row(row), answer, chosen, probability)
    except QuestionError as error:
        raise QuestionError(f"{path}, question {number}: {error} Expected a report of `sage score`.") from None
