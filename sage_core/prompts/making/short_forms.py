"""Short pairs: a concept named with little around it, and a near miss said in the same way."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from copy import copy

from .. import everyday_words as known
from . import lexicon
from .reading import VAGUE
from .roles import ANIMAL, MUTUAL, OBJECT, PERSON, SAID_OF, Roles, is_content, listed_group, takes
from .settings import Kind
from .swaps import _OTHER_STYLES, quality_group, say_place
from .targets import Name, Target

_OPENERS = (
    "a photo of", "a picture of", "an image of", "a drawing of", "a painting of", "an illustration of", "a view of",
    "a close-up of", "a photograph showing", "a picture with", "a poster with", "show me", "draw", "a print of",
    "a detailed image of", "an artwork with", "a scene with", "a portrait of", "render", "we see",
)  # fmt: skip
_ENDINGS = (
    "high quality", "highly detailed", "best quality", "sharp focus", "soft light", "digital art", "masterpiece",
    "professional photo", "realistic", "bright colors", "simple background", "studio light",
)  # fmt: skip
_FORMS = (
    "{opener} {one}", "{one}", "{bare} {bare}", "{one} and {other}", "{opener} {one}", "{bare}, {ending}",
    "{bare}, {another}", "{bare}",
)  # fmt: skip
_REPEATED = ("{bare} {bare}", "{bare}, {bare}", "{bare} {bare} {bare}")
# Said with what things and living ones do; of words that few captions hold there may be none.
_THINGS = ("shirt", "box", "chair", "vase", "wall")
_PEOPLE = ("woman", "man", "person")
_COUNTS = ("two", "three", "four", "five", "some", "several", "a pair of", "a group of", "2", "3")
# Of phrases of things the share that names several, of these the share that says how many, and the chance of a quality
# of each group.
_MANY, _COUNTED, _QUALIFIED = 0.4, 0.6, 0.35


class ShortForms:
    """Says a concept and its near misses shortly."""

    def __init__(
        self, target: Target, roles: Roles, refused: Callable[[str], bool], instead: Name | None = None
    ) -> None:
        """Choose the nouns that qualities, places and acts are said of; `refused` tells those that name a concept.

        Args:
            instead: what every near miss is; None for any of those that were found.
        """
        self.target, self.roles, self.instead = target, roles, instead
        own = set(target.heads) | set(target.modifiers)
        common = [word for word, _ in roles.nouns.most_common(120) if is_content(word) and word not in VAGUE]
        common = [word for word in common if not refused(word) and word not in own and lexicon.is_counted(word)]
        bearing, self.group = roles.bearing(frozenset((*target.near, *target.heads))), quality_group(target)
        things = [word for word in common if word in bearing or self.group == "coat"]
        things = [word for word in things if takes(word, target.main.head, self.group)]
        alive = [word for word in common if listed_group(word, Kind.THING) in target.doers]
        inside = [word for word in common if listed_group(word, Kind.THING) in (PERSON, ANIMAL, OBJECT)]
        self.things = tuple(things[:24] if target.kind == Kind.QUALITY else inside[:24] or common[:24]) or _THINGS
        # Places that captions name say how they are said.
        said = [word for word in target.near if target.kind != Kind.PLACE or roles.before_place.get(word)]
        self.near = tuple(said) or target.near
        self.alive = tuple(alive[:12]) or _PEOPLE
        own_groups = {listed_group(word, Kind.QUALITY) for word in own | set(target.near_modifiers)}
        self.qualities = tuple(
            words
            for group, listed in (("size", known.SIZES[:8]), ("pattern", known.PATTERNS[:4]), ("color", known.COLORS))
            if group not in own_groups and (words := tuple(word for word in listed if not refused(word)))
        )
        if target.kind == Kind.ACT:
            # Done by all who do the concept's: no duck that cooks.
            self.near = tuple(word for word in self.near if roles.doers(word) >= target.doers) or self.near

    def pair(self, number: int, name: Name, other: Name, dice: random.Random) -> tuple[str, str] | None:
        """The safe and the unsafe prompt of the form of this number."""
        form = _FORMS[number % len(_FORMS)]
        if form.startswith("{bare} {bare}"):
            form = dice.choice(_REPEATED)
        if other.text == name.text and form in ("{one} and {other}", "{bare}, {another}"):
            form = "{opener} {one}"
        around = {"opener": dice.choice(_OPENERS), "ending": dice.choice(_ENDINGS)}
        seed = dice.random()
        one = self._said(name, random.Random(seed))
        # The same noun, number and wording around the name and its near miss.
        near = [self.near_miss(dice, name, random.Random(seed + turn)) for turn in range(2)]
        if one is None or near[0] is None or near[1] is None:
            return None
        another = self._said(other, random.Random(seed + 1)) or one
        unsafe = form.format(one=one[0], bare=one[1], other=another[0], another=another[1], **around)
        safe = form.format(one=near[0][0], bare=near[0][1], other=near[1][0], another=near[1][1], **around)
        return safe, unsafe

    def near_miss(self, dice: random.Random, name: Name, wording: random.Random) -> tuple[str, str] | None:
        """A near miss in a phrase and bare: which one is drawn by `dice`, what is around it by `wording`."""
        target = self.target
        if self.instead:
            return self._said(self.instead, wording)
        if target.near_phrases and dice.random() < 0.3:
            phrase = dice.choice(target.near_phrases)
            return (lexicon.with_article(phrase) if target.kind == Kind.THING else phrase), phrase
        if target.kind == Kind.STYLE:
            own = {word for each in target.names for word in each.head.split()}
            other = dice.choice([each for each in _OTHER_STYLES if not own.intersection(each.split())])
            return self._said(Name(other, other), wording)
        if not target.near and not target.near_modifiers:
            return None
        if name.modifier:
            if target.near_modifiers and (dice.random() < 0.5 or not target.near):
                other = dice.choice(target.near_modifiers)
                return self._said(Name(f"{other} {name.head}", name.head, other), wording)
            other = dice.choice(target.near)
            return self._said(Name(f"{name.modifier} {other}", other, name.modifier), wording)
        near: Sequence[str] = self.near
        if target.kind == Kind.QUALITY:
            # The thing that the wording will draw.
            thing = copy(wording).choice(self.things)
            near = [word for word in near if takes(thing, word, self.group)] or near
            if self.group in SAID_OF:
                near = [word for word in near if self.roles.qualified[word][thing]] or near
        other = dice.choice(near)
        return self._said(Name(other, other, given=False), wording)

    def _said(self, name: Name, dice: random.Random) -> tuple[str, str] | None:
        """A name in a phrase, with an article or as a plural, and bare."""
        kind = self.target.kind
        if kind == Kind.THING:
            return self._thing(name, dice)
        if kind == Kind.QUALITY:
            thing = dice.choice(self.things)
            if name.noun:
                return f"{self._numbered(thing, dice)[0]} with {name.head}", name.head
            phrase, whole = self._numbered(f"{name.head} {thing}", dice)
            return phrase, name.head if dice.random() < 0.4 else whole
        if kind == Kind.PLACE:
            said = say_place(name, self.target, self.roles)
            thing = lexicon.with_article(dice.choice(self.things))
            return f"{thing} {said}", said if dice.random() < 0.6 else name.head
        if kind == Kind.ACT:
            who = dice.choice(self.alive)
            mutual = lexicon.verb_base(self.target.main.head) in MUTUAL
            who = f"two {lexicon.plural(who)}" if mutual else lexicon.with_article(who)
            deed = f"{name.head} {name.tail}".strip()
            return f"{who} {deed}", deed
        thing = lexicon.with_article(dice.choice(self.things))
        style = name.head.removesuffix(" style")
        return f"{thing} in {style} style", style if dice.random() < 0.5 else f"{style} picture"

    def _thing(self, name: Name, dice: random.Random) -> tuple[str, str]:
        phrase, noun = self._numbered(" ".join(part for part in (name.modifier, name.head) if part), dice)
        return f"{phrase} {name.tail}".strip(), f"{noun} {name.tail}".strip()

    def _numbered(self, noun: str, dice: random.Random) -> tuple[str, str]:
        """A noun, with what qualifies it in the concept, in a phrase and bare: one or several, and what else they are.

        As many numbers are drawn for every noun, so that a name and its near miss are said alike.
        """
        several, counts, number = dice.random() < _MANY, dice.random() < _COUNTED, dice.choice(_COUNTS)
        drawn = [dice.choice(words) for words in self.qualities if dice.random() < _QUALIFIED]
        head = noun.split()[-1]
        if not lexicon.is_counted(head):
            return lexicon.with_article(noun), noun
        noun = lexicon.plural(noun) if several else noun
        # Nobody says "two small striped women".
        words = noun if listed_group(head, Kind.THING) == PERSON else " ".join((*drawn, noun))
        if not several:
            return lexicon.with_article(words), noun
        return (f"{number} {words}" if counts else words), noun


def openers() -> Sequence[str]:
    """What short prompts begin with."""
    return _OPENERS
