"""What comparing two embedding spaces found: values, verdict, tables, JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from ..tables import markdown_table, table_cell
from . import DEFAULT_NEIGHBOURS
from .estimates import Estimate
from .measures import Spectrum

if TYPE_CHECKING:
    from ..intervals import Difference
    from .categories import Categories

Level = Literal["healthy", "strained", "damaged"]

# Prompts that the JSON and the tables describe one by one.
_LISTED = 20
_FEW_PROMPTS = 100
_INTERVALS = (
    "Intervals: for Jaccard overlap and local correlation prompts are left out and neighbours found anew, as they are "
    "shared (half of the prompts at a time, or each in turn); for the other figures prompts are drawn anew (bootstrap)."
)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The k nearest other prompts of each, nearest first: indices (N, k) and their cosines (N, k)."""

    indices: Tensor
    cosines: Tensor


@dataclass(frozen=True, eq=False)
class Space:
    """The space in which one encoder embeds the prompts.

    Attributes:
        spread: total variance of the L2-normalised prompts.
        spectrum: how that variance is shared among principal components.
        separation: Fisher's ratio of safe and unsafe prompts; None without unsafe ones.
        plane: places (N, 2) of the safe, then the unsafe prompts in the BASE space's principal plane.
        sample_similarity: cosines among the report's sample of prompts.
    """

    spread: float
    spectrum: Spectrum
    separation: float | None
    plane: Tensor
    sample_similarity: Tensor


@dataclass(frozen=True)
class Verdict:
    """What spread ratio and Jaccard overlap mean together, and why."""

    level: Level
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Thresholds:
    """Where a verdict changes: inside the healthy range, between it and the damaged one, or beyond.

    They are rules of thumb for k = 10 from alignments of a small text encoder on simple captions, whose accuracy was
    known. Those with healthy figures had lost less than half a point of TIFA, strained ones up to 6, damaged ones 11 or
    more. So they are a first look and not a substitute for TIFA. The more alike or the more numerous the prompts, the
    lower is the overlap of the same two encoders.
    """

    healthy_spread: tuple[float, float] = (0.9, 1.1)
    damaged_spread: tuple[float, float] = (0.75, 1.33)
    healthy_jaccard: float = 0.9
    damaged_jaccard: float = 0.75

    def judge(self, spread_ratio: float, jaccard: float) -> Verdict:
        """The worse of the two figures' verdicts."""
        found: list[tuple[Level, str]] = [self._judge_spread(spread_ratio), self._judge_jaccard(jaccard)]
        order: tuple[Level, ...] = ("healthy", "strained", "damaged")
        return Verdict(max((level for level, _ in found), key=order.index), tuple(reason for _, reason in found))

    def _judge_spread(self, ratio: float) -> tuple[Level, str]:
        low, high = self.healthy_spread
        lowest, highest = self.damaged_spread
        if low <= ratio <= high:
            return "healthy", f"spread ratio {ratio:.2f}: as wide as before ({low} to {high})"
        way = "prompts moved together" if ratio < low else "prompts moved apart"
        level: Level = "strained" if lowest <= ratio <= highest else "damaged"
        return (
            level,
            f"spread ratio {ratio:.2f}: {way} (healthy {low} to {high}, damaged outside {lowest} to {highest})",
        )

    def _judge_jaccard(self, overlap: float) -> tuple[Level, str]:
        least, damaged = self.healthy_jaccard, self.damaged_jaccard
        if overlap >= least:
            return "healthy", f"Jaccard overlap {overlap:.2f}: prompts keep their neighbours (at least {least})"
        level: Level = "strained" if overlap >= damaged else "damaged"
        bounds = f"healthy from {least}, damaged below {damaged}"
        return level, f"Jaccard overlap {overlap:.2f}: prompts have other neighbours ({bounds})"


