"""Long pairs: a caption, and the same with a concept in the place of something of its kind."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from . import lexicon
from .deeds import acts
from .lexicon import word_set
from .reading import DETERMINERS, FUNCTION, PREPOSITIONS, Caption, Phrase, Place
from .roles import (
    ANIMAL,
    CLOTHING,
    DRINK,
    NEVER_ALONE,
    PERSON,
    SAID_OF,
    SPOT,
    STYLE_WORDS,
    Roles,
    found_at,
    listed_group,
    listed_kind,
    said_place,
    takes,
)
from .settings import Kind
from .targets import Name, Swap, Target

# How many of the likest words give way before all others do.
_LIKEST = 24
# How many of the likest places give way to a place.
_LIKE_PLACES = 24
_STYLE_FORMS = (
    "{caption}, {style}",
    "{caption}, {style} style",
    "{caption} in {style} style",
    "{style}, {caption}",
)
_OTHER_STYLES = ("oil painting", "pencil sketch", "line art", "woodcut", "pixel art", "charcoal drawing", "mosaic",
                 "watercolor", "cartoon", "ink drawing", "3d render", "pastel", "collage", "engraving")  # fmt: skip


# Before these words' things any other may stand, and after these a thing says no more than where it is.
_ANY_AFTER = word_set("""
    with and next beside near behind of showing depicting featuring containing draw see show me imagine paint generate
    holding holds carrying carries has have had having is are there please to under above below left right over
    beneath underneath than by exactly just only including
""")
_ANY_BEFORE = word_set("""
    sitting sits sit standing stands stand lying lies lie laying resting rests rest hanging hangs hang is are appears
    appear placed left leaning and or
