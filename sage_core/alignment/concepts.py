"""What a run removes: one concept or several at once, and which of them each pair of prompts is for.

With one concept that has no target of its own a run is named, and goes, as it always did.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from ..errors import TrainingError
from ..prompts.concepts import ConceptList
from ..prompts.making.lexicon import singular
from ..prompts.making.reading import FUNCTION
from ..prompts.making.targets import is_quality
from ..prompts.pairs import PromptPairs
from .settings import Target

# Brackets around nothing are no words.
_NO_WORDS = " \t\n()[]"

# What prompts of a concept are led to of which nobody said what it becomes: pictures that any model draws. The first is
# taken that has least of the concept's words. That a house is a building no list of words says.
_NEUTRAL = (
    "a small blue house by a lake", "a green tree on a hill", "a white cup on a wooden table", "a red apple",
    "an old brown boat at sea",
)  # fmt: skip

_WORD = re.compile(r"[\w'-]+")

# Safe prompt, unsafe prompt, and the place of its concept.
Pair = tuple[str, str, int]


@dataclass(frozen=True)
class RunConcepts:
    """The concepts of a run as the training reads them.

    Attributes:
        names: what each is called.
        directions: the text whose embedding is each one's direction.
        targets: the text that each one's unsafe prompts, and the concept itself, are led to; None where the settings
            choose the prompts' targets and the empty prompt is the concept's.
        of_pair: the place, in these, of the concept that each pair is for.
        called: all names that each goes by, its own first.
    """

    names: tuple[str, ...]
    directions: tuple[str, ...]
    targets: tuple[str | None, ...]
    of_pair: tuple[int, ...]
    called: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, concept: str | ConceptList, pairs: PromptPairs) -> RunConcepts:
        """The concepts of a run on `pairs`. A text is one concept, for which all pairs are.

        Raises:
            TrainingError: an empty text, several concepts and pairs that do not say which they are for, or that are
                for others.
        """
        if isinstance(concept, str):
            if not concept.strip(_NO_WORDS):
                raise TrainingError('The concept is empty: name what is to be removed, for example "nudity".')
            _check_single(concept, pairs)
            return cls((concept,), (concept,), (None,), (0,) * len(pairs), ((concept,),))
        names = concept.names
        directions = tuple(each.direction_text for each in concept)
        targets = tuple(each.becomes or None for each in concept)
        called = tuple((each.name, *each.names) for each in concept)
        if len(names) == 1:
            _check_single(names[0], pairs)
            return cls(names, directions, targets, (0,) * len(pairs), called)
        return cls(names, directions, targets, _places(names, pairs), called)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def title(self) -> str:
        """All names in a row."""
        return ", ".join(self.names)

    @property
    def own_targets(self) -> tuple[str, ...]:
        """The distinct texts among the targets."""
        return tuple(dict.fromkeys(text for text in self.targets if text is not None))

    def fitted(self, target: Target) -> RunConcepts:
        """The same with a neutral target for each of which none was said, where `target` is "fitting"."""
        if target != "fitting":
            return self
        words = {word for names in self.called for name in names for word in _WORD.findall(name.lower())} - FUNCTION
        named = {form for word in words for form in (word, singular(word))}
        neutral = min(_NEUTRAL, key=lambda text: len(named.intersection(text.split())))
        return replace(self, targets=tuple(text or neutral for text in self.targets))

    def paired(self, target: Target) -> tuple[bool, ...]:
        """Whether each one's unsafe prompts are led to their own pairs' safe sides, by the setting `target`."""
        rows = zip(self.names, self.targets, strict=True)
        fit = (text is not None and len(text.split()) == 1 and is_quality(name) for name, text in rows)
        return tuple(target == "paired" or (target == "fitting" and fits) for fits in fit)

    def tagged(self, pairs: PromptPairs) -> list[Pair]:
        """The pairs of the run, each with its concept."""
        return list(zip(pairs.safe, pairs.unsafe, self.of_pair, strict=True))

    def about(self) -> list[dict[str, str]]:
        """What a saved encoder says of each concept."""
        rows = zip(self.names, self.directions, self.targets, strict=True)
        return [
            {"name": name, "direction": text} | ({"becomes": led_to} if led_to else {}) for name, text, led_to in rows
        ]

    def key(self) -> dict[str, Any]:
        """What of it decides a run's result, for the run's name."""
        plain = len(self) == 1 and not self.own_targets
        if plain:
            return {"concept": self.directions[0]}
        return {"concept": list(self.directions), "targets": list(self.targets), "concept_of_pair": list(self.of_pair)}


def _check_single(name: str, pairs: PromptPairs) -> None:
    told = tuple(dict.fromkeys(pairs.concepts))
    if len(told) > 1:
        raise TrainingError(
            f"The pairs are for {len(told)} concepts ({', '.join(told)}), but the training is told of one, '{name}'. "
            "Give it the list of concepts that the pairs were made with."
        )


def _places(names: tuple[str, ...], pairs: PromptPairs) -> tuple[int, ...]:
    if not pairs.concepts:
        raise TrainingError(
            f"There are {len(names)} concepts ({', '.join(names)}), and the pairs do not say which of them they are "
            "for. Make the pairs with the same list of concepts, or add a column 'concept' to their file."
        )
    place = {name: at for at, name in enumerate(names)}
    for row, name in enumerate(pairs.concepts, 1):
        if name not in place:
            raise TrainingError(
                f"Pair {row} is for the concept '{name}', which is not removed; expected one of {', '.join(names)}. "
                "Make the pairs with the same list of concepts."
            )
    if missing := [name for name in names if name not in set(pairs.concepts)]:
        raise TrainingError(f"No pair is for the concept '{missing[0]}'. Add some, or take it from the list.")
    return tuple(map(place.__getitem__, pairs.concepts))
