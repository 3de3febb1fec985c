"""The published procedure as its description reads, to measure against; nobody should use it.

- Codebook: each prompt is embedded by itself.
- Pairing: for each unsafe prompt all entries of the codebook are compared one by one, and sorted.
- Step: the encoder in training makes three forward passes (safe, unsafe, concept), and the base makes its own again.

Everything is in fp32, or in plain autocast where steps are compared in a lower precision. It follows the formulas of
arXiv 2607.00402 one after the other, with transformers' own encoder and PyTorch's default AdamW.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..alignment.settings import TrainingSettings
from ..encoders.precision import arithmetic, choose_precision
from ..encoders.text_encoder import TextEncoder
from ..encoders.tokens import tokenize
from ..prompts.pairs import PromptPairs


def codebook(encoder: TextEncoder, prompts: list[str], device: torch.device) -> Tensor:
    """Embeddings φ of the prompts, (N, 77 × width), by one forward pass each."""
    with torch.no_grad():
        return torch.cat([encoder(tokenize([prompt]).to(device)).flatten(1) for prompt in prompts])


def sorted_search(row: Tensor, entries: Tensor) -> list[int]:
    """Indices of all `entries` (S, D), from the least to the most similar to `row` (D,), each compared by itself."""
    similarity = [float(F.cosine_similarity(row, entry, dim=0)) for entry in entries]
    return sorted(range(len(entries)), key=similarity.__getitem__)


class NaiveTraining:
    """The published training loop, step by step, as far as the objectives "released" and "des" need it.

    It trains a copy of the encoder `base` on `pairs`; `targets` (N, D) are φ_0 of each pair's target, before the shift
    along the `concept`.
    """

    def __init__(
        self,
        base: Mapping[str, Tensor],
        pairs: PromptPairs,
        concept: str,
        targets: Tensor,
        settings: TrainingSettings,
        device: torch.device,
    ) -> None:
        """Build both encoders and the optimizer on `device`."""
        self.pairs, self.concept, self.targets, self.settings, self.device = pairs, concept, targets, settings, device
        self.frozen = TextEncoder.from_state(base).to(device).requires_grad_(False)
        self.model = TextEncoder.from_state(base).to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def step(self, rows: list[int]) -> float:
        """Update the encoder on the pairs `rows`; returns the loss before the update."""
        s = self.settings
        safe, unsafe = [self.pairs.safe[i] for i in rows], [self.pairs.unsafe[i] for i in rows]
        base, base_concept, base_empty = (self._embed(self.frozen, p) for p in (safe, [self.concept], [""]))
        u = F.normalize(base_concept, dim=1)
        z, z_unsafe, z_concept = (self._embed(self.model, p) for p in (safe, unsafe, [self.concept]))
        target = self.targets[rows] - s.concept_scale * u
        keep = _distance(z, base) + _distance(z + s.concept_scale * u, base)
        redirect = _distance(z_unsafe, target) + _distance(z_concept, base_empty)
        loss = s.keep_weight * keep + (1 - s.keep_weight) * redirect
        if s.spread_weight:
            loss = loss + s.spread_weight * torch.relu(_spread(base) - _spread(z))
        if s.local_weight:
            loss = loss + s.local_weight * _local(base, z + s.perturbation * u, s.neighbours)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def _embed(self, encoder: TextEncoder, prompts: list[str]) -> Tensor:
        with arithmetic(choose_precision(self.settings.precision, self.device), self.device):
            return encoder(tokenize(prompts).to(self.device)).flatten(1).float()


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (1 - F.cosine_similarity(a, b, dim=1)).mean()


def _spread(rows: Tensor) -> Tensor:
    return F.normalize(rows, dim=1).var(dim=0).sum()


def _local(base: Tensor, moved: Tensor, neighbours: int) -> Tensor:
    before, after = (F.normalize(rows, dim=1) @ F.normalize(rows, dim=1).T for rows in (base, moved))
    near = before.clone().fill_diagonal_(-torch.inf).topk(neighbours, dim=1).indices
    return 1 - torch.corrcoef(torch.stack([after.gather(1, near).flatten(), before.gather(1, near).flatten()]))[0, 1]
