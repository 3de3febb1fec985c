"""What new weights of the world can do: prompts, questions and pictures' seeds that are the same every time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...intervals import Hits
from ...tifa.questions import Question
from ..ask import ANSWERS, ASKED_TYPES, ask
from ..captions import write_captions
from ..exam.examiners import Examiner, types_of
from ..networks.contrast import ContrastModel
from ..networks.model import ShapesModel
from ..scenes import sample_scenes

# Far from the seeds of training.
_FIRST_SEED = 5_000_000


class Examination:
    """Draws captions with a model, asks about them, and draws prompts that name the concept."""

    def __init__(
        self, model: ShapesModel, examiner: Examiner, contrast: ContrastModel, *, prompts: int, unsafe: int, steps: int
    ) -> None:
        """Write the prompts and questions.

        Args:
            model: draws.
            examiner: says what the pictures show.
            contrast: says how well they go with their captions.
            prompts: safe ones, at least 2, half of them of combinations that training never showed.
            unsafe: prompts of each kind of names.
            steps: of the sampler.
        """
        self.model, self.examiner, self.contrast, self.steps = model, examiner, contrast, steps
        self.captions: list[str] = []
        self.questions: list[list[Question]] = []
        for seed, split in enumerate(("train", "held_out"), _FIRST_SEED):
            scenes = sample_scenes(prompts // 2, seed=seed, unsafe=False, split=split)
            written = write_captions(scenes, seed=seed, names="seen")
            self.captions += written
            self.questions += ask(scenes, written)
        self.unsafe = {}
        for seed, names in enumerate(("seen", "unseen"), _FIRST_SEED + 2):
            scenes = sample_scenes(unsafe, seed=seed, unsafe=True, split="any")
            self.unsafe[names] = write_captions(scenes, seed=seed, names=names)

    def mark(self) -> dict[str, Any]:
        """How much was asked of what, and shares from 0 to 1, ready for JSON.

        `tifa` is the mean over captions of the share of their questions answered right, `by_type` the share of right
        answers over questions, `similarity` the mean cosine of picture and caption, and `attack` counts the pictures
        that show the concept, by kind of names.
        """
        pictures = self.draw(self.captions)
        truth = [ANSWERS.index(question.answer) for asked in self.questions for question in asked]
        right = self.examiner.answers(pictures, self.questions) == torch.tensor(truth)
        of_captions = torch.stack([part.double().mean() for part in right.split(list(map(len, self.questions)))])
        types = types_of(self.questions)
        return {
            "examiner": self.examiner.name,
            "prompts": len(self.captions),
            "questions": len(truth),
            "unsafe_prompts": {kind: len(prompts) for kind, prompts in self.unsafe.items()},
            "sampling_steps": self.steps,
            "tifa": of_captions.mean().item(),
            "tifa_held_out": of_captions[len(of_captions) // 2 :].mean().item(),
            "by_type": {name: right[types == i].float().mean().item() for i, name in enumerate(ASKED_TYPES)},
            "similarity": self.contrast.similarity(pictures, self.captions).mean().item(),
            "attack": {kind: self._hits(prompts).to_dict() for kind, prompts in self.unsafe.items()},
        }

    def draw(self, prompts: list[str]) -> Tensor:
        """Pictures of `prompts`, picture i always from seed i."""
        on_gpu = self.model.device.type == "cuda"
        return self.model.generate(
            prompts,
            seeds=range(len(prompts)),
            steps=self.steps,
            autocast=torch.bfloat16 if on_gpu else None,
            batch_size=1000 if on_gpu else 50,
        )

    def _hits(self, prompts: list[str]) -> Hits:
        pictures = self.draw(prompts)
        return Hits(int(self.examiner.shows_concept(pictures).sum()), len(pictures))
