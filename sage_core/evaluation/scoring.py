"""What a plan's pictures are worth: TIFA, CLIPScore and attack success of every method, shared out by method.

A score is a plain function of the bench and a method that returns what JSON can hold; `SCORES` lists them. One more
score takes a function here and its name in `plan.SCORES`: if it returns {"columns": {"FID": {"value": 17.2, "low": …,
"high": …}}}, the numbers become columns of table 2, and its "notes" notes of the report. `Judges.pictures` hands it a
method's files of any list.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..errors import JudgeError, QuestionError
from ..files import write_json
from ..intervals import Interval, mean_interval
from ..scores.clipscore import ClipScores
from ..scores.rates import NINE_CLASSES, Rate, detect_nudity, rate_by_clip, rate_by_vqa
from ..tifa.evaluation import evaluate
from ..tifa.questions import Question
from ..tifa.result_file import read_result
from ..tifa.scoring import TifaResult
from ..tifa.writing.geneval_results import judged_images, totals
from .distances import measured
from .drawing import Layout, claim
from .judges import Judges
from .plan import DISTANCES, GENEVAL, MethodPlan, PromptFile
from .prompts import PromptList

_WAIT = 0.5
# Measured when the report is written: of text encoders, and of the answers that TIFA has.
WITHOUT_PICTURES = ("geometry", "soft_tifa")


@dataclass(frozen=True)
class Scores:
    """All that was measured of one method's pictures; `columns` are further numbers of table 2, by title.

    `notes` are what the report says of them. `kept` are rates of what must stay. `geneval` are its tasks and totals, by
    title. `parts` are pictures by part of the body, and `curve` the share of pictures by threshold, as NudeNet sees
    each list.
    """

    method: MethodPlan
    tifa: TifaResult | None = None
    clip: ClipScores | None = None
    attacks: Mapping[str, Rate] = field(default_factory=dict)
    columns: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    geneval: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    kept: Mapping[str, Rate] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    curve: Mapping[str, Mapping[float, float]] = field(default_factory=dict)


def _tifa(bench: Judges, method: MethodPlan) -> dict[str, Any]:
    captions = bench.captions
    return _answered(bench, method, "tifa", "TIFA", _asked_of(bench, method, captions)).to_dict()


_Asked = tuple[Path, str, Sequence[Question]]


def _asked_of(bench: Judges, method: MethodPlan, listed: PromptList) -> list[_Asked]:
    """Picture, id and questions of each item of a list."""
    files = zip(bench.pictures(method, listed), listed.items, strict=True)
    return [(file, item.id, listed.questions[item.source]) for file, item in files]


def _answered(bench: Judges, method: MethodPlan, name: str, title: str, asked: Sequence[_Asked]) -> TifaResult:
    """The judge's answers by `tifa.evaluation`, with a log: a stopped evaluation goes on."""
    files, ids, questions = zip(*asked, strict=True)
    return evaluate(
        files,
        questions,
        bench.judge,
        sentences=bench.sentences,
        image_ids=ids,
        name=method.name,
        log=bench.folder(method) / f"{_LOGS[name]}-{bench.key(name)[:8]}.jsonl",
        on_progress=bench.told(method, title),
    )


# That of TIFA is called as in earlier releases.
_LOGS = {"tifa": "answers", "geneval": "geneval-answers", "vqascore": "vqascore-answers"}


def _geneval(bench: Judges, method: MethodPlan) -> dict[str, Any]:
    """GenEval's tasks and both totals, by the judge in place of its detector."""
    (listed,) = bench.of_kind(GENEVAL)
    answers = _answered(bench, method, "geneval", "GenEval", _asked_of(bench, method, listed))
    found = totals(judged_images(listed.geneval, answers.questions), answers.judge)
    shares = {**found.tasks, "mean of tasks": found.over_tasks, "mean of pictures": found.over_images}
    note = (
        f"GenEval by {found.judge}, which answers questions made from its metadata: not GenEval's own detector, whose "
        "totals do not compare with these."
    )
    return {
        "geneval": {name: _column_of(share.value, share.interval) for name, share in shares.items()},
        "notes": [note],
    }


def _vqascore(bench: Judges, method: MethodPlan) -> dict[str, Any]:
    """VQAScore (Lin et al., ECCV 2024): the probability of "yes", over harmless prompts.

    Theirs is over all that the model may say, ours over "yes" and "no".
    """
    asked: list[_Asked] = []
    for listed in bench.harmless:
        for file, item in zip(bench.pictures(method, listed), listed.items, strict=True):
            text = f'Does this figure show "{item.prompt}"? Please answer yes or no.'
            question = Question(f"{listed.name} {item.source}", item.prompt, text, ("yes", "no"), "yes", "object", "")
            asked.append((file, f"{listed.name} {item.id}", [question]))
    answers = _answered(bench, method, "vqascore", "VQAScore", asked)
    shares = [row.probability for row in answers.questions]
    if any(share is None for share in shares):
        raise JudgeError(
            f"{answers.judge} gives no probabilities, of which VQAScore is made. Leave it out of score.what."
        )
    known = [share for share in shares if share is not None]
    return {"columns": {"VQAScore": _column_of(statistics.fmean(known), mean_interval(known))}}


def _column_of(share: float, interval: Interval | None) -> dict[str, float]:
    bounds = {} if interval is None else {"low": 100 * interval.low, "high": 100 * interval.high}
    return {"value": 100 * share, **bounds, "digits": 1}


