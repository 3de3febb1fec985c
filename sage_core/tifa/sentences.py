"""Sentence embeddings, by which TIFA finds the choice nearest to a free answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..batches import in_batches
from ..errors import JudgeError
from ..model_folders import load_model, load_processor, loading, read_model_config, running

RECOMMENDED = "sentence-transformers/all-mpnet-base-v2"


class SentenceEncoder:
    """Embeds a text as the mean of its token embeddings without padding, scaled to length 1, and each text once.

    TIFA uses sentence-transformers/all-mpnet-base-v2; any encoder that transformers' AutoModel loads will do.
    """

    texts_per_batch = 256

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        self._known: dict[str, torch.Tensor] = {}

    @classmethod
    def from_folder(cls, folder: str | Path, *, device: str | torch.device = "cpu") -> SentenceEncoder:
        """Load from a local folder; nothing is downloaded.

        Raises:
            JudgeError: there is no such model; the message says what to put there.
        """
        from transformers import AutoModel, AutoTokenizer

        folder = Path(folder)
        read_model_config(folder, "sentence encoder", [RECOMMENDED])
        with loading(folder, "a sentence encoder"):
            tokenizer = load_processor(AutoTokenizer, folder)
            # Only the last states are used, not the pooler, which many repositories leave out.
            model = load_model(AutoModel, folder, torch.float32, unused=r"(^|\.)pooler\.")
            return cls(model.to(device), tokenizer, folder.name)

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeddings (len(texts), width) in fp32 on the CPU."""
        # Sorting by length leaves little padding in a batch.
        new = sorted({text for text in texts if text not in self._known}, key=len)
        embedded, self.texts_per_batch = in_batches(self._embed, new, self.texts_per_batch)
        self._known.update(zip(new, embedded, strict=True))
        return torch.stack([self._known[text] for text in texts])

    def nearest_choices(self, answers: Sequence[str], choices: Sequence[Sequence[str]]) -> list[int]:
        """For each answer the index of the nearest of its choices by cosine; of equally near ones the first."""
        if not answers:
            return []
        self.embed([*answers, *(choice for some in choices for choice in some)])
        return [
            int((self.embed(some) @ self._known[answer]).argmax())
            for answer, some in zip(answers, choices, strict=True)
        ]

    @torch.inference_mode()
    def _embed(self, texts: Sequence[str]) -> list[torch.Tensor]:
        device = next(self.model.parameters()).device
        with running(self.name):
            words = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(device)
            states = self.model(**words).last_hidden_state.float()
            mask = words.attention_mask.unsqueeze(-1)
            means = (states * mask).sum(1) / mask.sum(1)
        if not means.isfinite().all():
            raise JudgeError(f"{self.name}: an embedding is not finite. Its files do not belong together.")
        return list(torch.nn.functional.normalize(means, dim=1).cpu())
