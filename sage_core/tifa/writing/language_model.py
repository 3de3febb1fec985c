"""A local causal language model that completes prompts and picks the likeliest of given continuations."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...batches import in_batches
from ...errors import JudgeError
from ...model_folders import load_model, load_processor, loading, read_model_config, running
from .grammars import GrammarMask, Stop, grammar_is_available, grammar_tokenizer

RECOMMENDED = "Qwen/Qwen2.5-1.5B-Instruct"
# Layers whose cache can be copied for many questions and gone on with; others, as Mamba's, are read anew each time.
_COPIED_LAYERS = frozenset({"DynamicLayer", "DynamicSlidingWindowLayer"})
# Judging questions takes two instructions; each may hold some megabytes of cache.
_INSTRUCTIONS_KEPT = 4


@dataclass(frozen=True)
class _Row:
    """One reading: the tokens read, and those scored, each alone after all that is read or as the end of it."""

    read: list[int]
    scored: list[int]
    alone: bool


class LanguageModel:
    """Any AutoModelForCausalLM; prompts go through the chat template where the tokenizer has one."""

    prompts_per_batch = 8
    rows_per_batch = 32

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        # Padding is masked out, so that any token serves where a tokenizer knows none.
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
        # The model's cache after each instruction, see `likelihoods`.
        self._instructions: dict[tuple[tuple[int, ...], torch.device], Any] = {}
        self._grammar_tokenizer: Any = None
        named = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in named else "past_key_values"

    @classmethod
    def from_folder(
        cls, folder: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> LanguageModel:
        """Load from a local folder; nothing is downloaded. Raises JudgeError, saying what to put there."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = Path(folder)
        read_model_config(folder, "language", [RECOMMENDED])
        with loading(folder, "a causal language model"):
            tokenizer = load_processor(AutoTokenizer, folder)
            model = load_model(AutoModelForCausalLM, folder, dtype)
            return cls(model.to(device), tokenizer, folder.name)

    can_follow_grammars = property(lambda self: grammar_is_available())

    @property
    def parameters(self) -> int:
        """How many numbers the model has learned."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def complete(
        self,
        prompts: Sequence[str],
        *,
        tokens: int = 1024,
        seed: int | None = None,
        grammars: Sequence[str] | None = None,
        on_token: Callable[[int, int], None] | None = None,
    ) -> list[str]:
        """What the model writes after each prompt, at most `tokens` long: its first choice, or drawn with `seed`.

        A text that repeats itself word for word ends there, see `repeats`. `grammars` holds one grammar a prompt in
        the Lark dialect of llguidance, which nothing written leaves. `on_token(written, tokens)` is told of the
        progress of each batch; what it raises ends the work. Raises JudgeError if grammars are given without the
        package llguidance, see `can_follow_grammars`.
        """
        sampling = {"do_sample": False} if seed is None else {"do_sample": True, "temperature": 0.7, "top_p": 0.95}

        @torch.inference_mode()
        def write(batch: Sequence[tuple[str, str | None]]) -> list[str]:
            ids, mask = self._left_padded([self._ids(prompt) for prompt, _ in batch])
            stops = [Stop(ids.shape[1], tokens, on_token)]
            given = [grammar for _, grammar in batch if grammar is not None]
            follow = [self._grammar_mask(given, ids.shape[1])] if given else []
            with torch.random.fork_rng(devices=[ids.device] if ids.is_cuda else []):
                torch.manual_seed(seed or 0)
                written = self.model.generate(
                    input_ids=ids, attention_mask=mask, max_new_tokens=tokens, pad_token_id=self._pad,
                    stopping_criteria=stops, logits_processor=follow, **sampling,
                )  # fmt: skip
            return self.tokenizer.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True)

        rules: Sequence[str | None] = grammars or [None] * len(prompts)
        items = list(zip(prompts, rules, strict=True))
        with running(self.name):
            texts, self.prompts_per_batch = in_batches(write, items, self.prompts_per_batch)
        return texts

    def likelihoods(
        self, instruction: str, context: str, asked: Sequence[tuple[str, Sequence[str]]]
    ) -> list[list[float]]:
        """For each (question, choices) the log-likelihood of every choice after instruction + context + question.

        What questions share is read once: an instruction when it is first seen, the context once a call. The four
        parts are tokenized apart, without a chat template. Natural logarithms, summed over a choice's tokens.
        Raises JudgeError if a question or a choice is empty.
        """
        with running(self.name):
            rows = [row for question, some in asked for row in self._rows(question, some)]
            shared, cache = self._shared(instruction, context)
        flat = iter([value for values in self._score_all(rows, shared, cache) for value in values])
        return [[next(flat) for _ in some] for _, some in asked]

    def likeliest(self, prompts: Sequence[str], choices: Sequence[Sequence[str]]) -> list[int]:
        """For each prompt the index of the choice that the model finds most likely to follow, per token."""
        with running(self.name):
            starts = [self._ids(prompt) for prompt in prompts]
            ends = [[self._plain(f" {choice}") for choice in some] for some in choices]
        rows = [_Row(start + end, end, False) for start, some in zip(starts, ends, strict=True) for end in some]
        scores = iter(self._score_all(rows, (), None))
        means = [[next(scores)[0] / len(end) for end in some] for some in ends]
        return [max(range(len(some)), key=some.__getitem__) for some in means]

    def _score_all(self, rows: Sequence[_Row], shared: Sequence[int], cache: Any) -> list[list[float]]:
        """The log-likelihoods of each row's choices, in batches."""

        @torch.inference_mode()
        def score(batch: Sequence[_Row]) -> list[list[float]]:
            return self._score_rows(batch, shared, cache)

        with running(self.name):
            scores, self.rows_per_batch = in_batches(score, rows, self.rows_per_batch)
        return scores

    def _plain(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _rows(self, question: str, choices: Sequence[str]) -> list[_Row]:
        start, ends = self._plain(question), [self._plain(choice) for choice in choices]
        if not start or not all(ends):
            raise JudgeError(f"Question {question!r} or one of its choices {list(choices)} is empty.")
        if all(len(end) == 1 for end in ends):
            # One reading serves all choices of a single token: what follows the question scores them.
            return [_Row(start, [end[0] for end in ends], True)]
        return [_Row(start + end, end, False) for end in ends]

    @torch.inference_mode()
    def _shared(self, instruction: str, context: str) -> tuple[list[int], Any]:
        """The tokens before all questions and, where the model has a cache that can be copied, their cache."""
        start, end = self._plain(instruction), self._plain(context)
        if self.tokenizer("a").input_ids[:1] == [self.tokenizer.bos_token_id]:
            start = [self.tokenizer.bos_token_id, *start]
        key = (tuple(start), self._device)
        if key not in self._instructions:
            if len(self._instructions) >= _INSTRUCTIONS_KEPT:
                self._instructions.clear()
            self._instructions[key] = self._read(start, None)
        cache = self._instructions[key]
        if cache is not None and end:
            cache = self._read(end, copy.deepcopy(cache))
        return start + end, cache

    def _read(self, ids: Sequence[int], cache: Any) -> Any:
        """The cache after `ids`, or None if this model's cannot be copied for many questions."""
        after = self.model(**self._inputs([ids], cache), use_cache=True).get(self._cache_name)
        known = {type(layer).__name__ for layer in getattr(after, "layers", ())} <= _COPIED_LAYERS
        return after if known and hasattr(after, "batch_repeat_interleave") else None

    def _inputs(self, rows: Sequence[Sequence[int]], cache: Any) -> dict[str, Any]:
        ids = torch.tensor([list(row) for row in rows], device=self._device)
        return {"input_ids": ids} if cache is None else {"input_ids": ids, self._cache_name: cache}

    def _score_rows(self, batch: Sequence[_Row], shared: Sequence[int], cache: Any) -> list[list[float]]:
        """The log-likelihoods of each row's choices."""
        before = [] if cache is not None else list(shared)
        longest = max(len(row.read) for row in batch)
        # Causal: padding on the right is seen by nothing that is scored.
        padded = [before + row.read + [self._pad] * (longest - len(row.read)) for row in batch]
        if cache is not None:
            cache = copy.deepcopy(cache)
            cache.batch_repeat_interleave(len(batch))
        logits = self.model(**self._inputs(padded, cache), use_cache=cache is not None).logits[:, len(before) :]
        scores = []
        for number, row in enumerate(batch):
            end = len(row.read)
            if row.alone:
                found = logits[number, end - 1].float().log_softmax(-1)[row.scored]
            else:
                steps = logits[number, end - 1 - len(row.scored) : end - 1].float().log_softmax(-1)
                found = steps[torch.arange(len(row.scored)), row.scored].sum()[None]
            scores.append(found.cpu().tolist())
        return scores

    def _grammar_mask(self, grammars: Sequence[str], start: int) -> GrammarMask:
        if self._grammar_tokenizer is None:
            self._grammar_tokenizer = grammar_tokenizer(self.tokenizer, self.model.config.get_text_config().vocab_size)
        return GrammarMask(self._grammar_tokenizer, grammars, start)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _ids(self, prompt: str) -> list[int]:
        if not self.tokenizer.chat_template:
            return self.tokenizer(prompt).input_ids
        turn = [{"role": "user", "content": prompt}]
        text = self.tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _left_padded(self, rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        longest = max(map(len, rows))
        ids = torch.tensor([[self._pad] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        return ids.to(self._device), mask.to(self._device)
