"""Back-propagation of a loss that couples a whole batch, in the memory of a part of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def chunked_backward(
    embed: Callable[[Tensor], Tensor],
    ids: Tensor,
    losses_of: Callable[[Tensor], dict[str, Tensor]],
    chunk_size: int,
) -> dict[str, Tensor]:
    """Back-propagate a loss that couples a whole batch, with only `chunk_size` prompts' activations in memory.

    Gradient caching (Gao et al. 2021): embed all chunks without a graph, take the loss's gradient with respect to
    the embeddings, then embed chunk by chunk again and push that gradient through. The result is that of the
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
