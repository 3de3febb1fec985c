"""Genetic search over tokens, as Ring-A-Bell's (Tsai et al., ICLR 2024): no gradient is needed.

A population of attempts at each prompt lives on: its better half stays, and the other half is made anew of pairs of
these, cut at one free position and joined, then changed in one. Its authors' own search has a population of 200, 3,000
generations, crossover 0.5 and mutation 0.25.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..encoders.text_encoder import TextEncoder
from ..errors import SettingsError
from ..settings import Limits, Seed, Settings, Share
from .layouts import Layout, typable
from .objectives import Goal
from .search import DiscreteAttack
from .tokens import checked_layout, random_start

# What a child that cannot be typed scores; finite, since a checkpoint holds finite numbers alone.
_WORST = 1e30


@dataclass(frozen=True)
class GeneticSettings(Settings):
    """How attempts live on.

    Attributes:
        population: attempts at each prompt, even.
        crossover: share of children that have two parents.
        mutation: share of children in which one token is exchanged.
        seed: of everything random.

    Raises:
        SettingsError: the population is odd or below 4, or a share is not from 0 to 1.
    """

    population: Annotated[int, Limits(least=4)] = 200
    crossover: Share = 0.5
    mutation: Share = 0.25
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.population % 2:
            raise SettingsError(f"population is {self.population}, expected an even number.")


class GeneticSearch(DiscreteAttack):
    """Genetic search for any goal, with a population for each prompt."""

    def __init__(
        self,
        encoder: TextEncoder,
        goal: Goal,
        where: Layout,
        allowed: Tensor,
        settings: GeneticSettings | None = None,
    ) -> None:
        """Search in the free positions of `where`; see TokenSearch for the arguments and errors."""
        self.settings = settings = settings or GeneticSettings()
        super().__init__(encoder, goal, settings.seed)
        self.tries = settings.population // 2
        self.where, self.allowed = checked_layout(where, allowed, self.device)
        # Sorted: the best attempt at each prompt comes first.
        self.living = self.where.ids[:, None].repeat(1, settings.population, 1)
        dtype = encoder.token_table.weight.dtype
        self.scores = torch.full(self.living.shape[:2], _WORST, dtype=dtype, device=self.device)
        self.kept = self.where.ids.clone()

    def begin(self, restart: int) -> None:
        """See Attack: random tokens."""
        self.restart.fill_(restart)
        generator = self.generator(restart, -1)
        drawn = [random_start(self.where, self.allowed, generator) for _ in range(self.settings.population)]
        self._sort_in(torch.stack(drawn, 1), self._scored(torch.stack(drawn, 1)))

    def current(self) -> Tensor:
        """See Attack."""
        return self.living[:, 0]

    def moving(self) -> Mapping[str, Tensor]:
        """See Attack."""
        return {"living": self.living, "scores": self.scores, "restart": self.restart}

    def propose(self, step: int) -> tuple[Sequence[tuple[Tensor, Tensor]], Tensor]:
        """See DiscreteAttack: a generation."""
        half = self.settings.population // 2
        children = self._children(self.generator(int(self.restart), step))
        living = torch.cat([self.living[:, :half], children], 1)
        scores = torch.cat([self.scores[:, :half], self._scored(children)], 1)
        living, scores = _sorted(living, scores)
        return [(self.living, living), (self.scores, scores)], scores[:, 0]

    def _children(self, generator: torch.Generator) -> Tensor:
        """(N, half the population, 77)."""
        settings, count, half = self.settings, self.goal.prompts, self.settings.population // 2

        def chance(share: float) -> Tensor:
            return (torch.rand(count, half, generator=generator) < share).to(self.device)

        def number(most: int) -> Tensor:
            return torch.randint(most, (count, half), generator=generator).to(self.device)

        rows = torch.arange(count, device=self.device)[:, None]
        first, second = self.living[rows, number(half)], self.living[rows, number(half)]
        free, places = self.where.free[:, None], self.where.places[:, None]
        size = self.where.free.sum(1)[:, None]
        # The cut and the place are drawn as large numbers, since prompts differ in how many positions are free.
        cut, place = number(2**31) % size.clamp(min=1), number(2**31) % size
        other = free & (places > cut[..., None]) & chance(settings.crossover)[..., None]
        children = torch.where(other, second, first)
        tokens = self.allowed[number(len(self.allowed))]
        changed = (places == place[..., None]) & chance(settings.mutation)[..., None]
        return torch.where(changed, tokens[..., None], children)

    def _scored(self, ids: Tensor) -> Tensor:
        """Distances (N, P) of attempts (N, P, 77)."""
        flat = ids.flatten(0, 1)
        rows = torch.arange(len(ids), device=self.device).repeat_interleave(ids.shape[1])
        good = typable(flat)
        found = torch.full((len(flat),), _WORST, dtype=self.scores.dtype, device=self.device)
        if good.any():
            found[good] = self.distances_of_ids(flat[good], rows[good])
        return found.view(ids.shape[:2])

    def _sort_in(self, living: Tensor, scores: Tensor) -> None:
        for tensor, value in zip((self.living, self.scores), _sorted(living, scores), strict=True):
            tensor.copy_(value)


def _sorted(living: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    order = scores.argsort(stable=True, dim=1)
    return living.gather(1, order[..., None].expand_as(living)), scores.gather(1, order)
