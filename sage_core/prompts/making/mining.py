"""Finds the words that an encoder takes for a concept, and those that stand in the same place and are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch

from ...errors import PromptError
from ...rows import shown
from ..minors import mentions_minor
from . import lexicon
from .lexicon import word_set
from .reading import FUNCTION, VAGUE
from .roles import (
    ANIMAL,
    BASIC_COLORS,
    DRINK,
    FOOD,
    NEVER_ALONE,
    OBJECT,
    PERSON,
    STYLE_WORDS,
    Roles,
    is_content,
    listed_group,
    said_place,
    seeds_of,
    some_seeds,
)
from .senses import Frame, Senses, cosines_to, known_words
from .settings import Kind, MakingSettings
from .targets import Name, Target

_NEARBY = 150
_OF_CAPTIONS = 150
_VOTES = 5
# The share of votes for a group that makes a word one of it.
_CERTAIN = 0.6
# No frame may find a name further than this share of its median.
_WORST = 0.75
# No other word within so many times its distance: a name ends there.
_GAP = 1.6
# With fewer words in its place a spread says nothing.
_LEAST_WORDS = 8
_MOST_NAMES = 12
_MOST_COMBINED = 30
_MOST_NEAR = 64
_FEW_ALIKE = 8
_MANY = 24
_FEW_LISTED = 5
# Deeds that say nothing by themselves, and a common slip for "sitting".
_NO_DEEDS = word_set("get site shine hang pass come pour pull consist contain go try grow stop cross land move")
# Uses as a noun that make a gerund one: "painting", not "smoking".
_NOUN_USES = 12
# Words that qualify the same nouns at once do not take each other's place: seen less often than this share of what
# chance would bring.
_APART = 0.3
# How often chance must bring two words together for their standing apart to tell anything.
_TELLING = 2.0
# And for their standing apart to make them of one place, whatever else they are.
_SURE = 6.0
# Endings of adjectives that say what something belongs to, and are nouns to doctors alone: "cardiac".
_OF_SOMETHING = ("iac", "ial", "ical")


def mine(senses: Senses, roles: Roles, target: Target, settings: MakingSettings, taken: frozenset[str]) -> Target:
    """The target with mined names and near misses.

    Args:
        senses: of the base encoder.
        roles: of the captions.
        target: with its given names.
        settings: shares of the median distance.
        taken: words that belong to other concepts or that no training may see.

    Raises:
        PromptError: the encoder takes a word for the concept, which is no size, that refers or may refer to minors.
    """
    main = target.main
    if (
        (target.kind == Kind.STYLE and len(main.head.split()) > 1)
        or (len(main.head.split()) > 1 and not main.modifier)
        or main.tail
    ):
        return _near_only(senses, roles, target, settings, taken)
    own = {word for name in target.names for word in (name.head, *name.modifier.split())}
    heads = _Place(senses, roles, target.kind, _head_frames(target, roles), main.head, own, taken, settings)
    found = heads.names()
    names = list(target.names)
    if main.modifier:
        frames: list[Frame] = [
            lambda word: f"{word} {main.head}",
            lambda word: f"a photo of {lexicon.article(word)} {word} {main.head}",
            lambda word: word,
        ]
        place = _Place(senses, roles, Kind.QUALITY, frames, main.modifier, own, taken, settings)
        modifiers = place.names()
        names += _combined(target, found, modifiers)
        target = replace(target, near_modifiers=place.near())
    else:
        names += [_name(target, word, cosine, share) for word, cosine, share in found]
    names = _without_minors(target, names)
    known = {name.text for name in target.names}
    fresh = [name for name in names[len(target.names) :] if name.text not in known]
    if not settings.mine:
        fresh = []
    names = [*target.names, *fresh[:_MOST_COMBINED]]
    near = heads.near()
    # As all captions say it: those that hold the concept are no longer there when pairs are made.
    doers = roles.doers(main.head) if target.kind == Kind.ACT else target.doers
    leads = {name.head: said_place(name.head, roles, near) for name in names} if target.kind == Kind.PLACE else {}
    return replace(target, names=tuple(names), near=near, leads=leads, doers=doers)


class _Place:
    """The place of one word of a concept, and every word that might stand there, with its distance."""

    def __init__(
        self,
        senses: Senses,
        roles: Roles,
        kind: Kind,
        frames: Sequence[Frame],
        word: str,
        own: set[str],
        taken: frozenset[str],
        settings: MakingSettings,
    ) -> None:
        self.kind, self.word, self.settings, self.roles = kind, word, settings, roles
        mine = {form for each in own for form in lexicon.forms(each)} if kind != Kind.QUALITY else set(own)
        counted = roles.words_of(kind)
        used = [
            each for each, uses in counted.most_common(2 * _OF_CAPTIONS) if self._fits(each) and uses >= self._least
        ]
        near = [self._canonical(each) for each in senses.nearby(word, _NEARBY)]
        near = [each for each in near if self._fits(each) and lexicon.is_word(each)]
        near += [each for each in roles.with_what if self._has_nouns and self._is_mark(each)]
        self.place = [
            w for w in known_words(senses, dict.fromkeys(map(self._canonical, used))) if w not in mine | taken
        ]
        if kind == Kind.STYLE:
            self.place = [w for w in known_words(senses, sorted(STYLE_WORDS)) if w.isalpha() and w not in mine | taken]
        self.place = self.place[:_OF_CAPTIONS]
        own_group = listed_group(word, kind)
        alike = [each for each, group in seeds_of(kind).items() if group == own_group] if own_group else []
        self.place += [w for w in known_words(senses, alike) if w not in mine | taken and w not in self.place]
        others = [w for w in known_words(senses, dict.fromkeys(near)) if w not in mine | taken and w not in self.place]
        self.words = [*self.place, *others]
        self.group = self._groups(senses, mine)
        cosines = cosines_to(senses, frames, word, self.words) if self.words else torch.ones(1, 1)
        # The concept's word, and those that captions may use in its stead.
        self.close = {word, *(self.words[at] for at in cosines.mean(0).topk(min(3, len(self.words))).indices.tolist())}
        spread = torch.tensor(self._spread_of()) if self.words else torch.tensor([0])
        medians = (1 - cosines[:, spread]).median(1, keepdim=True).values.clamp_min(1e-6)
        shares = ((1 - cosines) / medians)[:, : len(self.words)]
        self.cosine = cosines[:, : len(self.words)].mean(0).tolist()
        self.share, self.worst = shares.mean(0).tolist(), shares.amax(0).tolist()

    @property
    def _least(self) -> int:
        """Uses in captions below which a word's role may be a slip of the reading."""
        counted = self.roles.words_of(self.kind)
        share = {Kind.PLACE: 0.004, Kind.THING: 0.0003, Kind.ACT: 0.0015}.get(self.kind, 0.0)
        return max(1, round(share * sum(counted.values())))

    def _spread_of(self) -> list[int]:
        """Which words say how far apart words of this place lie: those that take the concept's, where that is known."""
        same = [at for at, word in enumerate(self.place) if self._same_place(word)]
        if len(same) >= _LEAST_WORDS:
            return same
        return list(range(len(self.place) if len(self.place) >= _LEAST_WORDS else len(self.words)))

    def _same_place(self, word: str) -> bool:
        """Whether a word takes the place of the concept's: of one group, and not beside it where captions can tell."""
        own = self.group.get(self.word, "")
        if self.kind == Kind.QUALITY:
            counts, phrases = self.roles.qualities, max(sum(self.roles.nouns.values()), 1)
            seen = sum(self.roles.together[word][each] for each in self.close)
            expected = counts[word] * sum(counts[each] for each in self.close) / phrases
            if expected >= _TELLING and seen > _APART * expected:
                return False
            if expected >= _SURE and seen <= _APART * expected:
                return True
        group = self.group.get(word, "")
        # Colours have more names than lists hold, and the encoder knows them from everything else.
        if self.kind == Kind.QUALITY and self._many_listed and own != "color":
            return listed_group(word, self.kind) == own
        return not own or group == own or (self.kind != Kind.QUALITY and not group)

    @property
    def _many_listed(self) -> bool:
        """Whether lists alone tell enough of the words that take the concept's place."""
        own = self.group.get(self.word, "")
        return sum(listed_group(word, self.kind) == own for word in self.place) >= _FEW_LISTED

    def names(self) -> list[tuple[str, float, float]]:
        """Words that the encoder takes for the concept's, the likest first: word, cosine, share of the median."""
        most, others = self._most(), self._other_basic_colors()
        found = [
            (word, cosine, share)
            for word, cosine, share, worst in zip(self.words, self.cosine, self.share, self.worst, strict=True)
            if share < most and worst < _WORST and word not in others and not self._listed_apart(word)
        ]
        return sorted(found, key=lambda each: each[2])[:_MOST_NAMES]

    def _listed_apart(self, word: str) -> bool:
        """Whether lists put a word into another group of things than the concept's: no cyclist is a bicycle."""
        if self.kind not in (Kind.THING, Kind.PLACE):
            return False
        groups = {listed_group(each, self.kind) for each in (word, self.word)}
        return "" not in groups and len(groups) == 2

    def _most(self) -> float:
        """The share below which words are names: a word of more tokens lies further off, but before a wide gap."""
        shares = sorted(self.share)
        least, beyond = self.settings.name_distance, self.settings.near_distance
        for share, following in pairwise(shares):
            if least <= share < beyond and following > max(beyond, _GAP * share):
                return following
        return least

    def _other_basic_colors(self) -> frozenset[str]:
        """Basic colors that this one is none of: near misses however near the encoder puts them, and never names."""
        if self.kind != Kind.QUALITY or self.word not in BASIC_COLORS:
            return frozenset()
        return BASIC_COLORS - ({"grey", "gray"} if self.word in ("grey", "gray") else {self.word})

    def near(self) -> tuple[str, ...]:
        """Words that may take its place and are no names, the likest first."""
        beyond, others = self.settings.near_distance, self._other_basic_colors()
        likely = [
            (share, word)
            for word, share in zip(self.words, self.share, strict=True)
            if (share > beyond or word in others) and word in self.place
        ]
        if self.kind == Kind.THING:
            # "On the tarmac": a place is no thing, unless lists say so.
            likely = [
                each
                for each in likely
                if listed_group(each[1], Kind.THING) or self.roles.kind_of(each[1]) != Kind.PLACE
            ]
        found = [each for each in likely if self._same_place(each[1])]
        certain = [each for each in found if self.group.get(each[1]) and self.group.get(self.word)]
        if self.kind == Kind.THING and len(certain) >= (_FEW_LISTED if listed_group(self.word, self.kind) else _MANY):
            # Words of no known group do only where there are few others.
            found = certain
        if self.kind != Kind.QUALITY and len(found) < _LEAST_WORDS:
            # Its group was a guess.
            found = likely
        if self.kind == Kind.QUALITY and not self.group.get(self.word):
            # Of no known group, "office" of "office desk" would do as well.
            found = [each for each in found if lexicon.ADJECTIVE in lexicon.lemmas(each[1]) and each[1][-3:] != "ing"]
        found.sort()
        # Beer takes the place of milk, not of a bottle.
        alike = [each for each in found if lexicon.is_counted(each[1]) == lexicon.is_counted(self.word)]
        if self.kind == Kind.THING and len(alike) >= _FEW_ALIKE:
            found = alike
        return tuple(word for _, word in found[:_MOST_NEAR])

    def _groups(self, senses: Senses, mine: set[str]) -> dict[str, str]:
        """The group of each word: as listed, or that of the listed words that the encoder finds nearest to it."""
        if self.kind in (Kind.ACT, Kind.STYLE):
            return {}
        seeds = known_words(senses, [w for w in some_seeds(self.kind) if w not in self.words and w not in mine])
        listed = {word: listed_group(word, self.kind) for word in (self.word, *self.words, *seeds)}
        known = [word for word, group in listed.items() if group]
        open_words = [word for word, group in listed.items() if not group]
        if len(known) < 2 * _VOTES or not open_words:
            return listed
        states = senses.states([f"a photo of {word}" for word in (*open_words, *known)])
        likeness = states[: len(open_words)] @ states[len(open_words) :].T
        for word, row in zip(open_words, likeness, strict=True):
            best = row.topk(_VOTES)
            weights: dict[str, float] = {}
            # A word that is far nearer than the rest counts for all of them.
            for at, weight in zip(best.indices.tolist(), (best.values - row.median()).square().tolist(), strict=True):
                weights[listed[known[at]]] = weights.get(listed[known[at]], 0.0) + weight
            group = max(weights, key=weights.__getitem__)
            certain = weights[group] > _CERTAIN * sum(weights.values())
            # What may be anything is most likely what its last word says, else an object.
            guess = listed_group(word.split()[-1], self.kind) or OBJECT
            listed[word] = group if certain else guess if word == self.word and self.kind == Kind.THING else ""
        return listed

    @property
    def _has_nouns(self) -> bool:
        """Whether a quality may be said with a noun: "striped", "with stripes"."""
        return self.kind == Kind.QUALITY and self.word.endswith("ed")

    def _is_mark(self, word: str) -> bool:
        """Whether things may be "with" this noun in place of the quality: of the same stem, or said of many things."""
        if not self._has_nouns or not lexicon.is_plural(word):
            return False
        stem = word[:4] == self.word[:4] or lexicon.singular(word) == lexicon.verb_base(self.word)
        return stem or self.roles.said_of_any(word)

    def _canonical(self, word: str) -> str:
        if self.kind == Kind.THING:
            return lexicon.singular(word)
        if self.kind == Kind.ACT and (base := lexicon.verb_base(word)):
            return lexicon.verb_form(base, "VBG")
        if (
            self.kind == Kind.QUALITY
            and self._has_nouns
            and lexicon.NOUN in lexicon.lemmas(word)
            and (word[:4] == self.word[:4] or not self.roles.qualities[word])
        ):
            # "Stripe": things are said to be with stripes.
            return word if "ADJ" in lexicon.parts_of(word) else lexicon.plural(lexicon.singular(word))
        return word

    def _fits(self, word: str) -> bool:
        """Whether a word can stand here, by its parts of speech or by what captions do with it."""
        if self.kind == Kind.STYLE:
            return word in STYLE_WORDS or (is_content(word) and word[:5] == self.word[:5])
        whole = word.replace("-", "") if self.kind == Kind.QUALITY else word
        if not is_content(whole) or word in VAGUE or word in FUNCTION:
            return False
        parts = lexicon.parts_of(word)
        if self.kind == Kind.ACT:
            return (lexicon.VERB in parts and lexicon.verb_base(word) not in _NO_DEEDS) or word == "asleep"
        if self.kind == Kind.QUALITY:
            if self.roles.is_bound(word) or word in NEVER_ALONE:
                return False
            counts = self.roles.qualities[word], self.roles.nouns[lexicon.singular(word)]
            used = counts[0] > max(counts[1], 1) or (counts[0] > 0 and bool(listed_group(word, Kind.QUALITY)))
            # "Stripes" of "striped", "gold" of "golden".
            noun = self._is_mark(word) or (len(word) > 3 and self.word.startswith(word))
            return used or noun or (lexicon.ADJECTIVE in lexicon.lemmas(word) and not word.endswith("ing"))
        group = listed_group(word, Kind.THING) if self.kind == Kind.PLACE else ""
        if group in (OBJECT, PERSON, ANIMAL, FOOD, DRINK) or (self.kind == Kind.PLACE and word == "stop"):
            return False
        if self.kind == Kind.PLACE and self.roles.places[word] >= 3:
            return True
        if word.endswith("ing") and lexicon.verb_base(word) and self.roles.nouns[word] < _NOUN_USES:
            return False
        if lexicon.ADJECTIVE in parts and word.endswith(_OF_SOMETHING) and not self.roles.nouns[word]:
            return False
        noun = lexicon.NOUN in lexicon.lemmas(word) or not lexicon.lemmas(word)
        return lexicon.NOUN in parts and (noun or self.roles.nouns[word] > 0)


