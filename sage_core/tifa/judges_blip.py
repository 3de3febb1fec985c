"""BLIP: a vision tower, a question encoder that looks at the image, and an answer decoder that looks at both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .judges import Answer, Features, ModelJudge, choice_probabilities, grouped, sequence_log_likelihoods
from .questions import Question


class BlipJudge(ModelJudge):
    """BlipForQuestionAnswering, for instance Salesforce/blip-vqa-base or Salesforce/blip-vqa-capfilt-large.

    The vision tower runs once per image. The model's own `generate` is not used: it would run the tower per question,
    and in a batch its answer decoder attends to the questions' padding (transformers ignores the mask that is meant to
    prevent it). Here questions are read together, and answers written for questions of one length at a time.
    """

    answer_length = 50

    @staticmethod
    def load(folder: Path, settings: dict[str, Any]) -> tuple[Any, Any]:
        from transformers import BlipForQuestionAnswering, BlipProcessor

        processor = BlipProcessor.from_pretrained(folder, local_files_only=True)
        return BlipForQuestionAnswering.from_pretrained(folder, **settings), processor

    def encode(self, images: Sequence[torch.Tensor]) -> list[Features]:
        return list(self.model.vision_model(pixel_values=self.pixels(images).pixel_values).last_hidden_state)

    def ask(self, features: Sequence[Features], questions: Sequence[Question], likelihoods: bool) -> list[Answer]:
        patches = torch.stack(list(features))
        words = self.tokens([question.question for question in questions], padding_side="right")
        read = self.model.text_encoder(
            input_ids=words.input_ids,
            attention_mask=words.attention_mask,
            encoder_hidden_states=patches,
            encoder_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long, device=self.device),
        ).last_hidden_state
        answers: dict[int, Answer] = {}
        lengths = words.attention_mask.sum(1).tolist()
        for rows in grouped(range(len(questions)), lambda row: lengths[row]):
            some = [questions[row] for row in rows]
            answers.update(zip(rows, self._reply(read[rows, : lengths[rows[0]]], some, likelihoods), strict=True))
        return [answers[row] for row in range(len(questions))]

    def _reply(self, read: torch.Tensor, questions: Sequence[Question], likelihoods: bool) -> list[Answer]:
        text = self.model.config.text_config
        generated = self.model.text_decoder.generate(
            input_ids=torch.full((len(questions), 1), text.bos_token_id, device=self.device),
            eos_token_id=text.sep_token_id,
            pad_token_id=text.pad_token_id,
            encoder_hidden_states=read,
            max_length=self.answer_length,
        )
        texts = self.processor.batch_decode(generated, skip_special_tokens=True)
        if not likelihoods:
            return [Answer(text) for text in texts]
        return [Answer(*pair) for pair in zip(texts, self._probabilities(read, questions), strict=True)]

    def _probabilities(self, read: torch.Tensor, questions: Sequence[Question]) -> list[tuple[float, ...]]:
        text = self.model.config.text_config
        counts = torch.tensor([len(question.choices) for question in questions], device=self.device)
        # Padding is on the right, whatever the folder's setting: it then follows the choice and needs no mask.
        choices = self.tokens([choice for question in questions for choice in question.choices], padding_side="right")
        # The tokenizer writes [CLS] choice [SEP]; the decoder was trained with its own start token for [CLS].
        inputs = choices.input_ids.clone()
        inputs[:, 0] = text.bos_token_id
        targets = choices.input_ids.masked_fill(choices.attention_mask == 0, -100)
        logits = self.model.text_decoder(
            input_ids=inputs[:, :-1],
            encoder_hidden_states=read.repeat_interleave(counts, 0),
        ).logits
        return choice_probabilities(sequence_log_likelihoods(logits, targets[:, 1:]), questions)
