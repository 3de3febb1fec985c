"""The judges' answers in a file, a line each, so that an evaluation goes on where it was stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import JudgeError, QuestionError
from .judges.base import Answer
from .questions import Question, group_by_caption
from .scoring import ScoredQuestion


@dataclass(frozen=True)
class LoggedAnswer:
    """A line of an answer log: the `judge`'s answer to a question about the image called `image`, whose content is
    named by `mark`, see `images.fingerprint`.
    """

    image: str
    mark: str
    judge: str
    question: Question
    answer: Answer


class AnswerLog:
    """Answers in a JSONL file, one a line, found again by image id, image content, question and choices.

    A line that was cut off when an evaluation was stopped is removed. Raises JudgeError if the file holds another
    judge's answers or is no such log.
    """

    def __init__(self, path: str | os.PathLike[str], judge: str) -> None:
        self.path = Path(path)
        self.judge = judge
        self.path.parent.mkdir(parents=True, exist_ok=True)
        found, whole = _read_log(self.path)
        check_judge(self.path, found, judge)
        self._answers = {_key(line.image, line.mark, line.question): line.answer for line in found}
        if self.path.exists() and whole < self.path.stat().st_size:
            os.truncate(self.path, whole)

    def __len__(self) -> int:
        return len(self._answers)

    def find(self, image: str, mark: str, question: Question) -> Answer | None:
        """The recorded answer, if there is one."""
        return self._answers.get(_key(image, mark, question))

    def add(self, scored: Sequence[ScoredQuestion], marks: Sequence[str], answers: Sequence[Answer]) -> None:
        """Append what the log does not hold yet."""
        with open(self.path, "a", encoding="utf-8") as file:
            for row, mark, answer in zip(scored, marks, answers, strict=True):
                key = _key(row.image, mark, row.question)
                if key in self._answers:
                    continue
                self._answers[key] = answer
                line = {**row.to_dict(), "judge": self.judge, "image_fingerprint": mark}
                file.write(json.dumps({**line, "probabilities": answer.probabilities}, ensure_ascii=False) + "\n")


def read_log(path: str | os.PathLike[str]) -> list[LoggedAnswer]:
    """Every answer in a log, whichever judge's, oldest first; none if there is no such file yet.

    A last line that was cut off is left out. Raises JudgeError, naming the line, if the file is no answer log.
    """
    return _read_log(Path(path))[0]


def answered_captions(questions: Iterable[Question], path: str | os.PathLike[str]) -> set[str]:
    """Ids of the captions of whose `questions` a log answers every one, whichever image they were asked about.

    Raises JudgeError if the file is no answer log.
    """
    answered = {line.question for line in read_log(path)}
    groups = group_by_caption(questions)
    return {caption for caption, group in groups.items() if answered.issuperset(group)}


def _read_log(path: Path) -> tuple[list[LoggedAnswer], int]:
    """A log's answers, and the length in bytes of its whole lines."""
    text = path.read_bytes() if path.exists() else b""
    whole = text[: text.rfind(b"\n") + 1]
    return [_read_line(path, number, line) for number, line in enumerate(whole.splitlines(), 1)], len(whole)


def _read_line(path: Path, number: int, line: bytes) -> LoggedAnswer:
    try:
        row = json.loads(line)
        probabilities = row["probabilities"]
        answer = Answer(row["free_answer"], None if probabilities is None else tuple(probabilities))
        question = Question.from_row(row)
        return LoggedAnswer(row["image"], row["image_fingerprint"], row["judge"], question, answer)
    except (ValueError, KeyError, TypeError, AttributeError, QuestionError) as error:
        raise JudgeError(f"{path}, line {number}: not a line of an answer log ({error}); move it away") from None


def check_judge(path: Path, lines: Sequence[LoggedAnswer], judge: str) -> None:
    for number, line in enumerate(lines, 1):
        if line.judge != judge:
            raise JudgeError(
                f"{path}, line {number}: answers of the judge {line.judge!r}, expected {judge!r}; "
                f"give each judge a log of its own"
            )


def _key(image: str, mark: str, question: Question) -> tuple[Any, ...]:
    return image, mark, question.question, question.choices
