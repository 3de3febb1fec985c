"""Reads captions: their noun phrases, what is done, and where; by word lists and the lexicon, without a parser.

It prefers silence to a wrong phrase, since a maker of pairs has more captions than it needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..everyday_words import COLORS
from . import lexicon
from .lexicon import ADJECTIVE, NOUN, VERB, word_set

_WORD = re.compile(r"[A-Za-z0-9]+(?:['’-][A-Za-z0-9]+)*|[^\sA-Za-z0-9]")


PLACE_PREPOSITIONS = word_set("in on at by inside near along across through outside beside around above over after")
PREPOSITIONS = PLACE_PREPOSITIONS | word_set("""
    to from into onto under below behind between up down off past toward towards atop beneath underneath among amongst
    amid within via upon alongside during before throughout against with without of for about like next including
""")
_ONE = word_set("a an one 1 single lone")
_MANY = word_set("""
    two three four five six seven eight nine ten 2 3 4 5 6 7 8 9 10 some several many few various multiple both numerous
    twin
""")
_EITHER = word_set("the his her its their my your our this that these those another each every no any all")
DETERMINERS = _ONE | _MANY | _EITHER
_GROUPS = word_set("pair couple group trio quartet set bunch lot number variety herd flock row few crowd dozen pile "
                 "collection bowl plate stack")  # fmt: skip
# What is said of a group of these is not said of the things: "a bowl of fruit" holds no two bowls.
_VESSELS = word_set("bowl plate pile stack crowd row")
FUNCTION = PREPOSITIONS | DETERMINERS | word_set("""
    and or but nor as than because while since until if that's which who who's whom whose where when there here it he
    he's she she's they them him we you i me us either neither not never none very though although per is are was were
    be been being am has have had having do does did can could will would shall should may might must so too then just
    exactly only also still almost please let seems appears appear out away together apart off back nearby
""")  # fmt: skip
# Nouns that name no thing which another could take the place of.
VAGUE = word_set("""
    read item items
    left right top bottom side sides front back middle center centre edge half corner end background foreground upper
    lower photo picture image view scene shot close-up closeup photograph painting drawing sketch illustration cartoon
    poster postcard render graphic design icon wallpaper sticker depiction art artwork mural mosaic logo screenshot
    snapshot cover stamp advertisement day time way lot part kind sort type group couple pair piece number variety bunch
    row line set slice cup glass bottle bowl plate pile stack box bag stuff thing something someone somebody one ones
    others other everyone anything nothing distance style quality detail resolution focus composition air shape pattern
    markings hour place position trip lap hand hands arm arms head mouth face legs leg foot feet body hair eyes eye fun
    turn break look ride walk show use work area inside things close up
""")  # fmt: skip
_ING_NOUNS = word_set("""
    building ceiling railing painting clothing wedding icing topping dumpling pudding earring evening morning awning
    string ring king wing swing parking dining living frying skiing
""")
_BE = word_set("is are was were")
# What a thing is with that stands beside it and is no part of it: "a star with two rings".
BESIDE = "beside"
_SHOWING = word_set("page flag")
# After these words a deed goes on.
_OBJECT_AFTER = DETERMINERS | word_set("with to up off into it and for")
# Before "of" these belong to no other thing: "a photo of a dog", "in front of a house", "a couple of dogs".
_OPENING = VAGUE - _VESSELS - word_set("cup glass bottle slice piece box bag part side edge corner kind sort type")


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: words `start` to `end` (exclusive) of a caption, the determiner among them.

    Attributes:
        first: where the words after the determiner begin.
        head: the noun's place.
        many: whether it is a plural.
        attached: whether "of" comes before it, so that it belongs to another.
        bare: whether it has no determiner.
    """

    start: int
    first: int
    head: int
    many: bool
    attached: bool
    bare: bool

    @property
    def end(self) -> int:
        """The place after its noun."""
        return self.head + 1


@dataclass(frozen=True)
class Place:
    """Where all of it is: words `start` to `end`, a preposition and a phrase, at an end of the caption."""

    start: int
    end: int
    head: int
    leading: bool


@dataclass(frozen=True)
class Deed:
    """What someone does: the verb at `at` in the form `tag`, said of `subject`; nothing follows but where."""

    at: int
    tag: str
    subject: Phrase


