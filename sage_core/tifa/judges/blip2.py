"""BLIP-2 with a T5: 32 query tokens read the image, and the language model reads them before the question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...errors import JudgeError
from ..questions import Question
from .base import Answer, Features, ModelJudge, choice_probabilities, sequence_log_likelihoods


class Blip2Judge(ModelJudge):
    """Blip2ForConditionalGeneration with an encoder-decoder, for instance Salesforce/blip2-flan-t5-xl.

    As in TIFA, the question is asked with its choices, and the answer is found with 5 beams. Vision tower and query
    transformer run once per image.
    """

    model_kind = "Blip2ForConditionalGeneration"
    processor_kind = "Blip2Processor"
    answer_length = 30
    beams = 5

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        super().__init__(model, processor, name)
        if not model.language_model.config.is_encoder_decoder:
            raise JudgeError(
                f"{name}: a BLIP-2 with {model.language_model.config.model_type}, expected one with T5, "
                f"for instance Salesforce/blip2-flan-t5-xl. The others do not follow the multiple-choice prompt."
            )

    @property
    def dtype(self) -> torch.dtype:
        """The language model's type."""
        # The query transformer stays in single precision whatever the model was loaded in.
        return self.model.language_projection.weight.dtype

    def encode(self, images: Sequence[torch.Tensor]) -> list[Features]:
        """The 32 query tokens of each image in the language model's width, (32, width)."""
        patches = self.model.vision_model(pixel_values=self.pixels(images).pixel_values).last_hidden_state
        read = self.model.qformer(
            query_embeds=self.model.query_tokens.expand(len(patches), -1, -1),
            encoder_hidden_states=patches,
            encoder_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long, device=self.device),
        ).last_hidden_state
        return list(self.model.language_projection(read.to(self.dtype)))

    def ask(self, features: Sequence[Features], questions: Sequence[Question], likelihoods: bool) -> list[Answer]:
        """Answer by beam search; a second pass over the choices gives their probabilities."""
        from transformers.modeling_outputs import BaseModelOutput

        language = self.model.language_model
        words = self.tokens([_prompt(question) for question in questions])
        images = torch.stack(list(features))
        seen = torch.cat([images, language.get_input_embeddings()(words.input_ids).to(images.dtype)], 1)
        mask = torch.cat([torch.ones_like(images[..., 0], dtype=torch.long), words.attention_mask], 1)
        read = language.get_encoder()(inputs_embeds=seen, attention_mask=mask).last_hidden_state
        generated = language.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=read),
            attention_mask=mask,
            num_beams=self.beams,
            max_length=self.answer_length,
            min_length=1,
        )
        texts = [text.strip() for text in self.processor.batch_decode(generated, skip_special_tokens=True)]
        if not likelihoods:
            return [Answer(text) for text in texts]
        probabilities = self._probabilities(read, mask, questions)
        return [Answer(*pair) for pair in zip(texts, probabilities, strict=True)]

    def _probabilities(
        self, read: torch.Tensor, mask: torch.Tensor, questions: Sequence[Question]
    ) -> list[tuple[float, ...]]:
        from transformers.modeling_outputs import BaseModelOutput

        language = self.model.language_model
        counts = torch.tensor([len(question.choices) for question in questions], device=self.device)
        choices = self.tokens([choice for question in questions for choice in question.choices], padding_side="right")
        targets = choices.input_ids.masked_fill(choices.attention_mask == 0, -100)
        start = torch.full_like(targets[:, :1], language.config.decoder_start_token_id)
        logits = language(
            encoder_outputs=BaseModelOutput(last_hidden_state=read.repeat_interleave(counts, 0)),
            attention_mask=mask.repeat_interleave(counts, 0),
            decoder_input_ids=torch.cat([start, choices.input_ids[:, :-1]], 1),
        ).logits
        return choice_probabilities(sequence_log_likelihoods(logits, targets), questions)


def _prompt(question: Question) -> str:
    choices = ", ".join(question.choices)
    return f"Answer the multiple-choice question. Question: {question.question} Choices: {choices} Answer:"
