"""What a caption could be asked about, element by element, for a language model to judge.

Everything here comes from the caption's own words, by word lists and templates. On top of what `rules` is sure of, it
drafts what a rule alone cannot be trusted with: things named without an article, what someone does and to what, and
adjectives. A draft brings what a model needs in order to judge it: wrong choices to pick from, and foils, which are
the same question asked of what the caption does not name.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import words as known
from .english import UNCOUNTED, is_plural_word, with_article
from .rules import (
    PLACES,
    WORD,
    Phrase,
    is_subject,
    kind_of,
    noun_phrases,
    rule_questions,
    stems_of,
    sure_words,
    told_apart,
)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


YES_NO = ("yes", "no")
# So many wrong words are drawn for a question with four choices; a model picks the three most plausible of them.
_CANDIDATES = 6
_WRONG = 3
_FOILS = 3

# Things that pictures often show and that are hardly taken for each other.
_THINGS = (
    "bicycle", "umbrella", "clock", "laptop", "guitar", "kite", "suitcase", "bottle", "vase", "surfboard", "ladder",
    "piano", "camera", "skateboard", "tent", "candle", "drum", "telescope", "wheelbarrow", "anchor",
)  # fmt: skip
_BEASTS = ("horse", "elephant", "cat", "sheep", "giraffe", "bear", "zebra", "parrot", "rabbit", "penguin")
_DISHES = ("pizza", "banana", "soup", "cake", "salad", "sandwich", "carrot", "cookie", "egg", "cheese")
_FURNITURE = ("table", "bed", "bench", "roof", "boat", "car", "horse", "skateboard", "ladder", "bridge", "beach")
# In a picture nobody does two of these at once.
_DEEDS = (
    "swimming", "sleeping", "riding a bicycle", "skiing", "surfing", "climbing a ladder", "cooking", "flying a kite",
    "playing the piano", "painting a wall",
)  # fmt: skip
_OPPOSITES = {
    "small": "huge", "big": "tiny", "large": "tiny", "tiny": "huge", "huge": "tiny", "tall": "short", "short": "tall",
    "long": "short",
}  # fmt: skip
# Adjectives that a picture can show, each with what it is not.
_SHOWN = {
    "empty": "crowded", "full": "empty", "crowded": "empty", "dirty": "clean", "clean": "dirty", "old": "new",
    "elderly": "young", "young": "elderly", "new": "old", "wet": "dry", "dry": "wet", "open": "closed",
    "closed": "open", "fluffy": "bald", "furry": "bald", "hairy": "bald", "cloudy": "clear", "broken": "intact",
    "modern": "ancient", "bright": "dark", "dark": "bright", "rusty": "shiny", "shiny": "rusty", "striped": "plain",
    "colorful": "colorless", "snowy": "sandy", "sandy": "snowy", "grassy": "sandy", "rocky": "grassy",
    "messy": "tidy", "tidy": "messy", "narrow": "wide", "wide": "narrow", "thick": "thin", "thin": "thick",
    "parked": "flying", "seated": "standing", "stacked": "broken", "sliced": "whole", "stuffed": "alive",
    "frozen": "burning", "decorated": "plain", "abandoned": "busy", "busy": "abandoned", "paved": "flooded",
}  # fmt: skip
# Participles that follow their noun: "a car parked in front of a garage".
_STATES = ("parked", "seated", "stacked", "sliced", "decorated")

_BASES = _words("""
    bark bend blow brush carry catch chase chew climb cook cross cut dance dig drink drive eat feed float fly
    graze hang hit hold hug jump kick kneel lay lean lick lie look perform pet play pose pull push read rest
    ride roll run sail serve sit skate ski sleep smile stand stare surf swim swing talk throw touch wait walk
    wash watch wear work write
