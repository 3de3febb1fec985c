"""Spread and neighbours within groups of prompts, such as those of one TIFA element type, against the loss in TIFA.

The measurement by category is from Yousaf et al., "The Illusion of High Utility in Safety Alignment of Text-to-Image
Diffusion Models" (ECCV 2026), figure 4: the prompts that have a question of a type form a group, both figures are
measured within the group, and they are held against what the type loses in TIFA. Nothing is embedded again: all follows
from the distances of all prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import PromptError
from ..intervals import FEWEST_POINTS, Correlation, Difference, correlation
from ..tables import csv_text, markdown_table
from . import CATEGORY_NEIGHBOURS
from .bootstrap import draws, interval, spread_forms
from .estimates import Estimate
from .jackknife import overlap_estimate, reach
from .measures import nearest

Figure = Literal["spread_ratio", "jaccard"]
FIGURES: tuple[Figure, ...] = ("spread_ratio", "jaccard")

# Spread below which the distances within a group are rounding errors.
_ROUNDING = 1e-6
_COLUMNS = (
    *("type", "prompts", "spread_ratio", "spread_low", "spread_high", "k", "jaccard", "jaccard_low", "jaccard_high"),
    *("tifa_base", "tifa_aligned", "tifa_lost_points", "lost_low", "lost_high"),
)


@dataclass(frozen=True)
class Category:
    """A group of prompts: how many they are, and what became of their spread and of the neighbours within the group."""

    name: str
    prompts: int
    spread_ratio: Estimate
    jaccard: Estimate


@dataclass(frozen=True)
class Categories:
    """All groups of a comparison; a prompt can belong to several.

    Attributes:
        k: neighbours of each prompt within its group.
        measured: the groups that are large enough, in the order in which they were named.
        left_out: name -> number of prompts of each group that is too small for k neighbours.
        losses: name -> TIFA of a group's questions before and after alignment; empty unless runs were scored.
    """

    k: int
    measured: tuple[Category, ...]
    left_out: Mapping[str, int]
    losses: Mapping[str, Difference] = field(default_factory=dict)

    def with_losses(self, losses: Mapping[str, Difference]) -> Categories:
        """These groups with the change of TIFA by type, such as `tifa.comparison.compare` finds."""
        return replace(self, losses=dict(losses))

    @property
    def scored(self) -> tuple[tuple[Category, Difference], ...]:
        """The groups with a known change of TIFA, and that change."""
        return tuple((each, self.losses[each.name]) for each in self.measured if each.name in self.losses)

    def correlation(self, figure: Figure) -> Correlation | None:
        """Pearson's correlation of a figure with the points of TIFA lost, over the scored groups.

        Its interval supposes independent groups. They share prompts, so that it is rather too narrow. None if fewer
        than FEWEST_POINTS groups are scored, or if either side is constant.
        """
        values = [getattr(each, figure).value for each, _ in self.scored]
        return correlation(values, [lost(change) for _, change in self.scored])

    def notes(self) -> list[str]:
        """Correlations in words, then what a reader must know, a sentence each."""
        names = {"spread_ratio": "Spread ratio", "jaccard": f"Jaccard overlap at {self.k}"}
        found = {names[figure]: self.correlation(figure) for figure in FIGURES}
        return [*(f"{name} against TIFA lost: {r} types." for name, r in found.items() if r), *self.caveats()]

    def caveats(self) -> list[str]:
        """What a reader must know of the correlations, and what was left out and why, a sentence each."""
        lines = []
        if self.losses:
            if any(self.correlation(figure) for figure in FIGURES):
                lines.append("The intervals of r suppose independent types; types share prompts.")
            elif len(self.scored) < FEWEST_POINTS:
                lines.append(
                    f"No correlation: {len(self.scored)} types have all figures, and it takes {FEWEST_POINTS}."
                )
            else:
                lines.append("No correlation: a figure is the same in all types.")
        if self.left_out:
            small = ", ".join(f"{name} ({count})" for name, count in self.left_out.items())
            lines.append(f"Left out, for fewer than {fewest(self.k)} prompts leave no choice of {self.k}: {small}.")
        return lines

    def to_markdown(self) -> str:
        """A table of the groups, with TIFA lost where it is known, and the notes."""
        header = ["type", "prompts", "spread ratio", f"Jaccard at {self.k}"]
        header += ["TIFA lost, points [95 %]"] if self.losses else []
        rows = [
            [each.name, f"{each.prompts:,}", str(each.spread_ratio), str(each.jaccard)]
            + ([_lost_text(self.losses.get(each.name))] if self.losses else [])
            for each in self.measured
        ]
        title = "**By type of question**: the figures among the prompts that have a question of the type."
        return "\n\n".join([title, markdown_table(header, rows), *self.notes()])

    def to_dict(self) -> dict[str, Any]:
        """All figures, fit for JSON; TIFA from 0 to 1, `tifa_lost_points` in points."""
        found = {figure: self.correlation(figure) for figure in FIGURES}
        return {
            "k": self.k,
            "types": {
                each.name: {
                    "prompts": each.prompts,
                    "spread_ratio": asdict(each.spread_ratio),
                    "jaccard": asdict(each.jaccard),
                    **self._loss_dict(each.name),
                }
                for each in self.measured
            },
            "left_out": dict(self.left_out),
            "correlation_with_tifa_lost": {figure: each.to_dict() if each else None for figure, each in found.items()},
        }

    def _loss_dict(self, name: str) -> dict[str, Any]:
        change = self.losses.get(name)
        return {"tifa": change.to_dict(), "tifa_lost_points": lost(change)} if change else {}

    def to_csv(self) -> str:
        """The groups as a table, one on each line; TIFA in per cent and points, empty where it is not known."""
        rows = []
        for each in self.measured:
            spread, jaccard, change = each.spread_ratio, each.jaccard, self.losses.get(each.name)
            scores = [100 * change.base, 100 * change.other, lost(change), *lost_interval(change)] if change else []
            values = [spread.value, spread.low, spread.high, self.k, jaccard.value, jaccard.low, jaccard.high, *scores]
            cells = [f"{value:.6g}" if math.isfinite(value) else "" for value in values]
            rows.append([each.name, each.prompts, *cells, *[""] * (len(_COLUMNS) - 2 - len(cells))])
        return csv_text(_COLUMNS, rows)


def lost(change: Difference) -> float:
    """Points of TIFA lost: 100 times base minus aligned."""
    return 100 * (change.base - change.other)


def lost_interval(change: Difference) -> tuple[float, float]:
    """The 95 % interval of the points lost; nan where fewer than two captions tell of them."""
    if change.interval is None:
        return math.nan, math.nan
    # Subtracted from 0, which turns no 0 into -0.
    return 0 - 100 * change.interval.high, 0 - 100 * change.interval.low


def _lost_text(change: Difference | None) -> str:
    if change is None:
        return "–"
    if change.interval is None:
        return f"{lost(change):.1f}"
    low, high = lost_interval(change)
    return f"{lost(change):.1f} [{low:.1f}, {high:.1f}]"


def fewest(k: int) -> int:
    """Prompts that a group needs: in a smaller one k neighbours are half of the others or more, and overlap anyhow."""
    return 2 * k + 2


@torch.no_grad()
def measure_categories(
    before: Tensor,
    after: Tensor,
    groups: Mapping[str, Sequence[int]],
    *,
    k: int = CATEGORY_NEIGHBOURS,
    resamples: int = 1000,
    seed: int = 0,
    stay: Callable[[], None] = lambda: None,
) -> Categories:
    """Spread ratio and neighbour overlap within each group of prompts.

    Args:
        before: (N, N) cosine distances of all prompts in the base.
        after: the same in the aligned space.
        groups: name -> places of its prompts among the N; one that is given twice counts once.
        k: neighbours of each prompt within its group.
        resamples: bootstrap resamples for the intervals of spread ratios.
        seed: for all drawing.
        stay: called before each group; may raise to stop.

    Raises:
        PromptError: a place is outside of the N prompts, or the prompts of a group embed alike in the base.
    """
    places = {name: sorted(set(group)) for name, group in groups.items()}
    for name, group in places.items():
        if group and not 0 <= group[0] <= group[-1] < len(before):
            raise PromptError(f"Group {name!r} names the prompts {group[0]} to {group[-1]}; there are {len(before)}.")
    measured, left_out = [], {}
    for name, group in places.items():
        stay()
        if len(group) < fewest(k):
            left_out[name] = len(group)
        else:
            measured.append(
                _measure(name, before, after, torch.tensor(group, device=before.device), k, resamples, seed)
            )
    return Categories(k, tuple(measured), left_out)


def _measure(name: str, before: Tensor, after: Tensor, group: Tensor, k: int, resamples: int, seed: int) -> Category:
    count = len(group)
    weights = draws(count, resamples, seed).to(before.device)
    totals, forms, neighbours = [], [], []
    for matrix in (before, after):
        # One space after the other: the matrix of a large group is a copy.
        distance = matrix[group[:, None], group]
        totals.append(distance.sum(1).double().sum().item())
        forms.append(spread_forms(distance, weights))
        neighbours.append(nearest(distance, min(reach(k), count - 1)))
    if totals[0] / (count * (count - 1)) < _ROUNDING:
        raise PromptError(
            f"The base embeddings of all {count} prompts of {name!r} are equal. Give prompts that differ."
        )
    ratio = interval(totals[1] / totals[0], forms[1] / forms[0])
    return Category(name, count, ratio, overlap_estimate(neighbours[0], neighbours[1], k, seed))
