"""Intervals of neighbour figures: prompts are left out, and the neighbourhoods are formed again.

A bootstrap over prompts treats each prompt's figure as a draw of its own. But prompts share their neighbours: what one
prompt lost its neighbours lost as well, and such intervals hold the truth too rarely. Here a prompt that is left out is
also missing in the neighbourhoods of others. On average the jackknife's variance is no smaller than the figure's (Efron
and Stein, 1981). For overlaps, which change by leaps, it is much larger; there halves of the prompts tell more. Nothing
is sorted again: a prompt that loses a neighbour gets the next nearest one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from .estimates import Estimate
from .measures import BLOCK

_HALVES = 60
# Prompts for each neighbour; with fewer, k neighbours are too many for half of the prompts.
_FEWEST = 8


def reach(k: int) -> int:
    """How many nearest others `overlap_estimate` asks for: nearly any half of the prompts holds k of these."""
    return 2 * k + math.ceil(6 * math.sqrt(2 * k))


def overlap_estimate(before: Tensor, after: Tensor, k: int, seed: int = 0) -> Estimate:
    """Mean Jaccard overlap of the k nearest neighbours and its 95 % interval.

    The interval comes from halves of the prompts (subsampling; Politis, Romano and Wolf, 1999) if these are large
    enough for neighbourhoods of k. Otherwise it comes from the jackknife, which is wider.

    Args:
        before: (N, `reach(k)` or more) nearest other rows of each row, nearest first; (N, N - 1) if there are no more.
        after: the same in the other space.
        k: neighbours that count.
        seed: for drawing the halves.
    """
    before, after = before[:, : reach(k)].cpu(), after[:, : reach(k)].cpu()
    if before.shape[1] == k:
        # All others are neighbours, before and after.
        return Estimate(1.0, 1.0, 1.0)
    value, left_out = _overlaps_without_each(before[:, : k + 1], after[:, : k + 1])
    if len(before) < _FEWEST * k:
        return _estimate(value, _jackknife(left_out), len(before) - 1, least=0)
    halves = _overlaps_of_halves(before, after, k, seed)
    # A half drawn without replacement varies as much as all prompts together would, if not more.
    return _estimate(value, halves.std().item(), len(halves) - 1, least=0)


def correlation_estimate(before: Tensor, after: Tensor, neighbours: Tensor, k: int) -> Estimate:
    """Pearson correlation of the distances to the k nearest base neighbours over all N * k pairs, with its interval.

    Args:
        before: (N, N) distances.
        after: (N, N) distances in the other space.
        neighbours: (N, k + 1 or more) nearest other rows of each row in the base; (N, k) if there are no others.
        k: neighbours that count.
    """
    neighbours = neighbours[:, : k + 1]
    x, y = (matrix.gather(1, neighbours).cpu().double() for matrix in (before, after))
    neighbours = neighbours.cpu()
    # Shifting by the mean leaves the correlation unchanged and keeps sums of squares from cancelling.
    x, y = x - x.mean(), y - y.mean()
    pairs = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], 2)
    used, spare = pairs[:, :k], pairs[:, k:]
    own = used.sum(1)
    total = own.sum(0)
    changes = (spare if spare.shape[1] else 0) - used
    gained = torch.zeros_like(own).index_add_(0, neighbours[:, :k].flatten(), changes.flatten(0, 1))
    left_out = _correlation(total - own + gained)
    return _estimate(_correlation(total).item(), _jackknife(left_out), len(left_out) - 1, least=-1)


def _overlaps_without_each(before: Tensor, after: Tensor) -> tuple[float, Tensor]:
    """The mean overlap, and for each prompt the mean overlap of all others without it, (N,)."""
    count, k = len(before), before.shape[1] - 1
    first, second = before[:, :k], after[:, :k]
    same = first[:, :, None] == second[:, None, :]
    kept, stayed = same.any(2), same.any(1)
    shared = kept.sum(1)
    next_first, next_second = before[:, k:], after[:, k:]
    # What a row still shares after losing a neighbour in its first, its second or both neighbourhoods.
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


def halves(count: int, seed: int) -> Iterator[Tensor]:
    """Halves of the prompts, each as (N,) bool."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(_HALVES):
        chosen = torch.zeros(count, dtype=torch.bool)
        chosen[torch.randperm(count, generator=generator)[: count // 2]] = True
        yield chosen


def _overlaps_of_halves(before: Tensor, after: Tensor, k: int, seed: int) -> Tensor:
    """The mean overlap within each half, float64."""
    place = torch.cat([_places(*rows) for rows in zip(before.split(BLOCK), after.split(BLOCK), strict=True)])
    found = []
    for chosen in halves(len(before), seed):
        first, second = (_among_nearest(chosen[lists[chosen]], k) for lists in (before, after))
        # The extra column is for what the other list does not hold.
        shared = (first & pad(second, (0, 1)).gather(1, place[chosen])).sum(1).double()
        whole = (first.sum(1) == k) & (second.sum(1) == k)
        found.append((shared / (2 * k - shared))[whole].mean())
    return torch.stack(found)


def _places(before: Tensor, after: Tensor) -> Tensor:
    """The place in `after` of each neighbour in `before`; one place beyond its end if it is not there."""
    same = before[:, :, None] == after[:, None, :]
    return torch.where(same.any(2), same.byte().argmax(2), after.shape[1])


def _among_nearest(chosen: Tensor, k: int) -> Tensor:
    """For each neighbour whether it is one of the k nearest among those chosen."""
    return chosen & (chosen.cumsum(1, dtype=torch.int16) <= k)


def _correlation(sums: Tensor) -> Tensor:
    """Pearson's correlation from sums (..., 6) of 1, x, y, x², y² and xy."""
    n, x, y, xx, yy, xy = sums.unbind(-1)
    return (xy / n - x * y / n**2) / ((xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2)).clamp(min=0).sqrt()


def _jackknife(left_out: Tensor) -> float:
    """Standard error of a figure from its values without each prompt."""
    return ((len(left_out) - 1) * left_out.var(correction=0).item()) ** 0.5


def _estimate(value: float, deviation: float, freedom: int, *, least: float) -> Estimate:
    """A 95 % interval by Student's t; it is symmetric in the logit of the figure's place between `least` and 1."""
    from scipy.stats import t

    place = (value - least) / (1 - least)
    if not math.isfinite(deviation):
        return Estimate(value, math.nan, math.nan)
    if deviation == 0 or not 0 < place < 1:
        return Estimate(value, value, value)
    centre = math.log(place / (1 - place))
    half = float(t.ppf(0.975, freedom)) * deviation / (1 - least) / (place * (1 - place))
    # Beyond 700 the exponential would overflow; there the bound is at the end of the scale.
    ends = (max(min(end, 700.0), -700.0) for end in (centre - half, centre + half))
    low, high = (least + (1 - least) / (1 + math.exp(-end)) for end in ends)
    return Estimate(value, low, high)
