"""Everyday captions of our own, for who has none: people at work, animals, food, rooms, streets, nature, things.

They name what TIFA asks about: objects, animals, people, food, counts, colours, materials, sizes, shapes, relations,
places, actions, other attributes and styles.

Most are as short and plain as captions of photographs. Two in five are as detailed as prompts can be: things with
several qualities, in more numbers, in the midst of a longer sentence, with more before and after them. A training that
never saw a concept in such company leaves it there. Of the captions of COCO 95 % have no more than 14 words, of
PartiPrompts no more than 26.
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
# The share of detailed captions.
_DETAILED = 0.4
# Where two things are in one picture, and how one stands, in the singular and the plural.
_OPPOSED = (
    ("on the left", "on the right"), ("at the top", "at the bottom"), ("in the foreground", "in the background"),
    ("in the middle", "in the corner"), ("on one side", "on the other side"), ("on the right side", "on the left side"),
    ("in the distance", "in the center"), ("in the upper left corner", "in the lower right corner"),
)  # fmt: skip
_POSTURES = (("stands", "stand"), ("lies", "lie"), ("is", "are"), ("rests", "rest"), ("sits", "sit"))


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
        # Whether the caption is to be detailed, and whether nothing may come before it.
        self._detailed = self._whole = False
        self._forms: tuple[tuple[Callable[[], str], int], ...] = (
            (self._at_work, 5), (self._people_do, 3), (self._wearing, 2), (self._animal, 5), (self._two_things, 4),
            (self._food, 3), (self._room, 4), (self._street, 4), (self._nature, 3), (self._still, 3),
            (self._building, 2), (self._afloat, 2), (self._styled, 2),
        )  # fmt: skip
        self._detailed_forms: tuple[tuple[Callable[[], str], int], ...] = (
            (self._scene, 3), (self._led, 3), (self._opposed, 3), (self._two_scenes, 2), (self._posed, 3),
            (self._related, 4),
        )  # fmt: skip

    def caption(self) -> str:
        """One caption of a form that is drawn by its weight."""
        self._detailed, self._whole = self._chance(_DETAILED), False
        if self._detailed:
            return self._framed(self._drawn(self._detailed_forms))
        text = self._scene()
        draw = self._dice.random()
        if draw < 0.06 and not self._whole:
            return f"{self._one(known.OPENERS)} {text}"
        return f"{text}, {self._one(known.STYLE_ENDINGS)}" if draw < 0.13 else text

    def _scene(self) -> str:
        return self._drawn(self._forms)

    def _drawn(self, forms: Sequence[tuple[Callable[[], str], int]]) -> str:
        choices, weights = zip(*forms, strict=True)
        return self._dice.choices(choices, weights)[0]()

    def _framed(self, text: str) -> str:
        """A detailed caption with what may come before and after it."""
        if self._chance(0.4) and not self._whole:
            text = f"{self._one((*known.OPENERS, *known.REQUESTS))} {text}"
        if self._chance(0.35):
            text = f"{text}, {self._one((*known.STYLE_ENDINGS, *known.TAGS))}"
            text = f"{text}, {self._one(known.TAGS)}" if self._chance(0.3) and not text.endswith(known.TAGS) else text
        return text

    def _one(self, options: Sequence[str]) -> str:
        return self._dice.choice(options)

    def _chance(self, share: float) -> bool:
        return self._dice.random() < share

    def _number(self, noun: str, qualities: Sequence[str], many: float = 0.25) -> tuple[str, bool]:
        """A phrase of a noun with qualities, and whether it is a plural."""
        words = " ".join((*qualities, noun))
        if not self._chance(many) or noun.endswith(("couple", "light bulb")) or " of " in noun:
            if self._detailed and self._chance(0.15) and lexicon.is_counted(noun.split()[-1]):
                return f"{self._one(known.MORE_SINGLE)} {words}", False
            return lexicon.with_article(words), False
        counts = known.MANY + known.MORE_MANY if self._detailed else known.MANY
        return f"{self._one(counts)} {' '.join((*qualities, lexicon.plural(noun)))}", True

    def _qualities(self, *lists: Sequence[str], share: float = 0.55) -> tuple[str, ...]:
        """At most two qualities, or three in detail, of different lists in their order."""
        drawn = [self._one(options) for options in lists if self._chance(share)]
        return tuple(dict.fromkeys(drawn[: 3 if self._detailed else 2]))

    def _thing(self, nouns: Sequence[str] = known.THINGS, many: float = 0.2) -> str:
        if self._detailed:
            return self._detailed_thing(nouns)[0]
        kinds = (known.SIZES[:8], known.QUALITIES, known.PATTERNS[:4], known.SHAPES[:3])
        chosen = self._dice.choices(kinds, (4, 4, 2, 1))[0]
        return self._number(
            self._one(nouns), self._qualities(chosen, known.COLORS, known.THING_MATERIALS, share=0.4), many
        )[0]

    def _detailed_thing(self, nouns: Sequence[str] = known.THINGS) -> tuple[str, bool]:
        """A thing with as many qualities as a prompt may give it, and whether it is a plural."""
        marked = self._chance(0.15)
        patterns = () if marked else (known.PATTERNS[:8],)
        lists = (known.SIZES[:8], known.QUALITIES, *patterns, known.COLORS, known.THING_MATERIALS)
        phrase, many = self._number(self._one(nouns), self._qualities(*lists, share=0.5), 0.4)
        return (f"{phrase} {self._one(known.MARKS)}" if marked else phrase), many

    def _led(self) -> str:
        """Where it is comes first."""
        where = self._where(self._chance(0.5))
        if self._chance(0.3):
            thing, many = self._detailed_thing()
            text = f"{where} there {'are' if many else 'is'} {self._beside(thing)}"
        else:
            text = f"{where}, {self._beside(self._detailed_thing()[0]) if self._chance(0.5) else self._opposed()}"
        self._whole = True
        return text

    def _opposed(self) -> str:
        """Two things, each with its place in the picture."""
        first, second = self._dice.choice(_OPPOSED)
        link = self._one((" and", ","))
        return f"{self._detailed_thing()[0]} {first}{link} {self._detailed_thing()[0]} {second}"

    def _posed(self) -> str:
        """What a thing does that does nothing, as a sentence."""
        thing, many = self._detailed_thing()
        self._whole = True
        posture = self._dice.choice(_POSTURES)[many]
        if self._chance(0.5):
            return self._beside(f"{thing} {posture}")
        return f"{thing} {posture} {self._where(self._chance(0.5))}"

    def _related(self) -> str:
        """Two things by each other, somewhere."""
        thing, many = self._detailed_thing()
        where = f" {self._where(self._chance(0.5))}" if self._chance(0.6) else ""
        self._whole = self._chance(0.2)
        there = f"there {'are' if many else 'is'} " if self._whole else ""
        return f"{there}{self._beside(thing)}{where}"

    def _beside(self, thing: str) -> str:
        return f"{thing} {self._one(known.RELATIONS)} {self._detailed_thing()[0]}"

    def _two_scenes(self) -> str:
        if self._chance(0.5):
            return f"{self._scene()}, {self._detailed_thing()[0]} in the background"
        return f"{self._detailed_thing()[0]} in the foreground, {self._scene()}"

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
        self._whole = self._chance(0.25)
        be = ("are " if many else "is ") if self._whole else ""
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
        self._whole = True
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
        text = f"{self._one(known.STYLES)} of {plain()}"
        self._whole = True
        return text