""")
# These say something by themselves: "a man waiting", not "a man getting".
_WITHOUT_OBJECT = _words("""
    barking bending climbing cooking crossing dancing digging drinking driving eating floating flying grazing
    hanging jumping kneeling laughing laying leaning lying performing playing posing reading resting running
    sailing sitting skateboarding skating skiing sleeping smiling snowboarding standing surfing swimming
    swinging talking waiting walking working
""")
# To wear something is not what one would answer to "what is she doing?".
_STATIVE = ("wearing",)
# What things do, as captions put it; that they sit or hang says something only with where.
_MOVES = ("driving", "floating", "flying", "sailing")
_LIES = ("hanging", "leaning", "lying", "resting", "sitting", "standing")
_DOUBLED = frozenset({"cut", "dig", "hit", "hug", "pet", "run", "sit", "swim"})
_ASIDE = frozenset({"is", "are", "that", "who", "which", "was", "were", "currently"})
# Before these the place of what is done is said.
_WHERE = frozenset({"on", "in", "at", "under", "behind", "near", "beside", "inside", "over", "across", "along", "down"})
# Whose place can be asked for by its thing: "what is the purse sitting on?".
_SUPPORT = frozenset({"on", "under", "behind", "inside"})


@dataclass(frozen=True)
class Draft:
    """A question that a model has not judged yet.

    element_type: None if the model is to say of what kind `noun` is. wrong: what the other choices are picked from,
    in an order drawn by the seed; exactly three are fixed; none make a question for yes or no. foils: for such a
    question, the same asked of what the caption does not name.
    """

    element: str
    element_type: str | None
    question: str
    answer: str
    wrong: tuple[str, ...] = ()
    foils: tuple[str, ...] = ()
    noun: str = ""


def drafts(caption_id: str, caption: str, seed: int = 0) -> tuple[Draft, ...]:
    """All drafts about a caption, none twice; `seed` draws wrong words and foils."""
    text = " ".join(caption.lower().split())
    reader = _Reader(caption, random.Random(f"{seed} {text}"))
    made: dict[str, Draft] = {}
    found = (reader.by_rule(caption_id), reader.bare_nouns(), reader.enumerated(), reader.listed(), reader.kinds(),
             reader.seen(), reader.doings(), reader.adjectives())  # fmt: skip
    for draft in (draft for some in found for draft in some):
        # Words that a comma parts in the caption are found apart only. A caption can use up the wrong words.
        if draft.element in text and (draft.answer == "yes" or len(draft.wrong) >= _WRONG):
            made.setdefault(draft.question, draft)
    # "Is the place a kitchen?" and "is there a kitchen?" are one question.
    placed = {question.replace("is the place", "is there") for question in made if question.startswith("is the place")}
    return tuple(draft for question, draft in made.items() if question not in placed)


class _Reader:
    """One caption's words and phrases, and the dice for its wrong words."""

    def __init__(self, caption: str, dice: random.Random) -> None:
        self.caption = caption
        self.words = [word.lower() for word in WORD.findall(caption)]
        self.sure = sure_words(self.words)
        self.phrases = told_apart(noun_phrases(self.words), self.words)
        self._dice = dice
        self._named = {stem for word in self.words for stem in stems_of(word)}

    def by_rule(self, caption_id: str) -> Iterator[Draft]:
        """What `rules` asks, with foils; the type of a thing that no list knows is left to the model."""
        for question in rule_questions(caption_id, self.caption):
            element, kind, text, answer = question.element, question.element_type, question.question, question.answer
            if question.choices != YES_NO:
                wrong = tuple(choice for choice in question.choices if choice != answer)
                yield Draft(element, kind, text, answer, wrong)
            elif kind in ("object", "animal/human", "food"):
                yield self._existence(element, element.split()[-1], kind)
            else:
                yield Draft(element, kind, text, answer, foils=self._swapped(kind, text))

    def bare_nouns(self) -> Iterator[Draft]:
        """Things named without an article: "toiletries on the counter"."""
        taken = {place for phrase in self.phrases for place in range(phrase.start, phrase.end)}
        for place, word in enumerate(self.words):
            if place in taken or not self.sure[place] or not _is_bare_noun(word):
                continue
            before, after = self._word(place - 1), self._word(place + 1)
            starts = before in known.PREPOSITIONS or before in (".", ",", "and", "with", "of") or _gerund(before)
            if starts and self._ends_before(after) and after != "or":
                yield self._existence(word, word, kind_of([word]))

    def enumerated(self) -> Iterator[Draft]:
        """What goes on after a thing with an article: "a toilet, sink, and shower"."""
        for phrase in self.phrases:
            place = phrase.end
            while self.words[place : place + 1] in (["and"], [","]) and self.words[phrase.start] in known.ARTICLES:
                place += 2 if self.words[place : place + 2] == [",", "and"] else 1
                word, after = self._word(place), self._word(place + 1)
                if not _may_be_noun(word) or not self._ends_before(after) or after == "or" or is_plural_word(word):
                    break
                yield self._existence(word, word, kind_of([word]))
                place += 1

    def listed(self) -> Iterator[Draft]:
        """Living things, food and places that the lists know, wherever they end a phrase."""
        ends = {phrase.end - 1 for phrase in self.phrases}
        for place, word in enumerate(self.words):
            after = self._word(place + 1)
            if (
                place in ends
                or not stems_of(word) & (known.ANIMALS_AND_PEOPLE | known.FOODS | PLACES)
                or not self.sure[place]
            ):
                continue
            # "A toy dog": by its whole name or not at all.
            toy = not known.NOT_ALIVE.isdisjoint(self.words[max(place - 2, 0) : place])
            # "A children play area" names no children.
            toy |= is_plural_word(word) and self.words[max(place - 1, 0)] in ("a", "an")
            if self._ends_before(after) and "or" not in (after, *self.words[max(place - 1, 0) : place]) and not toy:
                yield self._existence(word, word, kind_of([word]))

    def kinds(self) -> Iterator[Draft]:
        """What animal, what food: of captions that name just one."""
        for names, nouns, ask in ((known.ANIMALS, _BEASTS, "animal"), (known.FOODS, _DISHES, "food")):
            found = [phrase for phrase in self.phrases if stems_of(phrase.noun) & names]
            if len(found) == 1 and sum(bool(stems_of(word) & names) for word in self.words) == 1:
                name, noun = found[0].name, found[0].noun
                kind = kind_of(name.split())
                if noun != ask and kind == ("food" if ask == "food" else "animal/human"):
                    be = "animals are" if found[0].be == "are" and ask == "animal" else f"{ask} is"
                    wrong = self._drawn(nouns, noun, _CANDIDATES)
                    wrong = tuple(_plural(word) for word in wrong) if be == "animals are" else wrong
                    yield Draft(name, kind, f"what {be} in the picture?", name, wrong)

    def seen(self) -> Iterator[Draft]:
        """What can be seen: the first thing that no list takes for alive, food or a place."""
        for phrase in self.phrases:
            if kind_of(phrase.name.split()) == "object" and phrase.noun not in PLACES:
                wrong = self._drawn(_THINGS, phrase.noun, _CANDIDATES)
                many = is_plural_word(phrase.noun) and phrase.noun not in UNCOUNTED
                wrong = tuple(_plural(word) for word in wrong) if many else wrong
                ask = "what can be seen in the picture?"
                yield Draft(phrase.name, _known_type(phrase.name), ask, phrase.name, wrong, noun=phrase.noun)
                return

    def _word(self, place: int) -> str:
        """The word at a place; a full stop before the first one and after the last."""
        return self.words[place] if 0 <= place < len(self.words) else "."

    def _ends_before(self, after: str) -> bool:
        return after in known.BOUNDARIES or not after[0].isalnum() or bool(_gerund(after)) or after in _STATES

    def doings(self) -> Iterator[Draft]:
        """What is done, to what and where: "a man riding a horse", "a purse is sitting on a bench"."""
        for phrase in self.phrases:
            place = phrase.end
            while self._word(place) in _ASIDE:
                place += 1
            if not is_subject(phrase, self.words):
                continue
            deed = _gerund(self._word(place))
            if deed:
                yield from self._doing(phrase, place, deed)
            elif self._word(place) in _STATES:
                yield self._state(phrase, self.words[place])

    def adjectives(self) -> Iterator[Draft]:
        """Adjectives that `rules` does not ask about: "a dirty sink"."""
        for phrase in self.phrases:
            for word in phrase.qualifiers:
                if word in _SHOWN and word not in known.ADJECTIVES and word not in phrase.name.split():
                    yield self._state(phrase, word)

    def _state(self, phrase: Phrase, word: str) -> Draft:
        ask = f"{phrase.be} the {phrase.name} {{}}?"
        return Draft(word, "attribute", ask.format(word), "yes", foils=(ask.format(_SHOWN[word]),))

    def _doing(self, phrase: Phrase, place: int, deed: str) -> Iterator[Draft]:
        element, subject, be = self.words[place], phrase.name, phrase.be
        following = self._word(place + 1)
        where = following if following in _WHERE else ""
        thing = self._phrase_at(place + 1 + bool(where))
        if not self._can_do(phrase, deed, thing, where):
            return
        whole = " ".join(part for part in (deed, where, _with_article(thing)) if part) if thing else deed
        others = [other for other in _DEEDS if other.split()[0] != deed and not self._mentions(other)]
        self._dice.shuffle(others)
        foils = tuple(f"{be} the {subject} {other}?" for other in others[:_FOILS])
        yield Draft(element, "activity", f"{be} the {subject} {whole}?", "yes", foils=foils)
        alive = kind_of([phrase.noun]) == "animal/human"
        if alive and deed not in _STATIVE:
            yield Draft(element, "activity", f"what {be} the {subject} doing?", whole, tuple(others[:_CANDIDATES]))
        if (thing and kind_of(thing.split()) != "animal/human") or (thing and not where and alive):
            noun = thing.split()[-1]
            if not where or where in _SUPPORT:
                ask = " ".join(part for part in ("what", be, "the", subject, deed, where) if part)
                wrong = self._drawn(_FURNITURE if where else _nouns_like(noun), noun, _CANDIDATES)
                yield Draft(thing, _known_type(thing), f"{ask}?", thing, wrong, noun=noun)

    def _can_do(self, phrase: Phrase, deed: str, thing: str, where: str) -> bool:
        """Whether "is the man getting?" or "is the dessert waiting?" is kept from being asked."""
        if kind_of(phrase.name.split()) != "animal/human":
            return deed in _MOVES or (deed in _LIES and bool(thing))
        return bool(thing) or deed in _WITHOUT_OBJECT

    def _phrase_at(self, place: int) -> str:
        """The name of the thing that is named from the word at `place` on, or nothing."""
        for phrase in self.phrases:
            if phrase.start == place:
                return phrase.name
        word, after = self._word(place), self._word(place + 1)
        return word if _is_bare_noun(word) and (after in known.BOUNDARIES or not after[0].isalnum()) else ""

    def _existence(self, element: str, noun: str, kind: str) -> Draft:
        many = is_plural_word(noun) and noun not in UNCOUNTED
        foils = []
        for other in self._drawn(_nouns_like(noun), noun, _FOILS):
            foils.append(f"are there {_plural(other)}?" if many else f"is there {with_article(other)}?")
        ask = f"are there {element}?" if many else f"is there {with_article(element)}?"
        element_type = kind if kind != "object" else _known_type(element)
        return Draft(element, element_type, ask, "yes", foils=tuple(foils), noun=noun)

    def _swapped(self, kind: str, text: str) -> tuple[str, ...]:
        """A rule's question with other values in place of its own."""
        for family in _FAMILIES.get(kind, ()):
            # The longest first: "left of" is not "on".
            for value in sorted(family, key=len, reverse=True):
                pattern = rf"\b(an? )?{re.escape(value)}\b"
                if re.search(pattern, text):
                    others = [_OPPOSITES[value]] if value in _OPPOSITES else [o for o in family if o != value]
                    drawn = self._dice.sample(others, min(_FOILS, len(others)))
                    if kind == "location":
                        drawn = ["snowy" if other == "snow" else with_article(other) for other in drawn]
                    return tuple(re.sub(pattern, other, text, count=1) for other in drawn)
        return ()

    def _drawn(self, nouns: Sequence[str], noun: str, number: int) -> tuple[str, ...]:
        free = [other for other in nouns if not self._mentions(other) and other not in stems_of(noun)]
        return tuple(self._dice.sample(free, min(number, len(free))))

    def _mentions(self, text: str) -> bool:
        return any(stems_of(word) & self._named for word in text.split() if word not in known.ARTICLES)


