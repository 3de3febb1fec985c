"""Long pairs of acts: what someone does in a caption becomes the concept."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from . import lexicon
from .lexicon import word_set
from .reading import PREPOSITIONS, Caption
from .roles import MUTUAL, listed_group
from .settings import Kind
from .targets import Name, Swap, Target

# Nothing but where may follow a deed that another takes the place of: not "leaning against", "sitting down".
_AFTER_DEED = word_set("on in at under beside near next by inside beneath behind outside together alone while")
_AFTER_MOVE = word_set("down along across through over toward towards around past into with for")
# Who runs does not do so on a bench: these give way to a deed only where some of them are like it.
_STILL = word_set("sit stand lie lay rest sleep wait lean kneel pose hang lounge relax")
_STAYING = word_set("sit stand work eat rest wait stay play")
# "On" and "in" what they are done with.
_ABOUT = {("talk", "on"), ("cook", "in")}
_PHRASAL = word_set("put get go take try come look work turn")
_MOST_ALIKE = 8
# What is done in such places alone, and what may be done in all of these.
_WATER = ("in a lake", "in the sea", "in a river", "in a pool", "in the water")
_SNOW = ("in the snow", "on a snowy hill", "on a snowy mountain")
_DONE_AT = {
    **dict.fromkeys(("swim", "float", "dive", "snorkel", "surf", "paddle", "row", "sail"), _WATER),
    **dict.fromkeys(("ski", "snowboard", "sled"), _SNOW),
    "climb": ("on a rock", "on a mountain", "on a cliff", "on a hillside", "on a wall"),
    "hike": ("on a mountain", "in the forest", "on a hill", "in a valley"),
}
_AT_EASE = word_set("stand play rest wait walk pose")


def acts(target: Target, caption: Caption) -> Iterator[Swap]:
    """The deeds of a caption that give way to the concept, done by those who do it."""
    still = any(lexicon.verb_base(word) in _STILL for word in target.near[:_MOST_ALIKE])
    own = lexicon.verb_base(target.main.head)
    if own in _DONE_AT and not target.main.tail:
        yield from _acts_at(target, caption, _DONE_AT[own])
        return
    for deed in caption.deeds:
        base = lexicon.verb_base(caption.words[deed.at])
        who = listed_group(caption.words[deed.subject.head], Kind.THING)
        doing = lexicon.verb_form(base, "VBG")
        after = caption.word(deed.at + 1)
        if base in _STILL and not still:
            continue
        aside = (
            (base, after) in _ABOUT
            or (base in _PHRASAL and after == "on")
            or (after == "at" and base not in _STAYING)
            or (base == "wait" and "for" in caption.words[deed.at :])
        )
        where = _AFTER_DEED if still else _AFTER_DEED | _AFTER_MOVE
        if (after.isalpha() and after not in where) or aside:
            continue
        # Nobody sleeps on a bench reading a book.
        if any(word.endswith("ing") and lexicon.verb_base(word) for word in caption.words[deed.at + 1 :]):
            continue
        if who not in target.doers or doing in target.heads or doing not in target.near:
            continue
        if own in MUTUAL and not deed.subject.many:
            continue

        def write(name: Name, dice: random.Random, at: int = deed.at, tag: str = deed.tag) -> tuple[str, str] | None:
            own = lexicon.verb_base(name.head)
            if tag != "VBG" and (not own or not name.head.endswith("ing")):
                return None
            verb = name.head if tag == "VBG" else lexicon.verb_form(own, tag)
            return caption.text, caption.changed(at, at + 1, f"{verb} {name.tail}".strip())

        yield Swap(doing, write)


def _acts_at(target: Target, caption: Caption, places: Sequence[str]) -> Iterator[Swap]:
    """Deeds that say first of all who does them: in a place where the act may be done, something else and the act."""
    for deed in caption.deeds[:1]:
        base = lexicon.verb_base(caption.words[deed.at])
        who = listed_group(caption.words[deed.subject.head], Kind.THING)
        before = {*caption.words[: deed.at]} - {"of"}
        alone = [phrase for phrase in caption.phrases if phrase.start < deed.at] == [deed.subject]
        doing = {lexicon.verb_form(base, "VBG"), *target.heads}
        if (
            who not in target.doers
            or not alone
            or deed.subject.attached
            or not before.isdisjoint((*PREPOSITIONS, ","))
            or doing == {*target.heads}
        ):
            continue

        def write(
            name: Name, dice: random.Random, at: int = deed.at, tag: str = deed.tag, base: str = base
        ) -> tuple[str, str] | None:
            place, own = dice.choice(places), lexicon.verb_base(name.head)
            if not own:
                return None
            safe, unsafe = (lexicon.verb_form(each, tag) for each in (base if base in _AT_EASE else "stand", own))
            end = len(caption.words)
            return caption.changed(at, end, f"{safe} {place}"), caption.changed(at, end, f"{unsafe} {place}")

        yield Swap(lexicon.verb_form(base, "VBG"), write)
