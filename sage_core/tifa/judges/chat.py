"""Vision-language models with a chat template: SmolVLM, Qwen-VL, LLaVA and other image-text-to-text models."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from ...errors import JudgeError
from ..questions import Question
from .base import Answer, Features, ModelJudge, choice_probabilities, grouped, sequence_log_likelihoods


@dataclass(eq=False)
class _Picture:
    """A model's inputs for one image and, while questions about it come, what the model made of them.

    `memory` holds keys and values (a batch of one) of the image and what precedes it, and the offset of positions after
    it.
    """

    inputs: Any
    memory: tuple[Any, torch.Tensor | None] | None = None


class ChatJudge(ModelJudge):
    """Any decoder model of AutoModelForImageTextToText whose chat template puts the image before the text.

    The image and what precedes it are read once. All questions about the image share the keys and values, even those in
    the next batch. Only if memory runs out, the image of an interrupted batch is read again. The question is asked with
    its choices, since such models otherwise answer in sentences.
    """

    model_kind = "AutoModelForImageTextToText"

    answer_length = 20
    questions_per_batch = 32
    # An image's questions stay together, so that only one image has to be remembered between batches.
    sort_by_length = False

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        super().__init__(model, processor, name)
        image_token = str(getattr(processor, "image_token", ""))
        start, found, _ = self._render("?").partition(image_token) if image_token else ("", "", "")
        if not found:
            raise JudgeError(f"{name}: its chat template holds no image, expected a model that takes images in chats.")
        self._before_text = start + found
        ends = model.generation_config.eos_token_id
        if ends is None:
            ends = processor.tokenizer.eos_token_id
        if ends is None:
            raise JudgeError(
                f"{name}: neither generation_config.json nor the tokenizer says which token ends an answer "
                f"(eos_token_id), expected one of them to. Download all files of the model's repository."
            )
        self._ends = torch.tensor(ends if isinstance(ends, list) else [ends])

    def encode(self, images: Sequence[torch.Tensor]) -> list[Features]:
        """The processor's inputs for each image; the model reads them with the first question."""
        # A template that writes the start token itself must not get a second one.
        start = self.processor.tokenizer.bos_token
        special = not (start and self._before_text.startswith(start))
        return [
            _Picture(
                self.processor(
                    text=[self._before_text],
                    images=[Image.fromarray(image.permute(1, 2, 0).cpu().numpy())],
                    add_special_tokens=special,
                    return_tensors="pt",
                ).to(self.device, dtype=self.dtype)
            )
            for image in images
        ]

    def ask(self, features: Sequence[Features], questions: Sequence[Question], likelihoods: bool) -> list[Answer]:
        """Answer freely; a second pass over the choices gives their probabilities."""
        asked = [self._words(self._after_image(question)) for question in questions]
        answers: dict[int, Answer] = {}
        for together in grouped(range(len(questions)), lambda row: _read_with(features[row])):
            images = {id(features[row]): features[row] for row in together}
            slots = {name: slot for slot, name in enumerate(images)}
            cache, offsets = self._read_images(list(images.values()))
            # Texts after the image have no padding either, so that positions need no correction.
            for rows in grouped(together, lambda row: len(asked[row])):
                slot = torch.tensor([slots[id(features[row])] for row in rows], device=self.device)
                words = torch.tensor([asked[row] for row in rows], device=self.device)
                some = [questions[row] for row in rows]
                replies = self._answer_from(cache, offsets, slot, words, some, likelihoods)
                answers.update(zip(rows, replies, strict=True))
            if id(features[-1]) in slots and features[-1].memory is None:
                row = torch.tensor([slots[id(features[-1])]], device=self.device)
                features[-1].memory = _select(cache, row), None if offsets is None else offsets[row]
        for image in features:
            # The next batch can only go on with the last image of this one.
            if image is not features[-1]:
                image.memory = None
        return [answers[row] for row in range(len(questions))]

    def _answer_from(
        self,
        cache: Any,
        offsets: torch.Tensor | None,
        slots: torch.Tensor,
        words: torch.Tensor,
        questions: Sequence[Question],
        likelihoods: bool,
    ) -> list[Answer]:
        self._set_offsets(offsets, slots)
        cache = _select(cache, slots)
        following = self.model(input_ids=words, past_key_values=cache, use_cache=True).logits[:, -1]
        probabilities: Iterable[tuple[float, ...] | None] = [None] * len(questions)
        if likelihoods:
            counts = torch.tensor([len(question.choices) for question in questions], device=self.device)
            rows = torch.arange(len(questions), device=self.device).repeat_interleave(counts)
            self._set_offsets(offsets, slots[rows])
            probabilities = self._probabilities(_select(cache, rows), following[rows], questions)
            self._set_offsets(offsets, slots)
        texts = self._write(cache, following)
        return [Answer(*pair) for pair in zip(texts, probabilities, strict=True)]

    def _read_images(self, images: Sequence[_Picture]) -> tuple[Any, torch.Tensor | None]:
        """Keys and values of images that go together (see `_read_with`), and their offsets."""
        if images[0].memory is not None:
            return images[0].memory
        inputs = {name: torch.cat([image.inputs[name] for image in images]) for name in images[0].inputs}
        # The mask would be all ones; without it every model derives positions from the cache's length.
        inputs.pop("attention_mask", None)
        cache = self.model(**inputs, use_cache=True).past_key_values
        return cache, getattr(self.model.model, "rope_deltas", None)

    def _set_offsets(self, offsets: torch.Tensor | None, slots: torch.Tensor) -> None:
        # Qwen's models remember per row how far the image moved the positions, and expect the same rows next time.
        if offsets is not None:
            self.model.model.rope_deltas = offsets[slots]

    def _write(self, cache: Any, logits: torch.Tensor) -> list[str]:
        ends = self._ends.to(self.device)
        written: list[torch.Tensor] = []
        done = torch.zeros(len(logits), dtype=torch.bool, device=self.device)
        for _ in range(self.answer_length):
            # A finished row goes on with end tokens, which decoding drops.
            token = torch.where(done, ends[0], logits.argmax(-1))
            written.append(token)
            done = done | torch.isin(token, ends)
            if done.all():
                break
            logits = self.model(input_ids=token[:, None], past_key_values=cache, use_cache=True).logits[:, -1]
        texts = self.processor.batch_decode(torch.stack(written, 1), skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _probabilities(self, cache: Any, first: torch.Tensor, questions: Sequence[Question]) -> list[tuple[float, ...]]:
        replies = [
            torch.tensor(self._words(self._reply(question, choice)))
            for question in questions
            for choice in question.choices
        ]
        tokens = torch.nn.utils.rnn.pad_sequence(replies, batch_first=True).to(self.device)
        targets = torch.nn.utils.rnn.pad_sequence(replies, batch_first=True, padding_value=-100).to(self.device)
        later = self.model(input_ids=tokens[:, :-1], past_key_values=cache, use_cache=True).logits
        logits = torch.cat([first[:, None], later], 1)
        return choice_probabilities(sequence_log_likelihoods(logits, targets), questions)

    def _words(self, text: str) -> list[int]:
        return self.processor.tokenizer(text, add_special_tokens=False).input_ids

    def _render(self, text: str, reply: str | None = None) -> str:
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
        if reply is None:
            return self.processor.apply_chat_template([turn], add_generation_prompt=True)
        answer = {"role": "assistant", "content": [{"type": "text", "text": reply}]}
        return self.processor.apply_chat_template([turn, answer])

    def _after_image(self, question: Question) -> str:
        return self._render(_prompt(question)).removeprefix(self._before_text)

    def _reply(self, question: Question, choice: str) -> str:
        """What the model would have to write, including the end of its turn, as its own template has it."""
        asked = self._render(_prompt(question))
        answered = self._render(_prompt(question), choice)
        if answered.startswith(asked):
            return answered[len(asked) :].rstrip()
        # Some templates do not continue the prompt: they put a thinking section before an earlier answer.
        return choice + self.processor.tokenizer.decode(self._ends[:1])


def _prompt(question: Question) -> str:
    choices = ", ".join(question.choices)
    return f"{question.question}\nChoices: {choices}.\nAnswer with one of the choices and nothing else."


def _read_with(image: _Picture) -> Hashable:
    """A key that images share if they can be read together; a remembered image has one of its own."""
    if image.memory is not None:
        return id(image)
    return tuple((name, tuple(value.shape)) for name, value in image.inputs.items())


def _select(cache: Any, rows: torch.Tensor) -> Any:
    """A copy of a key-value cache with the given rows of the batch."""
    chosen = copy.deepcopy(cache)
    chosen.batch_select_indices(rows)
    return chosen
