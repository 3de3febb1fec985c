"""Questions by rule, for captions without a language model at hand.

The rules read English captions by word lists, without a parser. They see noun phrases that start with an article, a
number or a listed adjective; colors, materials, shapes and sizes before their noun, with only names in between; counts
of plurals; listed places; and listed spatial relations between two such phrases. They see no activities, no other
attributes, nothing implied, nothing after "without" or "no", and no word that is not listed. So a caption can get few
questions or none: they prefer silence to a wrong question.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ..questions import Question
from . import words as known
from .english import HERDS, SINGULAR_OF, is_plural_word, with_article
from .words import NUMBERS

PLACES = frozenset({*known.OUTDOORS, *known.INDOORS})
# Alternatives that exclude each other: "next to" does not exclude "left of", "right of" does.
_EXCLUSIVE = (
    ("left of", "right of", "above", "below"),
    ("on", "under", "behind", "in front of"),
    ("on top of", "under", "behind", "in front of"),
    ("inside", "under", "behind", "on top of"),
)
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9'-]*|[^\sA-Za-z0-9]")
_NAME_LENGTH = 3
_OUTSIDE = known.BOUNDARIES | known.ARTICLES | NUMBERS.keys()


@dataclass(frozen=True)
class Phrase:
    """Words start..end (exclusive) of a caption.

    Attributes:
        name: the noun with what belongs to it, such as "fire hydrant".
        noun: the name's last word.
        qualifiers: adjectives that are said of it.
        number: how many, if that is said.
    """

    start: int
    end: int
    name: str
    noun: str
    qualifiers: tuple[str, ...]
    number: str | None

    @property
    def be(self) -> str:
        """The verb that goes with it, "is" or "are"."""
        many = self.number is not None or (is_plural_word(self.noun) and self.noun not in HERDS)
        return "are" if many else "is"


def rule_questions(caption_id: str, caption: str) -> tuple[Question, ...]:
    """The questions that the rules find in a caption; there may be none."""
    words = [word.lower() for word in WORD.findall(caption)]
    phrases = told_apart(noun_phrases(words), words)
    rows = [row for phrase in phrases for row in _about(phrase)]
    rows += _relations(words, phrases)
    rows += _places(words, phrases)
    made: dict[str, Question] = {}
    for element_type, element, text, choices, answer in rows:
        made.setdefault(text, Question(caption_id, caption, text, choices, answer, element_type, element))
    return tuple(made.values())


_Row = tuple[str, str, str, tuple[str, ...], str]
_YES = ("yes", "no")


def noun_phrases(words: Sequence[str]) -> list[Phrase]:
    """Phrases of lower-case words that name what is sure to be in the picture, in the caption's order."""
    sure = sure_words(words)
    phrases = []
    position = 0
    while position < len(words):
        word = words[position]
        if word not in known.ARTICLES and word not in NUMBERS and word not in known.ADJECTIVES:
            position += 1
            continue
        start = position
        article = word if word in known.ARTICLES else None
        position += article is not None
        number = words[position] if words[position : position + 1] and words[position] in NUMBERS else None
        position += number is not None
        inner: list[str] = []
        while position < len(words) and _continues(words, position, inner):
            inner.append(words[position])
            position += 1
        phrase = _phrase(start, article, number, inner, words)
        # In "a dog or a cat" neither is sure.
        if phrase is not None and sure[start] and list(words[phrase.end : phrase.end + 1]) != ["or"]:
            phrases.append(phrase)
        position = max(position, start + 1)
    return phrases


def sure_words(words: Sequence[str]) -> list[bool]:
    """For each word whether a phrase that starts there is said to be in the picture."""
    sure = []
    denied = False
    for position, word in enumerate(words):
        before = words[max(position - 2, 0) : position]
        if word in (".", ";", "!", "?", "but"):
            denied = False
        # "A no parking sign" denies nothing.
        elif (word in known.DENIALS or word.endswith("n't")) and not known.ARTICLES.intersection(before[-1:]):
            denied = True
        denied |= before[-1:] == ["of"] and before[0] in known.UNREAL_OF
        unreal = bool(known.UNREAL_BEFORE.intersection(before[-1:]))
        # Clock times, versions, bus lines.
        unreal |= word.isdigit() and bool(
            {":", ".", "/", "#", "$", "-", "no", "number", "route"}.intersection(before[-1:])
        )
        sure.append(not denied and not unreal)
    return sure


