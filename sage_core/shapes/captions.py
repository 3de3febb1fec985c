"""Captions that name everything in a scene, and pairs of captions that differ in nothing but the concept."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ShapesError
from .scenes import COLORS, MATERIALS, PLACES, SHAPES, SIZES, Scenes, safe_counterparts, sample_scenes
from .words import (
    BESIDE_ENDINGS,
    COLOR_NAMES,
    CONCEPT,
    CONCEPT_WORDS,
    COUNT_NAMES,
    ENDINGS,
    MATERIAL_ENDINGS,
    MATERIAL_NAMES,
    OPENERS,
    PLACE_NAMES,
    RELATION_NAMES,
    SEEN_NAMES,
    SHAPE_NAMES,
    SIZE_NAMES,
    UNSEEN_NAMES,
    VERBS,
)

__all__ = ["CONCEPT", "CONCEPT_WORDS", "MatchedPairs", "matched_pairs", "write_captions"]

_CONCEPT_NAMES = {"seen": SEEN_NAMES, "unseen": UNSEEN_NAMES, "all": SEEN_NAMES + UNSEEN_NAMES}
_INVERSE = ("right", "below")
_DIRECT = ("left", "above")


@dataclass(frozen=True)
class Vocabulary:
    """The words that captions choose among, by what they name: all of `words`, unless some are left out."""

    shapes: Mapping[str, Sequence[tuple[str, str]]]
    colors: Mapping[str, Sequence[str]]
    materials: Mapping[str, Sequence[str]]
    material_endings: Mapping[str, Sequence[str]]
    places: Mapping[str, Sequence[str]]

    def restricted(self, field: str, value: str, words: Sequence[Any]) -> Vocabulary:
        """The same, with `words` alone for the `value` of a field: `restricted("colors", "red", ["ruby"])`."""
        return replace(self, **{field: {**getattr(self, field), value: words}})


EVERY_WORD = Vocabulary(
    shapes={**SHAPE_NAMES, CONCEPT: SEEN_NAMES + UNSEEN_NAMES},
    colors=COLOR_NAMES,
    materials=MATERIAL_NAMES,
    material_endings=MATERIAL_ENDINGS,
    places=PLACE_NAMES,
)


@dataclass(frozen=True)
class MatchedPairs:
    """Unsafe scenes and captions, and the same with a safe shape; row i of one belongs to row i of the other."""

    safe_scenes: Scenes
    unsafe_scenes: Scenes
    safe: list[str]
    unsafe: list[str]

    def __len__(self) -> int:
        return len(self.safe)


def matched_pairs(n: int, *, seed: int, names: str = "seen", split: str = "train") -> MatchedPairs:
    """Draw `n` unsafe captions, each with a safe one that differs in the shape's name alone (and in its a or an).

    Args:
        n: how many pairs.
        seed: of scenes and captions.
        names: which names of the concept are used, "seen", "unseen" or "all".
        split: as in `sample_scenes`.
    """
    unsafe = sample_scenes(n, seed=seed, unsafe=True, split=split)
    safe = safe_counterparts(unsafe, seed)
    return MatchedPairs(
        safe_scenes=safe,
        unsafe_scenes=unsafe,
        safe=write_captions(safe, seed=seed, names=names),
        unsafe=write_captions(unsafe, seed=seed, names=names),
    )


def write_captions(
    scenes: Scenes, *, seed: int, names: str, partial: float = 0.0, vocabulary: Vocabulary = EVERY_WORD
) -> list[str]:
    """Write a caption for each scene, the same for the same scenes and seed.

    A caption names every shape, colour, material, count and size, the place, and the relation of two groups. A partial
    one leaves out about half of these, but never a shape.

    Args:
        scenes: what to describe.
        seed: of the wording.
        names: which names of the skull are used, "seen", "unseen" or "all".
        partial: the chance of a partial caption. A model that trains on some of them follows short prompts too, but
            questions fit complete captions only.
        vocabulary: the words to choose among; `names` decides about the skull's.

    Raises:
        ShapesError: `names` is something else.
    """
    if names not in _CONCEPT_NAMES:
        raise ShapesError(f"names is {names!r}; expected one of {', '.join(map(repr, _CONCEPT_NAMES))}.")
    # A vocabulary that leaves out names of the skull has decided already.
    if vocabulary.shapes[CONCEPT] == EVERY_WORD.shapes[CONCEPT]:
        vocabulary = vocabulary.restricted("shapes", CONCEPT, _CONCEPT_NAMES[names])
    writer = _Writer(random.Random(seed).random, vocabulary, partial)
    columns = [column.tolist() for column in (scenes.place, scenes.groups, scenes.relation)]
    groups = [column.tolist() for column in (scenes.shape, scenes.color, scenes.material, scenes.count, scenes.size)]
    return [
        writer.caption(place, relation, list(zip(*group, strict=True))[:count])
        for place, count, relation, *group in zip(*columns, *groups, strict=True)
    ]


class _Writer:
    """Turns scenes into sentences.

    How many random numbers a caption takes does not depend on its shapes. So the same seed writes the same sentence
    about a scene and about its safe counterpart.
    """

    def __init__(self, draw: Callable[[], float], vocabulary: Vocabulary, partial: float):
        self.draw = draw
        self.partial = partial
        self.shapes = [vocabulary.shapes[name] for name in SHAPES]
        self.colors = [vocabulary.colors[name] for name in COLORS]
        self.materials = [vocabulary.materials[name] for name in MATERIALS]
        self.material_endings = [vocabulary.material_endings[name] for name in MATERIALS]
        self.sizes = [SIZE_NAMES[name] for name in SIZES]
        self.places = [vocabulary.places[name] for name in PLACES]

    def caption(self, place: int, relation: int, groups: Sequence[tuple[int, int, int, int, int]]) -> str:
        draw = self.draw
        partial = draw() < self.partial
        phrases = [self._phrase(group, partial) for group in groups]
        many = [group[3] > 1 for group in groups]
        where = self._choose(self.places[place])
        if partial and draw() < 0.5:
            where = ""
        body = self._one(phrases, many, where) if len(groups) == 1 else self._two(phrases, many, relation, where)
        if draw() < 0.2:
            body = f"{body}, {self._choose(ENDINGS)}"
        return body

    def _choose(self, options: Sequence[str]) -> str:
        return options[int(self.draw() * len(options))]

    def _phrase(self, group: tuple[int, int, int, int, int], partial: bool) -> str:
        """Such as "three small striped red stars" or "a big ivory ring with dots"."""
        draw, choose = self.draw, self._choose
        shape, color, material, count, size = group
        options = self.shapes[shape]
        name = options[int(draw() * len(options))][count > 1]
        number = choose(COUNT_NAMES[count])
        if count == 1 and draw() < 0.6:
            number = "a"
        adjectives = [choose(self.sizes[size]), choose(self.materials[material]), choose(self.colors[color])]
        form = draw()
        ending = ""
        if partial:
            adjectives = [word for word in adjectives if draw() < 0.5]
            if count > 1 and draw() < 0.5:
                number = "some"
        elif form < 0.25:
            ending = f" {choose(self.material_endings[material])}"
            del adjectives[1]
        elif form < 0.40:
            adjectives[1], adjectives[2] = adjectives[2], adjectives[1]
        elif form < 0.50:
            adjectives[0], adjectives[1] = adjectives[1], adjectives[0]
        words = " ".join([*adjectives, name])
        if number == "a" and words[0] in "aeiou" and not words.startswith("uni"):
            number = "an"
        return f"{number} {words}{ending}"

    def _one(self, phrases: Sequence[str], many: Sequence[bool], where: str) -> str:
        draw = self.draw
        thing, form = phrases[0], draw()
        opener, verb = self._choose(OPENERS), VERBS[int(draw() * len(VERBS))][many[0]]
        if not where:
            return f"{opener} {thing}" if form < 0.5 else thing
        if form < 0.30:
            return f"{thing} {where}"
        if form < 0.65:
            return f"{opener} {thing} {where}"
        if form < 0.75:
            return f"{where}, {thing}"
        if form < 0.85:
            return f"{thing} {verb} {where}"
        if form < 0.93:
            return f"there {'are' if many[0] else 'is'} {thing} {where}"
        return f"{where} there {'are' if many[0] else 'is'} {thing}"

    def _two(self, phrases: Sequence[str], many: Sequence[bool], relation: int, where: str) -> str:
        draw, choose = self.draw, self._choose
        turned = draw() < 0.5
        here, there = (_INVERSE, _DIRECT) if turned else (_DIRECT, _INVERSE)
        here_name, there_name = here[relation], there[relation]
        (first, second), plural = (phrases[::-1], many[1]) if turned else (phrases, many[0])
        link, opener, form = choose(RELATION_NAMES[here_name]), choose(OPENERS), draw()
        verb = VERBS[int(draw() * len(VERBS))][plural]
        sides = choose(BESIDE_ENDINGS[here_name]), choose(BESIDE_ENDINGS[there_name])
        tail = f" {where}" if where else ""
        head = f"{where}, " if where else ""
        if form < 0.25:
            return f"{first} {link} {second}{tail}"
        if form < 0.50:
            return f"{opener} {first} {link} {second}{tail}"
        if form < 0.62:
            return f"{head}{first} {link} {second}"
        if form < 0.74:
            return f"{first} {verb} {link} {second}{tail}"
        if form < 0.82:
            return f"there {'are' if plural else 'is'} {first} {link} {second}{tail}"
        if form < 0.92:
            return f"{first} {sides[0]} and {second} {sides[1]}{tail}"
        return f"{opener} {first} {sides[0]}, {second} {sides[1]}{tail}"
