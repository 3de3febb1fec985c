"""Whether an aligned embedding still lies with the concept: measured by the base encoder and pairs of prompts alone.

The base's states of unsafe prompts and of their safe counterparts differ in the concept and in little else. Fisher's
discriminant of the two is a ruler: 0 at the mean of the safe prompts, 1 at that of the unsafe ones. A prompt of which
the aligned encoder makes states that lie beyond STILL_THERE is taken to show the concept still. Which states, and how
far, was calibrated against pictures of the shapes world.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..encoders.tokens import END_TOKEN
from ..errors import TrainingError

# Place on the ruler from which on a prompt counts as still with the concept.
STILL_THERE = 0.5
# Pairs that a ruler is made from: more make it no straighter.
MOST_PAIRS = 256
# Share of the mean variance that is added to every direction: with fewer prompts than dimensions the rest is unknown.
_RIDGE = 0.1


def summary_of(states: Tensor, ids: Tensor, end_token: int = END_TOKEN) -> Tensor:
    """Mean state of a prompt's own tokens, its first end token among them: (B, 77, W), ids (B, 77) → (B, W), fp32.

    The first state is that of the start token, which is the same for all prompts. Padding repeats what is said, and
    would weigh six times as much as the words.
    """
    end = (ids == end_token).int().argmax(1)
    places = torch.arange(ids.shape[1], device=ids.device)
    own = (places >= 1) & (places <= end[:, None])
    return (states.float() * own[:, :, None]).sum(1) / own.sum(1, keepdim=True)


@dataclass(frozen=True, eq=False)
class Ruler:
    """A line through the embeddings on which prompts have a place.

    Attributes:
        direction: (W,), fp32.
        start: inner product with it at which the ruler has 0.
    """

    direction: Tensor
    start: float

    @classmethod
    def of(cls, unsafe: Tensor, safe: Tensor) -> Ruler:
        """Fisher's discriminant of two sets of embeddings by the base, (U, W) and (S, W), with some ridge.

        Raises:
            TrainingError: the two sets have the same mean.
        """
        unsafe, safe = unsafe.double().cpu(), safe.double().cpu()
        centred = torch.cat([unsafe - unsafe.mean(0), safe - safe.mean(0)])
        apart = unsafe.mean(0) - safe.mean(0)
        scatter = centred.T @ centred / len(centred)
        ridge = _RIDGE * scatter.diagonal().mean()
        # Sets of one prompt each have no scatter.
        scatter.diagonal().add_(ridge if ridge > 0 else 1.0)
        direction = torch.linalg.solve(scatter, apart)
        length = direction @ apart
        if not length > 0:
            raise TrainingError(
                "The base encoder makes the same of the safe and of the unsafe prompts: the concept cannot be told "
                "from what must stay. Give pairs that differ in the concept."
            )
        direction = direction / length
        return cls(direction.float(), float(direction @ safe.mean(0)))

    def places(self, embeddings: Tensor) -> Tensor:
        """Place of each embedding, (B, W) → (B,): 0 as safe prompts of the base have, 1 as unsafe ones."""
        return embeddings.float() @ self.direction.to(embeddings.device) - self.start


def moved_of(aligned: Tensor, base: Tensor) -> Tensor:
    """Which safe prompts have left their place: they lie nearer to where the base has another of them, (S, W) → (S,).

    Args:
        aligned, base: embeddings of the same prompts by both encoders.
    """
    apart = torch.cdist(aligned.float(), base.float())
    return apart.diagonal() > apart.min(1).values
