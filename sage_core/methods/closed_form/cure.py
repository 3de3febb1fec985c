"""A CURE-style edit, after CURE (NeurIPS 2025), whose unlearning code and choice of states are not published.

The states to forget, as columns of E = U diag(s) Vᵀ, span a soft projector P = U diag(f(r)) Uᵀ, where r = s² / Σ s² is
each direction's share and f(r) = α r / ((α − 1) r + 1). With P_f of what to forget and P_r of what to retain,

    W* = W (I − P_f + P_f P_r)

for every matrix. With a single column r = 1 and f = 1 whatever α: a hard projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...encoders.text_encoder import TextEncoder
from ...settings import Positive, Settings
from ..concepts import Concepts, Rows, TokenStates
from .common import Edit, Solver, choose, result, shared

# Singular values below this part of the largest are rounding errors.
_ROUNDING = 1e-10


@dataclass(frozen=True)
class CureSettings(Settings):
    """CURE-style: 2 for objects and artists, 5 for broad concepts.

    Attributes:
        alpha: how much weaker directions are erased too; towards infinity all alike.
        rows: which states of each text are taken.
    """

    alpha: Positive = 5.0
    rows: Rows = "words"


def edit(
    weights: Mapping[str, Tensor], encoder: TextEncoder, concepts: Concepts, settings: CureSettings | None = None
) -> Edit:
    """The CURE-style edit on all matrices that read the prompt. Guides are not used; `preserve` is what to retain."""
    settings = settings or CureSettings()
    chosen = choose(weights, encoder.config.width)
    states = TokenStates(encoder)
    forget = torch.cat(states.rows(concepts.erase, settings.rows))
    projector = soft_projector(forget, settings.alpha)
    if concepts.preserve:
        retain = torch.cat(states.rows(concepts.preserve, settings.rows))
        projector = projector - projector @ soft_projector(retain, settings.alpha)
    notes = ("A single state was forgotten: alpha has no effect.",) if len(forget) == 1 else ()
    return result("CURE-style", chosen, shared(chosen, -projector), Solver(), concepts, settings, notes)


def soft_projector(rows: Tensor, alpha: float) -> Tensor:
    """P = U diag(f(r)) Uᵀ of the states given as rows, (width, width)."""
    _, sizes, directions = torch.linalg.svd(rows, full_matrices=False)
    real = sizes > _ROUNDING * sizes[0]
    sizes, directions = sizes[real], directions[real]
    share = sizes.square() / sizes.square().sum()
    strength = alpha * share / ((alpha - 1) * share + 1)
    return directions.T @ (strength[:, None] * directions)
