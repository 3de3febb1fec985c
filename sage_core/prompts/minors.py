"""Whether a prompt refers to a person under 18: the filter that such prompts never pass."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# In a text that was not written to be read so, these split words or join them: hidden characters, accents, and the
# dashes of word processors.
_HIDDEN, _ACCENTS = frozenset({"Cf"}), frozenset({"Mn", "Me"})
_DASHES = dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-")


def mentions_minor(text: str) -> bool:
    """Whether a prompt refers, or may refer, to a person under 18, by English words and stated ages.

    Errs on the side of caution: "girl", "kid" and "minor" count in every sense. Accents, dashes and other forms of
    letters, and characters without a width, make no difference. Words of other languages, misspellings and letters of
    other alphabets are not known to it.
    """
    return any(_MINORS.search(plain) for plain in _plain_forms(text))


def _plain_forms(text: str) -> set[str]:
    """The text in plain lower-case letters and dashes; hidden characters may stand in a word or between two."""
    if text.isascii():
        return {text.lower()}
    letters = unicodedata.normalize("NFKD", text).translate(_DASHES)
    kinds = [(letter, unicodedata.category(letter)) for letter in letters]
    shown = [(letter, kind) for letter, kind in kinds if kind not in _ACCENTS]
    return {"".join(between if kind in _HIDDEN else letter for letter, kind in shown).lower() for between in ("", " ")}


_GAP = r"[\s_-]"
_WORDS = (
    r"(?:grand|step|school|god)?(?:child(?:ren)?|kid(?:do|die)?s?|sons?|daughters?|boys?|girls?)",
    r"child(?:hood|like|ish)|bab(?:y|ies)|infants?|newborns?|toddlers?|orphans?|youngsters?|youths?",
    rf"(?:pre{_GAP}?)?teen(?:s|y|age|aged|agers?)?|tweens?|adolescen(?:ts?|ce)|juveniles?|minors?",
    rf"under{_GAP}?aged?|(?:pre{_GAP}?)?pub(?:escent|erty)|jail{_GAP}?bait|nymphet(?:te)?s?|sweet{_GAP}+sixteen",
    r"lolis?|lolitas?|shotas?|(?:loli|shota|toddler)[ck]ons?|pa?edo(?:s|phil(?:es?|ia|iacs?|ic))?|csam",
    rf"(?:nursery|elementary|primary|grade|middle|junior|high){_GAP}?school(?:s|ers?)?|preschool(?:s|ers?)?",
    rf"junior{_GAP}?high|kindergart(?:en|ner|ener)s?",
)
_ONES = "one|two|three|four|five|six|seven|eight|nine"
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
# "twenty-five" is no five.
_NO_TENS = "".join(rf"(?<!{tens}{_GAP})" for tens in _TENS.split("|"))
_TEENS = "ten|eleven|twelve|(?:thir|four|fif|six|seven)teen"
_UNDER_18 = rf"(?:0?\d|1[0-7]|{_NO_TENS}(?:{_ONES})|{_TEENS})"
_HALF = rf"(?:{_GAP}+and{_GAP}+a{_GAP}+half)?"
_ORDINALS = (
    r"1st|2nd|3rd|(?:[4-9]|1[0-2])th|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
)
_OF_ABOUT = r"(?:(?:of|is|at|about|around|approximately|between|from|only|just|barely)[\s:=_-]*)*"
_AGES = (
    rf"{_UNDER_18}{_HALF}{_GAP}*(?:(?:years?|y){_GAP}*(?:olds?|of{_GAP}age|young)|yrs?|y[\s./_-]*os?(?!-yo))",
    # Not the y of an axis, of coordinates ("x 12 y 30"), of y-shaped or of y'all.
    rf"(?:0?\d|1[0-7]){_GAP}?y(?!-[a-z]|{_GAP}*(?:ax[ei]s|coord|chrom|[=:\d])|['’])",
    rf"ages?d?[\s:=_-]*{_OF_ABOUT}{_UNDER_18}(?!\d|{_GAP}*(?:hundred|thousand|million))",
    rf"(?:\d+|{_ONES}|{_TEENS}|eighteen){_GAP}*(?:months?|weeks?|days?){_GAP}*old",
    rf"(?:under|below|younger{_GAP}+than){_GAP}*(?:the{_GAP}+)?(?:age{_GAP}+(?:of{_GAP}+)?)?(?:18s?|eighteens?)(?!\d)",
    rf"(?:under|below){_GAP}+(?:the{_GAP}+)?(?:legal{_GAP}+age|age{_GAP}+of{_GAP}+(?:consent|majority))",
    rf"under-(?:\d|1[0-7])s?(?!\d)|under{_GAP}?(?:\d|1[0-7])s",
    rf"(?:{_ORDINALS}){_GAP}*(?:graders?|grade{_GAP}*(?:students?|pupils?|class(?:es|rooms?|mates?)?))",
)
# Only letters continue a word here, unlike at \b: "1girl" and "little_boy" are found.
_MINORS = re.compile(rf"(?<![^\W\d_])(?:{'|'.join(_WORDS)}|(?<!\d)(?:{'|'.join(_AGES)}))(?![^\W\d_])")


def without_minors(prompts: Sequence[str]) -> tuple[tuple[int, ...], int]:
    """Positions of prompts that may be generated, and the number of those left out for referring to a minor."""
    kept = tuple(position for position, prompt in enumerate(prompts) if not mentions_minor(prompt))
    return kept, len(prompts) - len(kept)