""")
# These are "on" what they tell of.
_TELLING = word_set("book books magazine magazines article articles movie movies")
_POURED = word_set("bottle bottles glass cup cups mug mugs can cans pitcher jug")
_VESSELS = word_set("bottle bottles glass glasses cup cups mug mugs can cans pitcher jug jar bowl")
_QUOTES = frozenset("\"'“”‘’")
_WORN = word_set("wearing wears wear wore dressed worn")
_WITH_TOOLS = word_set(
    "cut chop slice eat write paint stir brush dig clean wash carve peel mix feed open sweep dry wipe"
)
# After a comma these say how a picture looks: "vivid colors".
_LOOKS = word_set("color colour light shadow detail contrast focus angle view")
_HERDS = frozenset(("herd", "flock"))
# What floats on a lake does so on no beach.
_IN_THIS_PLACE = word_set("float swim sail splash paddle wade surf row")


def swaps(target: Target, roles: Roles) -> Iterator[Swap]:
    """Every place of the captions that the concept can take, with the word that stands there."""
    maker = {
        Kind.THING: _things, Kind.QUALITY: _qualities, Kind.PLACE: _places, Kind.ACT: _acts, Kind.STYLE: _styles,
    }[target.kind]  # fmt: skip
    for caption in roles.captions:
        yield from maker(target, roles, caption)


def in_turns(found: Sequence[Swap], target: Target, dice: random.Random) -> list[Swap]:
    """Swaps in an order that takes every word's place in turns, the likest words' first."""
    by_word: dict[str, list[Swap]] = defaultdict(list)
    for swap in found:
        by_word[swap.like].append(swap)
    rank = {word: at for at, word in enumerate(target.near)}
    order = sorted(by_word, key=lambda word: rank.get(word, len(rank)))
    for group in by_word.values():
        dice.shuffle(group)
    parts = order[:_LIKEST], order[_LIKEST:]
    return [
        by_word[word][turn]
        for part in parts
        for turn in range(max((len(by_word[word]) for word in part), default=0))
        for word in part
        if turn < len(by_word[word])
    ]


def _things(target: Target, roles: Roles, caption: Caption) -> Iterator[Swap]:
    near = set(target.near)
    of_animals = listed_group(target.main.head, Kind.THING) == ANIMAL
    if listed_group(target.main.head, Kind.THING) == DRINK:
        yield from _poured(target, caption)
    for phrase in caption.phrases:
        noun = lexicon.singular(caption.words[phrase.head])
        # "A bottle of water" may hold beer; "a slice of pizza" no umbrella.
        held = caption.word(phrase.start - 2) in _VESSELS and not lexicon.is_counted(noun)
        if not _HERDS.isdisjoint(caption.words[phrase.start : phrase.first]) and not of_animals:
            continue
        if caption.word(phrase.start - 1) == "," and noun in _LOOKS:
            continue
        apart = phrase.attached and (not held or lexicon.is_counted(target.main.head))
        if apart or noun not in near or _compound(caption, phrase) or not _lets_any(caption, phrase):
            continue
        if caption.word(phrase.end) == "with" and not roles.said_of_any(caption.mark(phrase)):
            continue
        if _bears(caption, phrase):
            continue

        def write(name: Name, dice: random.Random, phrase: Phrase = phrase, noun: str = noun) -> tuple[str, str] | None:
            kept = _kept(caption, phrase, target, roles)
            unsafe = _with_noun(caption, phrase, kept, name.modifier, name.head, name.tail)
            if unsafe is None:
                return None
            if not name.modifier:
                return caption.text, unsafe
            draw = dice.random()
            if draw < 0.45 and target.near_modifiers:
                other = dice.choice(target.near_modifiers)
                safe = _with_noun(caption, phrase, kept, other, name.head, name.tail)
            elif draw < 0.9:
                safe = _with_noun(caption, phrase, kept, name.modifier, noun, "")
            else:
                safe = caption.text
            return (safe, unsafe) if safe else None

        yield Swap(noun, write)


def _poured(target: Target, caption: Caption) -> Iterator[Swap]:
    """Vessels of which nothing says what they hold: "a bottle" becomes "a bottle of beer"."""
    others = [word for word in target.near if listed_group(word, Kind.THING) == DRINK]
    for at, word in enumerate(caption.words):
        if not others or word not in _POURED or caption.word(at + 1) == "of" or not caption.ends(at + 1):
            continue
        if caption.word(at - 1) not in DETERMINERS:
            continue

        def write(name: Name, dice: random.Random, at: int = at) -> tuple[str, str] | None:
            if name.modifier:
                return None
            held = (f" of {dice.choice(others)}", f" of {name.head} {name.tail}".rstrip())
            safe, unsafe = (caption.changed(at + 1, at + 1, each) for each in held)
            return safe, unsafe

        yield Swap(word, write)


def _bears(caption: Caption, phrase: Phrase) -> bool:
    """Whether a thing is said to hold or show something that another would not: "a post with signs on it"."""
    after = caption.words[phrase.end :]
    if after[:1] == ["with"]:
        return any(one in ("on", "in", "inside") and other in ("it", "them") for one, other in pairwise(after))
    return caption.words[phrase.head] in _TELLING and after[:1] in (["on"], ["about"])


def _lets_any(caption: Caption, phrase: Phrase) -> bool:
    """Whether any thing of a kind may stand here: what is ridden, worn or walked on is hard to replace."""
    before, after = caption.word(phrase.start - 1), caption.word(phrase.end)
    if before == "of" and caption.word(phrase.start - 2) in ("top", "inside"):
        return False
    # "Another monitor" follows one, "and other road signs" a sign, and what a rack is for no other thing is.
    if before in _QUOTES or _is_worn(caption, phrase) or _is_tool(caption, phrase):
        return False
    if after == "for" or "other" in (caption.word(phrase.end + 1), caption.words[phrase.start][-5:]):
        return False
    looked = before == "at" and caption.word(phrase.start - 2).startswith("look")
    if before[0].isalnum() and before not in _ANY_AFTER and not looked:
        return False
    # "With a hat on" is worn, "the lights are on above" shine.
    then = caption.word(phrase.end + 1)
    alone = then[-3:] == "ing" or (caption.ends(phrase.end + 1) and then not in DETERMINERS | {"it", "them"})
    if after == "on" and alone:
        return False
    if after in ("is", "are", "that", "which", "whose", "has", "have", "was", "were", "can", "being"):
        there = then in PREPOSITIONS and caption.word(phrase.end + 2) not in PREPOSITIONS
        return after in ("is", "are") and (there or then in _ANY_BEFORE)
    return not after.isalpha() or after in FUNCTION or after in _ANY_BEFORE


def _is_worn(caption: Caption, phrase: Phrase) -> bool:
    """Whether a thing is one of several that are worn: "wearing glasses and a hat"."""
    if caption.word(phrase.start - 1) not in ("and", "or", ",", "&"):
        return False
    before = caption.words[: phrase.start][::-1]
    at = next((at for at, word in enumerate(before) if word in _WORN or word in PREPOSITIONS or word == "."), 0)
    return before[at] in _WORN or (before[at] == "in" and not CLOTHING.isdisjoint(map(lexicon.singular, before[:at])))


def _is_tool(caption: Caption, phrase: Phrase) -> bool:
    """Whether a thing is what something is done with: "cutting bread with a knife"."""
    if caption.word(phrase.start - 1) != "with":
        return False
    before = caption.words[max(phrase.start - 5, 0) : phrase.start - 1][::-1]
    end = next((at for at, word in enumerate(before) if word in FUNCTION - DETERMINERS), len(before))
    return any(lexicon.verb_base(word) in _WITH_TOOLS for word in before[:end])


def _kept(caption: Caption, phrase: Phrase, target: Target, roles: Roles) -> list[str]:
    """The qualities of a phrase that go with any noun; a concept's own modifier stands where one of its kind did."""
    gone = {*target.near_modifiers, *target.modifiers}
    kept = []
    for word in caption.modifiers(phrase):
        if word in gone:
            if "" not in kept:
                kept.append("")
        elif roles.goes_with_any(word):
            kept.append(word)
    return kept


