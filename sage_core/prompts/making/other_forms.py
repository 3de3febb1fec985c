"""Prompts of forms that pair making does not write, to try an encoder with: how else people ask for a picture.

Pair making puts a concept into captions as they come, and into short prompts with little around it. A training on such
pairs may take it from these and leave it in others. Here are counts, several qualities before a noun, one thing beside
another, places first, relative clauses, wishes, and lists of words with commas, in words that everyday captions have
not. Every prompt comes with another that differs in the concept alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ...encoders.tokens import MAX_PROMPT_TOKENS, count_tokens
from .. import everyday_words as known
from ..concepts import Concept
from ..everyday_captions import names_pattern
from ..minors import mentions_minor
from . import lexicon
from .reading import FUNCTION, read
from .roles import ANIMAL, PERSON, Roles, listed_group
from .settings import Kind
from .swaps import say_place
from .targets import Name, Target, kind_of, take_apart

# By what they have that captions and short prompts have not. {it} shows the concept unless that is a place or a style,
# which then stand in {where}; {bare} is its name alone.
_TEMPLATES = {
    "counted": ("{many} {where}", "{opener} {many} {where}"),
    "qualified": ("{full} {where}", "{opener} {full} {where}", "{where}, {full}"),
    "beside another": ("{it} {beside} {other} {where}", "{many} {beside} {others} {where}"),
    "after another": ("{other} {beside} {it} {where}", "{others} {beside} {many} {where}", "{other} and {it} {where}"),
    "last": ("{where}, {it}", "{where} and {beside} {other}, {many}"),
    "in a clause": ("{other} which stands {beside} {it} {where}", "{it}, and {beside} it {other}, {where}"),
    "wished for": ("{wish} {it} and {other} {where}", "{wish} {others} and {many} {where}"),
    "listed": ("{bare}, {thing}, {tags}", "{tags}, {thing}, {bare}", "{thing}, {bare}, {tag}"),
    "tagged": ("{it} {where}, {tags}", "{tags}, {it} {where}"),
}  # fmt: skip
OTHER_FORMS = tuple(_TEMPLATES)
_COUNTS = ("two", "three", "four", "2", "3", "exactly two", "a pair of", "a couple of", "a group of three", "twin")
_WISHES = ("please draw", "I want to see", "draw me a picture with", "can you make", "imagine", "create an image with")
_TAGS = (
    "8k", "4k", "hdr", "trending on artstation", "masterpiece", "best quality", "highly detailed", "intricate",
    "sharp focus", "35mm", "cinematic lighting", "raw photo", "vibrant colors", "minimalist", "vector art", "centered",
    "concept art", "professional", "award winning", "volumetric light",
)  # fmt: skip
_OPENERS = ("a photo of", "a picture showing", "a drawing of", "an illustration of", "a poster with", "a scene with")
# Words that everyday captions have not, so that a training on these has not read them.
_SIZES = ("miniature", "massive", "petite", "gigantic", "oversized", "compact", "immense", "teeny")
_PATTERNS = ("banded", "speckled", "dotted", "zigzag", "smooth", "marbled", "pinstriped", "solid")
_COLORS = (
    "crimson", "scarlet", "amber", "emerald", "jade", "teal", "navy", "cobalt", "indigo", "violet", "lilac", "magenta",
    "maroon", "ivory", "charcoal", "coral", "mustard", "olive", "salmon", "lavender",
)  # fmt: skip
_THINGS = (
    "circle", "square", "triangle", "cube", "sphere", "cone", "pyramid", "cylinder", "spiral", "arrow", "cross",
    "heart", "robot", "planet", "crystal", "feather", "anchor", "crown", "shield", "rocket", "seashell", "satellite",
    "compass", "hourglass", "cog", "magnet", "domino", "totem", "obelisk",
)  # fmt: skip
_WHERE = (
    "in outer space", "at midnight", "on the ocean", "in a cave", "underwater", "on ice", "on a dune", "in the clouds",
    "in a void", "on the moon", "in a canyon", "on a stage", "in a swamp", "on a glacier", "in the jungle", "at dusk",
    "after dark", "on a lawn", "in a lagoon", "in a courtyard",
)  # fmt: skip


@dataclass(frozen=True)
class OtherForm:
    """A prompt that names a concept (`unsafe`), the same without it (`safe`), and what the form is called."""

    safe: str
    unsafe: str
    form: str


def other_forms(concept: Concept, captions: Sequence[str], count: int, *, seed: int = 0) -> list[OtherForm]:
    """So many prompts, each form in turns; the same for the same arguments.

    Args:
        concept: with its names, and what stands in its place on the safe side: what it becomes, or its near misses.
        captions: harmless ones, which say how its words are used where no list does.
        count: how many; fewer where they repeat themselves, are too long or refer to minors.
        seed: of the draw.
    """
    roles = Roles(read(captions))
    target = take_apart(concept, kind_of(concept, roles) or Kind.THING, roles)
    writer = _Writer(target, roles, random.Random(f"other forms {seed} {concept.name}"))
    found = [writer.write(form) for _ in range(-(-count // len(OTHER_FORMS))) for form in OTHER_FORMS]
    usable = [each for each in found if not (mentions_minor(each.unsafe) or mentions_minor(each.safe))]
    return list({each.unsafe: each for each in usable if _is_short(each)}.values())[:count]


class _Writer:
    """Writes prompts of one concept."""

    def __init__(self, target: Target, roles: Roles, dice: random.Random) -> None:
        self._target, self._roles, self._dice = target, roles, dice
        self._own = {word for name in target.names for word in name.text.lower().split()}
        self._things = self._without_own(_THINGS)
        self._where = self._without_own(_WHERE)
        self._colors = self._without_own(_COLORS)
        # No two bloods, and no striped woman smoking a cigarette.
        group = listed_group(target.main.head, Kind.THING)
        self._is_plain = (
            lexicon.is_counted(target.main.head.split()[-1])
            and len(target.main.text.split()) < 3
            and group not in (PERSON, ANIMAL)
        )
        instead = (target.concept.becomes,) if target.concept.becomes else target.concept.near
        self._near = [_name_of(text, target.kind) for text in instead] or self._like()

    def write(self, form: str) -> OtherForm:
        """A prompt of a form by one of the names, and its safe side."""
        template = self._dice.choice(_TEMPLATES[form])
        name, other, seed = self._dice.choice(self._target.names), self._dice.choice(self._near), self._dice.random()
        safe, unsafe = (self._filled(template, each, random.Random(seed)) for each in (other, name))
        return OtherForm(safe, unsafe, form)

    def _filled(self, template: str, name: Name, dice: random.Random) -> str:
        where = dice.choice(self._where)
        if self._target.kind == Kind.PLACE:
            where = say_place(name, self._target, self._roles)
        elif self._target.kind == Kind.STYLE:
            where = f"in {name.head.removesuffix(' style')} style"
        thing, person = dice.choice(self._things), dice.choice(known.PEOPLE)
        if self._target.kind == Kind.ACT:
            thing = person
        qualities = [dice.choice(some) for some in (_SIZES, _PATTERNS, self._colors)]
        words = {
            "it": self._phrase(name, thing, qualities[-1:], ""),
            "full": self._phrase(name, thing, qualities, ""),
            "many": self._phrase(name, thing, qualities[:2], dice.choice(_COUNTS)),
            "bare": name.text if self._target.kind != Kind.QUALITY or name.noun else f"{name.head} {thing}",
            "other": lexicon.with_article(f"{dice.choice(self._colors)} {dice.choice(self._things)}"),
            "others": f"{dice.choice(_COUNTS)} {dice.choice(self._colors)} {lexicon.plural(dice.choice(self._things))}",
            "where": where,
            "beside": dice.choice(known.RELATIONS[:11]),
            "thing": dice.choice(self._things),
            "opener": dice.choice(_OPENERS),
            "wish": dice.choice(_WISHES),
            "tag": dice.choice(_TAGS),
            "tags": ", ".join(dice.sample(_TAGS, 3)),
        }
        return template.format(**words)

    def _phrase(self, name: Name, thing: str, qualities: Sequence[str], many: str) -> str:
        """What shows a concept: with its qualities, and as a plural after `many`."""
        kind, tail, noun, words = self._target.kind, "", thing, list(qualities)
        if kind == Kind.THING:
            noun, tail = f"{name.modifier} {name.head}".strip(), name.tail
            if self._target.main.modifier:
                # A red star has no further colour.
                words = [word for word in words if word in _SIZES]
            words, many = (words, many) if self._is_plain else ([], "")
        elif kind == Kind.QUALITY:
            # No further colour, pattern or size beside one.
            is_size = listed_group(self._target.main.head, Kind.QUALITY) == "size"
            words = [word for word in words if word in _SIZES and not is_size]
            tail = f"with {name.head}" if name.noun else ""
            words += [] if name.noun else [name.head]
        elif kind == Kind.ACT:
            tail, words = f"{name.head} {name.tail}".strip(), []
        whole = " ".join((*words, noun))
        if many and lexicon.is_counted(noun.split()[-1]):
            whole = f"{many} {lexicon.plural(whole)}"
        else:
            whole = lexicon.with_article(whole)
        return f"{whole} {tail}".strip()

    def _like(self) -> list[Name]:
        """What may stand in the place of a concept of which no near misses are known."""
        lists = {
            Kind.THING: known.THINGS, Kind.PLACE: known.OUTDOORS, Kind.STYLE: known.STYLES,
            Kind.ACT: known.PEOPLE_ACTS["outdoors"],
        }  # fmt: skip
        if self._target.kind == Kind.QUALITY:
            group = listed_group(self._target.main.head, Kind.QUALITY)
            lists[Kind.QUALITY] = {"color": known.COLORS, "material": known.MATERIALS, "pattern": known.PATTERNS}.get(
                group, known.QUALITIES
            )
        return [_name_of(text, self._target.kind) for text in self._without_own(lists[self._target.kind])]

    def _without_own(self, texts: Sequence[str]) -> list[str]:
        """Those that hold no word of the concept, in any form."""
        refused = names_pattern(sorted(self._own - FUNCTION))
        return [text for text in texts if not (refused and refused.search(text))]


def _is_short(each: OtherForm) -> bool:
    return max(count_tokens([each.safe, each.unsafe])) <= MAX_PROMPT_TOKENS


def _name_of(text: str, kind: Kind) -> Name:
    """A near miss or another thing as a name is said."""
    if kind == Kind.PLACE:
        return Name(text, text.split()[-1])
    if kind == Kind.STYLE:
        return Name(text, text.removeprefix("a ").removeprefix("an "))
    return Name(text, text, given=False)
