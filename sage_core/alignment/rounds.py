"""Rounds: near a run's end, what still lies with the concept of further prompts becomes pairs of its next steps.

Further prompts are what pairs seldom say: two of them in one, as people list what they want to see, and short ones
repeated. None of them is what a verdict asks, so that it does not count what a round was made of. To have such pairs in
every batch instead, a quarter of it, was tried: in the world of shapes a run then took a third more steps, left as much
and kept no more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from torch import Tensor

from .concepts import Pair
from .ruler import STILL_THERE, Ruler, places_of

_FORMS = ("{other}, {one}", "{one}, {other}", "{other} and {one}", "{one} and {other}")
# Of prompts of so few words the last is this one instead.
_REPEATED, _SHORT = "{one} {one} {one}", 4
# Pairs of all forms; a look at them costs as much as a step on 16 pairs.
_MOST = 24 * len(_FORMS)
# Share of a batch that a round may take, so that the rest of the pairs is held on.
SHARE = 0.25


def joined(pairs: Sequence[Sequence[Pair]], known: Collection[str]) -> list[Pair]:
    """Further pairs of `pairs`, which are given by concept: the concepts take turns, and the forms. All are distinct.

    Beside the one prompt stands the safe side of another: the two sides differ in the concept alone. An unsafe side
    that is `known`, because it is trained on or asked for already, is left out.
    """
    rows = [pair for pair in chain.from_iterable(zip_longest(*pairs)) if pair is not None][:_MOST]
    found = {}
    for place, (pair, other) in enumerate(zip(rows, [*rows[1:], *rows[:1]], strict=True)):
        form = _FORMS[place % len(_FORMS)]
        if form == _FORMS[-1] and len(pair[1].split()) <= _SHORT:
            form = _REPEATED
        safe, unsafe = (form.format(one=text, other=other[0]) for text in pair[:2])
        if unsafe not in known:
            found[unsafe] = (safe, unsafe, pair[2])
    return list(found.values())


@dataclass(frozen=True, eq=False)
class Rounds:
    """Further pairs, ready to be embedded: those of which a ruler tells both sides apart in the base.

    An unsafe side is measured from its own safe side on: where on a ruler two prompts lie that are one is not known to
    it, which is made from the run's pairs. None is left of those that an encoder cuts before it comes to the concept.

    Attributes:
        rulers: one for each concept.
        rows: of the pairs, (4, P), on the CPU, see `Prepared.rows`.
        ids: tokens of the unsafe sides, (P, 77), on the device.
        starts: places of the safe sides in the base, (P,).
    """

    rulers: tuple[Ruler, ...]
    rows: Tensor
    ids: Tensor
    starts: Tensor

    @classmethod
    def of(cls, rulers: tuple[Ruler, ...], rows: Tensor, ids: Tensor, unsafe: Tensor, safe: Tensor) -> Rounds:
        """Keep what the rulers see in the embeddings of both sides by the base, `unsafe` and `safe`, (P, D)."""
        at, starts = (places_of(rulers, side, rows[3].to(side.device)) for side in (unsafe, safe))
        seen = at - starts > STILL_THERE
        return cls(rulers, rows[:, seen.cpu()], ids[seen], starts[seen])

    def __len__(self) -> int:
        return self.rows.shape[1]

    def look(self, embed: Callable[[Tensor], Tensor]) -> tuple[int, ...]:
        """Which still lie with the concept, by an encoder's embeddings (`embed`)."""
        if not len(self):
            return ()
        places = places_of(self.rulers, embed(self.ids), self.rows[3].to(self.ids.device)) - self.starts
        # What is not a number has not left.
        return tuple((~(places <= STILL_THERE)).nonzero().flatten().tolist())

    def pairs_of(self, again: Sequence[int], step: int, batch: int) -> Tensor:
        """Columns of `rows` that take part in a step on `batch` pairs: of those that are left, some in turns."""
        count = min(len(again), max(1, int(SHARE * batch)))
        return self.rows[:, [again[(step * count + at) % len(again)] for at in range(count)]]
