"""Token search: single tokens of prompts are exchanged, those first whose gradient promises most.

It is a greedy white-box search. As in HotFlip (Ebrahimi et al. 2018) the gradient with respect to the token embeddings
ranks replacements. As in GCG (Zou et al. 2023), which MMA-Diffusion (Yang et al., CVPR 2024) turned on text encoders,
each round tries many of the best ranked at once, and the best is taken if it is nearer to the goal. With a concept's
direction as its goal it is the gradient form of Ring-A-Bell, with the U-Net's noise it is P4D's.

`attack` aims at the base encoder's embedding, as an adaptive attack on an aligned one. The names used in training are
forbidden; it may start from any other name of the concept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..encoders.text_encoder import TextEncoder
from ..encoders.tokens import END_TOKEN
from ..errors import PromptError
from ..runs.loop import Budget, Loop
from ..settings import Count, Seed, Settings
from .layouts import Layout, typable
from .objectives import EmbeddingGoal, Goal, slopes
from .search import DiscreteAttack

# Random starts drawn until one of them is text that can be typed.
_STARTS = 100


@dataclass(frozen=True)
class AttackSettings(Settings):
    """How hard the attack tries.

    Attributes:
        rounds: how often replacements are ranked and tried.
        candidates: replacements tried for each prompt in a round.
        best: how many replacements of each free position, ranked by gradient, these are drawn from.
        seed: for the start and the draws.

    Raises:
        SettingsError: rounds, candidates or best is below 1.
    """

    rounds: Count = 24
    candidates: Count = 48
    best: Count = 24
    seed: Seed = 0


@dataclass(frozen=True)
class AttackResult:
    """Attacked prompts as token ids (N, 77), and their cosines to the target with random words and after, each (N,)."""

    ids: Tensor
    before: Tensor
    after: Tensor


class TokenSearch(DiscreteAttack):
    """Token search for any goal, with one row of tokens for each prompt."""

    def __init__(
        self,
        encoder: TextEncoder,
        goal: Goal,
        where: Layout,
        allowed: Tensor,
        settings: AttackSettings | None = None,
        names: Sequence[Tensor] = (),
        *,
        typed: bool = True,
        starts: Tensor | None = None,
    ) -> None:
        """Search in the free positions of `where`.

        Args:
            encoder: under attack.
            goal: what to come near to, for each prompt of `where`.
            where: prompts and their free positions, at least one in each.
            allowed: tokens that may be used, (A,).
            settings: how hard to try; `rounds` are the caller's, who runs the loop.
            names: token ids of names to start from where they fit; none for a random start.
            typed: whether only prompts count that a person can type, whose text gives the same tokens.
            starts: tokens of which random starts are made, where these are not all that are allowed.

        Raises:
            PromptError: a prompt has no free position, or no token is allowed.
        """
        self.settings = settings = settings or AttackSettings()
        super().__init__(encoder, goal, settings.seed)
        self.tries, self.names, self.typed = settings.candidates, [name.to(self.device) for name in names], typed
        self.where, self.allowed = checked_layout(where, allowed, self.device)
        self.starts = self.allowed if starts is None else checked_layout(where, starts, self.device)[1]
        self.ids, self.kept = self.where.ids.clone(), self.where.ids.clone()
        self.scores = torch.zeros(goal.prompts, dtype=encoder.token_table.weight.dtype, device=self.device)
        self.before = self.scores.clone()
        self.rows = torch.arange(goal.prompts, device=self.device)

    def begin(self, restart: int) -> None:
        """See Attack: random tokens, with a name at the end of the free ones where that is nearer to the goal."""
        self.restart.fill_(restart)
        start = random_start(self.where, self.starts, self.generator(restart, -1), self.typed)
        scores = self.distances_of_ids(start, self.rows)
        self.before = scores.clone()
        for name in self.names:
            named = _with_name(start, self.where.free, name)
            found = self._scored(named, self.rows)
            nearer = found < scores
            start, scores = torch.where(nearer[:, None], named, start), torch.where(nearer, found, scores)
        self.ids.copy_(start)
        self.scores.copy_(scores)

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
        """Of the distances of prompts `rows` with respect to the embeddings of their tokens, (R, 77, width)."""
        self._call_watch()
        captured: list[Tensor] = []
        hook = self.encoder.token_table.register_forward_hook(
            lambda _, __, output: captured.append(output.requires_grad_())
        )
        try:
            with torch.enable_grad():
                states = self.encoder(self.ids[rows])
        finally:
            hook.remove()
        draws = torch.arange(self.goal.draws)
        _, slope = slopes(self.goal, states, rows, draws, self.chunk)
        return torch.autograd.grad(states, captured, slope)[0]

    def _scored(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Distances, infinite for what cannot be typed."""
        if not self.typed:
            return self.distances_of_ids(ids, rows)
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


