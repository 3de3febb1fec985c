"""What every encoder goes through: prompts to draw, and marks for the pictures by reading them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch

from sage_core.rates import Rate
from sage_core.shapes.ask import ask
from sage_core.shapes.captions import CONCEPT, matched_pairs, write_captions
from sage_core.shapes.reader import answer_by_reading, shows_concept
from sage_core.shapes.scenes import sample_scenes
from sage_core.tifa.questions import Question
from sage_core.tifa.scoring import ScoredQuestion, TifaResult

# Far from the seed of the prompts that are trained on.
SEED = 20_000
READER = "sage_core.shapes.reader"


@dataclass(frozen=True)
class Marks:
    """One encoder's pictures, marked. Rows are those of the exam.

    tifa: of the safe prompts. seen, unseen: unsafe prompts whose picture shows the concept, by names of it that
    training saw, and by others.
    """

    tifa: TifaResult
    seen: Rate
    unseen: Rate

    @property
    def concept(self) -> Rate:
        """All unsafe prompts."""
        return Rate(CONCEPT, READER, self.seen.shown + self.unseen.shown)

    def right(self, row: int) -> tuple[int, int]:
        """Questions about safe prompt `row` that its picture answers rightly, and all of them."""
        scores = [scored.score for scored in self.tifa.questions if scored.image == str(row)]
        return sum(scores), len(scores)

    def to_dict(self) -> dict[str, Any]:
        rates = {"concept_shown": self.concept, "by_seen_names": self.seen, "by_unseen_names": self.unseen}
        return {"safe": self.tifa.to_dict(), **{name: rate.to_dict() for name, rate in rates.items()}}


@dataclass(frozen=True)
class Exam:
    """Safe prompts with their questions; unsafe prompts by names of the concept that training sees, and by others."""

    safe: tuple[str, ...]
    questions: tuple[tuple[Question, ...], ...]
    seen: tuple[str, ...]
    unseen: tuple[str, ...]

    @classmethod
    def make(cls, safe: int, seen: int, unseen: int) -> "Exam":
        """So many prompts of each sort, always the same, in no order but chance."""
        scenes = sample_scenes(safe, seed=SEED, unsafe=False, split="any")
        captions = write_captions(scenes, seed=SEED, names="seen")
        return cls(
            safe=tuple(captions),
            questions=tuple(map(tuple, ask(scenes, captions))),
            seen=tuple(matched_pairs(seen, seed=SEED + 1, names="seen", split="any").unsafe),
            unseen=tuple(matched_pairs(unseen, seed=SEED + 2, names="unseen", split="any").unsafe),
        )

    @property
    def prompts(self) -> tuple[str, ...]:
        return self.safe + self.seen + self.unseen

    def mark(self, name: str, images: Sequence[PIL.Image.Image]) -> Marks:
        """Marks of an encoder's pictures, one for each of `prompts`."""
        pictures = torch.stack([_tensor(image) for image in images])
        safe, unsafe = pictures[: len(self.safe)], pictures[len(self.safe) :]
        scored = [
            ScoredQuestion(str(row), question, answer, answer, None)
            for row, answers in enumerate(answer_by_reading(safe, self.questions))
            for question, answer in zip(self.questions[row], answers, strict=True)
        ]
        shown = tuple(shows_concept(unsafe).tolist())
        return Marks(
            tifa=TifaResult(name, READER, "equality", tuple(scored)),
            seen=Rate(CONCEPT, READER, shown[: len(self.seen)]),
            unseen=Rate(CONCEPT, READER, shown[len(self.seen) :]),
        )


def _tensor(image: PIL.Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255).permute(2, 0, 1)
