"""Intervals of neighbour figures: each prompt is left out in turn and the neighbourhoods are formed anew.

A bootstrap over prompts takes each prompt's figure for a draw of its own. But prompts share their neighbours, so that
what one prompt has lost its neighbours have lost as well, and such intervals hold the truth too rarely. Here a prompt
that is left out is missing in the neighbourhoods of others, too. The jackknife's variance is, on the average, no
smaller than the figure's (Efron and Stein, 1981); that of overlaps, which change by leaps, is larger. Nothing is sorted
again: whoever loses a neighbour gets the one behind the last.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .report import Estimate


def overlap_estimate(before: Tensor, after: Tensor, k: int) -> Estimate:
    """Mean Jaccard overlap of the k nearest and its 95 % interval.

    Args:
        before: (N, k + 1 or more) nearest other rows of each row, nearest first; (N, k) if there are no others.
        after: the same in the other space.
        k: neighbours that count.
    """
    before, after = before[:, : k + 1].cpu(), after[:, : k + 1].cpu()
    if before.shape[1] == k:
        # All others are neighbours, before and after.
        return Estimate(1.0, 1.0, 1.0)
    value, left_out = _overlaps_without_each(before, after)
    return _estimate(value, left_out, least=0)


def correlation_estimate(before: Tensor, after: Tensor, neighbours: Tensor, k: int) -> Estimate:
    """Pearson correlation of the distances to the k nearest base neighbours, all N * k pairs one sample, and interval.

    Args:
        before: (N, N) distances.
        after: (N, N) distances in the other space.
        neighbours: (N, k + 1 or more) nearest other rows of each row in the base; (N, k) if there are no others.
        k: neighbours that count.
    """
    neighbours = neighbours[:, : k + 1]
    x, y = (matrix.gather(1, neighbours).cpu().double() for matrix in (before, after))
    neighbours = neighbours.cpu()
    # The correlation does not depend on it, and sums of squares do not cancel.
    x, y = x - x.mean(), y - y.mean()
    pairs = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], 2)
    used, spare = pairs[:, :k], pairs[:, k:]
    own = used.sum(1)
    total = own.sum(0)
    changes = (spare if spare.shape[1] else 0) - used
    gained = torch.zeros_like(own).index_add_(0, neighbours[:, :k].flatten(), changes.flatten(0, 1))
    return _estimate(_correlation(total).item(), _correlation(total - own + gained), least=-1)


def _overlaps_without_each(before: Tensor, after: Tensor) -> tuple[float, Tensor]:
    """The mean overlap, and that of all others without each prompt, (N,)."""
    count, k = len(before), before.shape[1] - 1
    first, second = before[:, :k], after[:, :k]
    same = first[:, :, None] == second[:, None, :]
    kept, stayed = same.any(2), same.any(1)
    shared = kept.sum(1)
    next_first, next_second = before[:, k:], after[:, k:]
    # What a row shares once one of its first, of its second or of both neighbourhoods is gone.
    enters_second, enters_first = (next_first == second).sum(1), (next_second == first).sum(1)
    of_both = shared - 1 + enters_second + enters_first + (next_first == next_second).squeeze(1)
    overlap, without_first, without_second, without_both = (
        (number.double() / (2 * k - number))
        for number in (shared, shared + enters_second, shared + enters_first, of_both)
    )
    lost = torch.where(kept, without_both[:, None], without_first[:, None]) - overlap[:, None]
    gone = torch.where(stayed, overlap[:, None], without_second[:, None]) - overlap[:, None]
    changes = torch.zeros(count, dtype=torch.float64)
    changes.index_add_(0, first.flatten(), lost.flatten()).index_add_(0, second.flatten(), gone.flatten())
    return overlap.mean().item(), (overlap.sum() - overlap + changes) / (count - 1)


def _correlation(sums: Tensor) -> Tensor:
    """Pearson's, of sums (..., 6) of 1, x, y, x², y² and xy."""
    n, x, y, xx, yy, xy = sums.unbind(-1)
    return (xy / n - x * y / n**2) / ((xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2)).clamp(min=0).sqrt()


def _estimate(value: float, left_out: Tensor, *, least: float) -> Estimate:
    """The jackknife's 95 % interval, symmetric in the logit of the figure's place between `least` and 1."""
    from scipy.stats import t

    count = len(left_out)
    deviation = ((count - 1) * left_out.var(correction=0).item()) ** 0.5
    place = (value - least) / (1 - least)
    if not math.isfinite(deviation):
        return Estimate(value, math.nan, math.nan)
    if deviation == 0 or not 0 < place < 1:
        return Estimate(value, value, value)
    centre = math.log(place / (1 - place))
    half = float(t.ppf(0.975, count - 1)) * deviation / (1 - least) / (place * (1 - place))
    # Beyond 700 the exponential overflows, and the bound is at the end of the scale.
    ends = (max(min(end, 700.0), -700.0) for end in (centre - half, centre + half))
    low, high = (least + (1 - least) / (1 + math.exp(-end)) for end in ends)
    return Estimate(value, low, high)
