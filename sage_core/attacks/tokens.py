"""Token search: single tokens of prompts are exchanged, those first whose gradient promises most.

It is a greedy white-box search. As in HotFlip (Ebrahimi et al. 2018) the gradient with respect to the token embeddings
ranks replacements. As in GCG (Zou et al. 2023), which MMA-Diffusion (Yang et al., CVPR 2024) turned on text encoders,
each round tries many of the best ranked at once, and the best is taken if it is nearer to the goal. With the end
token's state as its goal it is MMA-Diffusion's, with a concept's direction the gradient form of Ring-A-Bell, with the
U-Net's noise P4D's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..encoders.text_encoder import TextEncoder
from ..errors import PromptError
from ..settings import Count, Seed, Settings
from .layouts import Layout, typable
from .objectives import Goal, slopes
from .search import DiscreteAttack, states_of

# Random starts drawn until one of them is text that can be typed.
_STARTS = 100


@dataclass(frozen=True)
class AttackSettings(Settings):
    """How hard the attack tries.

    Attributes:
        candidates: replacements tried for each prompt in a step.
        best: how many replacements of each free position, ranked by gradient, these are drawn from.
        seed: for the start and the draws.
    """

    candidates: Count = 48
    best: Count = 24
    seed: Seed = 0


class TokenSearch(DiscreteAttack):
    """Token search for any goal, with one row of tokens for each prompt."""

    def __init__(
        self,
        encoder: TextEncoder,
        goal: Goal,
        where: Layout,
        allowed: Tensor,
        settings: AttackSettings | None = None,
        *,
        starts: Tensor | None = None,
    ) -> None:
        """Search in the free positions of `where` for prompts that a person can type: whose text gives the same tokens.

        Args:
            encoder: under attack.
            goal: what to come near to, for each prompt of `where`.
            where: prompts and their free positions, at least one in each.
            allowed: tokens that may be used, (A,).
            settings: how hard to try.
            starts: tokens of which random starts are made, where these are not all that are allowed.

        Raises:
            PromptError: a prompt has no free position, or no token is allowed.
        """
        self.settings = settings = settings or AttackSettings()
        super().__init__(encoder, goal, settings.seed)
        self.tries = settings.candidates
        self.where, self.allowed = checked_layout(where, allowed, self.device)
        self.starts = self.allowed if starts is None else checked_layout(where, starts, self.device)[1]
        self.ids, self.kept = self.where.ids.clone(), self.where.ids.clone()
        self.scores = torch.zeros(goal.prompts, dtype=encoder.token_table.weight.dtype, device=self.device)
        self.rows = torch.arange(goal.prompts, device=self.device)

    def begin(self, restart: int) -> None:
        """See Attack: random tokens."""
        self.restart.fill_(restart)
        self.ids.copy_(random_start(self.where, self.starts, self.generator(restart, -1)))
        self.scores.copy_(self.distances_of_ids(self.ids, self.rows))

    def current(self) -> Tensor:
        """See Attack."""
        return self.ids

    def moving(self) -> Mapping[str, Tensor]:
        """See Attack."""
        return {"ids": self.ids, "scores": self.scores, "restart": self.restart}

    def propose(self, step: int) -> tuple[Sequence[tuple[Tensor, Tensor]], Tensor]:
        """See DiscreteAttack: each prompt with the best of some single replacements, if that is nearer."""
        settings, generator = self.settings, self.generator(int(self.restart), step)
        ranked = self.ranked()
        count, tries = self.goal.prompts, settings.candidates
        place = torch.multinomial(self.where.free.float().cpu(), tries, replacement=True, generator=generator)
        pick = torch.randint(ranked.shape[2], (count, tries), generator=generator)
        place, pick = place.to(self.device), pick.to(self.device)
        rows = self.rows[:, None]
        tried = self.ids[:, None].repeat(1, tries, 1)
        number = self.where.places.gather(1, place)
        tried[rows, torch.arange(tries, device=self.device), place] = ranked[rows, number, pick]
        scores = self._scored(tried.flatten(0, 1), self.rows.repeat_interleave(tries)).view(count, tries)
        found, at = scores.min(1)
        better = found < self.scores
        ids = torch.where(better[:, None], tried[self.rows, at], self.ids)
        distances = torch.where(better, found, self.scores)
        return [(self.ids, ids), (self.scores, distances)], distances

    def ranked(self) -> Tensor:
        """The best allowed tokens for each free position, (N, most free positions, best), by first-order gain."""
        table = self.encoder.token_table
        words = table.weight.detach()[self.allowed]
        best = min(self.settings.best, len(self.allowed))
        most = int(self.where.free.sum(1).max())
        found = torch.zeros(self.goal.prompts, most, best, dtype=torch.long, device=self.device)
        for start in range(0, self.goal.prompts, self.chunk):
            rows = self.rows[start : start + self.chunk]
            gradient = self._gradient(rows)
            # One prompt at a time: gains of all tokens at all positions of many prompts would fill the memory.
            for row, slope in zip(rows.tolist(), gradient, strict=True):
                gain = -slope[self.where.free[row]] @ words.T
                found[row, : len(gain)] = self.allowed[gain.topk(best, dim=-1).indices]
        return found

    def _gradient(self, rows: Tensor) -> Tensor:
        """Of the distances of prompts `rows` with respect to the embeddings of their free tokens, (R, 77, width)."""
        self._call_watch()
        ids, positions = self.ids[rows], torch.arange(self.ids.shape[1], device=self.device)
        places = torch.where(self.where.free[rows], positions, -1)
        words = self.encoder.token_table.weight.detach()[ids].requires_grad_()
        with torch.enable_grad():
            states = states_of(self.encoder, ids, places, words)
        draws = torch.arange(self.goal.draws)
        _, slope = slopes(self.goal, states, rows, draws, self.chunk)
        return torch.autograd.grad(states, words, slope)[0]

    def _scored(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Distances, infinite for what cannot be typed."""
        good = typable(ids)
        found = torch.full((len(ids),), float("inf"), dtype=self.scores.dtype, device=self.device)
        if good.any():
            found[good] = self.distances_of_ids(ids[good], rows[good])
        return found


def checked_layout(where: Layout, allowed: Tensor, device: torch.device) -> tuple[Layout, Tensor]:
    """Both on a device. Raises PromptError for a prompt without a free position, and for no allowed token."""
    if not where.free.any(1).all():
        row = int((~where.free.any(1)).nonzero()[0])
        raise PromptError(f"Prompt {row}, counted from 0, has no free position; expected one or more in each row.")
    if not len(allowed):
        raise PromptError("No token may be used: allow one or more.")
    return where.to(device), allowed.to(device).long()


def random_start(where: Layout, allowed: Tensor, generator: torch.Generator) -> Tensor:
    """Prompts with random allowed tokens in their free positions, (N, 77).

    Raises:
        PromptError: random tokens never made a text that can be typed.
    """
    ids, open_rows = where.ids.clone(), torch.ones(len(where.ids), dtype=torch.bool, device=where.ids.device)
    for _ in range(_STARTS):
        drawn = allowed[torch.randint(len(allowed), ids.shape, generator=generator).to(allowed.device)]
        ids = torch.where(where.free & open_rows[:, None], drawn, ids)
        open_rows = ~typable(ids)
        if not open_rows.any():
            return ids
    raise PromptError(
        "Random tokens never made a text that can be typed. Allow whole words alone, or leave fewer tokens free."
    )
