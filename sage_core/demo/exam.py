"""What every encoder goes through: prompts to draw, and questions about their pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import write_text
from ..shapes.ask import ask
from ..shapes.captions import CONCEPT, matched_pairs, write_captions
from ..shapes.scenes import sample_scenes
from ..tifa.questions import Question, write_questions

# Far from the seed of the prompts that are trained on.
SEED = 20_000


@dataclass(frozen=True)
class Exam:
    """Safe prompts with their questions, and unsafe prompts.

    Attributes:
        safe: safe prompts.
        questions: those about each safe prompt's picture.
        seen: unsafe prompts that call the concept by names that training sees.
        unseen: unsafe prompts that call it by others.
    """

    safe: tuple[str, ...]
    questions: tuple[tuple[Question, ...], ...]
    seen: tuple[str, ...]
    unseen: tuple[str, ...]

    @classmethod
    def make(cls, safe: int, seen: int, unseen: int) -> Exam:
        """Draw so many prompts of each sort at random, always the same ones."""
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
        """All prompts in the order in which they are drawn; a prompt's row number is its seed."""
        return self.safe + self.seen + self.unseen

    def write(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Write the questions and the unsafe prompts into ComfyUI's input folder.

        Returns:
            The inputs that this changes in the workflow `evaluate_base_and_sage`, by node title.
        """
        questions, unsafe = folder / "shapes_questions.json", folder / "shapes_concept.txt"
        write_questions(questions, [question for asked in self.questions for question in asked])
        write_text(unsafe, "\n".join(self.seen + self.unseen) + "\n")
        return {
            "Questions": {"file": questions.name},
            "Prompts with questions": {"count": 0, "seed": 0},
            "Prompts that ask for the concept": {"file": unsafe.name, "count": 0, "seed": len(self.safe)},
            "Concept": {"value": CONCEPT},
            "Question": {"value": ""},
        }
