"""What a quality becomes where nobody said it: everything has some colour, so that a pair must say which other one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cache

from .lexicon import word_set
from .roles import Roles, is_everyday, listed_group, takes
from .senses import Senses, known_words
from .settings import Kind

# Said of the same things, and never of one thing at once.
_OPPOSITES = """
    wet dry, soaked dry, damp dry, dirty clean, dusty clean, clean dirty, old new, antique modern, vintage modern,
    new old, modern old, tiny large, small large, little large, mini large, large small, big small, huge small,
    giant small, enormous small, tall short, short tall, long short, narrow wide, wide narrow, thick thin, thin thick,
    furry sleek, fluffy sleek, hairy sleek, woolly sleek, shaggy sleek, smooth rough, rough smooth, transparent opaque,
    translucent opaque, opaque transparent, shiny matte, glossy matte, bright dark, light dark, dark bright,
    empty full, full empty, open closed, closed open, messy tidy, tidy messy, soft hard, hard soft, hot cold, cold hot,
    sharp blunt, blurry sharp, curved straight, straight curved, simple ornate, ornate simple, decorated simple
"""
# Of words that mean nearly the same, or of which one is a kind of another, none is what another becomes.
_ALIKE = """
    red crimson scarlet maroon burgundy, blue navy indigo turquoise teal cyan, purple violet lilac lavender magenta,
    yellow golden gold, green olive, grey gray silver, brown tan khaki beige, white ivory cream, pink magenta,
    wooden wood bamboo wicker, metal metallic steel copper bronze brass iron, stone marble brick concrete,
    ceramic clay porcelain, glass crystal, paper cardboard, wool woolen knitted, silk satin velvet,
    striped stripy banded pinstriped zigzag, plaid checkered chequered tartan gingham houndstooth,
    dotted spotted polka-dot speckled freckled mottled, floral flowered paisley,
    rusty rusted corroded, old worn antique vintage, broken cracked shattered, painted colorful decorated ornate,
    elegant fancy beautiful pretty, round oval curved, square rectangular
"""
# The whole of a group, or so little that the concept may be it as well.
_SAYS_LITTLE = word_set("patterned decorated colorful multicolored embroidered painted worn")
_NO_PATTERN = "plain"
# What a thing is that has no quality worth a word.
_ORDINARY = "ordinary"


def what_it_becomes(
    word: str, group: str, near: Sequence[str], taken: Collection[str], roles: Roles, senses: Senses
) -> str:
    """One word that may stand wherever a quality does and says something else; "" for none.

    Its opposite, where English has a word for it: of a pattern "plain"; else the likest word of its group that may be
    said of whatever it is said of, and means neither the same nor more, of colours one that is less like. What is of no
    known group is ordinary without it.

    Args:
        word: the quality.
        group: its listed group, "" for none.
        near: words that may take its place, the likest first.
        taken: names of this and of other concepts, which it cannot become.
        roles: of the captions.
        senses: of the base encoder.
    """
    opposite = _opposites().get(word, _NO_PATTERN if group == "pattern" and word != _NO_PATTERN else "")
    if opposite and opposite not in taken and known_words(senses, [opposite]):
        return opposite
    alike = _alike().get(word, frozenset())
    found = [each for each in near if each.isalpha() and each not in _SAYS_LITTLE | alike and each not in taken]
    if not group:
        return _ORDINARY if _ORDINARY not in taken and known_words(senses, [_ORDINARY]) else (*found, "")[0]
    listed = [each for each in found if listed_group(each, Kind.QUALITY) == group] or found
    fitting = [each for each in listed if _covers(each, word, group, roles)] or listed
    # "Paisley" and "satin" are rare words.
    common = [each for each in fitting if is_everyday(each)] or fitting
    # A picture of the likest colour may be taken for the concept's: navy for purple.
    return (*common[len(common) // 2 if group == "color" else 0 :], "")[0]


def _covers(word: str, other: str, group: str, roles: Roles) -> bool:
    """Whether a word may be said of all nouns of the captions that another may be said of."""
    return all(takes(noun, word, group) for noun in roles.nouns if takes(noun, other, group))


@cache
def _opposites() -> dict[str, str]:
    return dict(each.split() for each in _OPPOSITES.split(","))


@cache
def _alike() -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    sets: Iterable[frozenset[str]] = map(word_set, _ALIKE.split(","))
    for words in sets:
        for word in words:
            found[word] = found.get(word, frozenset()) | words
    return found
