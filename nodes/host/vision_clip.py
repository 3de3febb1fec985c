"""A vision-language model that ComfyUI runs, as a judge of pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...sage_core.errors import JudgeError
from ...sage_core.tifa.judges.base import Answer
from ...sage_core.tifa.questions import Question


class ClipJudge:
    """A vision-language model that ComfyUI runs as a CLIP; it gives no probabilities and rereads images."""

    answer_length = 20

    def __init__(self, clip: Any) -> None:
        if not all(hasattr(clip, method) for method in ("generate", "decode")):
            raise JudgeError(
                "This ComfyUI's CLIP objects cannot write text: update to 0.26 or later, or choose a model folder."
            )
        self._clip = clip
        self.name = f"ComfyUI {_mark(clip.cond_stage_model)}"

    def answer(
        self,
        images: Sequence[Any],
        questions: Sequence[Sequence[Question]],
        *,
        likelihoods: bool = True,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[list[Answer]]:
        """See Judge; `likelihoods` has no effect, since there are no probabilities."""
        answers = []
        for image, asked in zip(images, questions, strict=True):
            picture = image[None].float() / 255 if image.dtype == torch.uint8 else image[None]
            answers.append([self._ask(picture, question) for question in asked])
            if on_batch is not None:
                on_batch(len(asked))
        return answers

    def _ask(self, picture: Any, question: Question) -> Answer:
        prompt = f"{question.question}\nChoices: {', '.join(question.choices)}.\nAnswer with one of the choices only."
        ids = self._clip.generate(
            self._clip.tokenize(prompt, image=picture), do_sample=False, max_length=self.answer_length
        )
        # Some versions return one row of ids, others a batch of rows.
        return Answer(self._clip.decode(ids[0] if isinstance(ids[0], list) else ids).strip())


def _mark(model: torch.nn.Module) -> str:
    """Class, size, and first digits of one weight matrix's hash, which tell models apart without reading gigabytes."""
    # Quantised weights have classes of their own, and weights not yet loaded have no bytes to read.
    plain = (torch.Tensor, torch.nn.Parameter)
    weights = [w for w in model.state_dict().values() if type(w) in plain and not w.is_meta]
    matrices = [weight for weight in weights if weight.ndim == 2 and weight.is_floating_point()]
    mark = f"{type(model).__name__}, {sum(weight.nbytes for weight in weights) / 1e9:.3f} GB"
    if matrices:
        # From the middle of the model: its ends are often equal to those of another one.
        middle = matrices[len(matrices) // 2].detach().cpu().float().numpy()
        mark += f", {hashlib.sha256(middle.tobytes()).hexdigest()[:8]}"
    return mark
