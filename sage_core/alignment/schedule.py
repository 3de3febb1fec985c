"""What happens at each step of a run: pure functions of the settings, the seed and the step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..seeds import generator_of
from .settings import TrainingSettings

# Limit of a run that ends when the concept is removed, where neither `steps` nor the epochs give more.
MOST_STEPS = 400


def learning_rate(step: int, steps: int, settings: TrainingSettings) -> float:
    """Learning rate of step `step` of `steps`, counted from 0: after a linear warm-up the settings' schedule.

    "constant" stays; "linear" and "cosine" fall from the settings' rate after the warm-up to 0 after the last step.
    """
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    gone = (step - settings.warmup) / max(steps - settings.warmup, 1)
    left = {"constant": 1.0, "linear": 1 - gone, "cosine": (1 + math.cos(math.pi * gone)) / 2}[settings.schedule]
    return settings.learning_rate * left


def least_batch(settings: TrainingSettings) -> int:
    """The fewest pairs for which a batch has a loss: a prompt with its neighbours and one more, or two for a spread."""
    return settings.neighbours + 2 if settings.local_weight > 0 else 2


def batch_sizes(pairs: int, settings: TrainingSettings) -> list[int]:
    """Sizes of one epoch's batches; a last batch that is too small for the loss joins the one before it."""
    sizes = [settings.batch_size] * (pairs // settings.batch_size)
    if rest := pairs % settings.batch_size:
        if sizes and rest < least_batch(settings):
            sizes[-1] += rest
        else:
            sizes.append(rest)
    return sizes


def epoch_order(pairs: int, epoch: int, seed: int) -> Tensor:
    """The order in which epoch `epoch`, counted from 0, goes through the pairs, int64 (pairs,)."""
    return torch.randperm(pairs, generator=generator_of(seed, epoch))


def total_steps(pairs: int, settings: TrainingSettings) -> int:
    """Steps of a run on `pairs` pairs; of one that runs until the concept is removed, the most."""
    if settings.steps:
        return settings.steps
    steps = len(batch_sizes(pairs, settings)) * settings.epochs
    return steps if settings.until == "steps" else max(steps, MOST_STEPS)
