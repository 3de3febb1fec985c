"""Random numbers by a seed and a number, of a step or a row; the CPU's, since devices draw differently."""

from __future__ import annotations

import torch

# Far apart, so that neighbouring seeds share no number's stream.
STRIDE = 1_000_003


def seed_of(seed: int, number: int) -> int:
    """The seed of one number under a seed."""
    return seed * STRIDE + number


def generator_of(seed: int, number: int) -> torch.Generator:
    """The random numbers of one number under a seed."""
    return torch.Generator().manual_seed(seed_of(seed, number))
