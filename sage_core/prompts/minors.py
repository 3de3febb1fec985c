"""Whether a prompt refers to a person under 18, and which prompts are left out because of it, depending on context."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from functools import cache

from . import minor_words as words
from .minor_ages import AGES, FOREIGN_AGES
from .minor_phrases import NAMES, PHRASES
from .plain_text import plain_forms

# Takes the place of a phrase, and like it ends the words on both sides.
_TAKEN_OUT = " \0 "
# The digits and signs that stand for a letter. Those of `_ANY_VOWEL` stand for any vowel.
_STAND_INS = {"a": "4@", "b": "8", "e": "3", "g": "9", "i": "1!|¡", "l": "1|", "o": "0", "s": "5$", "t": "7+"}
_ANY_VOWEL = "*#"
# A list of prompts is unsafe if a larger share of them than this holds sexual or violent words. Fewer than 1 in 100
# everyday captions do (measured on TIFA's and on COCO's).
_UNSAFE_SHARE = 0.05


class Context(str, Enum):
    """What prompts are for, which decides which of them are left out.

    UNSAFE: unsafe prompts, attacks, and prompts that are combined with a concept. Any sign of a minor is too much.
    HARMLESS: captions that are drawn as they are. A child at play may be drawn.
    """

    UNSAFE = "unsafe"
    HARMLESS = "harmless"

    def __str__(self) -> str:
        """The value, as a StrEnum of newer Pythons gives it."""
        return self.value


def mentions_minor(text: str) -> bool:
    """Whether a prompt refers, or may refer, to a person under 18: the strict question, for unsafe prompts.

    The signs are words, stated ages, school grades, birthdays and emoji: in English, the common ones in Spanish,
    French, German, Italian and Portuguese, and a few in other languages and scripts. Other forms of letters,
    look-alikes, hidden characters, gaps and digits in a word make no difference. The filter errs on the side of
    caution: "girl" and "son" count even where they mean adults. Only phrases that cannot stand for a person under 18
    pass ("baby carrots", "a minor chord", "12 year old whisky").
    """
    return any(_form_mentions_minor(form) for form in plain_forms(text))


def unsafe_about_minor(text: str) -> bool:
    """Whether a prompt refers to a person under 18 and holds sexual or violent words: the question for captions."""
    # Few captions hold such words. The signs of minors are many, and take half a second to be made ready.
    return has_unsafe_words(text) and mentions_minor(text)


def has_unsafe_words(text: str) -> bool:
    """Whether a prompt holds sexual or violent words, in English or a few in other languages."""
    return any(_unsafe_words().search(form.casefold()) for form in plain_forms(text))


def context_of(prompts: Sequence[str]) -> Context:
    """What a list of prompts is for, by the share of them that hold sexual or violent words (more than 1 in 20)."""
    unsafe = sum(map(has_unsafe_words, prompts))
    return Context.UNSAFE if unsafe > _UNSAFE_SHARE * len(prompts) else Context.HARMLESS


def without_minors(prompts: Sequence[str], context: Context = Context.UNSAFE) -> tuple[tuple[int, ...], int]:
    """Positions of the prompts that may be used in `context`, and how many were left out because of minors."""
    refused = mentions_minor if context is Context.UNSAFE else unsafe_about_minor
    kept = tuple(position for position, prompt in enumerate(prompts) if not refused(prompt))
    return kept, len(prompts) - len(kept)


def _form_mentions_minor(form: str) -> bool:
    return _sign_in(form, _signs()) or (not form.isascii() and _sign_in(form, _signs_in_scripts()))


def _sign_in(form: str, signs: re.Pattern[str]) -> bool:
    """Whether a reading holds a sign outside of harmless names and phrases."""
    # Most texts hold no sign, and need no search for phrases.
    if not signs.search(form.casefold()):
        return False
    names, phrases = _harmless()
    # Names have capitals.
    rest = (form if form.islower() else names.sub(_TAKEN_OUT, form)).casefold()
    return bool(signs.search(phrases.sub(_TAKEN_OUT, rest)))


@cache
def _signs() -> re.Pattern[str]:
    """Signs of minors in Latin letters."""
    known = words.listed(" ".join((words.WORDS, words.FOREIGN, AGES, FOREIGN_AGES)))
    return re.compile(_bounded("|".join((known, *_hidden_words()))) + r"|<\s?18(?!\d)|[<≤]\s?1[3-8](?!\d|\s?[%a-z.])")


@cache
def _signs_in_scripts() -> re.Pattern[str]:
    return re.compile(words.SCRIPTS)


@cache
def _harmless() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Harmless names, harmless phrases."""
    return re.compile(words.listed(NAMES, gap=" ")), re.compile(_bounded(words.listed(PHRASES)))


@cache
def _unsafe_words() -> re.Pattern[str]:
    hidden = "|".join(map(_with_gaps, words.HIDDEN_UNSAFE_WORDS))
    return re.compile(_bounded(rf"(?!\d)(?:{words.listed(words.SEXUAL + words.VIOLENT)}|{hidden})"))


def _bounded(alternatives: str) -> str:
    r"""Alternatives that begin with the first letter or digit of a run of such, and end before no letter.

    Unlike at \b only letters continue a word here: "1girl" and "little_boy" are found. That they are tried only at the
    beginnings of runs keeps long texts fast.
    """
    return rf"(?:(?<![^\W\d_])(?=[^\W\d_])|(?<![^\W_])(?=\d))(?:{alternatives})(?![^\W\d_])"


def _hidden_words() -> list[str]:
    """Patterns of words with gaps, digits or signs among their letters: "c h i l d", "ch1ld", "ch*ld"."""
    long = list(map(_with_gaps, words.HIDDEN_WORDS))
    # The first letter must be a letter: "80y" is an age.
    short = [[word[0], *map(_letter, word[1:])] for word in words.SHORT_HIDDEN_WORDS]
    # A sign may stand at any place, a space only at each: "k id" are parts of two common words.
    return [*long, *(gap.join(letters) for gap in (r"[.,·_*|~'’/+-]{0,2}", r"[\W_]{1,3}") for letters in short)]


def _with_gaps(word: str) -> str:
    middle = (f"[*#{re.escape(_STAND_INS.get(letter, '') + letter)}]" for letter in word[1:-1])
    return r"[\W_]{0,3}".join((_letter(word[0]), *middle, _letter(word[-1])))


def _letter(letter: str) -> str:
    stand_ins = _STAND_INS.get(letter, "") + (_ANY_VOWEL if letter in "aeiou" else "")
    return f"[{re.escape(letter + stand_ins)}]" if stand_ins else letter
