"""ViLT: one transformer over words and patches, which answers with one of a fixed set of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...errors import JudgeError
from ..questions import Question
from .base import Answer, Features, ModelJudge


class ViltJudge(ModelJudge):
    """ViltForQuestionAnswering, for instance dandelin/vilt-b32-finetuned-vqa.

    The answer is the label with the highest logit. Probabilities are the softmax over the choices' logits, and None
    for a question with a choice that is not a label: the model has no opinion about it.
    """

    model_kind = "ViltForQuestionAnswering"
    processor_kind = "ViltProcessor"

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        super().__init__(model, processor, name)
        self._labels: dict[int, str] = {int(index): label for index, label in model.config.id2label.items()}
        expected = model.classifier[-1].out_features
        if set(self._labels) != set(range(expected)):
            raise JudgeError(
                f"{name}: id2label of config.json does not name the {expected} labels 0 to {expected - 1}."
            )
        self._label_index = {label.casefold(): index for index, label in reversed(self._labels.items())}

    def encode(self, images: Sequence[torch.Tensor]) -> list[Features]:
        """The embedded patches of each image, (tokens, width), without padding."""
        pixels = self.pixels(images)
        # The embedding shuffles patches and draws paddings from the global generator. It must not depend on what else
        # runs in this process, nor disturb it.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            embedded, mask, _ = self.model.vilt.embeddings.visual_embed(
                pixels.pixel_values, pixels.pixel_mask, max_image_length=self.model.config.max_image_length
            )
        return [tokens[valid.bool()] for tokens, valid in zip(embedded, mask, strict=True)]

    def ask(self, features: Sequence[Features], questions: Sequence[Question], likelihoods: bool) -> list[Answer]:
        """Answer by the label with the highest logit."""
        words = self.tokens(
            [question.question for question in questions],
            truncation=True,
            max_length=self.model.config.max_position_embeddings,
        )
        patches = torch.nn.utils.rnn.pad_sequence(list(features), batch_first=True)
        lengths = torch.tensor([len(tokens) for tokens in features], device=self.device)
        mask = (torch.arange(patches.shape[1], device=self.device) < lengths[:, None]).long()
        logits = self.model(**words, image_embeds=patches, pixel_mask=mask).logits.float().cpu()
        texts = [self._labels[index] for index in logits.argmax(-1).tolist()]
        if not likelihoods:
            return [Answer(text) for text in texts]
        return [
            Answer(text, self._probabilities(row, question))
            for text, row, question in zip(texts, logits, questions, strict=True)
        ]

    def _probabilities(self, logits: torch.Tensor, question: Question) -> tuple[float, ...] | None:
        indices = [self._label_index.get(choice.casefold()) for choice in question.choices]
        known = [index for index in indices if index is not None]
        return tuple(logits[known].double().softmax(0).tolist()) if len(known) == len(indices) else None
