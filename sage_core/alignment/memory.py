"""How much memory an alignment run takes, and how to fit it into what is free without changing the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..encoders.layouts import EncoderConfig
from ..encoders.tokens import CONTEXT_LENGTH
from .settings import TrainingSettings

# Weights, gradients and AdamW's two moments, all fp32.
_BYTES_PER_PARAMETER = 16
# A precision that is chosen later may be the largest.
_BYTES = {"auto": 4, "fp32": 4, "tf32": 4, "bf16": 2}
# Arrays of B × 77 × width, fp32, that are alive when the loss is taken: the embeddings and their gradient, the base's
# side (two halves), a product under its sum, and the gradient's parts before they are added.
_LOSS_ARRAYS = 5
# A real prompt list uses only a part of the token table, and only that part is trained.
_USED_VOCABULARY = 0.4
_SMALLEST_CHUNK = 4


@dataclass(frozen=True)
class MemoryPlan:
    """How a run is laid out.

    Attributes:
        chunk_size: how many prompts go through the encoder at once; None for the whole batch.
        base_on_host: whether the base embeddings stay in host memory.
        bytes: estimate of what the run takes on its device.
    """

    chunk_size: int | None
    base_on_host: bool
    bytes: int

    def summary(self) -> str:
        """One line for a person."""
        chunk = f"{self.chunk_size} prompts at a time" if self.chunk_size else "whole batches"
        host = ", base embeddings in host memory" if self.base_on_host else ""
        return f"about {self.bytes / 2**30:.1f} GiB, {chunk}{host}"


def estimate_memory(
    config: EncoderConfig, settings: TrainingSettings, pairs: int, *, base_on_host: bool = False
) -> int:
    """Bytes that a run takes on its device: weights and optimizer, base embeddings, activations, the loss."""
    rows = 2 * settings.batch_size + 1
    chunk = min(settings.chunk_size or rows, rows)
    size = _BYTES[settings.precision]
    embedding = config.width * (CONTEXT_LENGTH if settings.supervision == "tokens" else 1)
    matrices = config.layers * (4 * config.width**2 + 2 * config.width * config.mlp_width)
    parameters = matrices + int(_USED_VOCABULARY * config.vocabulary) * config.width
    # For each layer autograd keeps two norms, q, k, v and the mixed values, and the MLP before and after activation.
    kept = config.layers * (6 * config.width + 2 * config.mlp_width) * size
    # During backward one layer at a time holds the MLP's gradients, and the fp32 stream with its own.
    passing = 2 * config.mlp_width * size + 4 * config.width * 4
    activations = chunk * CONTEXT_LENGTH * (kept + passing)
    base = 0 if base_on_host else pairs * embedding * size
    return (
        parameters * _BYTES_PER_PARAMETER + matrices * size + base + activations + _LOSS_ARRAYS * rows * embedding * 4
    )


def plan_memory(config: EncoderConfig, settings: TrainingSettings, pairs: int, free: int | None) -> MemoryPlan:
    """The fastest layout that fits into `free` bytes; None means no limit.

    The base embeddings move to the host first, which costs a copy a step; then the chunk is halved, which costs a
    forward pass. A chunk size set by the user stands. If nothing fits, the smallest layout is tried all the same:
    estimates err on the safe side, and the run itself backs off and says so.
    """

    def layout(chunk: int | None, on_host: bool) -> MemoryPlan:
        need = estimate_memory(config, settings.replace(chunk_size=chunk), pairs, base_on_host=on_host)
        return MemoryPlan(chunk, on_host, need)

    chunk = settings.chunk_size
    plan = layout(chunk, False)
    if free is None or plan.bytes <= free:
        return plan
    plan = layout(chunk, True)
    size = 2 * settings.batch_size + 1
    while plan.bytes > free and settings.chunk_size is None and size > _SMALLEST_CHUNK:
        size = (size + 1) // 2
        plan = layout(size, True)
    return plan


def chunked_backward(
    embed: Callable[[Tensor], Tensor],
    ids: Tensor,
    losses_of: Callable[[Tensor], dict[str, Tensor]],
    chunk_size: int,
) -> dict[str, Tensor]:
    """Back-propagate a loss that couples a whole batch, with only `chunk_size` prompts' activations in memory.

    Gradient caching (Gao et al. 2021): embed all chunks without a graph, take the loss's gradient with respect to
    the embeddings, then embed chunk by chunk again and push that gradient through. The result equals that of the
    whole batch at once, for one more forward pass.

    Args:
        embed: token ids (B, 77) → embeddings (B, D), the same each time it is called.
        losses_of: embeddings (B, D) → named losses, among them "total".
    """
    if chunk_size >= len(ids):
        losses = losses_of(embed(ids))
        losses["total"].backward()
        return losses
    with torch.no_grad():
        embeddings = torch.cat([embed(chunk) for chunk in ids.split(chunk_size)])
    embeddings.requires_grad_()
    losses = losses_of(embeddings)
    (gradient,) = torch.autograd.grad(losses["total"], embeddings)
    for chunk, part in zip(ids.split(chunk_size), gradient.split(chunk_size), strict=True):
        embed(chunk).backward(part)
    return losses