def _continues(words: Sequence[str], position: int, before: Sequence[str]) -> bool:
    """Whether a phrase goes on with the word at `position`; `before` are its words after article and number."""
    word, following = words[position], words[position + 1] if position + 1 < len(words) else "."
    if not _inside(word):
        return False
    if not any(_is_noun(other) for other in before):
        return True
    if word in known.ING_NOUNS:
        # "A man painting a wall" has no painting in it.
        return following not in known.ARTICLES
    if _is_participle(word, "ing"):
        return following in known.AFTER_ING
    if _is_participle(word, "ed"):
        # "A flower covered field" goes on, "a field covered with" ends before the participle.
        return _inside(following) and not following.endswith(("ing", "ly"))
    return True


def _inside(word: str) -> bool:
    return word[0].isalpha() and word not in _OUTSIDE and not word.endswith("n't")


def _is_participle(word: str, ending: str) -> bool:
    # Not "bed", "ring", "weed".
    return word.endswith(ending) and not word.endswith("eed") and (len(word) > 4 or word == "eyed")


def _is_noun(word: str) -> bool:
    """Whether a word inside a phrase can be its noun, judged by lists and endings."""
    if word in known.ING_NOUNS or word in known.LY_NOUNS:
        return True
    listed = word in known.ADJECTIVES or word in known.OTHER_ADJECTIVES or word in known.NUMEROUS
    return not listed and not word.endswith("ly") and not _is_participle(word, "ed") and not _is_participle(word, "ing")


def _phrase(
    start: int, article: str | None, number: str | None, inner: list[str], words: Sequence[str]
) -> Phrase | None:
    """The phrase of these words; None if they may not be a phrase or name nothing that can be asked for."""
    first = start + (article is not None) + (number is not None)
    numerous = bool(known.NUMEROUS.intersection(inner[:1]))
    of_number = number is not None and article in (None, "the")
    if of_number or numerous:
        inner = _up_to_plural(inner)
    elif article in ("a", "an"):
        inner = _singular(inner)
    elif _may_be_sentence(inner):
        return None
    while inner and not _is_noun(inner[-1]) and inner[-1] not in known.ADJECTIVES:
        inner = inner[:-1]
    after = words[first + len(inner)] if first + len(inner) < len(words) else "."
    if not inner or not _can_be_asked_for(inner[-1], after):
        return None
    if of_number and (inner[0] in known.UNIT_WORDS or inner[0] in known.UNIT_PARTICIPLES):
        return None
    joined = article is None and number is None and start > 0 and words[start - 1] in ("and", ",")
    # "A two story house": the number belongs to a qualifier that was dropped.
    name = _name(inner) if number is None or of_number else inner[-1:]
    return Phrase(
        start,
        first + len(inner),
        " ".join(name),
        inner[-1],
        # "A red, blue kite", "black and white cats": no rule can say which color belongs to what.
        () if joined else _qualifiers(inner),
        number if of_number and _is_exact(inner, words[max(start - 2, 0) : start]) else None,
    )


def _up_to_plural(inner: list[str]) -> list[str]:
    """The words up to the first plural noun, since a verb may follow: "two women pose"; empty if there is none."""
    plurals = _plurals(inner)
    if not plurals:
        return []
    # "Two fish tanks" are not fish.
    return inner[: (plurals[-1] if inner[plurals[0]] in HERDS else plurals[0]) + 1]


def _singular(inner: list[str]) -> list[str]:
    """The words up to one in -s, which after "a" is a verb if it comes last: "a dog licks"."""
    verb = inner and is_plural_word(inner[-1]) and inner[-1] not in HERDS
    return inner[: _plurals(inner)[0]] if verb else inner


