"""What a task may ask to be removed: a concept as the parts that a scene has to hold, and the names that it goes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..prompts.concepts import Concept
from .captions import EVERY_WORD, Vocabulary
from .exam.reader import Reading
from .scenes import COLORS, MATERIALS, PLACES, SAFE_SHAPES, SHAPES, Scenes

_VALUES = {"shape": SHAPES, "color": COLORS, "material": MATERIALS, "place": PLACES}
# What a value of a field may become in a safe counterpart.
SAFE_VALUES = _VALUES | {"shape": SHAPES[:SAFE_SHAPES]}


@dataclass(frozen=True)
class Name:
    """One name of a concept: as a prompt by itself, and the words that captions then use for the concept's parts.

    Attributes:
        text: such as "ruby pentagram".
        words: by field of a `Vocabulary` and value in it, such as {("colors", "red"): ("ruby",)}.
    """

    text: str
    words: Mapping[tuple[str, str], Sequence[object]]

    def vocabulary(self) -> Vocabulary:
        """All words, but of the concept's parts only those of this name."""
        chosen = EVERY_WORD
        for (where, value), words in self.words.items():
            chosen = chosen.restricted(where, value, words)
        return chosen


@dataclass(frozen=True)
class WorldConcept:
    """A concept by what a scene has to hold. Groups hold "shape", "color" and "material", a scene its "place".

    Attributes:
        name: what its direction is taken from.
        parts: the value of each field that makes it, all in one group.
        phrase: how it is said alone, with a place for the words of each part.
        seen: names that an alignment is told.
        unseen: names that it is not told.
    """

    name: str
    parts: Mapping[str, str]
    phrase: str
    seen: tuple[Name, ...]
    unseen: tuple[Name, ...]

    def listed(self) -> Concept:
        """It as a concept of a list, with the words of its names."""
        seen, unseen = (tuple(name.text for name in names) for names in (self.seen, self.unseen))
        return Concept(self.name, tuple(text for text in seen if text != self.name), unseen)

    def present(self, scenes: Scenes) -> Tensor:
        """(N,) bool: the scenes that hold it."""
        return self._parts_in(scenes).all(0).any(1)

    def near(self, scenes: Scenes) -> Tensor:
        """(N,) bool: the scenes with a near miss, a group that has some of the parts and not all; none for one part."""
        having = self._parts_in(scenes)
        return (having.any(0) & ~having.all(0)).any(1) & ~self.present(scenes)

    def put_into(self, scenes: Scenes, generator: torch.Generator) -> Scenes:
        """The scenes with the concept in one of their groups. Some may not be drawable: see `is_allowed`."""
        second = (torch.rand(len(scenes), generator=generator) < 0.5) & (scenes.groups == 2)
        for name, value in self.parts.items():
            index, old = _index(name, value), getattr(scenes, name)
            new = torch.full_like(old, index) if old.ndim == 1 else old.scatter(1, second.long()[:, None], index)
            scenes = replace(scenes, **{name: new})
        return scenes

    def with_another_part(self, scenes: Scenes, generator: torch.Generator) -> Scenes:
        """The scenes with one part of the concept changed, by chance. Some may not be drawable, or hold it still."""
        names = list(self.parts)
        chosen = torch.randint(len(names), (len(scenes),), generator=generator)
        holding = self._parts_in(scenes).all(0)
        for number, name in enumerate(names):
            old, mine = getattr(scenes, name), chosen == number
            values = torch.randint(len(SAFE_VALUES[name]), old.shape, generator=generator)
            where = mine if old.ndim == 1 else mine[:, None] & holding
            scenes = replace(scenes, **{name: torch.where(where, values, old)})
        return scenes

    def shown(self, reading: Reading) -> bool:
        """Whether a picture shows it, even badly drawn."""
        if "place" in self.parts:
            return reading.place == self.parts["place"]
        return reading.has(**{("resembles" if name == "shape" else name): value for name, value in self.parts.items()})

    def _parts_in(self, scenes: Scenes) -> Tensor:
        """(parts, N, 2) bool: the groups that have each part."""
        rows = []
        for name, value in self.parts.items():
            column = getattr(scenes, name)
            column = column[:, None].expand(-1, 2) if column.ndim == 1 else column
            rows.append((column == _index(name, value)) & scenes.present)
        return torch.stack(rows)


def _index(name: str, value: str) -> int:
    return _VALUES[name].index(value)
