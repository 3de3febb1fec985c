"""The reader of pictures as a TIFA judge: it scores the shapes world's pictures without a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...errors import JudgeError, ShapesError
from ...images import ImageLike, to_bytes
from ...tifa.judges.base import Answer
from ...tifa.questions import Question
from ...tifa.writing.rules import NUMBERS
from ..ask import PLURALS
from ..networks.model import PICTURE_SIZE
from ..scenes import COLORS, MATERIALS, SHAPES, SIZES
from .reader import Reading, answers_from, read_pictures

_BATCH = 32
_SIDES = {"left": "left of", "right": "right of"}
_SINGULAR = {plural: shape for shape, plural in PLURALS.items()}
_LOOKS = {"shape": SHAPES, "color": COLORS, "material": MATERIALS, "size": SIZES}
_UNCLEAR = "unclear"


class ReaderJudge:
    """Answers by reading the picture: the questions of `ask.ask`, and those of `tifa.writing.rules` about shapes.

    It also tells whether there is an object of several looks, as in "is there a small red star?".
    """

    name = "shapes reader"

    def answer(
        self,
        images: Sequence[ImageLike],
        questions: Sequence[Sequence[Question]],
        *,
        likelihoods: bool = True,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[list[Answer]]:
        """Answer as `tifa.judges.base.Judge` does.

        The answer is "no" or "none" where the picture does not show what is asked about, and "unclear" where it leaves
        that open. The answer has probability 1; if it is not among the choices, they all have 0.

        Raises:
            JudgeError: this world does not know a question.
        """
        if len(images) != len(questions):
            raise JudgeError(f"{len(images)} images came with {len(questions)} lists of questions; expected one each.")
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
    readings = read_pictures(torch.cat([_as_picture(image) for image in images]))
    try:
        read = [[_read(reading, q) for q in some] for reading, some in zip(readings, questions, strict=True)]
    except ShapesError as error:
        raise JudgeError(f"The reader of the shapes world cannot judge this. {error}") from error
    return [
        [_as_answer(text, question.choices, likelihoods) for question, text in zip(some, texts, strict=True)]
        for some, texts in zip(questions, read, strict=True)
    ]


def _read(reading: Reading, question: Question) -> str:
    """The answer to one question about one picture, see `reader.answer_from`."""
    looks = _looks(question.question)
    if looks is None:
        return answers_from([reading], [[replace(question, question=_reword(question.question))]])[0][0]
    if any(all(getattr(thing, name) == value for name, value in looks.items()) for thing in reading.objects):
        return "yes"
    return _UNCLEAR if any(thing.shape == _UNCLEAR for thing in reading.objects) else "no"


def _looks(text: str) -> dict[str, str] | None:
    """What an object of several looks is asked for by, such as a colour and a shape; None of any other question."""
    match = re.fullmatch(r"(?:is there an?|are there) (\w+(?: \w+)+)\?", text)
    words = [_SINGULAR.get(word, word) for word in match[1].split()] if match else []
    found = {name: word for word in words for name, values in _LOOKS.items() if word in values}
    return found if words and len(found) == len(words) else None


def _as_picture(image: ImageLike) -> Tensor:
    picture = to_bytes(image)[None].cpu().float() / 255
    size = (PICTURE_SIZE, PICTURE_SIZE)
    return torch.nn.functional.interpolate(picture, size, mode="bilinear", antialias=True)


def _reword(text: str) -> str:
    """A question of `tifa.writing.rules` as `ask.ask` would word it; any other as it is."""
    if match := re.fullmatch(r"are there (\w+)\?", text):
        return f"is there a {_SINGULAR.get(match[1], match[1])}?"
    if match := re.fullmatch(r"are there (\w+) (\w+)\?", text):
        return f"is the number of {match[2]} {NUMBERS.get(match[1], match[1])}?"
    return text


def _as_answer(text: str, choices: Sequence[str], likelihoods: bool) -> Answer:
    if text not in choices:
        text = _SIDES.get(text, text)
    return Answer(text, tuple(float(choice == text) for choice in choices) if likelihoods else None)
