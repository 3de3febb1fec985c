"""What a plan's pictures are worth: TIFA, CLIPScore and attack success of every method, shared out by method.

A score is a plain function of the bench and a method that returns what JSON can hold; `SCORES` lists them. One more
score takes a function here and its name in `plan.SCORES`: if it returns {"columns": {"FID": {"value": 17.2, "low": …,
"high": …}}}, the numbers become columns of table 2, and its "notes" notes of the report. `Judges.pictures` hands it a
method's files of any list.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch

from ..errors import QuestionError, SageError
from ..files import check_writable, write_json
from ..rows import read_json
from ..scores.clipscore import ClipScores
from ..scores.rates import Rate, rate_by_clip, rate_by_vqa, rates_by_nudenet
from ..settings import Limits, checked
from ..tifa.evaluation import evaluate
from ..tifa.result_file import read_result
from ..tifa.scoring import TifaResult
from .distances import measured
from .drawing import claim
from .judges import Judges
from .layout import Layout
from .plan import DISTANCES, MethodPlan
from .prompts import PromptList

_WAIT = 0.5
# What the geometry of text encoders is measured by, when the report is written: it has no pictures to score.
_WITHOUT_PICTURES = "geometry"
# After a number's point, in a table.
_Digits = Annotated[float, Limits(0, 10)]


@dataclass(frozen=True)
class Scores:
    """All that was measured of one method's pictures; `columns` are further numbers of table 2, by title.

    `notes` are what the report says of them.
    """

    method: MethodPlan
    tifa: TifaResult | None = None
    clip: ClipScores | None = None
    attacks: Mapping[str, Rate] = field(default_factory=dict)
    columns: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _tifa(bench: Judges, method: MethodPlan) -> dict[str, Any]:
    """TIFA by `tifa.evaluation`, with a log: a stopped evaluation goes on."""
    captions = bench.captions
    questions = [captions.questions[item.source] for item in captions.items]
    result = evaluate(
        bench.pictures(method, captions),
        questions,
        bench.judge,
        sentences=bench.sentences,
        image_ids=[item.id for item in captions.items],
        name=method.name,
        log=bench.folder(method) / f"answers-{bench.key('tifa')[:8]}.jsonl",
        on_progress=bench.told(method, "TIFA"),
    )
    return result.to_dict()


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
    """The rates of every list: of NudeNet those of its strict classes, and after them those of all nine."""
    return {
        prompts.name: [rate.to_dict() for rate in _rates(bench, bench.pictures(method, prompts))]
        for prompts in bench.attacks
    }


def _rates(bench: Judges, pictures: Sequence[Path]) -> Sequence[Rate]:
    used = bench.settings
    if used.witness == "nudenet":
        return rates_by_nudenet(pictures)
    if used.witness == "clip":
        return [rate_by_clip(pictures, used.concept, bench.clip)]
    question = used.question or None
    return [rate_by_vqa(pictures, used.concept, bench.judge, question=question, sentences=bench.sentences)]


SCORES: dict[str, Callable[[Judges, MethodPlan], dict[str, Any]]] = {
    "tifa": _tifa,
    "clipscore": _clipscore,
    "attacks": _attacks,
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
    wanted = [name for name in layout.plan.score.what if name != _WITHOUT_PICTURES]
    while missing := [
        (method, name) for method in layout.plan.methods for name in wanted if not bench.file(method, name).exists()
    ]:
        worked = False
        for method, name in missing:
            file = bench.file(method, name)
            with claim(layout.output / "locks" / f"{file.parent.name}-{file.stem}.lock") as is_mine:
                if not is_mine or file.exists():
                    continue
                check_writable(file)
                write_json(file, SCORES[name](bench, method), own=True)
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
            if name != _WITHOUT_PICTURES:
                scores = _with(scores, name, bench)
        found.append(scores)
    return found


def _with(scores: Scores, name: str, bench: Judges) -> Scores:
    file = bench.file(scores.method, name)
    try:
        return _read(scores, name, file, bench)
    except (SageError, OSError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise QuestionError(f"A score cannot be read ({reason}). Delete {file}: it is measured again.") from error


def _read(scores: Scores, name: str, file: Path, bench: Judges) -> Scores:
    """The scores with one more, which must be of every picture that there is."""
    if name == "tifa":
        found = read_result(file)
        asked = sum(len(bench.captions.questions[item.source]) for item in bench.captions.items)
        _require_count("questions", len(found.questions), asked)
        return replace(scores, tifa=replace(found, name=scores.method.name))
    content = checked(dict[str, Any], read_json(file), "the file")
    if name == "clipscore":
        clip = ClipScores.from_dict(content)
        _require_count("cosines", len(clip.cosines), sum(len(prompts.items) for prompts in bench.harmless))
        return replace(scores, clip=clip)
    if name == "attacks":
        return replace(scores, attacks={each.name: _read_rate(content, each) for each in bench.attacks})
    columns = checked(dict[str, dict[str, float]], content.get("columns", {}), "columns")
    for title, column in columns.items():
        checked(float, column.get("value"), f"the value of {title}")
        checked(_Digits, column.get("digits", 0), f"the digits of {title}")
    notes = checked(tuple[str, ...], content.get("notes", []), "notes")
    return replace(scores, columns={**scores.columns, **columns}, notes=(*scores.notes, *notes))


def _read_rate(content: Mapping[str, Any], prompts: PromptList) -> Rate:
    rows = checked(tuple[dict[str, Any], ...], content.get(prompts.name), f"the rates of {prompts.name}")
    rate = Rate.from_dict(rows[0] if rows else {})
    _require_count(f"pictures of {prompts.name}", len(rate.shown), len(prompts.items))
    return rate


def _require_count(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise QuestionError(f"it is of {found:,} {what}, and there are {expected:,}")
