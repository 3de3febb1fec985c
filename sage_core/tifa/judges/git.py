"""GIT: one causal transformer reads the image's patches, then the question, and writes the answer after it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from ...errors import JudgeError
from ..questions import Question
from .base import Answer, Features, ModelJudge, choice_probabilities, grouped, sequence_log_likelihoods


class _TowerOnce(torch.nn.Module):
    """Takes the place of GIT's vision tower, and hands on features (N, 1, T, D) that the tower made before."""

    def __init__(self, tower: torch.nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=pixel_values.squeeze(1))


class GitJudge(ModelJudge):
    """GitForCausalLM, for instance microsoft/git-base-vqav2 or microsoft/git-large-vqav2.

    The vision tower runs once per image. It is taken out of the model, which would run it for each question.
    """

    model_kind = "GitForCausalLM"

    # Tokens of question and answer together, as in the model's documentation of VQA.
    answer_length = 50

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        super().__init__(model, processor, name)
        model.git.image_encoder = _TowerOnce(model.git.image_encoder)

    def encode(self, images: Sequence[torch.Tensor]) -> list[Features]:
        """The vision tower's states of each image, (tokens, width)."""
        return list(self.model.git.image_encoder.tower(self.pixels(images).pixel_values).last_hidden_state)

    def ask(self, features: Sequence[Features], questions: Sequence[Question], likelihoods: bool) -> list[Answer]:
        """Answer freely; a second pass over the choices gives their probabilities."""
        tokenizer = self.processor.tokenizer
        prompts = [self._prompt(question) for question in questions]
        patches = torch.stack(list(features)).unsqueeze(1)
        texts = [""] * len(questions)
        # The answer is written directly after the question, so that only questions of one length go together.
        for rows in grouped(range(len(questions)), lambda row: len(prompts[row])):
            inputs = torch.tensor([prompts[row] for row in rows], device=self.device)
            written = self.model.generate(
                pixel_values=patches[rows],
                input_ids=inputs,
                attention_mask=torch.ones_like(inputs),
                max_length=self.answer_length,
            )
            for row, text in zip(
                rows, tokenizer.batch_decode(written[:, inputs.shape[1] :], skip_special_tokens=True), strict=True
            ):
                texts[row] = text
        if not likelihoods:
            return [Answer(text) for text in texts]
        probabilities = self._probabilities(patches, prompts, questions)
        return [Answer(*pair) for pair in zip(texts, probabilities, strict=True)]

    def _prompt(self, question: Question) -> list[int]:
        tokenizer = self.processor.tokenizer
        ids = [tokenizer.cls_token_id, *tokenizer(question.question, add_special_tokens=False).input_ids]
        if len(ids) >= self.answer_length:
            raise JudgeError(
                f"{self.name}: the question {question.question!r} of caption {question.id!r} has {len(ids)} tokens, "
                f"expected fewer than {self.answer_length}, which GIT needs for question and answer together. Shorten "
                "it, leave it out, or use another judge."
            )
        return ids

    def _probabilities(
        self, patches: torch.Tensor, prompts: Sequence[list[int]], questions: Sequence[Question]
    ) -> list[tuple[float, ...]]:
        tokenizer = self.processor.tokenizer
        inputs, targets, images = [], [], []
        for row, (prompt, question) in enumerate(zip(prompts, questions, strict=True)):
            for choice in question.choices:
                answer = [*tokenizer(choice, add_special_tokens=False).input_ids, tokenizer.sep_token_id]
                inputs.append(torch.tensor(prompt + answer))
                targets.append(torch.tensor([-100] * len(prompt) + answer))
                images.append(row)
        # The text is causal: no scored token sees the padding on the right.
        ids = torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True).to(self.device)
        wanted = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100).to(self.device)
        logits = self.model(input_ids=ids, pixel_values=patches[images], use_cache=False).logits
        # Logits of the image's tokens come first.
        return choice_probabilities(sequence_log_likelihoods(logits[:, -ids.shape[1] : -1], wanted[:, 1:]), questions)
