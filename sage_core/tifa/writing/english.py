"""The little English grammar that questions need: which words are plurals, and what takes an article."""

from __future__ import annotations


def word_set(text: str) -> frozenset[str]:
    """The words of a table."""
    return frozenset(text.split())


# Mass nouns, which have no article: first those among concepts that people ask to remove, then those of captions.
UNCOUNTED = word_set("""
    nudity nakedness pornography porn erotica sex lingerie underwear cleavage skin flesh violence cruelty
    brutality torture abuse harassment hate racism murder suicide death war terrorism blood gore vomit urine
    weaponry ammunition fire smoke smoking alcohol beer wine tobacco cannabis marijuana cocaine heroin money
    propaganda graffiti text pollution garbage trash meat food water snow rain
    grass sand fruit bread cheese wood furniture traffic dirt hair luggage mud ice gravel fog mist steam hay
    rice pasta sauce soup milk coffee tea juice butter sugar salt foliage vegetation greenery equipment clothing
    clutter rubble lettuce broccoli corn cereal chocolate sunlight sunshine pavement concrete cardboard paint
    plastic art wildlife frosting icing jewelry makeup toilet-paper silverware glassware tarmac asphalt
    carpeting tile seafood celery spinach garlic
""")
# Plurals that do not look like plurals.
PLURALS = word_set("""
    people men women children sheep fish deer geese mice feet teeth cattle police skis taxis menus policemen
    firemen gentlemen fishermen genitalia knives
""")
# Singular and plural alike.
HERDS = frozenset({"sheep", "fish", "deer"})
# Words that look like plurals but are not.
SINGULARS = word_set("""
    gas lens canvas christmas bias atlas texas vegas mercedes series species headquarters always perhaps towards
    as its this his does news swiss iris pancreas las los james ross thomas carlos wii's us biogas
""")
SINGULAR_OF = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "geese": "goose", "mice": "mouse",
    "feet": "foot", "teeth": "tooth", "policemen": "policeman", "firemen": "fireman", "gentlemen": "gentleman",
    "fishermen": "fisherman",
}  # fmt: skip

_DETERMINERS = frozenset({"a", "an", "the", "some", "any", "no", "one", "two", "three", "many", "several"})
# What follows these describes the noun before them.
_PREPOSITIONS = frozenset({"of", "with", "without", "in", "on", "at", "by", "from", "for", "under", "behind"})


def is_plural_word(word: str) -> bool:
    """Whether a lower-case noun can be a plural; those of HERDS can."""
    if word in PLURALS:
        return True
    return word.endswith("s") and not word.endswith(("ss", "us", "is", "'s")) and word not in SINGULARS


def is_plural(phrase: str) -> bool:
    """Whether a phrase such as "guns in a drawer" takes "are"; a noun that can be both counts as a plural."""
    head = _head(phrase)
    return is_plural_word(head) and head not in HERDS


def with_article(phrase: str) -> str:
    """A phrase with "a" or "an", where English has one."""
    bare = _head(phrase) in UNCOUNTED or is_plural(phrase)
    if bare or _DETERMINERS.intersection(phrase.lower().split()[:1]):
        return phrase
    return f"{'an' if phrase.lower().startswith(tuple('aeiou')) else 'a'} {phrase}"


def _head(phrase: str) -> str:
    """The noun of a phrase: "gun" of "a gun in a hand"."""
    words = phrase.lower().split()
    end = next((place for place, word in enumerate(words) if place and word in _PREPOSITIONS), len(words))
    return words[end - 1] if words else ""
