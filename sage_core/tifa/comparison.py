"""Two runs over the same questions: what one loses against the other, and whether chance can explain it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import QuestionError
from ..intervals import Difference, Interval, paired_change, permutation_p_value
from ..tables import markdown_table
from .scoring import ScoredQuestion, TifaResult


@dataclass(frozen=True)
class Comparison:
    """Run `other` against run `base`, question by question.

    `p_value` comes from the two-sided paired sign-flip permutation test of the mean difference over captions. `lost`
    holds the other run's questions that only the base answers right, `gained` those that only the other answers right.
    """

    base: str
    other: str
    captions: int
    tifa: Difference
    p_value: float
    by_type: Mapping[str, Difference]
    lost: tuple[ScoredQuestion, ...]
    gained: tuple[ScoredQuestion, ...]

    def to_dict(self) -> dict[str, Any]:
        """All numbers, and every lost and gained question, fit for JSON."""
        return {
            "base": self.base,
            "other": self.other,
            "captions": self.captions,
            "p_value": self.p_value,
            "tifa": self.tifa.to_dict(),
            "by_type": {name: difference.to_dict() for name, difference in self.by_type.items()},
            "lost": [scored.to_dict() for scored in self.lost],
            "gained": [scored.to_dict() for scored in self.gained],
        }

    def to_markdown(self) -> str:
        """A table of both runs and their difference in per cent."""
        differences = {"TIFA (mean over captions)": self.tifa, **self.by_type}
        rows = [
            (
                name,
                *(f"{100 * value:.1f}" for value in (d.base, d.other)),
                f"{100 * d.change:+.1f}",
                f"{100 * d.interval.low:+.1f} to {100 * d.interval.high:+.1f}" if d.interval else "–",
            )
            for name, d in differences.items()
        ]
        table = markdown_table(("%", self.base, self.other, "change", "95% interval"), rows)
        return (
            f"{table}\n\n{len(self.lost)} questions lost, {len(self.gained)} gained over {self.captions} captions; "
            f"paired permutation test of TIFA: p = {self.p_value:.2g}. Intervals: Newcombe's for paired shares, with "
            "captions as clusters of questions"
        )


def compare(base: TifaResult, other: TifaResult, *, resamples: int = 9999, seed: int = 0) -> Comparison:
    """Compare two runs over the same images' questions.

    Raises:
        QuestionError: they did not answer the same questions about the same image ids with the same judge and
            matching, so that a difference need not come from the images.
    """
    check_alike(base, other)
    ours, theirs = _answers(base), _answers(other)
    captions = list(base.caption_scores)
    differences = np.array([other.caption_scores[name] - base.caption_scores[name] for name in captions])
    gained, lost, counts = _answers_changed(base, other)
    asked = counts.sum(1, keepdims=True)
    up, down = (part.sum(1, keepdims=True) / asked for part in (gained, lost))
    (whole,) = _intervals(up, down, np.ones_like(asked))
    changed = [(ours[key], scored) for key, scored in theirs.items() if ours[key].score != scored.score]
    return Comparison(
        base.name,
        other.name,
        len(captions),
        Difference(base.average, other.average, whole),
        permutation_p_value(differences, resamples=resamples, seed=seed),
        {
            name: Difference(base.by_type[name], other.by_type[name], interval)
            for name, interval in zip(base.by_type, _intervals(gained, lost, counts), strict=True)
        },
        tuple(scored for before, scored in changed if before.score),
        tuple(scored for before, scored in changed if scored.score),
    )


def check_alike(base: TifaResult, other: TifaResult) -> None:
    """Raise QuestionError unless both runs can be compared; see `compare`."""
    for name in ("judge", "matching"):
        mine, its = getattr(base, name), getattr(other, name)
        if mine != its:
            raise QuestionError(f"{base.name!r} has {name} {mine!r} and {other.name!r} {its!r}. Score both alike.")
    ours, theirs = _answers(base), _answers(other)
    if ours.keys() != theirs.keys():
        first, second = len(ours.keys() - theirs.keys()), len(theirs.keys() - ours.keys())
        raise QuestionError(
            f"{base.name!r} and {other.name!r} share {len(ours.keys() & theirs.keys())} questions, but {first} are "
            f"only in the first and {second} only in the second. Score both on one question file."
        )
    changed = [scored.question for key, scored in ours.items() if theirs[key].question != scored.question]
    if changed:
        raise QuestionError(
            f"{base.name!r} and {other.name!r} have {len(changed)} questions with other choices, answers or types, for "
            f"instance {changed[0].question!r} about {changed[0].id}. Score both on one question file."
        )


def _answers(run: TifaResult) -> dict[tuple[str, str], ScoredQuestion]:
    """A run's answers by image and question."""
    return {(scored.image, scored.question.question): scored for scored in run.questions}


def _answers_changed(base: TifaResult, other: TifaResult) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Questions gained, lost and asked, each (captions, types), in the order of the base's captions and types."""
    captions = {name: row for row, name in enumerate(base.caption_scores)}
    columns = {name: column for column, name in enumerate(base.by_type)}
    gained, lost, counts = np.zeros((3, len(captions), len(columns)))
    theirs = _answers(other)
    for key, before in _answers(base).items():
        cell = captions[before.question.id], columns[before.question.element_type]
        change = theirs[key].score - before.score
        gained[cell] += max(change, 0)
        lost[cell] += max(-change, 0)
        counts[cell] += 1
    return gained, lost, counts


def _intervals(gained: np.ndarray, lost: np.ndarray, counts: np.ndarray) -> list[Interval | None]:
    bounds = zip(*paired_change(gained, lost, counts), strict=True)
    return [Interval(float(low), float(high)) if np.isfinite(low) else None for low, high in bounds]
