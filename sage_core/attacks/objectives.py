"""What an attack brings prompts near to, as a distance of the text encoder's states, with its gradient.

A distance is of one prompt; 0 is reached when the attacked encoder's states do what the goal asks for. Which goal
predicts pictures was measured in the shapes world: prompts at a cosine of 0.96 to the unsafe prompt's embedding drew
nothing of the concept, while a small distance of the U-Net's predicted noise (`inversion`) did.

    embedding    ‖φ_θ(p) − t‖² / ‖t‖²,  t = φ_0(unsafe), φ the flattened states
    ring-a-bell  the same with t = φ_0(prompt) + η·c,  c = mean over pairs of φ_0(with concept) − φ_0(without)
    pooled       1 − cos(e_θ(p), e_0(unsafe)),  e the end token's state, after the final layer norm

The second is Ring-A-Bell's (Tsai et al., ICLR 2024), whose η is 3 for nudity, up to the division by ‖t‖². The third is
MMA-Diffusion's (Yang et al., CVPR 2024), which ranks texts quite otherwise than the first: their ranks' correlation was
0.13.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ..encoders.text_encoder import TextEncoder, embed
from ..encoders.tokens import END_TOKEN
from ..errors import PromptError


class Goal(ABC):
    """A distance for each of N prompts.

    Attributes:
        prompts: N.
        draws: at how many pictures each distance is measured; 1 where none are needed.
    """

    prompts: int
    draws: int = 1

    @abstractmethod
    def distances(self, states: Tensor, rows: Tensor, draws: Tensor | None = None) -> Tensor:
        """How far states are from the goal, (R,), differentiable.

        Args:
            states: of the attacked encoder, (R, 77, width).
            rows: which of the N prompts each is an attempt at, (R,).
            draws: numbers of the pictures to measure at; None for all.
        """


class EmbeddingGoal(Goal):
    """Near to target states, by the embedding alone."""

    def __init__(self, targets: Tensor) -> None:
        """Aim at `targets`, (N, 77, width)."""
        self.targets, self.prompts, self.rows = targets.flatten(1), len(targets), targets.shape[1]

    def distances(self, states: Tensor, rows: Tensor, draws: Tensor | None = None) -> Tensor:
        """See Goal."""
        # What holds in later steps alone follows, see `victims.packed`.
        found, wanted = states[:, : self.rows].flatten(1), self.targets[rows]
        return (found - wanted).square().sum(1) / wanted.square().sum(1)


class PooledGoal(Goal):
    """Near to the end token's states in direction; what stands before it counts only as far as it moves that state."""

    def __init__(self, targets: Tensor, ends: Tensor) -> None:
        """Aim at `targets`, (N, width), by prompts whose end tokens stand at `ends`, (N,)."""
        self.targets, self.ends, self.prompts = targets, ends, len(targets)

    def distances(self, states: Tensor, rows: Tensor, draws: Tensor | None = None) -> Tensor:
        """See Goal."""
        found = states[torch.arange(len(states), device=states.device), self.ends[rows]]
        return 1 - torch.nn.functional.cosine_similarity(found, self.targets[rows], dim=1)


def end_places(ids: Tensor) -> Tensor:
    """Where the first end token of each row of ids (N, 77) stands, (N,)."""
    return (ids == END_TOKEN).int().argmax(1)


def concept_direction(base: TextEncoder, with_concept: Sequence[str], without: Sequence[str]) -> Tensor:
    """Ring-A-Bell's direction c of a concept, (77, width): the mean change of states when prompts take it up.

    Raises:
        PromptError: the two lists are empty or of different lengths.
    """
    if len(with_concept) != len(without) or not without:
        raise PromptError(
            f"{len(with_concept)} prompts with the concept and {len(without)} without were given; expected as many of "
            "both, one or more."
        )
    width = base.config.width
    change = embed(base, list(with_concept)).double() - embed(base, list(without)).double()
    return change.mean(0).view(-1, width).to(base.token_table.weight.dtype)


@torch.no_grad()
def concept_targets(base: TextEncoder, ids: Tensor, direction: Tensor, strength: float) -> Tensor:
    """Ring-A-Bell's targets, (N, 77, width): states of prompts (N, 77), moved by `strength` times the direction."""
    return base(ids) + strength * direction


def slopes(goal: Goal, states: Tensor, rows: Tensor, draws: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Distances (R,), mean over `draws`, and the gradient of their sum with respect to states (R, 77, width).

    At most `chunk` rows and one picture of each are worked on at a time, so that a U-Net's activations fit: the sum
    over the rest is linear.
    """
    found, gradient = states.new_zeros(len(states)), torch.zeros_like(states)
    for start in range(0, len(states), chunk):
        part = slice(start, start + chunk)
        for draw in draws.split(1):
            leaf = states[part].detach().requires_grad_(True)
            with torch.enable_grad():
                distance = goal.distances(leaf, rows[part], draw) / len(draws)
                (slope,) = torch.autograd.grad(distance.sum(), leaf)
            gradient[part] += slope
            found[part] += distance.detach()
    return found, gradient