_FAMILIES: dict[str, tuple[tuple[str, ...], ...]] = {
    "color": (known.COLORS,),
    "material": (tuple(dict.fromkeys(known.MATERIALS.values())),),
    "shape": (known.SHAPES,),
    "attribute": (known.SIZES,),
    "counting": (tuple(word for word in known.NUMBERS if word.isalpha()),),
    "spatial": (("left of", "right of", "above", "below", "on top of", "behind", "in front of", "next to", "inside",
                 "under", "on"),),
    "location": ((*known.OUTDOORS, *known.INDOORS, "snowy"),),
}  # fmt: skip


def _known_type(name: str) -> str | None:
    """The element type that the lists know; None if a model is to say it."""
    kind, noun = kind_of(name.split()), name.split()[-1]
    if kind != "object":
        return kind
    if noun in PLACES:
        return "location"
    # A teddy bear is a thing by its whole name.
    return "object" if kind_of([noun]) != "object" else None


def _nouns_like(noun: str) -> tuple[str, ...]:
    return {"animal/human": _BEASTS, "food": _DISHES}.get(kind_of([noun]), _THINGS)


def _with_article(name: str) -> str:
    return name if is_plural_word(name.split()[-1]) else with_article(name)


def _plural(noun: str) -> str:
    if noun == "sheep":
        return noun
    return f"{noun}es" if noun.endswith(("s", "ch", "sh")) else f"{noun}s"


