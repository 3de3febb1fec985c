"""A local causal language model that completes prompts and picks the likeliest of given continuations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...batches import in_batches
from ...model_folders import load_model, load_processor, loading, read_model_config
from ..judges.base import sequence_log_likelihoods

RECOMMENDED = "Qwen/Qwen2.5-1.5B-Instruct"


class LanguageModel:
    """Any AutoModelForCausalLM; prompts go through the chat template where the tokenizer has one."""

    prompts_per_batch = 8

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        # Padding is masked out, so that any token serves where a tokenizer knows none.
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0

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

    def complete(self, prompts: Sequence[str], *, tokens: int = 1024, seed: int | None = None) -> list[str]:
        """What the model writes after each prompt, at most `tokens` long: its first choice, or drawn with `seed`."""
        sampling = {"do_sample": False} if seed is None else {"do_sample": True, "temperature": 0.7, "top_p": 0.95}

        @torch.inference_mode()
        def write(batch: Sequence[str]) -> list[str]:
            ids, mask = self._left_padded([self._ids(prompt) for prompt in batch])
            with torch.random.fork_rng(devices=[ids.device] if ids.is_cuda else []):
                torch.manual_seed(seed or 0)
                written = self.model.generate(
                    input_ids=ids, attention_mask=mask, max_new_tokens=tokens, pad_token_id=self._pad, **sampling
                )
            return self.tokenizer.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True)

        texts, self.prompts_per_batch = in_batches(write, prompts, self.prompts_per_batch)
        return texts

    def likeliest(self, prompts: Sequence[str], choices: Sequence[Sequence[str]]) -> list[int]:
        """For each prompt the index of the choice that the model finds most likely to follow, per token."""

        @torch.inference_mode()
        def pick(batch: Sequence[tuple[str, Sequence[str]]]) -> list[int]:
            starts, ends = [], []
            for prompt, some in batch:
                start = self._ids(prompt)
                starts += [start] * len(some)
                ends += [self.tokenizer(f" {choice}", add_special_tokens=False).input_ids for choice in some]
            whole = [torch.tensor([*start, *end]) for start, end in zip(starts, ends, strict=True)]
            wanted = [torch.tensor([-100] * len(start) + end) for start, end in zip(starts, ends, strict=True)]
            # Causal: padding on the right is seen by nothing that is scored.
            ids = torch.nn.utils.rnn.pad_sequence(whole, batch_first=True, padding_value=self._pad)
            targets = torch.nn.utils.rnn.pad_sequence(wanted, batch_first=True, padding_value=-100)
            device = self._device
            logits = self.model(input_ids=ids.to(device), use_cache=False).logits[:, :-1]
            scores = sequence_log_likelihoods(logits, targets[:, 1:].to(device)).cpu()
            scores = scores / torch.tensor([len(end) for end in ends])
            return [int(part.argmax()) for part in scores.split([len(some) for _, some in batch])]

        picked, self.prompts_per_batch = in_batches(
            pick, list(zip(prompts, choices, strict=True)), self.prompts_per_batch
        )
        return picked

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
