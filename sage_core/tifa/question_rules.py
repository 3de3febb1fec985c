"""Questions by rule, for captions without a language model at hand.

The rules read English captions by word lists, without a parser. They see noun phrases that start with an article, a
number or a listed adjective; colors, counts, materials, shapes and sizes directly before their noun; listed places;
and listed spatial relations between two such phrases. They see no activities, no other attributes, nothing implied,
and no word that is not listed, so a caption can get few questions or none. They prefer silence to a wrong question.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .questions import Question

COLORS = (
    "red",
    "blue",
    "green",
    "yellow",
    "black",
    "white",
    "brown",
    "orange",
    "purple",
    "pink",
    "gray",
    "gold",
    "silver",
)
MATERIALS = {
    "wooden": "wood", "wood": "wood", "metal": "metal", "steel": "metal", "iron": "metal", "glass": "glass",
    "stone": "stone", "plastic": "plastic", "paper": "paper", "leather": "leather", "brick": "brick",
    "concrete": "concrete", "ceramic": "ceramic", "marble": "marble",
}  # fmt: skip
SHAPES = ("round", "square", "triangular", "rectangular", "oval", "heart-shaped")
SIZES = ("small", "big", "large", "tiny", "huge", "tall", "short", "long")
NUMBERS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    **{str(number): number for number in range(2, 11)},
}  # fmt: skip
PLACES = (
    "beach", "kitchen", "street", "forest", "bathroom", "desert", "park", "bedroom", "city", "field", "mountain",
    "snow", "office", "restaurant", "garden", "library",
)  # fmt: skip
RELATIONS = {
    "to the left of": "left of", "left of": "left of", "to the right of": "right of", "right of": "right of",
    "above": "above", "below": "below", "on top of": "on top of", "under": "under", "beneath": "under",
    "underneath": "under", "behind": "behind", "in front of": "in front of", "next to": "next to", "beside": "next to",
    "inside": "inside", "on": "on",
}  # fmt: skip
# Alternatives that exclude each other: a thing next to another may be left of it, one left of it is not right of it.
_EXCLUSIVE = (
    ("left of", "right of", "above", "below"),
    ("on", "under", "behind", "in front of"),
    ("on top of", "under", "behind", "in front of"),
    ("inside", "under", "behind", "on top of"),
)
ANIMALS_AND_PEOPLE = frozenset({
    "dog", "cat", "horse", "cow", "sheep", "bird", "elephant", "giraffe", "zebra", "bear", "lion", "tiger",
    "rabbit", "duck", "fish", "monkey", "kitten", "puppy", "man", "woman", "boy", "girl", "child", "person",
    "people", "baby", "lady", "surfer", "skier", "player", "rider",
})  # fmt: skip
FOODS = frozenset({
    "pizza", "cake", "sandwich", "apple", "banana", "orange", "donut", "bread", "cheese", "salad", "carrot",
    "broccoli", "soup", "egg", "fruit",
})  # fmt: skip

_ARTICLES = frozenset({"a", "an", "the"})
_ADJECTIVES = frozenset({*COLORS, *MATERIALS, *SHAPES, *SIZES, "grey"})
# A noun phrase ends before these; so it does before most words in -ing and -ed.
_BOUNDARIES = frozenset({
    "and", "or", "but", "with", "without", "of", "in", "on", "at", "by", "for", "from", "to", "into", "onto",
    "over", "under", "above", "below", "behind", "beside", "between", "near", "next", "front", "top", "left",
    "right", "inside", "outside", "through", "across", "along", "around", "against", "up", "down", "off", "as",
    "is", "are", "was", "were", "be", "has", "have", "had", "that", "which", "who", "while", "where", "when",
    "there", "this", "it", "its", "his", "her", "their", "very", "sit", "sits", "stand", "stands", "walk",
    "walks", "watch", "watches", "ride", "rides", "hold", "holds", "look", "looks", "eat", "eats", "run",
    "runs", "lie", "lies", "lay", "lays", "hang", "hangs", "fly", "flies", "carry", "carries", "wear", "wears",
    "jump", "jumps", "wait", "waits", "use", "uses", "play", "plays", "show", "shows", "make", "makes", "take",
    "takes", "read", "reads", "drive", "drives", "drink", "drinks", "can", "swim", "swims", "sleep", "sleeps",
})  # fmt: skip
# Heads of phrases that name no thing of their own.
_VAGUE = frozenset({
    "couple", "bunch", "group", "side", "view", "picture", "photo", "photograph", "image", "piece", "pair",
    "lot", "part", "top", "bottom", "front", "back", "middle", "kind", "type", "variety", "set", "area",
    "number", "row", "edge", "end", "corner", "way", "place", "slab", "patch", "line", "lots", "some", "one",
})  # fmt: skip
_UNCOUNTED = frozenset({"snow", "grass", "water", "sand", "rain", "fruit", "bread", "cheese", "food", "wood"})
_OTHER_PLURALS = frozenset({"people", "men", "women", "children", "sheep", "fish"})
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9'-]*|[^\sA-Za-z0-9]")


@dataclass(frozen=True)
class _Phrase:
    """Words start..end (exclusive) of a caption; the last is the noun, those before it qualify it."""

    start: int
    end: int
    qualifiers: tuple[str, ...]
    noun: str
    number: str | None


def rule_questions(caption_id: str, caption: str) -> tuple[Question, ...]:
    """Questions that the rules of this module see in a caption; none if they see nothing."""
    words = [word.lower() for word in _WORD.findall(caption)]
    phrases = _phrases(words)
    rows = [row for phrase in phrases for row in _about(phrase)]
    rows += _relations(words, phrases)
    rows += _places(words)
    made: dict[str, Question] = {}
    for element_type, element, text, choices, answer in rows:
        made.setdefault(text, Question(caption_id, caption, text, choices, answer, element_type, element))
    return tuple(made.values())


_Row = tuple[str, str, str, tuple[str, ...], str]
_YES = ("yes", "no")


def _phrases(words: Sequence[str]) -> list[_Phrase]:
    phrases = []
    position = 0
    while position < len(words):
        word = words[position]
        if word not in _ARTICLES and word not in NUMBERS and word not in _ADJECTIVES:
            position += 1
            continue
        start, number = position, word if word in NUMBERS else None
        position += word in _ARTICLES or word in NUMBERS
        if number is None and position < len(words) and words[position] in NUMBERS:
            number = words[position]
            position += 1
        inner: list[str] = []
        while position < len(words) and _continues(words[position], inner):
            inner.append(words[position])
            position += 1
        # "Black and white photo", "a red or blue bus": which color is whose is not for a rule to say.
        mixed = words[start - 1] in ("and", "or") and words[start] in _ADJECTIVES if start else False
        if inner and inner[-1] not in _ADJECTIVES | _VAGUE and not mixed:
            phrases.append(_Phrase(start, position, tuple(inner[:-1]), inner[-1], number))
        position = max(position, start + 1)
    return phrases


def _continues(word: str, before: Sequence[str]) -> bool:
    if not word[0].isalpha() or word in _BOUNDARIES or word in _ARTICLES or word in NUMBERS:
        return False
    if word.endswith("ed") and len(word) > 4:
        # "a dotted red ring" goes on, "a ring dotted with" ends before the participle.
        return all(other in _ADJECTIVES or other.endswith("ed") for other in before)
    return word in _ADJECTIVES or not word.endswith("ing")


def _about(phrase: _Phrase) -> Iterator[_Row]:
    noun = phrase.noun
    be = "are" if _is_plural(phrase) else "is"
    kind = _kind(noun)
    yield kind, noun, f"are there {noun}?" if be == "are" else f"is there {_with_article(noun)}?", _YES, "yes"
    if phrase.number is not None:
        number = NUMBERS[phrase.number]
        yield "counting", phrase.number, f"are there {phrase.number} {noun}?", _YES, "yes"
        first = max(1, number - zlib.crc32(noun.encode()) % 4)
        counts = tuple(str(first + step) for step in range(4))
        yield "counting", phrase.number, f"how many {noun} are there?", counts, str(number)
    for word in phrase.qualifiers:
        color = "gray" if word == "grey" else word
        if color in COLORS:
            yield "color", word, f"{be} the {noun} {color}?", _YES, "yes"
            yield "color", word, f"what color {be} the {noun}?", _choices(color, COLORS[:11], noun), color
        elif word in MATERIALS:
            material = MATERIALS[word]
            yield "material", word, f"{be} the {noun} made of {material}?", _YES, "yes"
            others = tuple(dict.fromkeys(MATERIALS.values()))
            yield "material", word, f"what {be} the {noun} made of?", _choices(material, others, noun), material
        elif word in SHAPES:
            yield "shape", word, f"{be} the {noun} {word}?", _YES, "yes"
            yield "shape", word, f"what shape {be} the {noun}?", _choices(word, SHAPES, noun), word
        elif word in SIZES:
            yield "attribute", word, f"{be} the {noun} {word}?", _YES, "yes"


def _relations(words: Sequence[str], phrases: Sequence[_Phrase]) -> Iterator[_Row]:
    for first, second in pairwise(phrases):
        between = " ".join(words[first.end : second.start])
        if between not in RELATIONS or first.noun == second.noun or second.noun in PLACES:
            continue
        relation = RELATIONS[between]
        be = "are" if _is_plural(first) else "is"
        yield "spatial", between, f"{be} the {first.noun} {relation} the {second.noun}?", _YES, "yes"
        for group in _EXCLUSIVE:
            if relation == group[0] or (group is _EXCLUSIVE[0] and relation in group):
                text = f"where {be} the {first.noun} relative to the {second.noun}?"
                yield "spatial", between, text, _choices(relation, group, first.noun), relation


def _places(words: Sequence[str]) -> Iterator[_Row]:
    for before, article, place in zip(words, words[1:], words[2:], strict=False):
        if before in ("in", "on", "at") and article in _ARTICLES and place in PLACES:
            yield "location", place, f"is the place {_with_article(place)}?", _YES, "yes"
            yield "location", place, "what type of place is this?", _choices(place, PLACES, place), place


def _choices(answer: str, others: Sequence[str], salt: str) -> tuple[str, ...]:
    """Four choices with the answer at a place that depends on the words, not always first."""
    mark = zlib.crc32(f"{answer} {salt}".encode())
    wrong = [other for other in others if other != answer]
    turn = mark % len(wrong)
    chosen = (wrong[turn:] + wrong[:turn])[:3]
    chosen.insert(mark // 7 % 4, answer)
    return tuple(chosen)


def _is_plural(phrase: _Phrase) -> bool:
    noun = phrase.noun
    return (
        phrase.number is not None
        or noun in _OTHER_PLURALS - {"sheep", "fish"}
        or (noun.endswith("s") and not noun.endswith(("ss", "us", "is")))
    )


def _kind(noun: str) -> str:
    stems = {noun, noun.removesuffix("s"), noun.removesuffix("es")}
    if stems & ANIMALS_AND_PEOPLE or noun in _OTHER_PLURALS:
        return "animal/human"
    return "food" if stems & FOODS else "object"


def _with_article(noun: str) -> str:
    if noun in _UNCOUNTED:
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
