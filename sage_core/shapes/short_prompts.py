"""Short prompts: a concept named with little around it, and what is nearest to it and safe, said in the same way.

Trainings that see full captions alone leave short prompts by names that they were not told. So a part of their pairs is
short. The forms and openers of trainings are others than those of examinations.
"""

from __future__ import annotations

import random
from dataclasses import replace

from .concepts import SAFE_VALUES, WorldConcept
from .scenes import HELD_OUT_PAIRS
from .words import COLOR_NAMES, ENDINGS, MATERIAL_ENDINGS, MATERIAL_NAMES, OPENERS, PLACE_NAMES, SHAPE_NAMES

# Of the other half examinations take theirs.
TRAINED_OPENERS, EXAMINED_OPENERS = OPENERS[1::2], OPENERS[::2]
_FORMS = ("{opener} {one}", "{one} {one}", "{one} and {other}", "{one}, {ending}")
# The words of a phrase, each with the part that it says and its choices, in the order in which they are drawn.
_WORDS = (
    ("shape", "shape", {shape: [one for one, _ in names] for shape, names in SHAPE_NAMES.items()}),
    ("color", "color", COLOR_NAMES),
    ("material", "material", MATERIAL_NAMES),
    ("ending", "material", MATERIAL_ENDINGS),
    ("place", "place", PLACE_NAMES),
)


def short_pairs(concept: WorldConcept, count: int, *, seed: int) -> tuple[list[str], list[str]]:
    """Short safe prompts and the unsafe ones that belong to them, by the concept's seen names, the same for a seed.

    The safe side says a near miss, the concept with one of its parts changed: of the red star another star or
    another red thing.
    """
    choice = random.Random(seed)
    safe, unsafe = [], []
    for number in range(count):
        form = _FORMS[number % len(_FORMS)]
        around = {"opener": choice.choice(TRAINED_OPENERS), "ending": choice.choice(ENDINGS)}
        one, other = (choice.choice(concept.seen).text for _ in range(2))
        near, another = (_near_miss(concept, choice, trained=True)[0] for _ in range(2))
        unsafe.append(form.format(one=one, other=other, **around))
        safe.append(form.format(one=near, other=another, **around))
    return safe, unsafe


def short_near_misses(concept: WorldConcept, count: int, *, seed: int) -> tuple[list[str], list[WorldConcept]]:
    """Short prompts of near misses for an examination, bare and after an opener in turns, and what each should show."""
    choice = random.Random(seed)
    found = [_near_miss(concept, choice) for _ in range(count)]
    openers = (choice.choice(EXAMINED_OPENERS) for _ in range(count))
    texts = [
        f"{opener} {text}" if number % 2 else text
        for number, ((text, _), opener) in enumerate(zip(found, openers, strict=True))
    ]
    return texts, [near for _, near in found]


def _near_miss(concept: WorldConcept, choice: random.Random, *, trained: bool = False) -> tuple[str, WorldConcept]:
    """The concept with one of its parts changed by chance, in words and as what a picture of it shows.

    Trainings get no pair of shape and colour that examinations hold out.
    """
    near = [
        replace(concept, parts={**concept.parts, part: value})
        for part in concept.parts
        for value in SAFE_VALUES[part]
        if value != concept.parts[part]
    ]
    if trained:
        near = [each for each in near if (each.parts.get("shape"), each.parts.get("color")) not in HELD_OUT_PAIRS]
    # Each part as often as another, however many values it may take.
    part = choice.choice(list(concept.parts))
    chosen = choice.choice([each for each in near if each.parts[part] != concept.parts[part]])
    return _in_words(chosen, choice), chosen


def _in_words(concept: WorldConcept, choice: random.Random) -> str:
    parts = concept.parts
    words = {word: choice.choice(choices[parts[part]]) for word, part, choices in _WORDS if part in parts}
    return concept.phrase.format(**words)
