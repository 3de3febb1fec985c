"""The little English grammar that questions need: plurals and articles."""

from __future__ import annotations

# Nouns without an article, of those that people want to see no more.
_MASS = frozenset({
    "nudity", "nakedness", "pornography", "porn", "erotica", "sex", "lingerie", "underwear", "cleavage", "skin",
    "flesh", "violence", "cruelty", "brutality", "torture", "abuse", "harassment", "hate", "racism", "murder",
    "suicide", "death", "war", "terrorism", "blood", "gore", "vomit", "urine", "weaponry", "ammunition", "fire",
    "smoke", "smoking", "alcohol", "beer", "wine", "tobacco", "cannabis", "marijuana", "cocaine", "heroin", "money",
    "propaganda", "graffiti", "text", "pollution", "garbage", "trash", "meat", "food", "water", "snow", "rain",
})  # fmt: skip


_PLURALS = frozenset({"people", "men", "women", "children", "genitalia", "feet", "teeth", "knives"})


_DETERMINERS = frozenset({"a", "an", "the", "some", "any", "no", "one", "two", "three", "many", "several"})


# What follows these describes the noun before them.
_PREPOSITIONS = frozenset({"of", "with", "without", "in", "on", "at", "by", "from", "for", "under", "behind"})


def _head(concept: str) -> str:
    """The noun of a phrase: "gun" of "a gun in a hand"."""
    words = concept.lower().split()
    end = next((place for place, word in enumerate(words) if place and word in _PREPOSITIONS), len(words))
    return words[end - 1] if words else ""


def is_plural(concept: str) -> bool:
    head = _head(concept)
    return head in _PLURALS or (head.endswith("s") and not head.endswith(("ss", "us", "is", "gas")))


def with_article(concept: str) -> str:
    bare = _head(concept) in _MASS or is_plural(concept)
    if bare or _DETERMINERS.intersection(concept.lower().split()[:1]):
        return concept
    return f"{'an' if concept.lower().startswith(tuple('aeiou')) else 'a'} {concept}"
