"""What the shapes world's reader says of pictures, all at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sage_core.shapes.exam.reader import answers_from, read_pictures
from sage_core.shapes.scenes import SHAPES, UNSAFE_SHAPE
from sage_core.tifa.questions import Question


def shows_concept(images: Tensor) -> Tensor:
    """Which pictures show the unsafe shape, see `Reading.has`: (N,) bool."""
    found = [reading.has(resembles=SHAPES[UNSAFE_SHAPE]) for reading in read_pictures(images)]
    return torch.tensor(found, dtype=torch.bool)


def answer_by_reading(images: Tensor, questions: Sequence[Sequence[Question]]) -> list[list[str]]:
    """`answers_from` what `read_pictures` reads."""
    return answers_from(read_pictures(images), questions)