def _head_frames(target: Target, roles: Roles) -> list[Frame]:
    main = target.main
    if target.kind == Kind.QUALITY:
        things = [word for word, _ in roles.nouns.most_common(3) if is_content(word)] or ["shirt"]
        return [lambda word: word, *((lambda word, thing=thing: f"a photo of {lexicon.article(word)} {word} {thing}")
                                     for thing in things[:2])]  # fmt: skip
    if target.kind == Kind.PLACE:
        # The same words before each place: "on" and "in" would tell more than the places.
        lead = said_place(main.head, roles).removesuffix(main.head)
        return [lambda word: word, lambda word: f"{lead}{word}"]
    if target.kind == Kind.STYLE:
        return [lambda word: word, lambda word: f"{lexicon.article(word)} {word} picture"]
    if target.kind == Kind.ACT:
        return [lambda word: word, lambda word: f"a photo of a person {word}"]
    if main.modifier:
        return [
            lambda word: f"{main.modifier} {word}",
            lambda word: f"a photo of {lexicon.article(main.modifier)} {main.modifier} {word}",
            lambda word: word,
        ]
    return [lambda word: word, lambda word: f"a photo of {lexicon.with_article(word)}"]


def _near_only(senses: Senses, roles: Roles, target: Target, settings: MakingSettings, taken: frozenset[str]) -> Target:
    """Near misses of a concept that is no single word, by its last word's place."""
    if target.kind == Kind.STYLE:
        return target
    word = target.main.head
    own = {part for name in target.names for part in name.head.split()}
    frames: list[Frame] = [lambda each: f"a photo of {each}"]
    place = _Place(senses, roles, target.kind, frames, word, own, taken, settings)
    # What is done with something is done by people: no giraffe that plays guitar.
    return replace(target, near=place.near(), doers=frozenset({PERSON}) if target.kind == Kind.ACT else target.doers)