@dataclass(frozen=True, eq=False)
class GeometryReport:
    """How the embedding space of some prompts changed from a base encoder to an aligned one.

    Attributes:
        embedding: "flattened", "eos" or "mean".
        k: neighbours in every measure that has no k of its own.
        prompts: the N safe prompts that everything is measured on.
        unsafe: prompts that serve only for the separation and the map.
        base_hash, aligned_hash: hashes of the encoders' weights, "" if unknown.
        base, aligned: the two spaces.
        spread_ratio: spread of the aligned space over that of the base.
        jaccard: mean overlap of each prompt's neighbours before and after, by number of neighbours.
        local_correlation: Pearson's correlation of the cosines to the k nearest base neighbours.
        rank_correlation: Spearman's correlation of the cosines of all pairs.
        mean_displacement: mean of `displacement`.
        displacement: (N,) cosine distance of each prompt's aligned embedding to its base embedding.
        overlap: (N,) Jaccard overlap of each prompt's k neighbours.
        neighbours_base, neighbours_aligned: the k nearest prompts of each prompt in the two spaces.
        sample: prompts shown in the heat maps, ordered along the base's first component.
        categories: spread and neighbours within groups of the prompts; None if none were named.
        precision: what the encoders computed in, "" if unknown.
    """

    embedding: str
    k: int
    prompts: tuple[str, ...]
    unsafe: tuple[str, ...]
    base_hash: str
    aligned_hash: str
    base: Space
    aligned: Space
    spread_ratio: Estimate
    jaccard: dict[int, Estimate]
    local_correlation: Estimate
    rank_correlation: float
    mean_displacement: Estimate
    displacement: Tensor
    overlap: Tensor
    neighbours_base: Neighbours
    neighbours_aligned: Neighbours
    sample: tuple[int, ...]
    categories: Categories | None = None
    precision: str = ""

    def with_losses(self, losses: Mapping[str, Difference]) -> GeometryReport:
        """This report with the change of TIFA by type of question; without groups of prompts it stays as it is."""
        return replace(self, categories=self.categories.with_losses(losses)) if self.categories else self

    @cached_property
    def verdict(self) -> Verdict:
        """By the default thresholds, from the spread ratio and the Jaccard overlap at k."""
        return Thresholds().judge(self.spread_ratio.value, self.jaccard[self.k].value)

    @cached_property
    def crowding(self) -> Tensor:
        """(N,) mean distance to the k nearest prompts over that in the base: below 1 where prompts moved together."""
        before, after = (1 - side.cosines.double().mean(1) for side in (self.neighbours_base, self.neighbours_aligned))
        return after / before.clamp(min=1e-6)

    @cached_property
    def drift(self) -> Tensor:
        """(N,) displacement over the mean distance to the k nearest prompts in the base.

        At 1 a prompt moved as far as those are away, whatever the scale of the embedding.
        """
        return self.displacement / (1 - self.neighbours_base.cosines.double().mean(1)).clamp(min=1e-6)

    @cached_property
    def collapsed(self) -> Tensor:
        """(N,) bool: prompts whose neighbours are now at less than half their former distance."""
        return self.crowding < 0.5

    @cached_property
    def most_hurt(self) -> tuple[int, ...]:
        """All prompts: those that lost most neighbours first, and of equals those that moved furthest."""
        harm = list(zip(self.overlap.tolist(), (-self.displacement).tolist(), strict=True))
        return tuple(sorted(range(len(harm)), key=harm.__getitem__))

    @cached_property
    def prompts_hash(self) -> str:
        """SHA-256 (hex) of the safe and the unsafe prompts in their order."""
        return hashlib.sha256(json.dumps([self.prompts, self.unsafe]).encode()).hexdigest()

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before trusting the figures."""
        notes = []
        if len(self.prompts) < _FEW_PROMPTS:
            notes.append(f"Only {len(self.prompts)} prompts: use {_FEW_PROMPTS} or more before you trust the verdict.")
        repeated = len(self.prompts) - len(set(self.prompts))
        if repeated:
            notes.append(f"{repeated} prompts repeat others word for word; equal prompts are always neighbours.")
        if self.k != DEFAULT_NEIGHBOURS:
            notes.append(
                f"The verdict's thresholds were found at k = {DEFAULT_NEIGHBOURS}; a larger k gives a larger overlap."
            )
        return tuple(notes)

    def to_dict(self) -> dict[str, Any]:
        """Everything except the pictures' data, fit for JSON; nan, the value of a missing measure, becomes None.

        `most_hurt` describes some prompts at length; the lists in `each_prompt` have an entry for every prompt.
        """
        return finite(
            {
                **self.about(),
                "verdict": asdict(self.verdict),
                "thresholds": asdict(Thresholds()),
                "notes": self.notes,
                "spread_ratio": asdict(self.spread_ratio),
                "jaccard": {str(k): asdict(interval) for k, interval in self.jaccard.items()},
                "local_correlation": asdict(self.local_correlation),
                "rank_correlation": self.rank_correlation,
                "mean_displacement": asdict(self.mean_displacement),
                "collapsed_prompts": int(self.collapsed.sum()),
                "base": _space_dict(self.base),
                "aligned": _space_dict(self.aligned),
                "by_type": self.categories.to_dict() if self.categories else None,
                "most_hurt": [self.prompt_row(row) for row in self.most_hurt[:_LISTED]],
                "each_prompt": {
                    "prompt": self.prompts,
                    "jaccard": _short(self.overlap),
                    "displacement": _short(self.displacement),
                },
            }
        )

    def about(self) -> dict[str, Any]:
        """What was compared and how, fit for JSON."""
        return {
            "embedding": self.embedding,
            "k": self.k,
            "prompts": len(self.prompts),
            "unsafe_prompts": len(self.unsafe),
            "prompts_sha256": self.prompts_hash,
            "base_sha256": self.base_hash,
            "aligned_sha256": self.aligned_hash,
            "precision": self.precision,
        }

    def prompt_row(self, row: int) -> dict[str, Any]:
        """What alignment did to one prompt, with the neighbours it lost and gained, nearest first."""
        before, after = (side.indices[row].tolist() for side in (self.neighbours_base, self.neighbours_aligned))
        return {
            "prompt": self.prompts[row],
            "jaccard": self.overlap[row].item(),
            "displacement": self.displacement[row].item(),
            "drift": self.drift[row].item(),
            "crowding": self.crowding[row].item(),
            "lost": [self.prompts[other] for other in before if other not in after],
            "gained": [self.prompts[other] for other in after if other not in before],
        }

    def neighbours_of(self, row: int) -> dict[str, list[tuple[str, float]]]:
        """The k nearest prompts of one and their cosines, nearest first, in the base and in the aligned space."""
        sides = {"base": self.neighbours_base, "aligned": self.neighbours_aligned}
        return {
            name: [
                (self.prompts[other], cosine)
                for other, cosine in zip(side.indices[row].tolist(), side.cosines[row].tolist(), strict=True)
            ]
            for name, side in sides.items()
        }

    def neighbours_markdown(self, row: int) -> str:
        """One prompt and its neighbours in base and aligned, as Markdown: − lost, + gained."""
        found, change = self.neighbours_of(row), self.prompt_row(row)
        rows = [
            (
                f"{'− ' * (old in change['lost'])}{old}",
                f"{before:.3f}",
                f"{'+ ' * (new in change['gained'])}{new}",
                f"{after:.3f}",
            )
            for (old, before), (new, after) in zip(found["base"], found["aligned"], strict=True)
        ]
        title = f"**{table_cell(self.prompts[row])}**: Jaccard {change['jaccard']:.2f}, drift {change['drift']:.2f}"
        return f"{title}\n\n{markdown_table(('base', 'cosine', 'aligned', 'cosine'), rows)}\n"

    def to_markdown(self) -> str:
        """Verdict, figures and the most hurt prompts as Markdown."""
        hurt = [
            (self.prompts[row], f"{self.overlap[row]:.2f}", f"{self.displacement[row]:.3f}")
            for row in self.most_hurt[:_LISTED]
        ]
        parts = [
            f"**{self.verdict.level.capitalize()}**",
            "\n".join(f"- {text}" for text in (*self.verdict.reasons, *self.notes)),
            markdown_table(("measure", "value [95 % interval, where there is one]"), self.figures()),
            _INTERVALS,
            *([self.categories.to_markdown()] if self.categories else []),
            markdown_table(("most hurt prompts", "Jaccard", "displacement"), hurt),
            self.provenance(),
        ]
        return "\n\n".join(parts) + "\n"

    def provenance(self) -> str:
        """One line that says what the figures belong to; of hashes (SHA-256) it has the first digits."""
        unsafe = f" and {len(self.unsafe):,} unsafe ones" if self.unsafe else ""
        line = f"{self.embedding} embedding, {len(self.prompts):,} prompts{unsafe} ({self.prompts_hash[:10]})"
        return line + (f", base {self.base_hash[:10]}, aligned {self.aligned_hash[:10]}" if self.base_hash else "")

    def figures(self) -> list[tuple[str, str]]:
        """Name and formatted value of each figure, for tables, with an interval where one is known.

        There is none for the effective rank, which repeated prompts in a resample would lower, or for the ranks of all
        pairs, which would change in each.
        """
        base, aligned = self.base, self.aligned
        rows = [("spread ratio", str(self.spread_ratio))]
        rows += [(f"Jaccard overlap at {k}", str(interval)) for k, interval in self.jaccard.items()]
        rows += [
            (f"local correlation at {self.k}", str(self.local_correlation)),
            ("rank correlation of all similarities", f"{self.rank_correlation:.3f}"),
            ("mean displacement", str(self.mean_displacement)),
            ("effective rank", f"{base.spectrum.effective_rank:.1f} → {aligned.spectrum.effective_rank:.1f}"),
            ("variance in the first component", f"{base.spectrum.shares[0]:.1%} → {aligned.spectrum.shares[0]:.1%}"),
            ("collapsed prompts", f"{int(self.collapsed.sum()):,} of {len(self.prompts):,}"),
        ]
        if base.separation is not None and aligned.separation is not None:
            rows.append(("separation of safe and unsafe", f"{base.separation:.2f} → {aligned.separation:.2f}"))
        return rows


def _short(values: Tensor) -> list[float]:
    """Each value with six digits: further ones would be rounding errors and make thousands of values long."""
    return [float(f"{value:.6g}") for value in values.tolist()]


def _space_dict(space: Space) -> dict[str, Any]:
    return {
        "spread": space.spread,
        "effective_rank": space.spectrum.effective_rank,
        "variance_shares": list(space.spectrum.shares),
        "separation": space.separation,
    }


def finite(value: Any) -> Any:
    """A value for JSON, which has no NaN and no infinity: None stands for them, at any depth."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
