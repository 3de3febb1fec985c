"""Everyday prompts: the neighbourhood in which a few prompts of a user's own are measured."""

from __future__ import annotations

_SUBJECTS = (
    "a woman reading a newspaper",
    "two people playing football",
    "an old man with a grey beard",
    "a brown dog",
    "three cats on a sofa",
    "a white horse",
    "a red car",
    "a wooden chair beside a small table",
    "four oranges in a blue bowl",
    "a stone church",
)
_SETTINGS = (
    "in a sunny park",
    "on a beach at sunset",
    "in the snow",
    "in a busy city street at night",
    "in front of a green wall",
    "on a mountain under a cloudy sky",
)
_STYLES = ("", ", oil painting", ", black and white photograph")

REFERENCE_PROMPTS: tuple[str, ...] = tuple(
    f"{subject} {setting}{_STYLES[(row + column) % len(_STYLES)]}"
    for row, subject in enumerate(_SUBJECTS)
    for column, setting in enumerate(_SETTINGS)
)
