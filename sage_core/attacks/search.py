"""What every attack has in common: a step at a time for the training loop, restarts, and the best that was found."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ..encoders.text_encoder import TextEncoder, further_tokens
from ..encoders.tokens import detokenize
from ..errors import TrainingError
from ..runs.loop import Objective
from ..seeds import generator_of, seed_of
from .objectives import Goal

# Far apart, so that the steps of restarts share no draw.
_RESTART_STRIDE = 10_007
# Prompts that go through the text encoder at once, until memory runs out.
CHUNK = 64

# Says of the attempt's states (N, 77, width), by the encoder under attack, which succeed.
Examine = Callable[[Tensor], Sequence[bool] | Tensor]


def states_of(encoder: TextEncoder, ids: Tensor, places: Tensor | None = None, vectors: Tensor | None = None) -> Tensor:
    """States (B, 77, width) of token ids (B, 77), differentiable.

    Args:
        places: (B, 77), the number of the vector that takes a token's embedding's place, or -1.
        vectors: (B, n, width) embeddings of no token.
    """
    if places is None or vectors is None:
        return cast(Tensor, encoder(ids))
    rows = torch.arange(len(ids), device=ids.device)[:, None]
    numbers = encoder.token_table.num_embeddings + rows * vectors.shape[1] + places
    with further_tokens(encoder, vectors.flatten(0, 1)):
        return cast(Tensor, encoder(torch.where(places >= 0, numbers, ids)))


@dataclass(frozen=True, eq=False)
class Attempt:
    """Attacked prompts.

    Attributes:
        ids: token ids (N, 77).
        places, vectors: see `states_of`, for attacks by free embeddings; vectors are (S, n, width).
        sets: which of the S sets of vectors each prompt uses, (N,).
    """

    ids: Tensor
    places: Tensor | None = None
    vectors: Tensor | None = None
    sets: Tensor | None = None

    def texts(self, names: Sequence[str] = ()) -> list[str]:
        """The prompts as text; free embeddings stand in them as "*", or as the name of each of their sets."""
        if self.places is None:
            return detokenize(self.ids)
        sets = [0] * len(self.ids) if self.sets is None else self.sets.tolist()
        rows = zip(self.ids.cpu(), self.places.cpu(), sets, strict=True)
        return [_with_free(ids, places, names[own] if names else "*") for ids, places, own in rows]

    @torch.no_grad()
    def states(self, encoder: TextEncoder, chunk: int = CHUNK) -> Tensor:
        """States by an encoder, (N, 77, width)."""
        found = []
        for start in range(0, len(self.ids), chunk):
            part = slice(start, start + chunk)
            if self.vectors is None or self.places is None or self.sets is None:
                found.append(states_of(encoder, self.ids[part]))
            else:
                found.append(states_of(encoder, self.ids[part], self.places[part], self.vectors[self.sets[part]]))
        return torch.cat(found)


class Attack(Objective):
    """An attack on N prompts by S variables, of tokens or of vectors: one for each prompt, or one for all.

    The loop trains it as it trains anything. `begin` starts it anew for each restart, and `look` examines what it has
    and keeps the best: more successes first, then the smaller distance.

    Attributes:
        tries: attempts at each prompt that a step evaluates, by which budgets of different attacks compare.
        kept: the best variables of all looks, as `current`.
        keeps: whether those of every look are kept as well, in `seen`, (looks, S, …).
    """

    losses = ("distance",)
    tries: int = 1
    kept: Tensor
    keeps: bool = False
    seen: Tensor

    def __init__(self, encoder: TextEncoder, goal: Goal, sets: Tensor, seed: int) -> None:
        """Attack `encoder`, which stays as it is, for `goal`; `sets` says which variable each prompt uses, (N,)."""
        self.encoder, self.goal, self.seed = encoder.requires_grad_(False).eval(), goal, seed
        self.device = next(encoder.parameters()).device
        self.sets = sets.to(self.device)
        self.variables = int(self.sets.max()) + 1
        self.chunk = CHUNK
        self.watch: Callable[[], None] | None = None
        count = goal.prompts
        self.hits = torch.zeros(count, dtype=torch.bool, device=self.device)
        self.reached = torch.full((count,), 1e30, device=self.device)
        self.looked = torch.zeros(0, count, dtype=torch.int8, device=self.device)

    @abstractmethod
    def begin(self, restart: int) -> None:
        """Start anew from a random start of this restart's own, without a trace of the steps before."""

    @abstractmethod
    def current(self) -> Tensor:
        """The variables now, (S, …)."""

    @abstractmethod
    def attempt(self, variables: Tensor) -> Attempt:
        """The prompts that variables make."""

    @abstractmethod
    def moving(self) -> Mapping[str, Tensor]:
        """The tensors that a step changes."""

    def state(self) -> Mapping[str, Tensor]:
        """See Objective."""
        own = {"kept": self.kept, "hits": self.hits, "reached": self.reached, "looked": self.looked}
        own |= {"seen": self.seen} if self.keeps else {}
        return {**{name: value.detach() for name, value in self.moving().items()}, **own}

    def rate(self, step: int) -> float:
        """The learning rate of a step, for attacks that have one."""
        return 0.0

    def prepare(self, looks: int) -> None:
        """Make room for what this many looks will find."""
        self.looked = torch.full((looks, self.goal.prompts), -1, dtype=torch.int8, device=self.device)
        if self.keeps:
            self.seen = torch.zeros(looks, *self.kept.shape, dtype=self.kept.dtype, device=self.device)

    @torch.no_grad()
    def look(self, number: int, examine: Examine | None, below: float) -> None:
        """Examine what there is now, by `examine`, or by whether the distance is at most `below`."""
        variables = self.current().detach()
        attempt = self.attempt(variables)
        distances, states = self._distances_and_states(attempt)
        hits = distances <= below if examine is None else torch.as_tensor(examine(states), device=self.device).bool()
        better = self._per_set(hits.double()) - self._per_set(self.hits.double())
        nearer = self._per_set(distances.double()) < self._per_set(self.reached.double())
        chosen = (better > 0) | ((better == 0) & nearer)
        self.kept[chosen] = variables[chosen]
        rows = chosen[self.sets]
        self.hits[rows], self.reached[rows] = hits[rows], distances[rows].to(self.reached)
        if self.keeps:
            self.seen[number] = variables
        # Last, since it says that the look is whole.
        self.looked[number] = hits.to(torch.int8)

    def shrink(self) -> None:
        """See Objective: half as many prompts at once."""
        if self.chunk == 1:
            raise TrainingError(
                f"Out of memory on {self.device} with one prompt at a time. Choose bf16 for the U-Net, smaller "
                "pictures, or free memory on the device."
            )
        self.chunk = (self.chunk + 1) // 2

    def generator(self, restart: int, step: int) -> torch.Generator:
        """Random numbers that depend on seed, restart and step alone; on the CPU, since devices draw differently."""
        return generator_of(seed_of(self.seed, restart * _RESTART_STRIDE), step)

    @torch.no_grad()
    def distances_of_ids(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Distances (R,) of token ids (R, 77) as attempts at the prompts `rows` (R,)."""
        found = []
        for start in range(0, len(ids), self.chunk):
            self._call_watch()
            part = slice(start, start + self.chunk)
            found.append(self.goal.distances(self.encoder(ids[part]), rows[part]))
        return torch.cat(found)

    def _distances_and_states(self, attempt: Attempt) -> tuple[Tensor, Tensor]:
        self._call_watch()
        states = attempt.states(self.encoder, self.chunk)
        rows = torch.arange(len(states), device=self.device)
        found = [self.goal.distances(states[part], rows[part]) for part in _parts(len(states), self.chunk)]
        return torch.cat(found), states

    def _per_set(self, values: Tensor) -> Tensor:
        return torch.zeros(self.variables, dtype=values.dtype, device=self.device).index_add(0, self.sets, values)

    def _call_watch(self) -> None:
        if self.watch is not None:
            self.watch()


class DiscreteAttack(Attack):
    """An attack by tokens: a step proposes better ones, and the loop's update takes them over.

    So a step that is stopped has changed nothing, and one that runs out of memory is simply tried again.
    """

    def __init__(self, encoder: TextEncoder, goal: Goal, seed: int) -> None:
        """Attack by one row of tokens for each prompt."""
        super().__init__(encoder, goal, torch.arange(goal.prompts), seed)
        # The loop asks for an optimizer; this one has nothing to move.
        self.optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.0)
        self.restart = torch.zeros((), dtype=torch.long)
        self._proposal: Sequence[tuple[Tensor, Tensor]] = ()

    @abstractmethod
    def propose(self, step: int) -> tuple[Sequence[tuple[Tensor, Tensor]], Tensor]:
        """Tensors of `moving` with their new values, and the distance of each prompt with these, (N,)."""

    def gradients(self, step: int) -> Tensor:
        """See Objective; there is no gradient to fill."""
        self._proposal, distances = self.propose(step)
        return distances.mean()[None].detach()

    def after_update(self, step: int) -> None:
        """See Objective."""
        for tensor, value in self._proposal:
            tensor.copy_(value)
        self._proposal = ()

    def attempt(self, variables: Tensor) -> Attempt:
        """See Attack."""
        return Attempt(variables.clone())


def _with_free(ids: Tensor, places: Tensor, name: str) -> str:
    """A prompt whose free embeddings are one name."""
    free = (places >= 0).nonzero().flatten()
    first, last = int(free[0]), int(free[-1])
    return " ".join([*detokenize(ids[None, :first]), name, *detokenize(ids[None, last + 1 :])]).strip()


def _parts(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]
