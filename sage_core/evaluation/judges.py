"""Where an evaluation scores: the judges of a plan, the pictures, and the files in which scores are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..errors import JudgeError
from ..scores.clipscore import ClipScorer
from ..scores.features import RECIPES, Extractor, described, load_extractor, pictures_in
from ..scores.rates import load_nudenet
from ..tifa.judges.base import Judge, load_judge
from ..tifa.sentences import SentenceEncoder
from .bases import Fingerprints, world
from .drawing import DTYPES
from .layout import Layout, require_drawn
from .plan import CAPTIONS, DISTANCES, GENEVAL, JUDGED, READER, MethodPlan, Nudenet
from .prompts import PromptList, harmless_lists


class Judges:
    """The judges of a plan, loaded when they are first asked, and where the pictures are."""

    def __init__(
        self, layout: Layout, device: torch.device, on_progress: Callable[[str, int, int], None] | None = None
    ) -> None:
        self.layout, self.device = layout, device
        self.settings = layout.plan.score
        self._on_progress = on_progress
        # Blocks of answers that this process has given.
        self.blocks = 0
        # Methods and lists whose pictures were looked at.
        self._checked: set[tuple[str, str]] = set()

    @cached_property
    def judge(self) -> Judge:
        """Who answers questions."""
        if self.settings.judge == READER:
            return world().ReaderJudge()
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

    @cached_property
    def nudenet(self) -> Any:
        """Who finds nudity."""
        return load_nudenet(self.settings.nudenet.detector, self.settings.nudenet.resolution)

    @property
    def captions(self) -> PromptList:
        """The list whose pictures have questions."""
        return self.of_kind(CAPTIONS)[0]

    @property
    def attacks(self) -> list[PromptList]:
        """The lists that ask for the concept."""
        return self.of_kind("attack")

    @property
    def harmless(self) -> list[PromptList]:
        """The lists that CLIPScore and distances are measured on."""
        return harmless_lists(self.layout.lists)

    @property
    def kept(self) -> list[PromptList]:
        """The harmless lists whose concept must stay."""
        return [each for each in self.of_kind("safe") if each.file and each.file.must_stay]

    @property
    def attacked(self) -> list[PromptList]:
        """The pictures of attacks on methods."""
        return self.of_kind("attacked")

    def of_kind(self, kind: str) -> list[PromptList]:
        """The lists of one kind."""
        return [each for each in self.layout.lists if each.kind == kind]

    def pictures(self, method: MethodPlan, prompts: PromptList) -> list[Path]:
        """A method's files of a list, in its order.

        Raises:
            JudgeError: one is not what was drawn.
        """
        if (method.name, prompts.name) not in self._checked:
            require_drawn(self.layout, method, prompts)
            self._checked.add((method.name, prompts.name))
        return self.layout.files(method, prompts)

    def folder(self, method: MethodPlan) -> Path:
        """Where a method's scores are kept."""
        return self.layout.output / "scores" / self.layout.folder(method)

    def file(self, method: MethodPlan, name: str) -> Path:
        """Where one score is kept; another judge or list has another file."""
        return self.folder(method) / f"{name}-{self.key(name, method)[:8]}.json"

    def key(self, name: str, method: MethodPlan | None = None) -> str:
        """SHA-256 of what decides a score, other than the pictures; of attacks, those on the method."""
        known, used = self._known, self.settings
        lists: Sequence[PromptList] = self.layout.lists
        if name == "attacks":
            lists = self.attacks
        elif name == "attacked":
            lists = [each for each in self.attacked if method is None or each.is_of(method)]
        elif name == "tifa":
            lists = [self.captions]
        elif name == "kept":
            lists = self.kept
        elif name == "geneval":
            lists = self.of_kind(GENEVAL)
        elif name in ("vqascore", "clipscore", "features", *DISTANCES):
            lists = self.harmless
        judged: list[Any] = [name, [[each.name, each.key, [item.id for item in each.items]] for each in lists]]
        if name in ("attacks", "attacked"):
            judged += [used.witness, used.concept, used.question]
        witnesses: set[str] = set()
        if name in ("attacks", "attacked", "kept"):
            files = [each.file for each in lists if each.file]
            witnesses = {used.witness_of(each) for each in files}
            # A list that says nothing of its own is left out: scores of earlier releases are found.
            judged += [[each.name, each.concept, each.question] for each in files if each.concept]
            judged += [[each.name, dict(each.shows)] for each in lists if each.shows]
        # What it is unless a plan says otherwise is left out: scores of earlier releases are found.
        if name in ("attacks", "attacked") and used.witness == "nudenet" and used.nudenet != Nudenet():
            detector = used.nudenet.detector
            judged += [used.nudenet.threshold, used.nudenet.classes, used.nudenet.resolution]
            judged.append(known.of(detector) if detector else None)
        if name in JUDGED or "judge" in witnesses:
            judge = used.judge if used.judge == READER else known.of(Path(used.judge))
            judged += [judge, used.judge_precision, known.of(used.sentences) if used.sentences else None]
        if used.clip and (name == "clipscore" or "clip" in witnesses):
            judged.append(known.of(used.clip))
        if used.features and name in ("features", *DISTANCES):
            judged.append(known.of(used.features))
            if (recipe := RECIPES[described(used.features)[0]]) > 1:
                judged.append({"recipe": recipe})
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


def folder_key(folder: Path) -> str:
    """SHA-256 of the names, sizes and dates of a folder's pictures."""
    found = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in pictures_in(folder)]
    return hashlib.sha256(json.dumps([str(folder.resolve()), found]).encode()).hexdigest()
