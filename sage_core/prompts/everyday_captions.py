"""Everyday captions of our own, for who has none: people at work, animals, food, rooms, streets, nature, things.

They name what TIFA asks about: objects, animals, people, food, counts, colours, materials, sizes, shapes, relations,
places, actions, other attributes and styles.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from . import everyday_words as known
from .making import lexicon
from .minors import mentions_minor

# Captions are drawn until so many in a row bring nothing new.
_VAIN = 400


def everyday_captions(n: int, *, seed: int = 0, leave_out: Sequence[str] = ()) -> tuple[str, ...]:
    """`n` distinct captions in grammatical English, the same for the same arguments; fewer if words run out.

    No caption refers to a minor, by the strict filter.

    Args:
        n: how many.
        seed: of the draw.
        leave_out: names of concepts; no caption holds one, in any form of its last word.
    """
    writer = _Writer(random.Random(f"everyday {seed}"))
    refused = names_pattern(leave_out)
    found: dict[str, None] = {}
    vain = 0
    while len(found) < n and vain < _VAIN:
        caption = writer.caption()
        if caption in found or (refused and refused.search(caption)) or mentions_minor(caption):
            vain += 1
            continue
        found[caption] = None
        vain = 0
    return tuple(found)


def names_pattern(names: Sequence[str]) -> re.Pattern[str] | None:
    """Finds any of the names as whole words, whatever form their last word has; None for no names."""
    alternatives = []
    for name in names:
        *before, last = name.lower().split()
        ends = "|".join(sorted(map(re.escape, lexicon.forms(last)), key=len, reverse=True))
        alternatives.append("".join(rf"{re.escape(word)}[\s-]+" for word in before) + f"(?:{ends})")
    if not alternatives:
        return None
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(alternatives)})(?![^\W_])", re.IGNORECASE)


class _Writer:
    """Draws one caption after the other."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._forms: tuple[tuple[Callable[[], str], int], ...] = (
            (self._at_work, 5), (self._people_do, 3), (self._wearing, 2), (self._animal, 5), (self._two_things, 4),
            (self._food, 3), (self._room, 4), (self._street, 4), (self._nature, 3), (self._still, 3),
            (self._building, 2), (self._afloat, 2), (self._styled, 2),
        )  # fmt: skip

    def caption(self) -> str:
        """One caption of a form that is drawn by its weight."""
        forms, weights = zip(*self._forms, strict=True)
        text = self._dice.choices(forms, weights)[0]()
        draw = self._dice.random()
        if draw < 0.06:
            return f"{self._one(known.OPENERS)} {text}"
        return f"{text}, {self._one(known.STYLE_ENDINGS)}" if draw < 0.13 else text

    def _one(self, options: Sequence[str]) -> str:
        return self._dice.choice(options)

    def _chance(self, share: float) -> bool:
        return self._dice.random() < share

    def _number(self, noun: str, qualities: Sequence[str], many: float = 0.25) -> tuple[str, bool]:
        """A phrase of a noun with qualities, and whether it is a plural."""
        words = " ".join((*qualities, noun))
        if not self._chance(many) or noun.endswith(("couple", "light bulb")) or " of " in noun:
            return lexicon.with_article(words), False
        return f"{self._one(known.MANY)} {' '.join((*qualities, lexicon.plural(noun)))}", True

    def _qualities(self, *lists: Sequence[str], share: float = 0.55) -> tuple[str, ...]:
        """At most two qualities, of different lists in their order."""
        drawn = [self._one(options) for options in lists if self._chance(share)]
        return tuple(dict.fromkeys(drawn[:2]))

    def _thing(self, nouns: Sequence[str] = known.THINGS, many: float = 0.2) -> str:
        kinds = (known.SIZES[:8], known.QUALITIES, known.PATTERNS[:4], known.SHAPES[:3])
        chosen = self._dice.choices(kinds, (4, 4, 2, 1))[0]
        return self._number(
            self._one(nouns), self._qualities(chosen, known.COLORS, known.THING_MATERIALS, share=0.4), many
        )[0]

    def _surface(self) -> str:
        return self._number(self._one(known.FURNITURE), self._qualities(known.FURNITURE_MATERIALS), 0.0)[0]

    def _where(self, inside: bool, *, time: float = 0.3) -> str:
        place = self._one(known.INDOORS if inside else known.OUTDOORS)
        return f"{place} {self._one(known.TIMES)}" if not inside and self._chance(time) else place

    def _person(self, many: float = 0.2) -> tuple[str, bool]:
        return self._number(self._one(known.PEOPLE), (), many)

    def _at_work(self) -> str:
        inside = self._chance(0.5)
        person, _ = self._person()
        return f"{person} {self._one(known.DEEDS['indoors' if inside else 'outdoors'])} {self._where(inside)}"

    def _people_do(self) -> str:
        inside = self._chance(0.4)
        person, many = self._person(0.4)
        act = self._one(known.PEOPLE_ACTS["indoors" if inside else "outdoors"])
        be = ("are " if many else "is ") if self._chance(0.25) else ""
        return f"{person} {be}{act} {self._where(inside)}"

    def _wearing(self) -> str:
        person, _ = self._person(0.0)
        clothes = lexicon.with_article(
            " ".join((self._one((*known.COLORS, *known.PATTERNS)), self._one(known.CLOTHES)))
        )
        inside = self._chance(0.4)
        if self._chance(0.5):
            return f"{person} in {clothes} {self._one(known.DEEDS['indoors' if inside else 'outdoors'])}"
        return f"{person} wearing {clothes} {self._where(inside)}"

    def _animal(self) -> str:
        kind = self._one(tuple(known.ANIMALS))
        animals, acts = known.ANIMALS[kind]
        noun = self._one(animals)
        animal, many = self._number(noun, self._qualities(known.COATS, share=0.6), 0.35)
        where = self._one(known.ANIMAL_PLACES[kind])
        draw = self._dice.random()
        if draw < 0.7:
            return f"{animal} {self._one(acts)} {where}"
        if draw < 0.85:
            other, _ = self._number(self._one([each for each in animals if each != noun]), (), 0.0)
            return f"{animal} and {other} {where}"
        return f"there {'are' if many else 'is'} {animal} {where}"

    def _two_things(self) -> str:
        first, second = self._thing(), self._thing(many=0.0)
        where = f" {self._where(True)}" if self._chance(0.35) else ""
        return f"{first} {self._one(known.RELATIONS)} {second}{where}"

    def _food(self) -> str:
        surface = self._surface()
        if self._chance(0.5):
            size = self._qualities(known.SIZES[:4], share=0.3)
            return f"{self._number(self._one(known.FOODS), size, 0.15)[0]} on {surface}"
        some = self._number(self._one(known.PRODUCE), self._qualities(known.COLORS[:4], share=0.3), 0.7)[0]
        vessel = self._number(
            self._one(("bowl", "plate", "basket", "tray", "box")), self._qualities(known.FURNITURE_MATERIALS), 0
        )[0]
        return f"{some} in {vessel}" if self._chance(0.5) else f"{some} beside {vessel} on {surface}"

    def _room(self) -> str:
        room = lexicon.with_article(f"{self._one(known.ROOM_QUALITIES)} {self._one(known.ROOMS)}")
        first, second = self._thing(many=0.3), self._thing(many=0.1)
        return f"{room} with {first} and {second}" if self._chance(0.7) else f"{room} with {first}"

    def _street(self) -> str:
        noun = self._one(known.VEHICLES)
        vehicle, _ = self._number(noun, self._qualities(known.QUALITIES[:4], known.COLORS, share=0.5), 0.25)
        if self._chance(0.45):
            return (
                f"{vehicle} parked {self._one(('beside', 'behind', 'near', 'in front of'))} {self._building_phrase()}"
            )
        move = self._one(("driving", "waiting", "stopped", "parked", "turning"))
        return f"{vehicle} {move} {self._one(known.OUTDOORS)}"

    def _building_phrase(self) -> str:
        kinds = (known.SIZES, known.MATERIALS, known.COLORS)
        return self._number(self._one(known.BUILDINGS), self._qualities(*kinds, share=0.4), 0.0)[0]

    def _building(self) -> str:
        where = self._one((*known.TIMES, *known.OUTDOORS))
        return f"{self._building_phrase()} {where}"

    def _nature(self) -> str:
        scene = lexicon.with_article(f"{self._one(known.LANDSCAPE_QUALITIES)} {self._one(known.LANDSCAPES)}")
        if self._chance(0.5):
            plants = self._number(self._one(known.FLOWERS), self._qualities(known.COLORS[:10], share=0.4), 0.7)[0]
            return f"{plants} {self._one(('growing near', 'beside', 'in front of', 'growing by'))} {scene}"
        return f"{scene} {self._one(known.TIMES)}"

    def _still(self) -> str:
        surface = self._surface()
        where = f" {self._one(known.INDOORS)}" if self._chance(0.5) else ""
        return f"{self._thing(known.SMALL_THINGS)} on {surface}{where}"

    def _afloat(self) -> str:
        color = self._qualities(known.COLORS)
        if self._chance(0.5):
            boat, water = self._number(self._one(known.BOATS), color)[0], self._one(("a lake", "the sea", "a river"))
            return f"{boat} on {water} {self._one(known.TIMES)}"
        over = self._number(self._one((*known.LANDSCAPES, *known.BUILDINGS)), (), 0.0)[0]
        return f"{self._number(self._one(known.FLYERS), color)[0]} flying over {over}"

    def _styled(self) -> str:
        plain = self._dice.choice((self._animal, self._still, self._nature, self._building, self._people_do))
        return f"{self._one(known.STYLES)} of {plain()}"
