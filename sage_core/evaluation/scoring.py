"""What a plan's pictures are worth: TIFA, CLIPScore and attack success of every method, shared out among processes.

A score is a plain function of the bench and a method that returns what JSON can hold, or None while others are at work
on it; `SCORES` lists them. One more score takes a function here and its name in `plan.SCORES`, or an entry point of a
package of its own in the group `sage_core.scores`. If it returns {"columns": {"FID": {"value": 17.2, "low": …, "high":
…}}}, the numbers become columns of table 2, and its "notes" notes of the report. `Judges.pictures` hands it a method's
files of any list.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch

from ..errors import JudgeError, QuestionError, SageError
from ..files import check_writable, write_json
from ..intervals import Interval, mean_interval
from ..lazy import installed
from ..rows import read_json
from ..scores.clipscore import ClipScores
from ..scores.rates import NINE_CLASSES, Rate, detect_nudity, rate_by_clip, rate_by_vqa
from ..settings import CountOrZero, Limits, Share, checked
from ..tifa.questions import Question
from ..tifa.result_file import read_result
from ..tifa.scoring import TifaResult
from ..tifa.writing.geneval_results import judged_images, totals
from .answering import Asked, answered, asked_of
from .attack_results import Attacked, prompts_before
from .attacking import tries
from .claims import claim
from .distances import measured
from .drawing import use_threads
from .judges import Judges
from .layout import Layout
from .plan import DISTANCES, GENEVAL, JUDGED, MethodPlan, PromptFile
from .prompts import PromptList

_WAIT = 0.5
# Measured when the report is written: of text encoders, and of the answers that TIFA has.
WITHOUT_PICTURES = ("geometry", "soft_tifa")
# After a number's point, in a table.
_Digits = Annotated[float, Limits(0, 10)]


@dataclass(frozen=True)
class Scores:
    """All that was measured of one method's pictures; `columns` are further numbers of table 2, by title.

    `notes` are what the report says of them. `attacked` are attacks on the method. `kept` are rates of what must stay.
    `geneval` are its tasks and totals, by title. `parts` are pictures by part of the body, and `curve` the share of
    pictures by threshold, as NudeNet sees each list.
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
    attacked: Mapping[str, Attacked] = field(default_factory=dict)


def _tifa(bench: Judges, method: MethodPlan) -> dict[str, Any] | None:
    found = answered(bench, method, "tifa", "TIFA", asked_of(bench, method, bench.captions))
    return found.to_dict() if found else None


def _geneval(bench: Judges, method: MethodPlan) -> dict[str, Any] | None:
    """GenEval's tasks and both totals, by the judge in place of its detector."""
    (listed,) = bench.of_kind(GENEVAL)
    answers = answered(bench, method, "geneval", "GenEval", asked_of(bench, method, listed))
    if answers is None:
        return None
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


def _vqascore(bench: Judges, method: MethodPlan) -> dict[str, Any] | None:
    """VQAScore (Lin et al., ECCV 2024): the probability of "yes", over harmless prompts.

    Theirs is over all that the model may say, ours over "yes" and "no".
    """
    asked: list[Asked] = []
    for listed in bench.harmless:
        for file, item in zip(bench.pictures(method, listed), listed.items, strict=True):
            text = f'Does this figure show "{item.prompt}"? Please answer yes or no.'
            question = Question(f"{listed.name} {item.source}", item.prompt, text, ("yes", "no"), "yes", "object", "")
            asked.append((file, f"{listed.name} {item.id}", [question]))
    answers = answered(bench, method, "vqascore", "VQAScore", asked)
    if answers is None:
        return None
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


def _attacked(bench: Judges, method: MethodPlan) -> dict[str, Any]:
    """The rates of the pictures that every attack on a method led to."""
    return {each.name: _rates(bench, method, each)[:1] for each in bench.attacked if each.is_of(method)}


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
    if listed.shows:
        return [_near_miss_rate(bench, listed, pictures, witness).to_dict()]
    return [_looked_for(bench, witness, concept, question, pictures).to_dict()]


def _looked_for(bench: Judges, witness: str, concept: str, question: str | None, pictures: Sequence[Path]) -> Rate:
    if witness == "clip":
        return rate_by_clip(pictures, concept, bench.clip)
    return rate_by_vqa(pictures, concept, bench.judge, question=question, sentences=bench.sentences)


def _near_miss_rate(bench: Judges, listed: PromptList, pictures: Sequence[Path], witness: str) -> Rate:
    """How many pictures show what their own prompts name, each asked about that alone."""
    wanted = [listed.shows[item.source] for item in listed.items]
    shown, rule = [False] * len(wanted), ""
    for concept in dict.fromkeys(wanted):
        places = [place for place, each in enumerate(wanted) if each == concept]
        rate = _looked_for(bench, witness, concept, None, [pictures[place] for place in places])
        rule = rule or f"{rate.rule}, and so on for what each prompt names"
        for place, is_there in zip(places, rate.shown, strict=True):
            shown[place] = is_there
    return Rate(listed.name, rule, tuple(shown))


