"""A concept taken apart: its kind, its noun or verb, what qualifies it, and how each of its names is said."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ...errors import PromptError
from ...rows import shown
from ..concepts import Concept
from . import lexicon
from .lexicon import word_set
from .reading import DETERMINERS, FUNCTION, PREPOSITIONS, VAGUE
from .roles import (
    ANIMAL,
    DRINK,
    FOOD,
    PERSON,
    Roles,
    is_content,
    listed_group,
    listed_kind,
    some_seeds,
)
from .senses import Senses, cosines_to, known_words
from .settings import Kind

# Words for all pictures: who removes these removes everything.
_EVERYTHING = word_set("""
    photo photos picture pictures image images photograph photographs scene view everything anything something thing
    things stuff all world art artwork caption prompt
""")


# Of how many common words of each place, and by how many votes of these, a kind is found.
_OF_CAPTIONS, _VOTES = 150, 5
# Words that are no nearer than this beyond the median of all tell nothing.
_NOTHING = 1e-5


@dataclass(frozen=True)
class Name:
    """One name of a concept.

    Attributes:
        text: as it is said alone.
        head: its noun (in the singular), adjective, place or verb (as -ing), several words of a compound among them.
        modifier: what qualifies the head, a part of the concept: "red" of "red star"; "" for none.
        tail: what follows the head: "with empty eye sockets".
        noun: of a quality, whether the name is a noun that things are said to be "with": "stripes".
        cosine: how alike the encoder finds it to the concept; 1 for the concept's own name.
        distance: the same as a share of the median distance of words in its place; 0 for given names.
        given: whether the user gave it.
    """

    text: str
    head: str
    modifier: str = ""
    tail: str = ""
    noun: bool = False
    cosine: float = 1.0
    distance: float = 0.0
    given: bool = True


@dataclass(frozen=True)
class Target:
    """A concept and how prompts can say it.

    Attributes:
        concept: as it was given.
        kind: what it is.
        names: those that may be used, the given ones first.
        near: words that may take the place of the head and are none of its names, the likest first.
        near_modifiers: the same of the modifier.
        near_phrases: near misses that the user gave, as they are said.
        leads: of a place, each head as it is said: "on the beach".
        doers: of an act, the groups of those who do it.
    """

    concept: Concept
    kind: Kind
    names: tuple[Name, ...]
    near: tuple[str, ...] = ()
    near_modifiers: tuple[str, ...] = ()
    near_phrases: tuple[str, ...] = ()
    leads: dict[str, str] = field(default_factory=dict)
    doers: frozenset[str] = frozenset((PERSON, ANIMAL))

    @property
    def main(self) -> Name:
        """Its first name."""
        return self.names[0]

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads of its names, each once."""
        return tuple(dict.fromkeys(name.head for name in self.names))

    @property
    def modifiers(self) -> tuple[str, ...]:
        """The modifiers of its names, each once."""
        return tuple(dict.fromkeys(name.modifier for name in self.names if name.modifier))


@dataclass(frozen=True)
class Swap:
    """A place of a caption that a concept can take: `write(name, dice)` gives the safe and the unsafe prompt."""

    like: str
    write: Callable[[Name, random.Random], tuple[str, str] | None]


def take_apart(concept: Concept, kind: Kind, roles: Roles) -> Target:
    """A concept of a known kind with the names that were given."""
    names = tuple(_name(text, kind, roles) for text in concept.trained_names)
    first = names[0]
    if kind == Kind.THING and not first.modifier:
        # "Death mask" beside "skull": the whole of it is the noun.
        names = tuple(
            name if not name.modifier else Name(name.text, f"{name.modifier} {name.head}", "", name.tail)
            for name in names
        )
    return Target(concept, kind, names, near_phrases=concept.near)


def core_words(text: str) -> list[str]:
    """The words of a concept's name without an article or a preposition before it."""
    words = text.lower().split()
    while len(words) > 1 and (words[0] in DETERMINERS or words[0] in PREPOSITIONS):
        words = words[1:]
    return words