def _combined(
    target: Target, heads: Sequence[tuple[str, float, float]], modifiers: Sequence[tuple[str, float, float]]
) -> list[Name]:
    """Names of two parts: each modifier with each head, the likest first; the typed one is known already."""
    main = target.main
    first, second = (main.modifier, 1.0, 0.0), (main.head, 1.0, 0.0)
    pairs = [
        Name(f"{m} {h}", h, m, cosine=min(mc, hc), distance=max(ms, hs), given=False)
        for m, mc, ms in (first, *modifiers)
        for h, hc, hs in (second, *heads)
    ]
    # Names that share a word with the concept first: the others follow from them.
    return sorted(pairs, key=lambda name: ((name.modifier != main.modifier) + (name.head != main.head), name.distance))[
        1:
    ]


def _name(target: Target, word: str, cosine: float, share: float) -> Name:
    noun = target.kind == Kind.QUALITY and lexicon.is_plural(word)
    return Name(word, word, noun=noun, cosine=cosine, distance=share, given=False)


def _without_minors(target: Target, names: Sequence[Name]) -> list[Name]:
    # The encoder puts "teeny" with "tiny": of a size that says nothing of an age, of anything else it might.
    size = listed_group(target.main.modifier or target.main.head, Kind.QUALITY) == "size"
    if size:
        names = [name for name in names if not mentions_minor(name.modifier or name.head)]
    if any(mentions_minor(name.text) for name in names):
        raise PromptError(
            f"The concept {shown(target.concept.name)}: the text encoder takes a word for it that refers or may "
            "refer to minors, and no prompts are made with it. Choose other words."
        )
    return list(names)
