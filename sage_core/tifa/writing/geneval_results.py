"""GenEval's totals: from the results.jsonl of its detector, or from a judge's answers to questions of its metadata.

There are two that papers mix up: the mean over images, and the mean over the six tasks, which is GenEval's overall
score. They differ, since the tasks have different numbers of prompts.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import QuestionError
from ...intervals import Hits, Interval, clustered_proportion
from ...rows import Row, parse_json, read_rows, shown
from ...tables import markdown_table
from ..scoring import ScoredQuestion
from .geneval import TAGS, GenevalPrompt


@dataclass(frozen=True)
class ImageResult:
    """Whether one image shows what its prompt asks for; images of one prompt have the same `prompt_key`."""

    prompt_key: str
    tag: str
    correct: bool


@dataclass(frozen=True)
class Share:
    """A share of right images, and its 95% interval; None for what fewer than two prompts tell of."""

    value: float
    interval: Interval | None
    images: int
    prompts: int

    def to_dict(self) -> dict[str, Any]:
        """Share, interval and numbers, fit for JSON."""
        interval = [self.interval.low, self.interval.high] if self.interval else None
        return {"share": self.value, "interval_95": interval, "images": self.images, "prompts": self.prompts}


@dataclass(frozen=True)
class GenevalTotals:
    """All of GenEval's totals.

    Attributes:
        judge: who decided.
        tasks: share of right images by task, in the order of TAGS.
        over_tasks: the mean of the tasks' shares, GenEval's overall score.
        over_images: share of right images.
        prompts: prompts of which any image is right.
    """

    judge: str
    tasks: Mapping[str, Share]
    over_tasks: Share
    over_images: Share
    prompts: Hits

    def to_dict(self) -> dict[str, Any]:
        """Everything, fit for JSON."""
        return {
            "judge": self.judge,
            "overall (mean over tasks)": self.over_tasks.to_dict(),
            "images (mean over images)": self.over_images.to_dict(),
            "prompts with a right image": self.prompts.to_dict(),
            "tasks": {name: share.to_dict() for name, share in self.tasks.items()},
        }

    def to_markdown(self) -> str:
        """A table of both totals and the tasks."""
        missing = [tag for tag in TAGS if tag not in self.tasks]
        rows = [
            _cells(f"overall: mean over {len(self.tasks)} tasks", self.over_tasks),
            _cells("mean over images", self.over_images),
            _cells("prompts with a right image", _of_hits(self.prompts, self.over_images.images)),
            *(_cells(name, share) for name, share in self.tasks.items()),
        ]
        table = markdown_table((f"GenEval by {self.judge}", "%", "95%", "images", "prompts"), rows, "lrrrr")
        if not missing:
            return table
        return f"{table}\n\nWithout {', '.join(missing)}: the overall score compares with no other of six tasks."


def read_results(path: str | os.PathLike[str]) -> tuple[ImageResult, ...]:
    """The images of a results.jsonl, as GenEval's evaluation writes it.

    Raises:
        QuestionError: a line is malformed; the message names the file, the line and the field.
    """
    path = Path(path)
    found = tuple(_result(path, row) for row in read_rows(path, (), error=QuestionError, suffixes=(".jsonl",)).rows)
    if not found:
        raise QuestionError(f"{path} holds no result.")
    return found


def judged_images(prompts: Sequence[GenevalPrompt], scored: Sequence[ScoredQuestion]) -> tuple[ImageResult, ...]:
    """Images by a judge's answers to `questions_of` their prompts: one is right if all of its questions are.

    Raises:
        QuestionError: an answer is to a question of none of the prompts.
    """
    known = {prompt.folder: prompt for prompt in prompts}
    right: dict[tuple[str, str], bool] = {}
    for each in scored:
        if each.question.id not in known:
            raise QuestionError(f"An answer is about {each.question.id!r}, which is none of the prompts' folders.")
        key = each.question.id, each.image
        right[key] = right.get(key, True) and bool(each.score)
    return tuple(ImageResult(prompt, known[prompt].tag, correct) for (prompt, _), correct in right.items())


def totals(results: Sequence[ImageResult], judge: str = "its detector") -> GenevalTotals:
    """Both totals with 95% intervals, for prompts as clusters of images.

    The interval of the mean over tasks joins those of the tasks by squares, since tasks have no prompt in common.

    Raises:
        QuestionError: there are no results.
    """
    if not results:
        raise QuestionError("There are no GenEval results to add up.")
    tags = [tag for tag in TAGS if any(each.tag == tag for each in results)]
    tasks = {tag: _share([each for each in results if each.tag == tag]) for tag in tags}
    shares = list(tasks.values())
    mean = sum(share.value for share in shares) / len(shares)
    whole = _share(results)
    right: dict[str, bool] = {}
    for each in results:
        right[each.prompt_key] = right.get(each.prompt_key, False) or each.correct
    over_tasks = Share(mean, _joined(mean, shares), whole.images, whole.prompts)
    return GenevalTotals(judge, tasks, over_tasks, whole, Hits(sum(right.values()), len(right)))


def _share(results: Sequence[ImageResult]) -> Share:
    keys = {key: place for place, key in enumerate(dict.fromkeys(each.prompt_key for each in results))}
    right, count = np.zeros((len(keys), 1)), np.zeros((len(keys), 1))
    for each in results:
        right[keys[each.prompt_key]] += each.correct
        count[keys[each.prompt_key]] += 1
    low, high = (float(bound[0]) for bound in clustered_proportion(right, count))
    interval = None if math.isnan(low) else Interval(low, high)
    return Share(float(right.sum() / count.sum()), interval, len(results), len(keys))


def _joined(mean: float, shares: Sequence[Share]) -> Interval | None:
    intervals = [share.interval for share in shares if share.interval is not None]
    if len(intervals) < len(shares):
        return None
    pairs = list(zip(shares, intervals, strict=True))
    below = math.hypot(*(share.value - interval.low for share, interval in pairs)) / len(shares)
    above = math.hypot(*(interval.high - share.value for share, interval in pairs)) / len(shares)
    return Interval(max(mean - below, 0.0), min(mean + above, 1.0))


def _of_hits(hits: Hits, images: int) -> Share:
    return Share(hits.share, Interval(*hits.interval), images, hits.n)


def _cells(name: str, share: Share) -> tuple[str, ...]:
    interval = share.interval.percent if share.interval else "none"
    return name, f"{100 * share.value:.1f}", interval, f"{share.images:,}", f"{share.prompts:,}"


def _result(path: Path, row: Row) -> ImageResult:
    where = f"{path}, line {row.number}"
    if row.problem is not None:
        raise QuestionError(f"{where}: {row.problem}.")
    if not isinstance(row.value, Mapping):
        raise QuestionError(f"{where}: found {shown(row.value)}, expected an object with tag, correct and metadata.")
    tag, correct, metadata = (row.value.get(name) for name in ("tag", "correct", "metadata"))
    if tag not in TAGS:
        raise QuestionError(f"{where}: 'tag' is {shown(tag)}, expected one of {', '.join(TAGS)}.")
    if not isinstance(correct, bool):
        raise QuestionError(f"{where}: 'correct' is {shown(correct)}, expected true or false.")
    if not isinstance(metadata, str):
        raise QuestionError(f"{where}: 'metadata' is {shown(metadata)}, expected a text with a JSON object.")
    try:
        inner = parse_json(metadata)
    except ValueError as error:
        raise QuestionError(f"{where}: 'metadata' is {shown(metadata)}: {error}.") from error
    if not isinstance(inner, Mapping) or inner.get("tag") != tag:
        raise QuestionError(f"{where}: 'metadata' is {shown(metadata)}, expected that of a prompt of the task {tag}.")
    # Spelled alike, however the file spells it.
    return ImageResult(json.dumps(inner, sort_keys=True), tag, correct)