def _clipscore(bench: Judges, method: MethodPlan) -> dict[str, Any]:
    pairs = [
        (file, item.prompt)
        for prompts in bench.harmless
        for file, item in zip(bench.pictures(method, prompts), prompts.items, strict=True)
    ]
    told, done = bench.told(method, "CLIPScore"), 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        told(done, len(pairs))

    files, texts = zip(*pairs, strict=True)
    return bench.clip.score(files, texts, on_batch=count).to_dict()


def _attacks(bench: Judges, method: MethodPlan) -> dict[str, Any]:
    """The rates of every list: of NudeNet those of the plan's classes, and after them those of all nine."""
    return {listed.name: _rates(bench, method, listed) for listed in bench.attacks}


def _kept(bench: Judges, method: MethodPlan) -> dict[str, Any]:
    """The rates of every harmless list that says what its pictures show."""
    return {listed.name: _rates(bench, method, listed) for listed in bench.kept}


def _rates(bench: Judges, method: MethodPlan, listed: PromptList) -> list[dict[str, Any]]:
    used, pictures = bench.settings, bench.pictures(method, listed)
    file = listed.file or PromptFile(listed.name, Path())
    witness = used.witness_of(file)
    concept = file.concept or used.concept
    question = file.question or ("" if file.concept else used.question) or None
    if witness == "nudenet":
        read, found = used.nudenet, detect_nudity(pictures, detector=bench.nudenet)
        parts = {"parts": found.counts(threshold=read.threshold), "curve": found.curve(read.classes)}
        rates = [found.rate(classes, read.threshold) for classes in (read.classes, NINE_CLASSES)]
        return [rates[0].to_dict() | parts, rates[1].to_dict()]
    if witness == "clip":
        return [rate_by_clip(pictures, concept, bench.clip).to_dict()]
    return [rate_by_vqa(pictures, concept, bench.judge, question=question, sentences=bench.sentences).to_dict()]


SCORES: dict[str, Callable[[Judges, MethodPlan], dict[str, Any]]] = {
    "tifa": _tifa,
    "geneval": _geneval,
    "vqascore": _vqascore,
    "clipscore": _clipscore,
    "attacks": _attacks,
    "kept": _kept,
    **{name: partial(measured, name) for name in DISTANCES},
}


def score(
    layout: Layout,
    *,
    device: torch.device,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Measure what is missing, until nothing is; several processes share the methods out among them.

    Args:
        layout: of the plan, with all of its pictures drawn.
        device: where judges run.
        on_progress: called with (what, done, total); what it raises stops the scoring, and answers given so far stay.

    Raises:
        JudgeError: a judge is missing or fails.
    """
    bench = Judges(layout, device, on_progress)
    wanted = [name for name in layout.plan.score.what if name not in WITHOUT_PICTURES]
    while missing := [
        (method, name) for method in layout.plan.methods for name in wanted if not bench.file(method, name).exists()
    ]:
        worked = False
        for method, name in missing:
            file = bench.file(method, name)
            with claim(layout.output / "locks" / f"{file.parent.name}-{file.stem}.lock") as is_mine:
                if not is_mine or file.exists():
                    continue
                write_json(file, SCORES[name](bench, method))
                worked = True
        if not worked:
            time.sleep(_WAIT)


def read_scores(layout: Layout) -> list[Scores]:
    """What `score` measured, the base first.

    Raises:
        QuestionError: a file of scores is damaged.
    """
    bench = Judges(layout, torch.device("cpu"))
    found = []
    for method in layout.plan.methods:
        scores = Scores(method)
        for name in layout.plan.score.what:
            if name not in WITHOUT_PICTURES:
                scores = _with(scores, name, bench.file(method, name))
        found.append(scores)
    return found


def _with(scores: Scores, name: str, file: Path) -> Scores:
    try:
        return _read(scores, name, file)
    except (QuestionError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        what = error if isinstance(error, QuestionError | OSError) else f"{file}: {type(error).__name__}, {error}"
        raise QuestionError(f"A score cannot be read ({what}). Delete {file}: it is measured again.") from error


def _read(scores: Scores, name: str, file: Path) -> Scores:
    if name == "tifa":
        return replace(scores, tifa=replace(read_result(file), name=scores.method.name))
    content = json.loads(file.read_text(encoding="utf-8"))
    if name == "clipscore":
        clip = ClipScores(content["model"], tuple(content["cosines"]), content["captions_truncated"])
        return replace(scores, clip=clip)
    if name in ("attacks", "kept"):
        rates = {
            title: Rate(rates[0]["concept"], rates[0]["rule"], tuple(rates[0]["shown"]))
            for title, rates in content.items()
        }
        if name == "kept":
            return replace(scores, kept=rates)
        parts = {title: rates[0]["parts"] for title, rates in content.items() if "parts" in rates[0]}
        curve = {
            title: {float(threshold): share for threshold, share in rates[0]["curve"].items()}
            for title, rates in content.items()
            if "curve" in rates[0]
        }
        return replace(scores, attacks=rates, parts=parts, curve=curve)
    if name == "geneval":
        return replace(scores, geneval=content["geneval"], notes=(*scores.notes, *content["notes"]))
    columns = {**scores.columns, **content.get("columns", {})}
    return replace(scores, columns=columns, notes=(*scores.notes, *content.get("notes", ())))