def _may_be_sentence(inner: Sequence[str]) -> bool:
    """Whether it may hold a verb, as "the dogs play", "the man smiles" or "the group paddles"."""
    acts = not (known.ANIMALS_AND_PEOPLE | known.VAGUE).isdisjoint(inner[-2:-1])
    return _plurals(inner)[:1] not in ([], [len(inner) - 1]) or (acts and is_plural_word(inner[-1]))


def _can_be_asked_for(noun: str, after: str) -> bool:
    """Whether a noun before the word `after` names something that a picture shows."""
    stems = stems_of(noun)
    if noun in known.ADJECTIVES or "'" in noun or len(noun) < 2 or stems & known.VAGUE:
        return False
    if after in known.VERBS_AND_NOUNS and not is_plural_word(noun):
        return False
    return not (after == "of" and stems & known.VAGUE_WITH_OF)


def _name(inner: Sequence[str]) -> list[str]:
    """The noun with the words before it that belong to its name, as in "hot dog" and "double decker bus"."""
    first = len(inner) - 1
    alive = kind_of(inner[-1:]) == "animal/human"
    while first > 0 and len(inner) - first < _NAME_LENGTH:
        word = inner[first - 1]
        # "A wooden horse" is not a horse.
        thing = alive and word in known.NOT_ALIVE
        if not thing and not _is_noun(word) and word not in known.ING_MODIFIERS:
            break
        first -= 1
    return list(inner[first:])


def _qualifiers(inner: Sequence[str]) -> tuple[str, ...]:
    """Adjectives that are said of the noun, not of a participle as in "red haired girl"."""
    said = inner[:-1]
    for place, word in enumerate(said):
        if _is_participle(word, "ed"):
            return tuple(inner[place + 1 : -1])
    return tuple(said)


def _is_exact(inner: Sequence[str], before: Sequence[str]) -> bool:
    """Whether there are exactly so many of the noun."""
    if inner[0] in known.NUMEROUS or known.MORE.intersection(inner):
        return False
    about = known.ABOUT.intersection(before[-1:])
    ranged = len(before) == 2 and before[0] in NUMBERS | {"one": 1} and before[1] in ("or", "to", "-")
    return not about and not ranged


def told_apart(phrases: Sequence[Phrase], words: Sequence[str]) -> list[Phrase]:
    """The phrases without numbers and qualifiers of nouns that are named again.

    "Two men and a man" may be three, and in "a white cat and a black cat" neither color is the cat's. A noun that "the"
    names again is the same one.
    """
    same = {phrase.end - 1 for phrase in phrases if words[phrase.start] == "the"}
    named = Counter(stem for place, word in enumerate(words) if place not in same for stem in stems_of(word))
    people = sum(not known.PEOPLE.isdisjoint(stems_of(phrase.noun)) for phrase in phrases)

    def again(phrase: Phrase) -> bool:
        itself = phrase.end - 1 not in same
        return any(named[stem] > itself for stem in stems_of(phrase.noun)) or (phrase.noun == "people" and people > 1)

    return [replace(phrase, number=None, qualifiers=()) if again(phrase) else phrase for phrase in phrases]


def _about(phrase: Phrase) -> Iterator[_Row]:
    name, be = phrase.name, phrase.be
    asked = f"are there {name}?" if be == "are" else f"is there {with_article(name)}?"
    yield kind_of(name.split()), name, asked, _YES, "yes"
    if phrase.number is not None:
        number = NUMBERS[phrase.number]
        yield "counting", phrase.number, f"are there {phrase.number} {name}?", _YES, "yes"
        first = max(1, number - zlib.crc32(phrase.noun.encode()) % 4)
        counts = tuple(str(first + step) for step in range(4))
        yield "counting", phrase.number, f"how many {name} are there?", counts, str(number)
    for word in phrase.qualifiers:
        if word in name.split():
            continue
        color = "gray" if word == "grey" else word
        if color in known.COLORS:
            yield "color", word, f"{be} the {name} {color}?", _YES, "yes"
            yield "color", word, f"what color {be} the {name}?", _choices(color, known.COLORS[:11], name), color
        elif word in known.MATERIALS:
            material = known.MATERIALS[word]
            yield "material", word, f"{be} the {name} made of {material}?", _YES, "yes"
            others = tuple(dict.fromkeys(known.MATERIALS.values()))
            yield "material", word, f"what {be} the {name} made of?", _choices(material, others, name), material
        elif word in known.SHAPES:
            yield "shape", word, f"{be} the {name} {word}?", _YES, "yes"
            yield "shape", word, f"what shape {be} the {name}?", _choices(word, known.SHAPES, name), word
        elif word in known.SIZES:
            yield "attribute", word, f"{be} the {name} {word}?", _YES, "yes"