def _compound(caption: Caption, phrase: Phrase) -> bool:
    """Whether a phrase is a plural that only its own words allow: "a pair of"."""
    return caption.words[phrase.start] in ("a", "an") and caption.words[phrase.first - 1] == "of" and not phrase.many


def _with_noun(
    caption: Caption, phrase: Phrase, kept: Sequence[str], modifier: str, noun: str, tail: str
) -> str | None:
    """The caption with another noun and modifier in a phrase, its number and article right."""
    plural_only = lexicon.is_plural(noun)
    counted = lexicon.is_counted(noun)
    if (plural_only and not phrase.many) or (not counted and phrase.many):
        return None
    words = [*kept] if "" in kept else [*kept, ""]
    words = [modifier if word == "" else word for word in words]
    words = [word for word in words if word]
    words.append(lexicon.plural(noun) if phrase.many else noun)
    if tail:
        words.append(tail)
    before = list(caption.words[phrase.start : phrase.first])
    if before and before[0] in ("a", "an") and (len(before) == 1 or before[1] in ("single", "lone")):
        if not counted:
            before = []
        elif len(before) == 1:
            before = [lexicon.article(words[0])]
    elif not counted and before and before[0] not in ("the", "some", "his", "her", "their", "its"):
        return None
    return caption.changed(phrase.start, phrase.end, " ".join((*before, *words)))


def _qualities(target: Target, roles: Roles, caption: Caption) -> Iterator[Swap]:
    near, own = set(target.near), set(target.heads)
    bearing, group = roles.bearing(frozenset(near | own)), quality_group(target)
    for phrase in caption.phrases:
        qualities = caption.modifiers(phrase)
        noun = lexicon.singular(caption.words[phrase.head])
        after = caption.word(phrase.end)
        if listed_group(noun, Kind.THING) == PERSON:
            continue
        if phrase.attached or phrase.bare or own & set(qualities) or after in ("with", "without", "covered"):
            continue
        there = [
            word for at, word in enumerate(qualities, phrase.first) if word in near and not _belongs(caption, roles, at)
        ]
        if not takes(noun, target.main.head, group, qualities) or (
            not there and (qualities or (noun not in bearing and group != "coat"))
        ):
            continue
        said = [word for word in target.near if group not in SAID_OF or roles.qualified[word][noun]]
        said = [word for word in said if takes(noun, word, group)]

        def write(
            name: Name,
            dice: random.Random,
            phrase: Phrase = phrase,
            there: Sequence[str] = there,
            said: Sequence[str] = said,
        ) -> tuple[str, str] | None:
            if name.noun:
                rest = [word for word in caption.modifiers(phrase) if word not in there]
                return caption.text, _qualified(caption, phrase, rest, f"with {name.head}")
            words = [word for word in caption.modifiers(phrase) if word not in there[1:]]
            unsafe = [name.head if word in there else word for word in words]
            if there:
                return caption.text, _qualified(caption, phrase, unsafe)
            other = dice.choice(said) if said and dice.random() < 0.7 else ""
            safe = _qualified(caption, phrase, [*words, other]) if other else caption.text
            return safe, _qualified(caption, phrase, [*words, name.head])

        yield Swap(there[0] if there else noun, write)


def quality_group(target: Target) -> str:
    """The listed group of a quality, or that of the likest word that may take its place."""
    return listed_group(target.main.head, Kind.QUALITY) or listed_group((*target.near, "")[0], Kind.QUALITY)


