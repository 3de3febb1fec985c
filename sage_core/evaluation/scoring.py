"""What a plan's pictures are worth: TIFA, CLIPScore and attack success of every method, shared out by method.

A score is a plain function of the bench and a method that returns what JSON can hold; `SCORES` lists them. One more
score takes a function here and its name in `plan.SCORES`: if it returns {"columns": {"FID": {"value": 17.2, "low": …,
"high": …}}}, the numbers become columns of table 2, and its "notes" notes of the report. `Bench.pictures` hands it a
method's files of any list.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from ..errors import JudgeError, QuestionError
from ..files import write_json
from ..scores.clipscore import ClipScorer, ClipScores
from ..scores.features import Extractor, load_extractor
from ..scores.rates import Rate, rate_by_clip, rate_by_vqa, rates_by_nudenet
from ..shapes.exam.reader_judge import ReaderJudge
from ..tifa.evaluation import evaluate
from ..tifa.judges.base import Judge, load_judge
from ..tifa.result_file import read_result
from ..tifa.scoring import TifaResult
from ..tifa.sentences import SentenceEncoder
from .distances import folder_key, measured
from .drawing import DTYPES, Layout, claim
from .models import Fingerprints
from .plan import CAPTIONS, DISTANCES, READER, MethodPlan
from .prompts import PromptList, harmless_lists

_WAIT = 0.5
# What the geometry of text encoders is measured by, when the report is written: it has no pictures to score.
_WITHOUT_PICTURES = "geometry"


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


class Bench:
    """The judges of a plan, loaded when they are first asked, and where the pictures are."""

    def __init__(
        self, layout: Layout, device: torch.device, on_progress: Callable[[str, int, int], None] | None = None
    ) -> None:
        self.layout, self.device = layout, device
        self.settings = layout.plan.score
        self._on_progress = on_progress

    @cached_property
    def judge(self) -> Judge:
        """Who answers questions."""
        if self.settings.judge == READER:
            return ReaderJudge()
        precision = DTYPES[self.settings.judge_precision]
        return load_judge(self.settings.judge, device=self.device, dtype=precision)

    @cached_property
    def sentences(self) -> SentenceEncoder | None:
        """What matches free answers with choices."""
        folder = self.settings.sentences
        return SentenceEncoder.from_folder(folder, device=self.device) if folder else None

    @cached_property
    def clip(self) -> ClipScorer:
        """The original CLIP."""
        if self.settings.clip is None:
            raise JudgeError(
                f"{self.layout.plan.file}, score.clip: it is missing. Name the folder of the original CLIP."
            )
        return ClipScorer.from_file(self.settings.clip, device=self.device)

    @cached_property
    def extractor(self) -> Extractor:
        """Whose features distances compare."""
        if self.settings.features is None:
            raise JudgeError(f"{self.layout.plan.file}, score.features: it is missing. Name a model of features.")
        return load_extractor(self.settings.features, device=self.device)

    @property
    def captions(self) -> PromptList:
        """The list whose pictures have questions."""
        return next(each for each in self.layout.lists if each.kind == CAPTIONS)

    @property
    def attacks(self) -> list[PromptList]:
        """The lists that ask for the concept."""
        return [each for each in self.layout.lists if each.kind == "attack"]

    @property
    def harmless(self) -> list[PromptList]:
        """The lists that CLIPScore and distances are measured on."""
        return harmless_lists(self.layout.lists)

    def pictures(self, method: MethodPlan, prompts: PromptList) -> list[Path]:
        """A method's files of a list, in its order."""
        return self.layout.files(method, prompts)

    def folder(self, method: MethodPlan) -> Path:
        """Where a method's scores are kept."""
        return self.layout.output / "scores" / self.layout.folder(method)

    def file(self, method: MethodPlan, name: str) -> Path:
        """Where one score is kept; another judge or list has another file."""
        return self.folder(method) / f"{name}-{self.key(name)[:8]}.json"

    def key(self, name: str) -> str:
        """SHA-256 of what decides a score, other than the pictures' method."""
        known, used = self._known, self.settings
        lists: Sequence[PromptList] = self.layout.lists
        if name == "attacks":
            lists = self.attacks
        elif name == "tifa":
            lists = [self.captions]
        elif name in ("clipscore", "features", *DISTANCES):
            lists = self.harmless
        judged: list[Any] = [name, [[each.name, each.key, [item.id for item in each.items]] for each in lists]]
        if name == "attacks":
            judged += [used.witness, used.concept, used.question]
        if name == "tifa" or (name == "attacks" and used.witness == "judge"):
            judge = used.judge if used.judge == READER else known.of(Path(used.judge))
            judged += [judge, used.judge_precision, known.of(used.sentences) if used.sentences else None]
        if used.clip and (name == "clipscore" or (name == "attacks" and used.witness == "clip")):
            judged.append(known.of(used.clip))
        if used.features and name in ("features", *DISTANCES):
            judged.append(known.of(used.features))
        if used.reference and name in DISTANCES:
            is_folder = used.reference.is_dir()
            judged.append(folder_key(used.reference) if is_folder else known.of(used.reference))
        return hashlib.sha256(json.dumps(judged).encode()).hexdigest()

    @cached_property
    def _known(self) -> Fingerprints:
        return Fingerprints(self.layout.output / "hashes.json")

    def told(self, method: MethodPlan, name: str) -> Callable[[int, int], None]:
        """A function that tells how far a score of a method is."""
        return lambda done, total: self.tell(f"{name} of {method.name}", done, total)

    def tell(self, what: str, done: int, total: int) -> None:
        """Tell how far a piece of work is."""
        if self._on_progress is not None:
            self._on_progress(what, done, total)


def _tifa(bench: Bench, method: MethodPlan) -> dict[str, Any]:
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


def _clipscore(bench: Bench, method: MethodPlan) -> dict[str, Any]:
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


def _attacks(bench: Bench, method: MethodPlan) -> dict[str, Any]:
    """The rates of every list: of NudeNet those of its strict classes, and after them those of all nine."""
    return {
        prompts.name: [rate.to_dict() for rate in _rates(bench, bench.pictures(method, prompts))]
        for prompts in bench.attacks
    }


def _rates(bench: Bench, pictures: Sequence[Path]) -> Sequence[Rate]:
    used = bench.settings
    if used.witness == "nudenet":
        return rates_by_nudenet(pictures)
    if used.witness == "clip":
        return [rate_by_clip(pictures, used.concept, bench.clip)]
    question = used.question or None
    return [rate_by_vqa(pictures, used.concept, bench.judge, question=question, sentences=bench.sentences)]


SCORES: dict[str, Callable[[Bench, MethodPlan], dict[str, Any]]] = {
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
    bench = Bench(layout, device, on_progress)
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
                write_json(file, SCORES[name](bench, method))
                worked = True
        if not worked:
            time.sleep(_WAIT)


def read_scores(layout: Layout) -> list[Scores]:
    """What `score` measured, the base first.

    Raises:
        QuestionError: a file of scores is damaged.
    """
    bench = Bench(layout, torch.device("cpu"))
    found = []
    for method in layout.plan.methods:
        scores = Scores(method)
        for name in layout.plan.score.what:
            if name != _WITHOUT_PICTURES:
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
    if name == "attacks":
        rates = {
            title: Rate(rates[0]["concept"], rates[0]["rule"], tuple(rates[0]["shown"]))
            for title, rates in content.items()
        }
        return replace(scores, attacks=rates)
    columns = {**scores.columns, **content.get("columns", {})}
    return replace(scores, columns=columns, notes=(*scores.notes, *content.get("notes", ())))
