"""Pictures looked at before they are handed on: which of them show a concept, and what stands in their place.

It fails closed: a picture about which a witness cannot tell is treated as one that shows the concept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import JudgeError, SageError
from ..images import ImageLike
from ..model_folders import running
from ..tables import markdown
from .rates import Rate

# One that looks for one concept in images, such as `rate_by_clip` with all but the images filled in.
Witness: TypeAlias = Callable[[Sequence[ImageLike]], Rate]
Action: TypeAlias = Literal["blank", "blur", "flag"]

# Images that one witness looks at before the next one does.
_TOGETHER = 16
# Patches of colour that blurring leaves along the longer side: from so few, no content can be had back.
_PATCHES = 8
_DONE = {"blank": "made blank", "blur": "blurred", "flag": "flagged, and handed on as they are"}


@dataclass(frozen=True)
class PictureCheck:
    """What witnesses saw.

    Attributes:
        shown: of each concept, whether image i shows it; None where the witness cannot tell.
        rules: of each concept, who decided and how; without those about which a witness could never tell.
        failures: of each image, why a witness cannot tell; empty where all could.
    """

    shown: Mapping[str, tuple[bool | None, ...]]
    rules: Mapping[str, str]
    failures: tuple[str, ...]

    @property
    def unsafe(self) -> tuple[bool, ...]:
        """Of each image: whether it shows a concept, or may."""
        return tuple(any(each is not False for each in row) for row in zip(*self.shown.values(), strict=True))

    def summary(self, action: Action) -> str:
        """How many images and which, what `action` makes of them, and by what rule; they are numbered from 1."""
        total, unsafe = len(self.failures), sum(self.unsafe)
        seen = sum(any(row) for row in zip(*self.shown.values(), strict=True))
        concepts = " or ".join(map(markdown, self.shown))
        first = f"{unsafe} of {total} pictures {_DONE[action]}: {seen} with {concepts}"
        if not unsafe:
            first = f"0 of {total} pictures with {concepts}: all handed on as they are"
        elif unsafe > seen:
            first = f"⚠ {first}, {unsafe - seen} that could not be judged"
        lines = [f"{first}."]
        for concept, rule in self.rules.items():
            places = _places(each is True for each in self.shown[concept])
            lines.append(f"{markdown(concept)} in {places or 'none'}, by {markdown(rule)}")
        for why in dict.fromkeys(filter(None, self.failures)):
            lines.append(f"Not judged: {_places(each == why for each in self.failures)}. {markdown(why)}")
        return "\n".join(lines)


def _places(chosen: Iterable[bool]) -> str:
    return ", ".join(str(place) for place, each in enumerate(chosen, 1) if each)


def check_pictures(
    images: Sequence[ImageLike], witnesses: Mapping[str, Witness], on_batch: Callable[[int], None] | None = None
) -> PictureCheck:
    """Ask the witness of each concept about each image; where one fails over several images, about each alone.

    `on_batch(n)` is told of n more images that all witnesses have looked at. What it raises ends the check, as a
    cancelled run and memory that has run out do: then nothing is handed on.

    Raises:
        JudgeError: there is no image, or no witness.
    """
    if not images or not witnesses:
        raise JudgeError(f"{len(images)} pictures came with {len(witnesses)} concepts; expected one or more of each.")
    shown: dict[str, list[bool | None]] = {concept: [] for concept in witnesses}
    rules: dict[str, str] = {}
    failures = [""] * len(images)
    for start in range(0, len(images), _TOGETHER):
        part = images[start : start + _TOGETHER]
        for concept, witness in witnesses.items():
            for place, (seen, why) in enumerate(_look(witness, part), start):
                shown[concept].append(seen)
                if seen is None:
                    failures[place] = failures[place] or why
                else:
                    rules[concept] = why
        if on_batch is not None:
            on_batch(len(part))
    return PictureCheck({concept: tuple(found) for concept, found in shown.items()}, rules, tuple(failures))


def _look(witness: Witness, images: Sequence[ImageLike]) -> list[tuple[bool | None, str]]:
    """Of each image, whether it shows the concept, and by what rule; or None, and why the witness cannot tell."""
    try:
        with running("The witness"):
            rate = witness(images)
        if len(rate.shown) != len(images):
            raise JudgeError(f"The witness spoke of {len(rate.shown)} pictures, expected {len(images)}.")
    except SageError as error:
        if len(images) == 1:
            return [(None, str(error))]
        return [seen for image in images for seen in _look(witness, [image])]
    return [(seen, rate.rule) for seen in rate.shown]


def hidden(image: Tensor, action: Action) -> Tensor:
    """What stands in the place of an unsafe image (height, width, channels), of its size, type and device.

    "blank" is black. "blur" leaves a few patches of colour that run into each other. "flag" is the image itself. A
    fourth channel, transparency, becomes opaque: its outline would show what was there.
    """
    if action == "flag":
        return image
    found = torch.zeros_like(image)
    if action == "blur":
        height, width = image.shape[:2]
        pixels = image.float().nan_to_num(0, 1, 0).clamp(0, 1).permute(2, 0, 1)[None]
        # Each of four pixels or more, or a tiny image would stay as it is.
        fewer = min(_PATCHES / max(height, width), 1 / 4)
        small = interpolate(pixels, [max(1, int(fewer * side)) for side in (height, width)], mode="area")
        found = interpolate(small, (height, width), mode="bilinear")[0].permute(1, 2, 0).to(image.dtype).contiguous()
    if image.shape[2] == 4:
        found[..., 3] = 1
    return found