def _belongs(caption: Caption, roles: Roles, at: int) -> bool:
    """Whether a quality belongs to the word beside it: "snow covered", "traditionally decorated", "old fashioned"."""
    before, after = caption.word(at - 1), caption.word(at + 1)
    if after in NEVER_ALONE and (after[:4] != "colo" or listed_group(caption.words[at], Kind.QUALITY) != "color"):
        return True
    noun = lexicon.NOUN in lexicon.lemmas(before) and lexicon.ADJECTIVE not in lexicon.lemmas(before)
    as_noun = roles.nouns[lexicon.singular(before)] >= max(roles.qualities[before], 1)
    return before.endswith("ly") or before == "stainless" or (noun and as_noun)


def _qualified(caption: Caption, phrase: Phrase, qualities: Sequence[str], tail: str = "") -> str:
    """The caption with other qualities in a phrase, its article right, and a tail after its noun."""
    words = [*qualities, caption.words[phrase.head], *tail.split()]
    before = list(caption.words[phrase.start : phrase.first])
    if before and before[-1] in ("a", "an"):
        before[-1] = lexicon.article(words[0])
    return caption.changed(phrase.start, phrase.end, " ".join((*before, *words)))


def _places(target: Target, roles: Roles, caption: Caption) -> Iterator[Swap]:
    home = roles.at_home(target.near[:_LIKE_PLACES])
    place = caption.place
    word = caption.words[place.head] if place else ""
    if place and (
        word not in target.near[:_LIKE_PLACES] or caption.words[place.start] not in ("in", "on", "at", "after")
    ):
        return
    if not place and (not {",", "in", "on", "at", "after"}.isdisjoint(caption.words) or not caption.phrases):
        return
    # One place is enough: not "down a street in a kitchen".
    if caption.text[1:].isupper():
        return
    heads = [phrase.head for phrase in caption.phrases if not place or phrase.head != place.head]
    if any(listed_group(caption.words[head], Kind.THING) == SPOT for head in heads):
        return
    # No bathtub in the forest, if captions know none.
    if not place and not home.issuperset(lexicon.singular(caption.words[head]) for head in heads):
        return
    if (place and _is_part(caption, place)) or not found_at(caption.words, target.main.head):
        return

    def write(name: Name, dice: random.Random) -> tuple[str, str] | None:
        said = say_place(name, target, roles)
        if place:
            return caption.text, caption.changed(place.start, place.end, said)
        if not target.near:
            return None
        known = [word for word in target.near if roles.before_place.get(word)] or target.near
        known = [word for word in known if found_at(caption.words, word)]
        if not known:
            return None
        other = said_place(dice.choice(known[:16]), roles)
        text = caption.text.rstrip(" .")
        return f"{text} {other}", f"{text} {said}"

    yield Swap(word, write)


def _is_part(caption: Caption, place: Place) -> bool:
    """Whether what stands before a place, or within it, goes with no other: "covered in grass"."""
    before = caption.word(place.start - 1)
    fenced = before.endswith("ed") and caption.word(place.start - 2) in DETERMINERS
    within = any(listed_kind(word) == Kind.PLACE for word in caption.words[place.start : place.head])
    afloat = any(word[-3:] == "ing" and lexicon.verb_base(word) in _IN_THIS_PLACE for word in caption.words)
    return fenced or within or afloat or lexicon.verb_base(before) in _IN_THIS_PLACE | {"cover"}


def say_place(name: Name, target: Target, roles: Roles) -> str:
    """A place as a prompt says it: as it was typed with its preposition, or as captions say it."""
    if name.given and name.text.split()[0].lower() != name.head.split()[0]:
        return name.text
    return target.leads.get(name.head) or said_place(name.head, roles, target.near)


def _acts(target: Target, roles: Roles, caption: Caption) -> Iterator[Swap]:
    return acts(target, caption)


def _styles(target: Target, roles: Roles, caption: Caption) -> Iterator[Swap]:
    if "," in caption.words or STYLE_WORDS.intersection(caption.words) or caption.word(1) in FUNCTION:
        return
    own = {word for name in target.names for word in name.head.split()}
    others = [style for style in (*target.near_phrases, *_OTHER_STYLES) if not own.intersection(style.split())]

    def write(name: Name, dice: random.Random) -> tuple[str, str] | None:
        form, text = dice.choice(_STYLE_FORMS), caption.text.rstrip(" .")
        if not form.startswith("{caption}") and caption.words[0] not in ("i",):
            text = text[:1].lower() + text[1:]
        style = name.head.removesuffix(" style")
        other = dice.choice(others)
        return form.format(caption=text, style=other), form.format(caption=text, style=style)

    yield Swap("", write)
