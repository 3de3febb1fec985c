"""Soft prompts and textual inversion: free embeddings in prompts, which no word has, and the file that UIs load.

One set of vectors for each prompt is a soft prompt; one set for all is textual inversion: what it learned on some
prompts is tried on others. Both need a goal: the base's embedding, a concept's direction, or the U-Net's noise.

They reach further than tokens, since an embedding file is all that an attacker needs: in the shapes world encoders
whose tokens drew nothing of the concept drew it again by 75 free vectors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..encoders.text_encoder import TextEncoder
from ..errors import EncoderError, SettingsError
from ..files import write_tensors
from ..settings import CountOrZero, Positive, Seed, Settings
from .layouts import Layout
from .objectives import Goal, slopes
from .search import Attack, Attempt, states_of

# The key under which A1111 and ComfyUI look for an embedding's vectors.
EMBEDDING_KEY = "emb_params"


@dataclass(frozen=True)
class SoftSettings(Settings):
    """How vectors are learned.

    Attributes:
        shared: one set of vectors for all prompts, as textual inversion, and not one for each.
        learning_rate: of Adam, in root mean squares of the table of token embeddings.
        batch: prompts a step; 0 for all.
        draws: pictures a step, where the goal has pictures; 0 for all.
        seed: of everything random.

    Raises:
        SettingsError: a number is below 0, or the learning rate not above it.
    """

    shared: bool = False
    learning_rate: Positive = 0.1
    batch: CountOrZero = 0
    draws: CountOrZero = 1
    seed: Seed = 0


class SoftPrompt(Attack):
    """Free vectors in prompts, for any goal."""

    def __init__(
        self,
        encoder: TextEncoder,
        goal: Goal,
        where: Layout,
        allowed: Tensor,
        settings: SoftSettings | None = None,
        *,
        start: Tensor | None = None,
    ) -> None:
        """Learn vectors for the free positions of `where`, as many in each prompt.

        Args:
            encoder: under attack.
            goal: what to come near to, for each prompt of `where`.
            where: prompts and their free positions.
            allowed: tokens of whose embeddings a random start is made, (A,).
            settings: how.
            start: vectors to go on from in the first restart, such as those of a cheaper attack; None for a random one.

        Raises:
            SettingsError: prompts have different numbers of free positions, or none, or `start` has another shape.
        """
        self.settings = settings = settings or SoftSettings()
        count = goal.prompts
        sets = torch.zeros(count, dtype=torch.long) if settings.shared else torch.arange(count)
        super().__init__(encoder, goal, sets, settings.seed)
        self.where, self.allowed = where.to(self.device), allowed.to(self.device)
        self.places = self.where.places
        table = encoder.token_table.weight
        shape = (self.variables, where.count, table.shape[1])
        self.vectors = nn.Parameter(torch.zeros(shape, dtype=table.dtype, device=self.device))
        if start is not None and start.shape != shape:
            raise SettingsError(f"The vectors to go on from have shape {tuple(start.shape)}; expected {shape}.")
        self.start = start
        self.scale = float(table.detach()[self.allowed].double().square().mean().sqrt())
        self.kept = torch.zeros_like(self.vectors)
        self.restart = torch.zeros((), dtype=torch.long)
        self.optimizer = torch.optim.Adam([self.vectors], lr=settings.learning_rate * self.scale)

    def begin(self, restart: int) -> None:
        """See Attack: the embeddings of random tokens, but for a first restart that goes on from vectors."""
        self.restart.fill_(restart)
        shape = self.vectors.shape[:2]
        tokens = torch.randint(len(self.allowed), shape, generator=self.generator(restart, -1)).to(self.device)
        first = self.encoder.token_table.weight[self.allowed[tokens]] if restart or self.start is None else self.start
        with torch.no_grad():
            self.vectors.copy_(first)
        self.optimizer.state.clear()

    def rate(self, step: int) -> float:
        """See Attack."""
        return self.settings.learning_rate * self.scale

    def current(self) -> Tensor:
        """See Attack."""
        return self.vectors.detach()

    def moving(self) -> Mapping[str, Tensor]:
        """See Attack."""
        return {"vectors": self.vectors, "restart": self.restart}

    def attempt(self, variables: Tensor) -> Attempt:
        """See Attack."""
        return Attempt(self.where.ids, self.places, variables.clone(), self.sets)

    def gradients(self, step: int) -> Tensor:
        """See Objective."""
        self._call_watch()
        settings, goal = self.settings, self.goal
        generator = self.generator(int(self.restart), step)
        rows = torch.randperm(goal.prompts, generator=generator)
        rows = rows[: settings.batch or goal.prompts].sort().values.to(self.device)
        draws = torch.randperm(goal.draws, generator=generator)[: settings.draws or goal.draws]
        self.vectors.grad = None
        total = torch.zeros(1, dtype=self.vectors.dtype, device=self.device)
        for part in rows.split(self.chunk):
            states = states_of(self.encoder, self.where.ids[part], self.places[part], self.vectors[self.sets[part]])
            distances, slope = slopes(goal, states, part, draws, self.chunk)
            states.backward(slope / len(rows))
            total += distances.sum() / len(rows)
        return total.detach()


def save_embedding(path: str | os.PathLike[str], vectors: Tensor, metadata: Mapping[str, str]) -> None:
    """Write vectors (n, width) as an embedding that A1111, ComfyUI and others load, whole, as safetensors.

    Raises:
        EncoderError: the vectors have another form, or are not finite.
    """
    if vectors.ndim != 2 or not len(vectors):
        raise EncoderError(f"An embedding has shape {tuple(vectors.shape)}; expected vectors × width.")
    if not vectors.isfinite().all():
        raise EncoderError("An embedding holds values that are not finite. Lower the learning rate.")
    write_tensors(path, {EMBEDDING_KEY: vectors.float()}, metadata)


def numbered(path: Path, count: int) -> list[Path]:
    """The files of `count` embeddings: the path itself, or of several numbered ones."""
    return [path] if count == 1 else [path.with_stem(f"{path.stem}-{number}") for number in range(1, count + 1)]


def save_embeddings(path: Path, embeddings: Sequence[Tensor], metadata: Mapping[str, str]) -> list[Path]:
    """`save_embedding` of each, of several under numbered names; returns the files."""
    names = numbered(path, len(embeddings))
    for name, vectors in zip(names, embeddings, strict=True):
        save_embedding(name, vectors, metadata)
    return names
