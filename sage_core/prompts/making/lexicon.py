"""English words and their forms: what a word can be, its plural, its verb forms, and the article before it.

Forms and parts of speech come from LemmInflect's dictionary, the NIH's SPECIALIST lexicon; endings decide where it has
no entry.
"""

from __future__ import annotations

import re
from functools import cache

NOUN, VERB, ADJECTIVE = "NOUN", "VERB", "ADJ"


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


# Mass nouns and others without a plural in captions, so that no "a" comes before them.
UNCOUNTED = word_set("""
    nudity nakedness pornography porn erotica sex lingerie underwear skin flesh violence cruelty torture abuse hate
    racism murder suicide death war terrorism blood gore vomit urine weaponry ammunition fire smoke alcohol tobacco
    cannabis marijuana cocaine heroin money propaganda graffiti text pollution garbage trash meat food water snow rain
    grass sand fruit bread cheese wood furniture traffic dirt hair luggage mud ice gravel fog mist steam hay rice pasta
    soup milk coffee tea juice butter sugar salt foliage vegetation greenery equipment clothing clutter rubble lettuce
    broccoli corn cereal sunlight sunshine pavement concrete cardboard plastic art wildlife jewelry makeup silverware
    lemonade soda cocoa cider champagne vodka rum
    seafood spinach garlic anime darkness beer wine whiskey weather scenery wheat leather cotton gold silver
    baseball tennis soccer football basketball frisbee hockey surfing skiing skateboarding snowboarding
    scissors jeans pants shorts sunglasses glasses clothes people trousers stuff
""")
_PLURALS = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "geese": "goose", "mice": "mouse",
    "feet": "foot", "teeth": "tooth", "policemen": "policeman", "firemen": "fireman", "knives": "knife",
    "wolves": "wolf", "loaves": "loaf", "leaves": "leaf", "shelves": "shelf", "scarves": "scarf", "calves": "calf",
    "wives": "wife", "halves": "half", "oxen": "ox", "snowmen": "snowman", "fishermen": "fisherman",
}  # fmt: skip
_SINGULARS = {singular: plural for plural, singular in _PLURALS.items()}
_SAME = word_set(
    "sheep deer fish moose bison scissors jeans pants trousers shorts sunglasses glasses clothes binoculars"
)
_NO_PLURAL_ENDING = ("ss", "us", "is", "'s")
_NOT_PLURAL = word_set("gas lens canvas christmas bias atlas series species tennis news swiss always plus")
# Said with "a" though they begin with a vowel's letter, and the other way round.
_CONSONANT = re.compile(r"(?:uni(?!m|n)|us(?:e|ual)|u(?:k|sb|fo)\b|eu|one\b|once\b|ewe)")
_VOWEL = re.compile(r"(?:hour|honest|heir|honou?r|8|11\b|18|x-?ray|mri\b|suv\b|sms\b|lcd\b)")


@cache
def lemmas(word: str) -> dict[str, tuple[str, ...]]:
    """The base forms of a lower-case word by part of speech, as far as the dictionary has it; {} for an unknown one."""
    import lemminflect

    found = lemminflect.getAllLemmas(word)
    kept: dict[str, tuple[str, ...]] = {}
    for part, bases in found.items():
        if part in (NOUN, VERB, ADJECTIVE, "ADV", "PROPN", "AUX"):
            kept["NOUN" if part == "PROPN" else part] = tuple(bases)
    return kept


@cache
def parts_of(word: str) -> frozenset[str]:
    """NOUN, VERB, ADJ: what a lower-case word can be in a sentence."""
    found = {part for part in lemmas(word) if part in (NOUN, VERB, ADJECTIVE)}
    if word.endswith(("ed", "ing")) and VERB in found:
        found.add(ADJECTIVE)
    if word in _PLURALS:
        found.add(NOUN)
    if not found:
        found = {ADJECTIVE} if word.endswith(("ed", "y", "ish", "less", "ful", "ous", "-colored")) else {NOUN}
    return frozenset(found)


