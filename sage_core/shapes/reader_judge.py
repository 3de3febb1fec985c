"""The reader of pictures behind TIFA's protocol, to score the shapes world's pictures without a model."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import JudgeError, ShapesError
from ..tifa.images import ImageLike, to_bytes
from ..tifa.judges import Answer
from ..tifa.questions import Question
from .model import PICTURE_SIZE
from .reader import answer_by_reading

_BATCH = 32
_HAIR = 1e-6


class ReaderJudge:
    """Answers the questions that `ask.ask` writes by reading the picture."""

    name = "shapes reader"

    def answer(
        self,
        images: Sequence[ImageLike],
        questions: Sequence[Sequence[Question]],
        *,
        likelihoods: bool = True,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[list[Answer]]:
        """See `tifa.judges.Judge`.

        A yes/no question that the picture leaves open is answered "no"; any other "none" or "unclear". Probabilities
        are then equal but for a hair more for one choice, picked by the question: a scorer that must choose does not
        always choose the first. Otherwise the answer has probability 1.
        Raises JudgeError for a question that this world does not know.
        """
        if len(images) != len(questions):
            raise JudgeError(f"{len(images)} images came with {len(questions)} lists of questions, expected one each")
        answers: list[list[Answer]] = []
        for start in range(0, len(images), _BATCH):
            part = slice(start, start + _BATCH)
            answers += _answer(images[part], questions[part], likelihoods)
            if on_batch is not None:
                on_batch(sum(map(len, questions[part])))
        return answers


def _answer(
    images: Sequence[ImageLike], questions: Sequence[Sequence[Question]], likelihoods: bool
) -> list[list[Answer]]:
    try:
        readings = answer_by_reading(torch.cat([_as_picture(image) for image in images]), questions)
    except ShapesError as error:
        raise JudgeError(f"the reader of the shapes world cannot judge this: {error}") from error
    answers = []
    for asked, read in zip(questions, readings, strict=True):
        texts = ["no" if "no" in q.choices and text == "unclear" else text for q, text in zip(asked, read, strict=True)]
        odds = [_probabilities(q, text) if likelihoods else None for q, text in zip(asked, texts, strict=True)]
        answers.append(list(map(Answer, texts, odds)))
    return answers


def _as_picture(image: ImageLike) -> Tensor:
    picture = to_bytes(image)[None].cpu().float() / 255
    size = (PICTURE_SIZE, PICTURE_SIZE)
    return torch.nn.functional.interpolate(picture, size, mode="bilinear", antialias=True)


def _probabilities(question: Question, answer: str) -> tuple[float, ...]:
    if answer in question.choices:
        return tuple(float(choice == answer) for choice in question.choices)
    weights = [1.0] * len(question.choices)
    weights[zlib.crc32(f"{question.id} {question.question}".encode()) % len(weights)] += _HAIR
    return tuple(weight / sum(weights) for weight in weights)