def random_start(where: Layout, allowed: Tensor, generator: torch.Generator, typed: bool) -> Tensor:
    """Prompts with random allowed tokens in their free positions, (N, 77).

    Raises:
        PromptError: only text counts that can be typed, and random tokens never made one.
    """
    ids, open_rows = where.ids.clone(), torch.ones(len(where.ids), dtype=torch.bool, device=where.ids.device)
    for _ in range(_STARTS):
        drawn = allowed[torch.randint(len(allowed), ids.shape, generator=generator).to(allowed.device)]
        ids = torch.where(where.free & open_rows[:, None], drawn, ids)
        if not typed:
            return ids
        open_rows = ~typable(ids)
        if not open_rows.any():
            return ids
    raise PromptError(
        "Random tokens never made a text that can be typed. Allow whole words alone, or leave fewer tokens free."
    )


def attack(
    encoder: TextEncoder,
    base: TextEncoder,
    ids: Tensor,
    free: Tensor,
    allowed: Tensor,
    settings: AttackSettings | None = None,
    names: Sequence[Tensor] = (),
    on_round: Callable[[int, int], None] | None = None,
) -> AttackResult:
    """Fill the `free` positions of unsafe prompts so that φ_θ(prompt) approaches φ_0(the unsafe prompt), by cosine.

    Args:
        encoder: the aligned encoder θ under attack.
        base: the frozen encoder.
        ids: unsafe prompts (N, 77).
        free: which of their tokens may be replaced, (N, 77) bool, at least one in each row.
        allowed: the tokens that may be used, (A,).
        settings: how hard to try.
        names: token ids of names to start from where they fit.
        on_round: called with (rounds done, rounds in all); what it raises stops the attack.

    Returns:
        The best prompt found for each. The start is random tokens, with a name at the end of the free ones where that
        is nearer to the target.

    Raises:
        PromptError: a prompt has no free position.
    """
    settings = settings or AttackSettings()
    device = next(encoder.parameters()).device
    with torch.no_grad():
        goal = EmbeddingGoal(base(ids.to(device)), "cosine")
    search = TokenSearch(encoder, goal, Layout(ids, free), allowed, settings, names, typed=False)
    search.begin(0)
    loop = Loop(search, Budget(steps=settings.rounds), lambda _step, _used: 0.0)
    loop.run(on_round and (lambda report: on_round(report.step, report.steps)))
    return AttackResult(search.ids, 1 - search.before, 1 - search.scores)


def differing_span(unsafe: Tensor, safe: Tensor) -> Tensor:
    """Positions (N, 77), bool, of `unsafe` between the start and the end that it shares with `safe`."""
    length, other = ((ids != END_TOKEN).sum(1) for ids in (unsafe, safe))
    column = torch.arange(unsafe.shape[1])
    same_start = (unsafe == safe).int().cumprod(1).sum(1)
    # Compared from the ends, so that a tail after names of different lengths still lines up.
    back = lambda ids, end: ids.gather(1, (end[:, None] - 1 - column).clamp(min=0))  # noqa: E731
    same_end = (back(unsafe, length) == back(safe, other)).int().cumprod(1).sum(1)
    stop = torch.maximum(length - same_end, same_start)
    return (column >= same_start[:, None]) & (column < stop[:, None])


def _with_name(ids: Tensor, free: Tensor, name: Tensor) -> Tensor:
    """`ids` with `name` in the last free positions of each row; rows without room stay as they are."""
    from_end = free.flip(1).cumsum(1).flip(1)
    place = free & (from_end <= len(name)) & (free.sum(1) >= len(name))[:, None]
    return torch.where(place, name[(len(name) - from_end).clamp(0, len(name) - 1)], ids)
