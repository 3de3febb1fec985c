"""Several prompts in one run of a ComfyUI sampler: their conditionings as one batch, and noise from each one's seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.sample
import torch
from torch import Tensor

# What a conditioning may say beside its states to stand in a batch with others.
_SHARED = {"pooled_output"}


@dataclass(frozen=True)
class Noises:
    """ComfyUI's NOISE for a batch: to each picture what KSampler draws from its seed for that picture alone."""

    seeds: tuple[int, ...]

    @property
    def seed(self) -> int:
        """What a sampler that adds noise of its own at each step draws that from."""
        return self.seeds[0]

    def generate_noise(self, latent: dict[str, Any]) -> Tensor:
        """Noise of the latents' shape, whose batch is as long as there are seeds."""
        parts = latent["samples"].split(1)
        drawn = [comfy.sample.prepare_noise(part, seed) for part, seed in zip(parts, self.seeds, strict=True)]
        return torch.cat(drawn)


def in_batches(conditionings: Sequence[list], most: int) -> list[list[int]]:
    """Which of the conditionings, by number, go together: neighbours of the same length, at most so many.

    What holds for a part of the steps or of the picture alone, or came with hooks, stays alone.
    """
    batches: list[list[int]] = []
    for number, entry in enumerate(conditionings):
        joins = bool(batches) and len(batches[-1]) < most
        if joins and _shape(entry) is not None and _shape(entry) == _shape(conditionings[batches[-1][-1]]):
            batches[-1].append(number)
        else:
            batches.append([number])
    return batches


def together(conditionings: Sequence[list]) -> list:
    """One conditioning of a batch; `in_batches` says which fit together. A single one stays as it is."""
    if len(conditionings) == 1:
        return conditionings[0]
    names = conditionings[0][0][1]
    pooled = {name: torch.cat([extras[name] for ((_, extras),) in conditionings]) for name in names}
    return [[torch.cat([states for ((states, _),) in conditionings]), pooled]]


def _shape(conditioning: list) -> tuple[Any, ...] | None:
    """What two conditionings of one batch have in common; None for one that stays alone."""
    if len(conditioning) != 1:
        return None
    states, extras = conditioning[0]
    if not set(extras) <= _SHARED or any(not isinstance(value, Tensor) for value in extras.values()):
        return None
    return states.shape, tuple(sorted(extras))