def _is_bare_noun(word: str) -> bool:
    """A plural or a mass noun, as far as a word alone can tell."""
    return _may_be_noun(word) and (is_plural_word(word) or word in UNCOUNTED)


def _may_be_noun(word: str) -> bool:
    if not word.isalpha() or len(word) < 3 or word in known.BOUNDARIES | known.OTHER_ADJECTIVES | known.ADJECTIVES:
        return False
    if stems_of(word) & known.VAGUE or _gerund(word) or word in known.NUMBERS | dict.fromkeys(known.NUMEROUS):
        return False
    return not word.endswith(("ly", "ed", "selves")) or word in known.LY_NOUNS or word in ("bed", "shed")


def _gerund(word: str) -> str:
    """The -ing form of a verb as it stands after its subject, or nothing if the word is not known as a verb."""
    if word in _VERBS:
        return _VERBS[word]
    noun = word in known.ING_NOUNS or word in known.PREPOSITIONS or not word.isalpha()
    return word if word.endswith("ing") and len(word) > 5 and not noun else ""


def _ing(base: str) -> str:
    if base == "lie":
        return "lying"
    if base in _DOUBLED:
        return f"{base}{base[-1]}ing"
    return f"{base[:-1]}ing" if base.endswith("e") else f"{base}ing"


def _third(base: str) -> str:
    if base.endswith("y") and base[-2] not in "aeiou":
        return f"{base[:-1]}ies"
    return f"{base}es" if base.endswith(("s", "x", "ch", "sh")) else f"{base}s"


# "sits", "sit" and "sitting" -> "sitting".
_VERBS = {form: _ing(base) for base in _BASES for form in (base, _third(base), _ing(base))}
