"""What a maker of pairs hands back: the pairs, the concepts as it found them, and what to know about both."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from ..concepts import ConceptList
from ..pairs import PromptPairs
from .settings import Kind

_SHOWN_NAMES = 12


@dataclass(frozen=True)
class FoundName:
    """A name that the encoder takes for a concept: its cosine, and its distance as a share of its place's median."""

    text: str
    cosine: float
    distance: float


@dataclass(frozen=True)
class FoundConcept:
    """What was found of one concept.

    Attributes:
        name: of the concept.
        kind: what it is taken for.
        mined: names beyond the given ones, the likest first.
        near: near misses, of each part of the concept.
        long, short: pairs of each form.
        left_out: pairs that were made and not kept, by reason.
    """

    name: str
    kind: Kind
    mined: tuple[FoundName, ...]
    near: tuple[str, ...]
    long: int
    short: int
    left_out: dict[str, int]


@dataclass(frozen=True)
class MadePairs:
    """Pairs that were made for some concepts.

    Attributes:
        pairs: to train on; each says which concept it is for.
        concepts: the list with the mined names and near misses in it, to be edited and used again.
        found: of each concept.
        is_short: of each pair, whether it is a short one.
        notes: what the user should know.
        warnings: what makes a training unlikely to work.
    """

    pairs: PromptPairs
    concepts: ConceptList
    found: tuple[FoundConcept, ...]
    is_short: tuple[bool, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def samples(self, count: int = 8, *, seed: int = 0) -> tuple[tuple[str, str], ...]:
        """Some pairs, safe and unsafe, the same for a seed; two in five are short, if there are any."""
        places = list(range(len(self.pairs)))
        random.Random(seed).shuffle(places)
        return tuple((self.pairs.safe[at], self.pairs.unsafe[at]) for at in sorted(places[:count]))

    def summary(self) -> str:
        """A few readable lines: warnings first, then names with figures, near misses, counts and notes."""
        lines = [f"⚠ {text}" for text in self.warnings]
        for each, concept in zip(self.found, self.concepts, strict=True):
            lines.append(f"{each.name} ({each.kind}): {each.long:,} long and {each.short:,} short pairs.")
            if each.mined:
                names = ", ".join(f"{name.text} {name.cosine:.3f}" for name in each.mined[:_SHOWN_NAMES])
                lines.append(f"  also called (cosine to the concept): {names}")
            if each.near:
                lines.append(f"  must stay: {', '.join(each.near[:_SHOWN_NAMES])}")
            if concept.becomes:
                lines.append(f"  becomes: {concept.becomes}")
            if each.left_out:
                lines.append("  left out: " + ", ".join(f"{n:,} x {why}" for why, n in Counter(each.left_out).items()))
        return "\n".join([*lines, *self.notes])