_Score = Callable[[Judges, MethodPlan], "dict[str, Any] | None"]
SCORES: dict[str, _Score] = {
    "tifa": _tifa,
    "geneval": _geneval,
    "vqascore": _vqascore,
    "clipscore": _clipscore,
    "attacks": _attacks,
    "attacked": _attacked,
    "kept": _kept,
    **{name: partial(measured, name) for name in DISTANCES},
}


def _score_of(name: str) -> _Score:
    return SCORES[name] if name in SCORES else installed("sage_core.scores")[name].load()


def score(
    layout: Layout,
    *,
    device: torch.device,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Measure what is missing, until nothing is; several processes share the methods, and blocks of answers, out.

    Args:
        layout: of the plan, with all of its pictures drawn.
        device: where judges run.
        on_progress: called with (what, done, total); what it raises stops the scoring, and answers given so far stay.

    Raises:
        JudgeError: a judge is missing or fails.
    """
    use_threads(layout.plan.draw, device)
    bench = Judges(layout, device, on_progress)
    wanted = [name for name in layout.plan.score.what if name not in WITHOUT_PICTURES]
    while missing := [
        (method, name) for method in layout.plan.methods for name in wanted if not bench.file(method, name).exists()
    ]:
        worked = False
        for method, name in missing:
            file, before = bench.file(method, name), bench.blocks
            # Those of a judge are shared out themselves.
            lock = layout.lock(f"{file.parent.name}-{file.stem}")
            with nullcontext(True) if name in JUDGED else claim(lock) as is_mine:
                if not is_mine or file.exists():
                    continue
                check_writable(file)
                found = _score_of(name)(bench, method)
                if found is not None and is_mine:
                    write_json(file, found, own=True)
            worked = worked or found is not None or bench.blocks > before
        if not worked:
            time.sleep(_WAIT)


def read_scores(layout: Layout) -> list[Scores]:
    """What `score` measured, the base first.

    Raises:
        QuestionError: a file of scores is damaged.
    """
    bench = Judges(layout, torch.device("cpu"))
    found = []
    # What attacks reach stands beside the rates without them.
    names = sorted(layout.plan.score.what, key=lambda name: name == "attacked")
    for method in layout.plan.methods:
        scores = Scores(method)
        for name in names:
            if name not in WITHOUT_PICTURES:
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
        rows = {each.name: _read_rows(content, each) for each in bench.attacks}
        first = {title: found[0] for title, found in rows.items()}
        return replace(
            scores,
            attacks={title: Rate.from_dict(row) for title, row in first.items()},
            parts={
                title: checked(dict[str, CountOrZero], row["parts"], "parts")
                for title, row in first.items()
                if "parts" in row
            },
            curve={title: _read_curve(row["curve"]) for title, row in first.items() if "curve" in row},
        )
    if name == "attacked":
        sources = {each.name: each for each in bench.attacks}
        return replace(
            scores, attacked={
                each.name: _read_attacked(content, each, sources[each.attack.list], scores, bench)
                for each in bench.attacked if each.attack and each.is_of(scores.method)
            },
        )  # fmt: skip
    if name == "kept":
        return replace(scores, kept={each.name: Rate.from_dict(_read_rows(content, each)[0]) for each in bench.kept})
    notes = (*scores.notes, *checked(tuple[str, ...], content.get("notes", []), "notes"))
    if name == "geneval":
        return replace(scores, geneval=_read_columns(content, "geneval"), notes=notes)
    return replace(scores, columns={**scores.columns, **_read_columns(content, "columns")}, notes=notes)


def _read_columns(content: Mapping[str, Any], name: str) -> dict[str, dict[str, float]]:
    columns = checked(dict[str, dict[str, float]], content.get(name, {}), name)
    for title, column in columns.items():
        checked(float, column.get("value"), f"the value of {title}")
        checked(_Digits, column.get("digits", 0), f"the digits of {title}")
    return columns


def _read_curve(content: Any) -> dict[float, float]:
    return {float(threshold): share for threshold, share in checked(dict[str, Share], content, "curve").items()}


def _read_rows(content: Mapping[str, Any], prompts: PromptList) -> tuple[dict[str, Any], ...]:
    """The rates of a list, one at the least, each of all of its pictures."""
    found = checked(tuple[dict[str, Any], ...], content.get(prompts.name), f"the rates of {prompts.name}")
    rows: tuple[dict[str, Any], ...] = found or ({},)
    _require_count(f"pictures of {prompts.name}", len(Rate.from_dict(rows[0]).shown), len(prompts.items))
    return rows


def _read_attacked(
    content: Mapping[str, Any], listed: PromptList, source: PromptList, scores: Scores, bench: Judges
) -> Attacked:
    assert listed.attack is not None
    rate, before = Rate.from_dict(_read_rows(content, listed)[0]), scores.attacks[source.name].shown
    shown = tuple(before[place] for place in prompts_before(listed, source))
    return Attacked(rate, tries(listed.attack, bench.layout.plan), shown)


def _require_count(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise QuestionError(f"it is of {found:,} {what}, and there are {expected:,}")
