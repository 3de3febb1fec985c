"""BLIP: a vision tower, a question encoder that looks at the image, and an answer decoder that looks at both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..questions import Question
from .base import Answer, Features, ModelJudge, choice_probabilities, sequence_log_likelihoods


class BlipJudge(ModelJudge):
    """BlipForQuestionAnswering, for instance Salesforce/blip-vqa-base or Salesforce/blip-vqa-capfilt-large.

    The vision tower, and the question encoder's keys and values of its patches, are computed once per image. The
    model's own `generate` would run all of it for each question; so question encoder and answer decoder are called
    directly. Of a question or choice that is longer than the model reads (512 tokens for Salesforce's) only the
    beginning counts.
    """

    model_kind = "BlipForQuestionAnswering"
    processor_kind = "BlipProcessor"
    answer_length = 50
    questions_per_batch = 128
    sort_by_length = False

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        super().__init__(model, processor, name)
        self._sharing = _Sharing()
        for layer in model.text_encoder.encoder.layer:
            attention = layer.crossattention.self
            attention.key = _SharedProjection(attention.key, self._sharing)
            attention.value = _SharedProjection(attention.value, self._sharing)
        self._padding = torch.empty(0)
        for layer in model.text_decoder.bert.encoder.layer:
            layer.crossattention.self.register_forward_pre_hook(self._mask_padding, with_kwargs=True)

    def encode(self, images: Sequence[torch.Tensor]) -> list[Features]:
        """The vision tower's states of each image, (tokens, width)."""
        return list(self.model.vision_model(pixel_values=self.pixels(images).pixel_values).last_hidden_state)

    def ask(self, features: Sequence[Features], questions: Sequence[Question], likelihoods: bool) -> list[Answer]:
        """Answer freely; a second pass over the choices gives their probabilities."""
        text = self.model.config.text_config
        words = self._cut_tokens([question.question for question in questions])
        read = self._read(features, words)
        self._padding = words.attention_mask
        generated = self.model.text_decoder.generate(
            input_ids=torch.full((len(questions), 1), text.bos_token_id, device=self.device),
            eos_token_id=text.sep_token_id,
            pad_token_id=text.pad_token_id,
            encoder_hidden_states=read,
            encoder_attention_mask=words.attention_mask,
            max_length=min(self.answer_length, text.max_position_embeddings),
        )
        texts = self.processor.batch_decode(generated, skip_special_tokens=True)
        if not likelihoods:
            return [Answer(text) for text in texts]
        probabilities = self._probabilities(read, words.attention_mask, questions)
        return [Answer(*pair) for pair in zip(texts, probabilities, strict=True)]

    def _cut_tokens(self, texts: Sequence[str], **settings: Any) -> Any:
        """Tokens of `texts`; a text that is longer than the model reads loses its end, as with ViLT."""
        longest = self.model.config.text_config.max_position_embeddings
        return self.tokens(texts, truncation=True, max_length=longest, **settings)

    def _read(self, features: Sequence[Features], words: Any) -> torch.Tensor:
        """States of the questions (N, length, width), each with attention to its image."""
        images = {id(image): image for image in features}
        slots = {name: slot for slot, name in enumerate(images)}
        patches = torch.stack(list(images.values()))
        rows = torch.tensor([slots[id(image)] for image in features], device=self.device)
        self._sharing.images, self._sharing.rows = patches, rows
        return self.model.text_encoder(
            input_ids=words.input_ids,
            attention_mask=words.attention_mask,
            # Only the shape of these is used; see _SharedProjection.
            encoder_hidden_states=patches[:1].expand(len(rows), -1, -1),
            encoder_attention_mask=torch.ones(len(rows), patches.shape[1], dtype=torch.long, device=self.device),
        ).last_hidden_state

    def _probabilities(
        self, read: torch.Tensor, mask: torch.Tensor, questions: Sequence[Question]
    ) -> list[tuple[float, ...]]:
        counts = torch.tensor([len(question.choices) for question in questions], device=self.device)
        # Padding is on the right, whatever the folder's setting: it then follows the choice and needs no mask.
        texts = [choice for question in questions for choice in question.choices]
        choices = self._cut_tokens(texts, padding_side="right")
        # The tokenizer writes [CLS] choice [SEP]; the decoder was trained with its own start token for [CLS].
        inputs = choices.input_ids.clone()
        inputs[:, 0] = self.model.config.text_config.bos_token_id
        targets = choices.input_ids.masked_fill(choices.attention_mask == 0, -100)
        self._padding = mask.repeat_interleave(counts, 0)
        logits = self.model.text_decoder(
            input_ids=inputs[:, :-1],
            encoder_hidden_states=read.repeat_interleave(counts, 0),
            encoder_attention_mask=self._padding,
        ).logits
        return choice_probabilities(sequence_log_likelihoods(logits, targets[:, 1:]), questions)

    def _mask_padding(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Put the mask over the questions' padding back before the decoder's cross-attention.

        transformers 5 drops it on the way, and a question would be answered differently in a batch with a longer one.
        """
        if len(args) > 4 or kwargs.get("encoder_attention_mask") is not None:
            return None
        hidden = (self._padding == 0)[:, None, None, :]
        mask = torch.zeros_like(hidden, dtype=args[0].dtype).masked_fill(hidden, torch.finfo(args[0].dtype).min)
        return args, {**kwargs, "encoder_attention_mask": mask}


class _Sharing:
    """Patches (images, T, D) of the current batch, and for each of its questions the image it is about."""

    images: torch.Tensor
    rows: torch.Tensor


class _SharedProjection(torch.nn.Module):
    """Key or value projection of a cross-attention; it projects each image once for all questions about it."""

    def __init__(self, projection: torch.nn.Module, sharing: _Sharing) -> None:
        super().__init__()
        self.projection = projection
        self.sharing = sharing

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.projection(self.sharing.images)[self.sharing.rows]
