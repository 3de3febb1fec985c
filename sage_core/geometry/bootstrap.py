"""Intervals of spreads and means: prompts are drawn anew (bootstrap), from distances that are already there."""

from __future__ import annotations

import torch
from torch import Tensor

from .estimates import Estimate
from .measures import tiles


def draws(count: int, resamples: int, seed: int) -> Tensor:
    """How often each prompt is drawn in each bootstrap resample: (resamples, N), rows summing to N, fp32."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(count, (resamples, count), generator=generator)
    return torch.zeros(drawn.shape).scatter_add_(1, drawn, torch.ones(1).expand(drawn.shape))


def mean_interval(values: Tensor, weights: Tensor) -> Estimate:
    """The mean of `values`, (N,), and its interval."""
    return interval(values.mean().item(), (weights @ values.float()) / len(values))


def spread_forms(distance: Tensor, weights: Tensor) -> Tensor:
    """The form w' D w of each row w of `weights`: (resamples,) in float64.

    Unit rows at the distances D, drawn w times, have the variance w' D w / (N (N - 1)).
    """
    forms = torch.zeros(len(weights), dtype=torch.float64, device=weights.device)
    for rows, columns, times in tiles(len(distance)):
        forms += times * ((weights[:, columns] @ distance[columns, rows]) * weights[:, rows]).sum(1)
    return forms


def interval(value: float, resampled: Tensor) -> Estimate:
    """A figure with the middle 95 % of its resampled values."""
    low, high = resampled.double().quantile(torch.tensor([0.025, 0.975], dtype=torch.float64, device=resampled.device))
    return Estimate(value, low.item(), high.item())
