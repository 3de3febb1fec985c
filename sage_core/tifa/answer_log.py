"""The judge's answers in a file, one on each line, so that an evaluation goes on where it was stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import JudgeError, QuestionError
from ..rows import parse_json, shown, text_problem
from .judges.base import Answer
from .questions import Question, group_by_caption
from .scoring import ScoredQuestion

# Probabilities of low precision may add up to a little more than 1.
_MOST_PROBABLE = 1.01


@dataclass(frozen=True)
class LoggedAnswer:
    """A line of an answer log: the `judge`'s answer to a question about an image.

    `image` is the image's id, `mark` names its content; see `images.fingerprint`.

    Raises:
        JudgeError: a field is not text, or there is not one probability from 0 to 1 for each choice.
    """

    image: str
    mark: str
    judge: str
    question: Question
    answer: Answer

    def __post_init__(self) -> None:
        texts = {"image": self.image, "image_fingerprint": self.mark, "judge": self.judge}
        for name, value in {**texts, "free_answer": self.answer.text}.items():
            if not isinstance(value, str):
                raise JudgeError(f"{name} is {shown(value)}, expected text.")
            if problem := text_problem(value):
                raise JudgeError(f"{name} holds {problem}.")
        shares, count = self.answer.probabilities, len(self.question.choices)
        if shares is not None and (len(shares) != count or not all(map(is_probability, shares))):
            raise JudgeError(f"probabilities are {shown(shares)}, expected {count} numbers from 0 to 1.")


class AnswerLog:
    """Answers in a JSONL file, one on each line, found again by image id, image content, question and choices.

    While it is open, no other process can open the log: two writers would ask everything twice, and one could cut off a
    line that the other is writing. The file `<log>.lock` next to it holds the lock and may be removed when no
    evaluation runs. However a process ends, the system then frees its lock.

    A line that was cut off when an evaluation was stopped is removed.

    Args:
        path: the file.
        judge: whose answers these are.
        own: nobody else knows the file's name, so that it needs no lock, which some network file systems do not have.

    Raises:
        JudgeError: another evaluation has the log open, it holds another judge's answers, or it is not such a log.
    """

    def __init__(self, path: str | os.PathLike[str], judge: str, *, own: bool = False) -> None:
        from filelock import FileLock, Timeout

        self.path = Path(path)
        self.judge = judge
        self._lock = None if own else FileLock(f"{self.path}.lock")
        try:
            if self.path.exists() and not self.path.is_file():
                # A device may have no end, and a pipe no beginning.
                raise JudgeError(f"{path} is a folder or device, expected the name of a file for the log.")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._lock is not None:
                self._lock.acquire(timeout=0)
        except Timeout:
            raise JudgeError(
                f"{path}: another evaluation is writing to this log. Wait until it has ended, or name another log."
            ) from None
        except (OSError, ValueError) as error:
            # A path can hold NUL or half a character, which Python refuses with ValueError.
            raise JudgeError(f"{str(path)!a}: no log can be written there ({error}). Name another place.") from error
        try:
            found, whole = _read_log(self.path)
            check_judge(self.path, found, judge)
            self._answers = {_key(line.image, line.mark, line.question): line.answer for line in found}
            if self.path.exists() and whole < self.path.stat().st_size:
                os.truncate(self.path, whole)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other evaluations open the log."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> AnswerLog:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._answers)

    def find(self, image: str, mark: str, question: Question) -> Answer | None:
        """The recorded answer, or None."""
        return self._answers.get(_key(image, mark, question))

    def add(self, scored: Sequence[ScoredQuestion], marks: Sequence[str], answers: Sequence[Answer]) -> None:
        """Append the answers that the log does not hold yet."""
        lines = []
        for row, mark, answer in zip(scored, marks, answers, strict=True):
            key = _key(row.image, mark, row.question)
            if key in self._answers:
                continue
            self._answers[key] = answer
            line = {**row.to_dict(), "judge": self.judge, "image_fingerprint": mark}
            lines.append(json.dumps({**line, "probabilities": answer.probabilities}, ensure_ascii=False) + "\n")
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(lines))


def read_log(path: str | os.PathLike[str]) -> list[LoggedAnswer]:
    """Every answer in a log, whichever judge's, oldest first; none if there is no such file yet.

    A last line that was cut off is left out.

    Raises:
        JudgeError: the file is not an answer log; the message names the line.
    """
    return _read_log(Path(path))[0]


def answered_captions(questions: Iterable[Question], path: str | os.PathLike[str]) -> set[str]:
    """Ids of the captions all of whose `questions` a log answers, whichever image they were asked about.

    Raises:
        JudgeError: the file is not an answer log.
    """
    answered = {line.question for line in read_log(path)}
    groups = group_by_caption(questions)
    return {caption for caption, group in groups.items() if answered.issuperset(group)}


def _read_log(path: Path) -> tuple[list[LoggedAnswer], int]:
    """A log's answers, and the length in bytes of its whole lines."""
    try:
        text = path.read_bytes() if path.is_file() else b""
    except (OSError, ValueError) as error:
        raise JudgeError(f"{path} cannot be read as an answer log ({error}). Name another file.") from error
    whole = text[: text.rfind(b"\n") + 1]
    return [_read_line(path, number, line) for number, line in enumerate(whole.splitlines(), 1)], len(whole)


def _read_line(path: Path, number: int, line: bytes) -> LoggedAnswer:
    try:
        row = parse_json(line)
        probabilities = row["probabilities"]
        if not isinstance(probabilities, list | None):
            raise ValueError(f"probabilities are {shown(probabilities)}, expected a list")
        answer = Answer(row["free_answer"], None if probabilities is None else tuple(probabilities))
        question = Question.from_row(row)
        return LoggedAnswer(row["image"], row["image_fingerprint"], row["judge"], question, answer)
    except (ValueError, KeyError, TypeError, AttributeError, QuestionError, JudgeError) as error:
        reason = str(error).rstrip(".")
        raise JudgeError(f"{path}, line {number}: not a line of an answer log ({reason}). Move it away.") from None


def is_probability(value: Any) -> bool:
    """Whether this is a number from 0 to 1, or above by what low precision adds."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value <= _MOST_PROBABLE


def check_judge(path: Path, lines: Sequence[LoggedAnswer], judge: str) -> None:
    """Raise JudgeError, naming the line, unless all answers are by `judge`."""
    for number, line in enumerate(lines, 1):
        if line.judge != judge:
            raise JudgeError(
                f"{path}, line {number}: answers of the judge {line.judge!r}, expected {judge!r}. "
                "Give each judge a log of its own."
            )


def _key(image: str, mark: str, question: Question) -> tuple[Any, ...]:
    return image, mark, question.question, question.choices
