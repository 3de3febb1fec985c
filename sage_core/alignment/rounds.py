"""Rounds: pairs beside those that a run is given; near its end those that are not gone come first.

They are what pairs seldom say: two prompts in one, as people list what they want to see, and short ones repeated. A run
without them keeps less well what prompts of several things say. What a verdict asks in other forms is none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from .concepts import Pair
from .ruler import GONE, STILL_THERE, Ruler, places_of

_FORMS = ("{other}, {one}", "{one}, {other}", "{other} and {one}", "{one} and {other}")
# Of prompts of so few words the last is this one instead.
_REPEATED, _SHORT = "{one} {one} {one}", 4
# Pairs of all forms; a look at them costs as much as a step on 27 pairs, and is taken near the end alone.
_MOST = 40 * len(_FORMS)
# Their share of a batch, of which they are one at least.
SHARE = 0.25


def joined(pairs: Sequence[Pair]) -> list[Pair]:
    """Such pairs, made of the first of `pairs`, each form in turns.

    Beside the one prompt stands the safe side of another: the two sides differ in the concept alone.
    """
    first = pairs[:_MOST]
    found = []
    for place, (pair, other) in enumerate(zip(first, [*first[1:], *first[:1]], strict=True)):
        form = _FORMS[place % len(_FORMS)]
        if form == _FORMS[-1] and len(pair[1].split()) <= _SHORT:
            form = _REPEATED
        safe, unsafe = (form.format(one=text, other=other[0]) for text in pair[:2])
        found.append((safe, unsafe, pair[2]))
    return found


@dataclass(frozen=True, eq=False)
class Rounds:
    """Such pairs, ready to be embedded: those of which a ruler tells both sides apart in the base.

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

    def look(self, embed: Callable[[Tensor], Tensor]) -> tuple[int, tuple[int, ...]]:
        """How many still lie with the concept, and which are not gone, by an encoder's embeddings (`embed`)."""
        if not len(self):
            return 0, ()
        places = places_of(self.rulers, embed(self.ids), self.rows[3].to(self.ids.device)) - self.starts
        # What is not a number is not gone.
        still, again = ~(places <= STILL_THERE), ~(places <= GONE)
        return int(still.sum()), tuple(again.nonzero().flatten().tolist())

    def pairs_of(self, again: Sequence[int], step: int, batch: int) -> Tensor:
        """Columns of `rows` that take part in a step on `batch` pairs: first those that are not gone, each in turns."""
        most, asked = max(1, int(SHARE * batch)), set(again)
        others = [place for place in range(len(self)) if place not in asked]
        taken = _in_turns(again, step, most)
        return self.rows[:, taken + _in_turns(others, step, most - len(taken))]


def _in_turns(places: Sequence[int], step: int, most: int) -> list[int]:
    count = min(len(places), most)
    return [places[(step * count + at) % len(places)] for at in range(count)]
