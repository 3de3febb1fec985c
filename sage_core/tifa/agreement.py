"""How well a metric agrees with people: its correlation with their ratings of the same images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import QuestionError
from ..rows import parse_json, read_text, shown
from ..tables import markdown_table

# Beyond any rating or score; their squares are still numbers.
_LARGEST = 1e100
# Keys of TIFA's annotation file and their names in its tables.
METRICS = {
    "clipscore_vitb32": "CLIPScore B/32",
    "tifa_vilt": "TIFA ViLT",
    "tifa_ofa-large": "TIFA OFA-large",
    "tifa_git-large": "TIFA GIT-large",
    "tifa_blip2-flant5xl": "TIFA BLIP-2",
    "tifa_mplug-large": "TIFA mPLUG-large",
}


@dataclass(frozen=True)
class Agreement:
    """Correlation of a metric with human ratings over `images` images."""

    metric: str
    images: int
    pearson: float
    spearman: float
    kendall: float

    def to_dict(self) -> dict[str, Any]:
        """All fields, fit for JSON."""
        return dict(vars(self))


def agreement(metric: str, scores: Sequence[float], ratings: Sequence[float]) -> Agreement:
    """Pearson's r, Spearman's rho and Kendall's tau-b of a metric's scores with people's ratings.

    Raises:
        QuestionError: the numbers of scores and ratings differ or are below two, or either are all the same, so that
            their correlation is not defined.
    """
    from scipy import stats

    if len(scores) != len(ratings) or len(scores) < 2:
        raise QuestionError(
            f"{metric}: {len(scores)} scores and {len(ratings)} ratings, expected two or more, as many of each."
        )
    if len(set(scores)) == 1 or len(set(ratings)) == 1:
        raise QuestionError(f"{metric}: all scores, or all ratings, are the same; their correlation is not defined.")
    return Agreement(
        metric,
        len(scores),
        float(stats.pearsonr(scores, ratings).statistic),
        float(stats.spearmanr(scores, ratings).statistic),
        float(stats.kendalltau(scores, ratings).statistic),
    )


def official_agreement(path: str | os.PathLike[str]) -> tuple[Agreement, ...]:
    """Agreement of every metric in TIFA's annotation file (tifa_human_annotations_with_scores.json).

    Raises:
        QuestionError: the file is not such a file.
    """
    text, _ = read_text(Path(path), QuestionError)
    try:
        rows = list(parse_json(text).values())
        ratings = [_number(row["human_avg"]) for row in rows]
        return tuple(agreement(name, [_number(row[key]) for row in rows], ratings) for key, name in METRICS.items())
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise QuestionError(
            f"{path}: not TIFA's human annotations ({type(error).__name__}: {error}); expected a JSON object of images "
            f"with human_avg and {', '.join(METRICS)}."
        ) from error


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _LARGEST:
        raise ValueError(f"found {shown(value)}, expected a number")
    return float(value)


def to_markdown(agreements: Sequence[Agreement]) -> str:
    """A table with three digits after the point."""
    rows = [(a.metric, f"{a.pearson:.3f}", f"{a.spearman:.3f}", f"{a.kendall:.3f}", a.images) for a in agreements]
    return markdown_table(("metric", "Pearson", "Spearman", "Kendall", "images"), rows)
