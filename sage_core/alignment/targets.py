"""The safe prompt to which each unsafe prompt is redirected, fixed before training."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

import torch
from torch import Tensor

from ..encoders.precision import arithmetic
from .settings import Target


def choose_targets(unsafe: Tensor, safe: Tensor, mode: Target = "farthest", block: int = 4096) -> Tensor:
    """Index into `safe` of the target of each unsafe prompt, by the cosine of their base embeddings.

    j*(i) = argmin_j cos(φ_0(unsafe_i), φ_0(safe_j)) over all safe prompts for "farthest" (arXiv 2607.00402),
    argmax for "nearest".

    Args:
        unsafe: base embeddings (U, D).
        safe: base embeddings (S, D), same device.
        mode: "farthest" or "nearest".
        block: rows of `unsafe` and of `safe` compared at once: memory is block², not U × S.

    Returns:
        int64 tensor (U,) on the CPU.
    """
    return match_blocks(unsafe.split(block), safe, mode, block)


def match_blocks(unsafe: Iterable[Tensor], safe: Tensor, mode: Target, block: int = 4096) -> Tensor:
    """Targets as by `choose_targets`, for unsafe embeddings that arrive block by block and are never held together.

    Products of bf16 embeddings are exact and summed in fp32. `safe` may be on the host: its blocks follow the unsafe
    ones to their device.
    """
    # The products are divided, since normalising would copy the whole of `safe`. Rows of `unsafe` need no norm: it
    # changes no order within a row.
    scale = torch.cat([1 / row_norms(rows).clamp_min(1e-12) for rows in safe.split(block)])
    return torch.cat([_match(rows, safe, scale.to(rows.device), mode, block).cpu() for rows in unsafe])


def row_norms(rows: Tensor) -> Tensor:
    """Norm of each row, fp32, (B, D) → (B,)."""
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32)


def _match(rows: Tensor, safe: Tensor, scale: Tensor, mode: Target, block: int) -> Tensor:
    sign = -1.0 if mode == "nearest" else 1.0
    best = torch.full((len(rows),), torch.inf, device=rows.device)
    index = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    exact = rows.dtype == torch.bfloat16
    rows = rows.float()
    for start in range(0, len(safe), block):
        part = safe[start : start + block].to(rows.device, torch.float32)
        # tf32 holds every bf16 number exactly. A product in bf16 would be rounded to bf16, and most targets would tie.
        with arithmetic("tf32", rows.device) if exact else nullcontext():
            products = rows @ part.T
        cosine = products * (scale[start : start + block] * sign)
        value, at = cosine.min(dim=1)
        better = value < best
        best = torch.where(better, value, best)
        index = torch.where(better, at + start, index)
    return index