def _relations(words: Sequence[str], phrases: Sequence[Phrase]) -> Iterator[_Row]:
    for first, second in pairwise(phrases):
        between = " ".join(words[first.end : second.start])
        if between not in known.RELATIONS or first.noun == second.noun or second.noun in PLACES:
            continue
        if not is_subject(first, words):
            continue
        relation, be = known.RELATIONS[between], first.be
        yield "spatial", between, f"{be} the {first.name} {relation} the {second.name}?", _YES, "yes"
        for group in _EXCLUSIVE:
            if relation == group[0] or (group is _EXCLUSIVE[0] and relation in group):
                text = f"where {be} the {first.name} relative to the {second.name}?"
                yield "spatial", between, text, _choices(relation, group, first.noun), relation


def is_subject(phrase: Phrase, words: Sequence[str]) -> bool:
    """Whether what follows a phrase is said of it, not of something before, as in "sitting in a room next to"."""
    before = words[max(phrase.start - 2, 0) : phrase.start]
    if phrase.noun in known.WORN or known.PREPOSITIONS.intersection(before[-1:]) or before[-1:] == ["to"]:
        return False
    return not (before[-1:] == ["of"] and before[0] in known.VERB_PLACES)


def _places(words: Sequence[str], phrases: Sequence[Phrase]) -> Iterator[_Row]:
    found = [
        phrase.noun
        for phrase in phrases
        if phrase.noun in PLACES
        and words[phrase.start] in known.ARTICLES
        and phrase.start > 0
        and words[phrase.start - 1] in ("in", "on", "at")
        and not (phrase.start > 1 and words[phrase.start - 2].startswith("look"))
    ]
    for place in found:
        described = "snowy" if place == "snow" else with_article(place)
        yield "location", place, f"is the place {described}?", _YES, "yes"
        if len(set(found)) == 1:
            # A street can be in a city, and a field in the mountains.
            others = known.INDOORS if place in known.OUTDOORS else known.WILDERNESS
            yield "location", place, "what type of place is this?", _choices(place, others, place), place


def _choices(answer: str, others: Sequence[str], salt: str) -> tuple[str, ...]:
    """Four choices; the answer's place among them depends on the words."""
    mark = zlib.crc32(f"{answer} {salt}".encode())
    wrong = [other for other in others if other != answer]
    turn = mark % len(wrong)
    chosen = (wrong[turn:] + wrong[:turn])[:3]
    chosen.insert(mark // 7 % 4, answer)
    return tuple(chosen)


def _plurals(inner: Sequence[str]) -> list[int]:
    """Places of plural nouns, except those that only qualify the next, as in "sports car"."""
    last = len(inner) - 1
    return [
        i for i, word in enumerate(inner) if is_plural_word(word) and (i == last or word not in known.PLURAL_MODIFIERS)
    ]


def stems_of(word: str) -> set[str]:
    """The word and what may be its singular."""
    found = {word, word.removesuffix("s"), word.removesuffix("es"), SINGULAR_OF.get(word, word)}
    return found | ({word[:-3] + "y"} if word.endswith("ies") else set())


def kind_of(name: Sequence[str]) -> str:
    """The element type of a thing by the words of its name: animal/human, food or object."""
    stems = stems_of(name[-1])
    thing = known.NOT_ALIVE.intersection(name[:-1])
    if stems & known.FOODS or (stems & {"dog"} and "hot" in thing):
        return "food"
    return "animal/human" if stems & known.ANIMALS_AND_PEOPLE and not thing else "object"