def kind_of(concept: Concept, roles: Roles) -> Kind | None:
    """The kind of a concept by lists, parts of speech and captions; None where only the encoder can tell.

    Raises:
        PromptError: it is everything.
    """
    words = core_words(concept.name)
    if len(words) == 1 and words[0] in _EVERYTHING:
        raise PromptError(
            f"The concept is {shown(concept.name)}, which every picture is: nothing would be left to draw. Name what "
            "must no longer be drawn, such as 'umbrella', 'striped' or 'at night'."
        )
    if concept.name.lower().split()[0] in PREPOSITIONS - {"without", "with"}:
        return Kind.PLACE
    if len(words) > 1:
        last = listed_kind(words[-1])
        if listed_kind(words[0]) == Kind.ACT and _does(words):
            return Kind.ACT
        if last == Kind.STYLE or words[-1] == "style":
            return Kind.STYLE
        if last == Kind.PLACE and FUNCTION.isdisjoint(words) and not _qualifies(words[-2], roles):
            return Kind.PLACE
        return Kind.QUALITY if last == Kind.QUALITY and lexicon.NOUN not in lexicon.lemmas(words[-1]) else Kind.THING
    word = words[0]
    used = roles.kind_of(word)
    listed = listed_kind(word)
    if listed in (Kind.STYLE, Kind.ACT, Kind.QUALITY) or used is None:
        return listed
    return listed or used


def _does(words: Sequence[str]) -> bool:
    """Whether words that begin with a gerund say what is done: "riding a horse", not "swimming pool"."""
    last = words[-1]
    if words[0] == "playing" or not FUNCTION.isdisjoint(words) or lexicon.NOUN not in lexicon.parts_of(last):
        return True
    eaten = listed_group(last, Kind.THING) in (FOOD, DRINK)
    return eaten or lexicon.is_plural(last) or not lexicon.is_counted(last)


def is_quality(name: str) -> bool:
    """Whether a concept's name is one word for how things look, by lists and parts of speech."""
    words = core_words(name)
    return len(words) == 1 and listed_kind(words[0]) == Kind.QUALITY


def find_kind(senses: Senses, word: str, roles: Roles) -> Kind:
    """What the words are that the encoder finds nearest, of those whose kind lists and captions know."""
    options: dict[str, Kind] = {}
    for kind in (Kind.THING, Kind.QUALITY, Kind.PLACE):
        for other, _ in roles.words_of(kind).most_common(_OF_CAPTIONS):
            found = roles.kind_of(other) or listed_kind(other)
            if is_content(other) and other not in VAGUE and found is not None:
                options[other] = found
    for kind in (Kind.THING, Kind.QUALITY):
        options |= {seed: listed_kind(seed) or kind for seed in some_seeds(kind)}
    words = known_words(senses, [other for other in options if other != word])
    if len(words) < _VOTES:
        return Kind.THING
    parts = lexicon.parts_of(word)
    nearness = cosines_to(senses, [lambda each: f"a photo of {each}"], word, words)[0]
    best = nearness.topk(_VOTES)
    if float(best.values[-1] - nearness.median()) < _NOTHING:
        return Kind.THING
    votes = [options[words[at]] for at in best.indices.tolist()]
    allowed = [
        vote for vote in votes if vote != Kind.QUALITY or lexicon.ADJECTIVE in parts or not lexicon.is_word(word)
    ]
    return max(allowed, key=allowed.count) if allowed else Kind.THING


def _name(text: str, kind: Kind, roles: Roles) -> Name:
    words = core_words(text)
    if kind == Kind.ACT:
        base = lexicon.verb_base(words[0])
        head = lexicon.verb_form(base, "VBG") if base and words[0] != "asleep" else words[0]
        return Name(text, head, tail=" ".join(words[1:]))
    if kind in (Kind.QUALITY, Kind.STYLE):
        noun = kind == Kind.QUALITY and len(words) == 1 and lexicon.is_plural(words[0])
        return Name(text, " ".join(words), noun=noun)
    if kind == Kind.PLACE:
        return Name(text, " ".join(words))
    end = next((at for at in range(1, len(words)) if words[at] in PREPOSITIONS or _is_deed(words[at])), len(words))
    core, tail = words[:end], " ".join(words[end:])
    core[-1] = lexicon.singular(core[-1])
    if len(core) > 1 and _qualifies(core[-2], roles):
        return Name(text, core[-1], " ".join(core[:-1]), tail)
    return Name(text, " ".join(core), tail=tail)


def _is_deed(word: str) -> bool:
    return word.endswith("ing") and bool(lexicon.verb_base(word)) and lexicon.NOUN not in lexicon.lemmas(word)


def _qualifies(word: str, roles: Roles) -> bool:
    """Whether a word before a noun is a quality of it and no part of its name."""
    bound = roles.is_bound(word) and not listed_group(word, Kind.QUALITY)
    if word in VAGUE or bound or (word.endswith("ing") and lexicon.verb_base(word)):
        # "Teddy" of "teddy bear", "rocking" of "rocking chair".
        return False
    adjective = lexicon.ADJECTIVE in lexicon.parts_of(word) and lexicon.is_word(word)
    listed = bool(listed_group(word, Kind.QUALITY)) or adjective
    return listed or (roles.qualities[word] >= 8 and roles.qualities[word] > 2 * roles.nouns[word])