class Caption:
    """A caption's words with what was read in them; everything is found when it is first asked for."""

    def __init__(self, text: str) -> None:
        """Cut a caption into words and signs."""
        self.text = text
        self._spans = [match.span() for match in _WORD.finditer(text)]
        self.raw = [text[a:b] for a, b in self._spans]
        self.words = [word.lower() for word in self.raw]

    def word(self, at: int) -> str:
        """The lower-case word at a place, "." before the first and after the last."""
        return self.words[at] if 0 <= at < len(self.words) else "."

    def ends(self, at: int) -> bool:
        """Whether a phrase ends before the word at `at`: a sign, a function word or the end."""
        word = self.word(at)
        return not word[0].isalnum() or word in FUNCTION

    def changed(self, start: int, end: int, text: str) -> str:
        """The caption with words `start` to `end` replaced; an upper-case first letter stays one."""
        if start == end:
            place = self._spans[start][0] if start < len(self._spans) else len(self.text)
            return _tidy(f"{self.text[:place]}{text} {self.text[place:]}")
        a, b = self._spans[start][0], self._spans[end - 1][1]
        if self.text[a].isupper() and start == 0 and text:
            text = text[0].upper() + text[1:]
        return _tidy(f"{self.text[:a]}{text}{self.text[b:]}")

    @cached_property
    def phrases(self) -> list[Phrase]:
        """Its noun phrases, in their order."""
        found, at = [], 0
        while at < len(self.words):
            phrase = self._phrase_at(at)
            if phrase is not None:
                found.append(phrase)
            at = phrase.end if phrase is not None else at + 1
        return found

    @cached_property
    def place(self) -> Place | None:
        """Where all of it is, as its last or first words say."""
        for at in range(len(self.words) - 1, -1, -1):
            if self.words[at] in PLACE_PREPOSITIONS:
                end = self._place_end(at + 1)
                if end and not any(word.isalnum() and word not in ("high", "low") for word in self._after_sign(end)):
                    return Place(at, end, end - 1, leading=False)
        if self.word(0) in PLACE_PREPOSITIONS:
            end = self._place_end(1)
            if end and self.word(end) in (",", "there"):
                return Place(0, end, end - 1, leading=True)
        return None

    @cached_property
    def deeds(self) -> list[Deed]:
        """What is done, where no object follows."""
        found = []
        for phrase in self.phrases:
            at = phrase.end + (self.word(phrase.end) in _BE)
            tag = lexicon.verb_tag(self.word(at)) if self.word(at).isalpha() else ""
            agreed = tag == "VBG" or (at == phrase.end and tag == ("VB" if phrase.many else "VBZ"))
            agreed = agreed and self.word(at) not in FUNCTION and self.ends(at + 1)
            if agreed and self.word(at + 1) not in _OBJECT_AFTER:
                found.append(Deed(at, tag, phrase))
        return found

    def modifiers(self, phrase: Phrase) -> list[str]:
        """The words between a phrase's determiner and its noun."""
        return self.words[phrase.first : phrase.head]

    def mark(self, phrase: Phrase) -> str:
        """What a phrase is said to be "with", if that is a mark of it or stands beside it.

        The plural of "with dots", "no" of "with no lines", BESIDE of "with two rings"; "" for anything else, such as
        "with a shade", which tells what the thing is.
        """
        start = phrase.end + 1
        found = next((each for each in self.phrases if each.start == start), None)
        if self.words[phrase.head] in _SHOWING:
            return BESIDE
        if found is None:
            # "With thin stripes lies on sand": no phrase, and yet a mark.
            end = next(at for at in range(start, len(self.words) + 1) if self.ends(at))
            marks = [word for word in self.words[start:end] if lexicon.is_plural(word)]
            return self.word(start) if self.word(start) == "no" else (*marks, "")[0]
        if not lexicon.is_plural(self.words[found.head]):
            return ""
        return self.words[found.head] if found.bare or self.words[start] == "no" else BESIDE

    def _after_sign(self, end: int) -> Sequence[str]:
        """What follows a place, unless a comma parts it off."""
        return () if self.word(end) == "," else self.words[end:]

    def _place_end(self, at: int) -> int:
        """Where the words after a preposition end, if they are one phrase; 0 if not."""
        start = at
        if self.word(at) in DETERMINERS:
            at += 1
        while at < len(self.words) and self.words[at].isalpha() and self.words[at] not in FUNCTION and at - start < 5:
            at += 1
        word = self.word(at - 1)
        if at == start or word in FUNCTION or word in VAGUE or at >= len(self.words) + 1:
            return 0
        done = at == len(self.words) or self.word(at) in (".", ",", "there", "!")
        return at if (done and NOUN in lexicon.parts_of(word) and not word.endswith("ing")) or (
            done and word == "dark") else 0  # fmt: skip

    def _phrase_at(self, start: int) -> Phrase | None:
        at, number = self._determiner(start)
        bare = at == start
        if bare and (self.word(start) in FUNCTION or not self._may_start(start)):
            return None
        inner = at
        while self._goes_on(inner, at, number):
            inner += 1
        while inner > at and NOUN not in lexicon.parts_of(self.words[inner - 1]):
            inner -= 1
        if inner == at:
            return None
        return self._checked(start, at, inner - 1, number, bare)

    def _checked(self, start: int, first: int, head: int, number: str, bare: bool) -> Phrase | None:
        noun, after = self.words[head], self.word(head + 1)
        many = lexicon.is_plural(noun)
        if (
            noun in VAGUE
            or noun in COLORS
            or len(noun) < 3
            or after == "of"
            or (number == "one" and many and noun not in ("sheep", "fish"))
        ):
            return None
        if number == "many" and not many:
            return None
        if bare and not many and lexicon.is_counted(noun):
            return None
        # "A flower covered field", "a man licks": the noun is not the phrase's own.
        if after.isalpha() and after not in FUNCTION and not self._may_follow(after, many):
            return None
        return Phrase(start, first, head, many and number != "one", self._attached(start), bare)

    def _attached(self, start: int) -> bool:
        return self.word(start - 1) == "of" and self.word(start - 2) not in _OPENING

    def _may_follow(self, word: str, many: bool) -> bool:
        tag = lexicon.verb_tag(word)
        return tag in ("VBG", "VBD") or tag == ("VB" if many else "VBZ") or ADJECTIVE in lexicon.parts_of(word)

    def _may_start(self, at: int) -> bool:
        before = self.word(at - 1)
        if before == "to" and lexicon.verb_base(self.word(at)):
            return False
        return not before[0].isalnum() or before in PREPOSITIONS or before in ("and", "or", "draw", "show", "paint")

    def _determiner(self, at: int) -> tuple[int, str]:
        """Where the words after a determiner begin, and the number that it asks for: one, many or any."""
        word = self.word(at)
        if word in ("a", "an", "the"):
            for wide in (1, 2):
                if self.word(at + wide) in _GROUPS and self.word(at + wide + 1) == "of":
                    end = at + wide + 2
                    if self.word(at + wide) in _VESSELS:
                        break
                    return end + (self.word(end) in _MANY), "many"
            if word != "the" and self.word(at + 1) == "few":
                return at + 2, "many"
        if word in ("exactly", "just") and self.word(at + 1) in _ONE | _MANY:
            return at + 2, "one" if self.word(at + 1) in _ONE else "many"
        if word in _ONE:
            return at + 1 + (self.word(at + 1) in ("single", "lone")), "one"
        if word in _MANY:
            return at + 1, "many"
        return (at + 1, "any") if word in _EITHER else (at, "any")

    def _goes_on(self, at: int, first: int, number: str) -> bool:
        """Whether the word at `at` still belongs to the phrase whose words begin at `first`."""
        word = self.word(at)
        if not word[0].isalpha() or word in FUNCTION or at - first > 5:
            return False
        parts = lexicon.parts_of(word)
        if not parts & {NOUN, ADJECTIVE}:
            return False
        named = [place for place in range(first, at) if NOUN in lexicon.parts_of(self.words[place])]
        if not named:
            return True
        if word.endswith("ing") and VERB in parts and word not in _ING_NOUNS:
            return False
        if NOUN not in lexicon.lemmas(word) and lexicon.lemmas(word) and word not in lexicon.UNCOUNTED and not (
            self.word(at + 1).isalpha() and self.word(at + 1) not in FUNCTION):  # fmt: skip
            return False
        last = self.words[at - 1]
        if lexicon.is_plural(last) and ADJECTIVE not in lexicon.lemmas(last):
            return False
        if word.endswith("ed") and VERB in lexicon.lemmas(word):
            # "A blue lined cube" goes on, "a field covered with" does not.
            return self._noun_at(at + 1)
        return not (number == "one" and lexicon.verb_tag(word) == "VBZ" and lexicon.is_plural(word))

    def _noun_at(self, at: int) -> bool:
        word = self.word(at)
        return word.isalpha() and word not in FUNCTION and bool(lexicon.parts_of(word) & {NOUN, ADJECTIVE})


def _tidy(text: str) -> str:
    return re.sub(r"\s+([,.;:!?])", r"\1", re.sub(r"\s+", " ", text)).strip()


def read(captions: Sequence[str]) -> list[Caption]:
    """Captions with their words."""
    return [Caption(text) for text in captions]


def heads(captions: Sequence[Caption]) -> Iterator[str]:
    """The noun of every phrase, in the singular."""
    for caption in captions:
        for phrase in caption.phrases:
            yield lexicon.singular(caption.words[phrase.head])
