"""What a run that ends when the concept is removed looks at: prompts of both sides, and its concepts' rulers.

Unsafe prompts are those of pairs that were kept out of training, and the concepts' names in short forms; safe ones are
those of the same pairs. Where no pairs were kept out, training's own are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

import torch
from torch import Tensor

from ..intervals import Hits
from ..prompts.making.targets import is_quality
from ..runs.record import Check
from .concepts import Pair, RunConcepts
from .rounds import Rounds
from .ruler import ARRIVED, GONE, MOST_LEFT, MOST_PAIRS, STILL_THERE, Ruler, apart_of, moved_of, places_of, worst_mean

Row = TypeVar("Row")

# Share of safe prompts that may have moved. A run goes on for them only where its 95 % interval lies above.
MOST_MOVED = 0.05
# Share of the prompts that name a concept which its ruler must see in the base, to be believed.
LEAST_SEEN = 0.8
# Distance from their safe sides at which prompts of a quality have arrived: a verdict, which looks at pairs of the
# training's own, finds .32 where prompts that were kept out of it lie at .46.
_ARRIVED = 0.5
# Prompts of each kind that a run looks at, and the fewest steps from one look to the next.
_PROMPTS = 48
_LEAST_STEPS = 4
# What looking may cost, as a share of the training; with a look at further prompts it is twice that.
_COST = 0.1
_OPENERS = ("a photo of", "a picture of", "a painting of", "a drawing of", "an image of")


def short_forms(names: Sequence[str]) -> dict[str, list[str]]:
    """Prompts that name a concept with little around it, by form: alone, after an opener, repeated, two together."""
    others = [*names[1:], *names[:1]]
    return {
        "bare": list(names),
        "short": [f"{opener} {name}" for name in names for opener in _OPENERS],
        "repeated": [" ".join([name] * 3) for name in names],
        "combined": [f"{one}, {other}" for one, other in zip(names, others, strict=True)],
    }


def named_shortly(run_concepts: RunConcepts) -> list[tuple[str, int]]:
    """Short prompts by all names of the concepts, each with the place of its concept."""
    called = enumerate(run_concepts.called)
    return [(text, place) for place, names in called for texts in short_forms(names).values() for text in texts]


def fitting_pairs(pairs: Sequence[Pair], concepts: int, most: int = MOST_PAIRS) -> list[list[Pair]]:
    """At most `most` of each concept's pairs: those that its ruler is made from, and the first of these for fewer."""
    return [some_of([pair for pair in pairs if pair[2] == concept], most) for concept in range(concepts)]


def some_of(rows: Sequence[Row], most: int, seed: int = 0) -> list[Row]:
    """At most `most` of the rows in a random order, the same for the same seed.

    By chance and not evenly: in lists of pairs names and forms take turns.
    """
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return [rows[at] for at in order[:most].tolist()]


@dataclass(frozen=True)
class WatchedTexts:
    """The prompts of a `Watch`.

    Attributes:
        unsafe: each with the place of its concept; first those of pairs.
        full: how many are of pairs; the others are names in short forms.
        safe: what must stay.
        pairs: from which each concept's ruler is made.
        sides: places in `unsafe` and `safe` of both sides of the pairs that must arrive.
        arrived: distance from their safe sides, as a share of the base's, at which they have.
    """

    unsafe: list[tuple[str, int]]
    full: int
    safe: list[str]
    pairs: list[list[Pair]]
    sides: list[tuple[int, int]]
    arrived: float

    @classmethod
    def of(
        cls,
        training: Sequence[Pair],
        kept_out: Sequence[Pair],
        run_concepts: RunConcepts,
        seed: int,
        *,
        paired: Sequence[bool] = (),
    ) -> WatchedTexts:
        """Choose them; the same for the same pairs and seed.

        Args:
            training: what the run trains on.
            kept_out: pairs that it does not; training's own are taken if there are none.
            paired: whether each concept's unsafe prompts are led to their safe sides: those of a quality must then
                arrive there. None are by default.
        """
        pairs = some_of(kept_out or training, len(kept_out or training), seed)
        unsafe = list(dict.fromkeys((text, concept) for _, text, concept in pairs))[:_PROMPTS]
        named = named_shortly(run_concepts)
        safe = list(dict.fromkeys(text for text, _, _ in pairs))[: 2 * _PROMPTS]
        rows = {prompt: at for at, prompt in enumerate(unsafe)}, {text: at for at, text in enumerate(safe)}
        leads = [is_quality(name) for name in run_concepts.names]
        leads = [led and quality for led, quality in zip_longest(paired, leads, fillvalue=False)]
        sides = [
            (rows[0][text, concept], rows[1][kept])
            for kept, text, concept in pairs
            if leads[concept] and (text, concept) in rows[0] and kept in rows[1]
        ]
        return cls(
            list(dict.fromkeys(unsafe + some_of(named, _PROMPTS, seed))),
            len(unsafe),
            safe,
            fitting_pairs(training, len(run_concepts)),
            sides,
            _ARRIVED if kept_out else ARRIVED,
        )

    @property
    def parts(self) -> list[list[str]]:
        """Everything to be embedded: unsafe, safe, and both sides of each concept's pairs."""
        parts = [[text for text, _ in self.unsafe], self.safe]
        for pairs in self.pairs:
            parts += [[safe for safe, _, _ in pairs], [unsafe for _, unsafe, _ in pairs]]
        return parts


