"""A whole evaluation: images and questions in, a TifaResult out, with answers written to a log on the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from ..batches import counting
from ..errors import JudgeError
from ..images import ImageLike, all_to_bytes, fingerprint
from .answer_log import AnswerLog, check_judge, read_log
from .judges.base import Answer, Judge
from .questions import Question
from .scoring import ScoredQuestion, TifaResult, score_answers
from .sentences import SentenceEncoder


@dataclass
class _Row:
    """One question about one image, and its answer once there is one; `mark` names the image's content."""

    image: str
    mark: str
    question: Question
    answer: Answer | None = None


def evaluate(
    images: Sequence[ImageLike],
    questions: Sequence[Sequence[Question]],
    judge: Judge,
    *,
    sentences: SentenceEncoder | None = None,
    image_ids: Sequence[str] | None = None,
    name: str = "",
    log: str | os.PathLike[str] | AnswerLog | None = None,
    likelihoods: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
    images_per_step: int = 32,
) -> TifaResult:
    """Ask `questions[i]` about `images[i]` and score the answers; see `score_answers`.

    `image_ids` default to the caption's id, with #2, #3, … for its further images. `log` is an open log, or names a
    JSONL file; answers are added to it after every `images_per_step` images, and it is closed at the end. Questions
    that it already answers for the same judge and the same image (id and content) are not asked again.
    `on_progress(done, total)` counts questions. What it raises ends the evaluation, and the log keeps the finished
    steps.

    Raises:
        JudgeError: images and questions do not match, the log is another judge's, or another process writes to it.
    """
    ids = _checked_ids(images, questions, image_ids)
    count = counting(on_progress, sum(map(len, questions)))
    scored: list[ScoredQuestion] = []
    opened = AnswerLog(log, judge.name) if isinstance(log, str | os.PathLike) else log
    with opened if opened is not None else nullcontext() as answered:
        for start, pixels in _steps(images, images_per_step):
            step = _open_rows(ids[start:], pixels, questions[start:], answered)
            count(sum(row.answer is not None for rows in step for row in rows))
            _answer_rest(judge, pixels, step, likelihoods, count)
            rows = [row for rows in step for row in rows]
            answers = [row.answer for row in rows if row.answer is not None]
            found = score_answers([row.image for row in rows], [row.question for row in rows], answers, sentences)
            if answered is not None:
                answered.add(found, [row.mark for row in rows], answers)
            scored += found
    return TifaResult(name, judge.name, _matching(sentences), tuple(scored))


def _open_rows(
    ids: Sequence[str],
    pixels: Sequence[torch.Tensor],
    questions: Sequence[Sequence[Question]],
    answered: AnswerLog | None,
) -> list[list[_Row]]:
    """Rows of each of these images, with the log's answers; ids and questions may be more than the images."""
    step = []
    for image, content, asked in zip(ids, pixels, questions, strict=False):
        mark = fingerprint(content) if answered is not None else ""
        rows = [_Row(image, mark, question) for question in asked]
        if answered is not None:
            for row in rows:
                row.answer = answered.find(image, mark, row.question)
        step.append(rows)
    return step


def score_log(
    path: str | os.PathLike[str], judge: str, *, sentences: SentenceEncoder | None = None, name: str = ""
) -> TifaResult:
    """Score all that a log holds, as if it had been asked in one evaluation.

    If a question was asked again about an image of the same id because the image had changed, the last answer counts.

    Raises:
        JudgeError: the log is another judge's, or not an answer log.
        QuestionError: there is nothing in it.
    """
    found = read_log(path)
    check_judge(Path(path), found, judge)
    lines = {(line.image, line.question.question): line for line in found}.values()
    images, questions = [line.image for line in lines], [line.question for line in lines]
    scored = score_answers(images, questions, [line.answer for line in lines], sentences)
    return TifaResult(name, judge, _matching(sentences), tuple(scored))


def _matching(sentences: SentenceEncoder | None) -> str:
    return "sentence embedding" if sentences else "likelihood"


def _checked_ids(
    images: Sequence[ImageLike], questions: Sequence[Sequence[Question]], image_ids: Sequence[str] | None
) -> list[str]:
    if len(images) != len(questions):
        raise JudgeError(
            f"{len(images)} images came with questions about {len(questions)}, expected one list for each."
        )
    ids = list(image_ids) if image_ids is not None else _default_ids(questions)
    if len(ids) != len(images) or len(set(ids)) != len(ids):
        raise JudgeError(f"{len(images)} images came with {len(set(ids))} different ids, expected one for each.")
    return ids


def _default_ids(questions: Sequence[Sequence[Question]]) -> list[str]:
    seen: dict[str, int] = {}
    ids = []
    for position, asked in enumerate(questions, 1):
        caption = asked[0].id if asked else f"image {position}"
        seen[caption] = seen.get(caption, 0) + 1
        ids.append(caption if seen[caption] == 1 else f"{caption}#{seen[caption]}")
    return ids


def _steps(images: Sequence[ImageLike], size: int) -> Iterator[tuple[int, list[torch.Tensor]]]:
    """(start, uint8 images) a step at a time; the next step is decoded while the judge works on this one."""
    starts = range(0, len(images), size)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(all_to_bytes, images[:size])
        for start in starts:
            pixels = coming.result()
            if start + size < len(images):
                coming = pool.submit(all_to_bytes, images[start + size : start + 2 * size])
            yield start, pixels


def _answer_rest(
    judge: Judge,
    pixels: Sequence[torch.Tensor],
    step: Sequence[Sequence[_Row]],
    likelihoods: bool,
    on_batch: Callable[[int], None],
) -> None:
    """Ask the questions without an answer, all of an image's together."""
    missing = [[row for row in rows if row.answer is None] for rows in step]
    asked = [(image, rows) for image, rows in zip(pixels, missing, strict=True) if rows]
    replies = judge.answer(
        [image.permute(1, 2, 0) for image, _ in asked],
        [[row.question for row in rows] for _, rows in asked],
        likelihoods=likelihoods,
        on_batch=on_batch,
    )
    for (_, rows), answers in zip(asked, replies, strict=True):
        for row, answer in zip(rows, answers, strict=True):
            row.answer = answer
