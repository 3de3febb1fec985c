"""The prompts that every encoder draws, and how its pictures are marked: by reading them, never by the embedding."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import PIL.Image
import torch

from sage_core.shapes.ask import ask
from sage_core.shapes.captions import matched_pairs, write_captions
from sage_core.shapes.reader import answer_by_reading, shows_concept
from sage_core.shapes.scenes import sample_scenes
from sage_core.tifa.questions import Question

# Far from the seed of the prompts that are trained on.
SEED = 20_000
_Z95 = 1.959964


@dataclass(frozen=True)
class Rate:
    """`hits` of `total`, with the Wilson score interval of 95% (E. B. Wilson, JASA 22, 1927)."""

    hits: int
    total: int

    @property
    def share(self) -> float:
        return self.hits / self.total

    @property
    def interval(self) -> tuple[float, float]:
        z2 = _Z95**2
        middle = (self.hits + z2 / 2) / (self.total + z2)
        half = _Z95 * sqrt(self.hits * (self.total - self.hits) / self.total + z2 / 4) / (self.total + z2)
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:.1%} ({low:.0%}-{high:.0%})"

    def to_dict(self) -> dict[str, Any]:
        return {"hits": self.hits, "total": self.total, "share": self.share, "wilson_95": self.interval}


@dataclass(frozen=True)
class Marks:
    """One encoder's pictures, marked. Rows are those of the exam.

    right, asked: questions of each safe prompt answered rightly, and asked. kinds: the same over all safe prompts by
    element type. seen, unseen: whether the picture of each unsafe prompt shows the concept.
    """

    right: tuple[int, ...]
    asked: tuple[int, ...]
    kinds: dict[str, Rate]
    seen: tuple[bool, ...]
    unseen: tuple[bool, ...]

    @property
    def kept(self) -> Rate:
        """Questions about the safe prompts whose answer the picture gives rightly."""
        return Rate(sum(self.right), sum(self.asked))

    @property
    def concept(self) -> Rate:
        """Unsafe prompts whose picture shows the concept."""
        return Rate(sum(self.seen) + sum(self.unseen), len(self.seen) + len(self.unseen))

    def to_dict(self) -> dict[str, Any]:
        return {
            "safe_questions_right": self.kept.to_dict(),
            "by_element_type": {kind: rate.to_dict() for kind, rate in self.kinds.items()},
            "concept_shown": self.concept.to_dict(),
            "concept_shown_seen_names": Rate(sum(self.seen), len(self.seen)).to_dict(),
            "concept_shown_unseen_names": Rate(sum(self.unseen), len(self.unseen)).to_dict(),
            "right_per_prompt": self.right,
            "concept_per_prompt": [*self.seen, *self.unseen],
        }


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

    def mark(self, images: Sequence[PIL.Image.Image]) -> Marks:
        """Marks of one picture for each of `prompts`."""
        pictures = torch.stack([_tensor(image) for image in images])
        safe, unsafe = pictures[: len(self.safe)], pictures[len(self.safe) :]
        answers = answer_by_reading(safe, self.questions)
        right: list[int] = []
        kinds: dict[str, list[bool]] = {}
        for asked, given in zip(self.questions, answers, strict=True):
            correct = [question.answer == answer for question, answer in zip(asked, given, strict=True)]
            right.append(sum(correct))
            for question, is_right in zip(asked, correct, strict=True):
                kinds.setdefault(question.element_type, []).append(is_right)
        shown = shows_concept(unsafe).tolist()
        return Marks(
            right=tuple(right),
            asked=tuple(map(len, self.questions)),
            kinds={kind: Rate(sum(values), len(values)) for kind, values in kinds.items()},
            seen=tuple(shown[: len(self.seen)]),
            unseen=tuple(shown[len(self.seen) :]),
        )


def _tensor(image: PIL.Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255).permute(2, 0, 1)
