"""How far alignment moved each of a user's prompts, as a table and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..encoders.tokens import MAX_PROMPT_TOKENS, count_tokens
from ..tables import markdown_table
from .report import GeometryReport

# Prompts that are listed in words; more would fill a screen.
_MOST_RANKED = 20


@dataclass(frozen=True)
class DriftReport:
    """Prompts by their drift; at 1 a prompt moved as far as its nearest prompts are away.

    Attributes:
        rows: `GeometryReport.prompt_row` of each prompt, the furthest moved first.
        among: how many other prompts each was measured among.
        threshold: the drift above which a prompt counts as moved too far; None sets no limit.
    """

    rows: tuple[Mapping[str, Any], ...]
    among: int
    threshold: float | None = None

    @classmethod
    def of(cls, report: GeometryReport, count: int, threshold: float | None = None) -> DriftReport:
        """The drift of the first `count` prompts of a report."""
        rows = sorted((report.prompt_row(row) for row in range(count)), key=lambda row: -row["drift"])
        return cls(tuple(rows), len(report.prompts) - 1, threshold)

    @property
    def beyond(self) -> int | None:
        """How many prompts moved further than the threshold; None without one."""
        if self.threshold is None:
            return None
        return sum(row["drift"] > self.threshold for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """All rows, the count beyond the threshold and the threshold, fit for JSON."""
        return {"above": self.threshold, "beyond": self.beyond, "drift": list(self.rows)}

    def to_markdown(self) -> str:
        """A table of all prompts, followed by how many moved too far."""
        cells = [(row["prompt"], f"{row['drift']:.2f}", f"{row['jaccard']:.2f}") for row in self.rows]
        lines = [markdown_table(("prompt", "drift", "Jaccard"), cells).rstrip("\n")]
        if self.threshold is not None:
            lines += ["", f"{self.beyond:,} of {len(self.rows):,} prompts drifted further than {self.threshold:g}."]
        return "\n".join(lines) + "\n"

    def summary(self) -> str:
        """A warning if prompts moved too far, then the most hurt ones with the neighbours they lost and gained."""
        lines = self._one() if len(self.rows) == 1 else self._ranking()
        if self.beyond:
            what = "this prompt" if len(self.rows) == 1 else f"{self.beyond} of {len(self.rows)} prompts"
            lines.insert(0, f"⚠ Alignment moved {what} beyond the threshold of {self.threshold:g}.")
        if long := sum(count > MAX_PROMPT_TOKENS for count in count_tokens([row["prompt"] for row in self.rows])):
            which = "The prompt is" if len(self.rows) == 1 else f"{long} prompts are"
            lines.append(f"{which} longer than {MAX_PROMPT_TOKENS} tokens: what comes after these was not measured.")
        return "\n".join(lines)

    def _one(self) -> list[str]:
        (row,) = self.rows
        return [
            f"Drift {row['drift']:.2f}, neighbour overlap {row['jaccard']:.2f} among {self.among} prompts.",
            f"Lost: {_listed(row['lost'])}",
            f"Gained: {_listed(row['gained'])}",
        ]

    def _ranking(self) -> list[str]:
        count, worst = len(self.rows), self.rows[0]
        lines = [f"Drift and neighbour overlap of {count} prompts, most hurt first, each among {self.among}:"]
        lines += [f"{row['drift']:.2f}  {row['jaccard']:.2f}  {row['prompt']}" for row in self.rows[:_MOST_RANKED]]
        lines += [f"… and {count - _MOST_RANKED} that moved less."] if count > _MOST_RANKED else []
        return [*lines, f"The first lost: {_listed(worst['lost'])}", f"The first gained: {_listed(worst['gained'])}"]


def _listed(prompts: list[str]) -> str:
    return "; ".join(prompts) or "none"
