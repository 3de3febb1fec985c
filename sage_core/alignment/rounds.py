"""Rounds: near a run's end, what still lies with the concept, or has moved with it, becomes pairs of its next steps.

What is tried is what the pairs do not say: two of them in one prompt, as people list what they want to see, and short
ones repeated, beside some of the pairs themselves. A verdict asks for prompts of other kinds, so that it does not count
what a round was made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from .concepts import Pair
from .ruler import GONE, MOST_LEFT, STILL_THERE, Ruler, places_of

_FORMS = ("{one}", "{other}, {one}", "{one}, {other}", "{other} and {one}", "{one} {one} {one}")
# Pairs of all forms that are tried; a look at both sides costs as much as a step on 32 pairs.
_TRIED = 20 * len(_FORMS)
# Distance of a safe prompt's embedding from the base's, as a share of its norm, from which on it has moved: of those of
# trainings without rounds one in ten, and of the pairs' own one in a hundred.
FAR = 0.25
# What is left takes the place of at most this share of a batch, so that the rest of the pairs is still held.
SHARE = 0.25


def joined(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs to try, of the first of `pairs`, each form in turns.

    Beside the one prompt stands the safe side of another: the two sides differ in the concept alone.
    """
    first = pairs[:_TRIED]
    found = []
    for place, (pair, other) in enumerate(zip(first, [*first[1:], *first[:1]], strict=True)):
        form = _FORMS[place % len(_FORMS)]
        safe, unsafe = (form.format(one=text, other=other[0]) for text in pair[:2])
        found.append((safe, unsafe, pair[2]))
    return found


@dataclass(frozen=True, eq=False)
class Rounds:
    """Pairs to try, ready to be embedded: those of which a ruler tells both sides apart in the base.

    It is made from the run's own pairs, and may not know what lies between two of them in one prompt. Nor is one tried
    that an encoder cuts before it comes to the concept.

    Attributes:
        rulers: one for each concept.
        rows: of the pairs, (4, P), on the CPU, see `Prepared.rows`.
        unsafe_ids, safe_ids: tokens of both sides, (P, 77), on the device.
        safe_base: flattened embeddings of the safe sides by the base, (P, D).
    """

    rulers: tuple[Ruler, ...]
    rows: Tensor
    unsafe_ids: Tensor
    safe_ids: Tensor
    safe_base: Tensor

    @classmethod
    def of(
        cls,
        rulers: tuple[Ruler, ...],
        rows: Tensor,
        unsafe_ids: Tensor,
        safe_ids: Tensor,
        embed: Callable[[Tensor], Tensor],
    ) -> Rounds:
        """Embed both sides with the base (`embed`), and keep those that the rulers see."""
        concept_of, safe_base = rows[3].to(unsafe_ids.device), embed(safe_ids)
        unsafe, safe = (places_of(rulers, side, concept_of) for side in (embed(unsafe_ids), safe_base))
        seen = (unsafe > STILL_THERE) & (safe <= GONE)
        return cls(rulers, rows[:, seen.cpu()], unsafe_ids[seen], safe_ids[seen], safe_base[seen])

    def look(self, embed: Callable[[Tensor], Tensor]) -> tuple[bool, tuple[int, ...]]:
        """Whether few still lie with the concept, and the next round: those not gone, and those moved along.

        Args:
            embed: flattened embeddings (B, D) of tokens by the encoder in training.
        """
        if not len(self.unsafe_ids):
            return True, ()
        places = places_of(self.rulers, embed(self.unsafe_ids), self.rows[3].to(self.unsafe_ids.device))
        moved = (embed(self.safe_ids) - self.safe_base).norm(dim=1) / self.safe_base.norm(dim=1)
        again = (places > GONE) | (moved > FAR)
        few = int((places > STILL_THERE).sum()) <= MOST_LEFT * len(places)
        return few, tuple(again.nonzero().flatten().tolist())

    def pairs_of(self, again: Sequence[int], step: int, batch: int) -> Tensor:
        """Columns of `rows` that take part in a step on `batch` pairs: those of a round take turns."""
        count = min(len(again), int(SHARE * batch))
        taken = [again[(step * count + place) % len(again)] for place in range(count)]
        return self.rows[:, taken]