@dataclass(frozen=True, eq=False)
class Watch:
    """Watched prompts, ready to be embedded; see `WatchedTexts`.

    Attributes:
        rulers: one for each concept.
        unsafe_ids, safe_ids: tokens, (U, 77) and (S, 77), on the device; the unsafe ones are those that the rulers see
            in the base.
        certain: whether those are enough for the rulers to be believed.
        concept_of: the concept of each unsafe prompt, (U,).
        groups: its concept and whether it is of a pair, one for each.
        safe_base: flattened embeddings of the safe prompts by the base, (S, D).
        every: steps from one look to the next.
        sides: rows of `unsafe_ids` and of `safe_ids`, (P, 2), of the pairs that must arrive.
        sides_base: embeddings by the base of the unsafe sides of these, (P, D).
        arrived: see `WatchedTexts`.
        rounds: further pairs; few of these may be left.
    """

    rulers: tuple[Ruler, ...]
    unsafe_ids: Tensor
    safe_ids: Tensor
    concept_of: Tensor
    groups: tuple[tuple[int, bool], ...]
    safe_base: Tensor
    every: int
    certain: bool
    sides: Tensor
    sides_base: Tensor
    arrived: float
    rounds: Rounds

    @classmethod
    def of(
        cls,
        texts: WatchedTexts,
        ids: Sequence[Tensor],
        further: Tensor,
        embed: Callable[[Tensor], Tensor],
        batch_size: int,
    ) -> Watch:
        """Embed with the base what is needed of it.

        Args:
            ids: tokens of `texts.parts`, and of both sides of the rounds' pairs.
            further: rows of these, (4, P), see `Prepared.rows`.
            embed: flattened embeddings (B, D) of tokens by the base.
            batch_size: pairs of a step, from which follows how often looking is cheap.
        """
        unsafe, safe, *sides, more_safe, more_unsafe = ids
        rulers = tuple(Ruler.of(embed(sides[at + 1]), embed(sides[at])) for at in range(0, len(sides), 2))
        concept_of = torch.tensor([concept for _, concept in texts.unsafe], device=unsafe.device)
        # A step takes both sides forwards, and backwards at twice that.
        every = math.ceil((len(unsafe) + len(safe)) / (_COST * 6 * batch_size))
        base = embed(unsafe)
        seen = places_of(rulers, base, concept_of) > STILL_THERE
        certain = bool(seen.float().mean() >= LEAST_SEEN)
        groups = [(concept, at < texts.full) for at, (_, concept) in enumerate(texts.unsafe)]
        of_seen = tuple(group for group, is_seen in zip(groups, seen.tolist(), strict=True) if is_seen)
        every = max(_LEAST_STEPS, every)
        pairs = torch.tensor(texts.sides, dtype=torch.int64, device=unsafe.device).reshape(-1, 2)
        pairs = pairs[seen[pairs[:, 0]]]
        # Places among the prompts that are seen.
        both = torch.stack([(seen.cumsum(0) - 1)[pairs[:, 0]], pairs[:, 1]], 1)
        sides_base = base[pairs[:, 0]]
        return cls(
            rulers, unsafe[seen], safe, concept_of[seen], of_seen, embed(safe), every, certain, both, sides_base,
            texts.arrived, Rounds.of(rulers, further, more_unsafe, embed(more_unsafe), embed(more_safe)),
        )  # fmt: skip

    def look(self, embed: Callable[[Tensor], Tensor]) -> Check | None:
        """Count what is left and what has moved by an encoder (`embed`); None if an embedding is not finite."""
        unsafe, safe = embed(self.unsafe_ids), embed(self.safe_ids)
        places = places_of(self.rulers, unsafe, self.concept_of)
        if not (places.isfinite().all() and safe.isfinite().all()):
            return None
        left, moved = int((places > STILL_THERE).sum()), int(moved_of(safe, self.safe_base).sum())
        gone = left <= MOST_LEFT * len(places) and worst_mean(places.tolist(), self.groups) <= GONE
        if len(self.sides):
            of_sides, targets = unsafe[self.sides[:, 0]], self.safe_base[self.sides[:, 1]]
            gone = gone and apart_of(of_sides, self.sides_base, targets) <= self.arrived
        # Three of fifty may be chance, and more steps bring none of them back. A verdict counts without such a margin.
        kept = Hits(moved, len(safe)).interval[0] <= MOST_MOVED
        if not gone:
            return Check(left, len(places), moved, len(safe), False)
        again = self.rounds.look(embed)
        holds = self.certain and kept and len(again) <= MOST_LEFT * len(self.rounds)
        return Check(left, len(places), moved, len(safe), holds, again, len(self.rounds))