def is_word(word: str) -> bool:
    """Whether the dictionary has a word, in any of its forms."""
    return bool(lemmas(word)) or word in _PLURALS or word in UNCOUNTED


def is_plural(noun: str) -> bool:
    """Whether a lower-case noun is a plural."""
    if noun in _PLURALS or noun in _SAME:
        return True
    if not noun.endswith("s") or noun.endswith(_NO_PLURAL_ENDING) or noun in _NOT_PLURAL:
        return False
    base = lemmas(noun).get(NOUN)
    return base is None or any(one != noun for one in base)


def is_counted(noun: str) -> bool:
    """Whether a singular noun takes "a" and has a plural."""
    return noun not in UNCOUNTED and not noun.endswith(("ness", "ism", "ography", "ware"))


@cache
def plural(noun: str) -> str:
    """The plural of a lower-case singular noun; of several words, the last one's."""
    head, _, last = noun.rpartition(" ")
    if head:
        return f"{head} {plural(last)}"
    if noun in _SAME or is_plural(noun):
        return noun
    if noun in _SINGULARS:
        return _SINGULARS[noun]
    if noun.endswith("man") and len(noun) > 4 and noun not in ("human", "german", "roman", "caiman", "shaman"):
        return f"{noun[:-3]}men"
    if noun.endswith(("s", "x", "ch", "sh", "z")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return f"{noun[:-1]}ies"
    import lemminflect

    forms = lemminflect.getInflection(noun, tag="NNS", inflect_oov=False) if is_counted(noun) else ()
    other = [form for form in forms if form != noun]
    return other[0] if other else f"{noun}s"


@cache
def singular(noun: str) -> str:
    """The singular of a lower-case noun."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    if not is_plural(noun) or noun in _SAME:
        return noun
    bases = [base for base in lemmas(noun).get(NOUN, ()) if base != noun]
    if bases:
        return bases[0]
    if noun.endswith("ies") and len(noun) > 4:
        return f"{noun[:-3]}y"
    return noun[:-2] if noun.endswith(("xes", "ches", "shes", "sses", "zes")) else noun[:-1]


@cache
def verb_base(word: str) -> str:
    """The base form of a verb in any form: "sleeping" → "sleep"; "" if it is no verb."""
    found = lemmas(word).get(VERB, ())
    return found[0] if found else ""


@cache
def verb_form(base: str, tag: str) -> str:
    """A form of a verb by its Penn tag: VBG, VBZ, VB, VBD, VBN."""
    import lemminflect

    found = lemminflect.getInflection(base, tag=tag)
    return found[0] if found else base


@cache
def verb_tag(word: str) -> str:
    """Which form of a verb a word is: VBG, VBZ, VB or VBD; "" for none."""
    base = verb_base(word)
    if not base:
        return ""
    if word.endswith("ing") and word != base:
        return "VBG"
    if word == base:
        return "VB"
    return "VBZ" if word.endswith("s") else "VBD"


@cache
def forms(word: str) -> frozenset[str]:
    """All forms of a word as the part of speech it can be, with itself: "cat" → cat, cats."""
    found = {word}
    parts = lemmas(word)
    if NOUN in parts or not parts:
        one = singular(word)
        found |= {one, plural(one)}
    if base := verb_base(word):
        found |= {base, *(verb_form(base, tag) for tag in ("VBG", "VBZ", "VBD", "VBN"))}
    return frozenset(found)


def article(words: str) -> str:
    """A or an, as the words that follow are spoken."""
    start = words.lower()
    if _VOWEL.match(start):
        return "an"
    return "an" if start[:1] in tuple("aeiou") and not _CONSONANT.match(start) else "a"


def with_article(phrase: str) -> str:
    """A singular phrase with its article, or without one where its noun is not counted; a plural as it is."""
    # "Bowl of soup": the bowl is counted.
    noun = phrase.partition(" of ")[0].split()[-1].lower()
    return phrase if is_plural(noun) or not is_counted(noun) else f"{article(phrase)} {phrase}"
