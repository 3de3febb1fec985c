"""TIME, text-to-image model editing (Orgad et al., ICCV 2023): the first closed form, of which UCE is a generalisation.

A source prompt is to mean what a destination prompt says. For each matrix W, with the source's states c and the
corresponding ones c* of the destination,

    W* = (lam W + Σ W c* cᵀ) (lam I + Σ c cᵀ)⁻¹ = W (I + Σ (c* − c) cᵀ (lam I + Σ c cᵀ)⁻¹)

Here a concept is the source and its guide the destination. States correspond from the last word on, through the
padding; before it a prompt's states are equal or have no counterpart. Nothing else is held but by lam.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ...encoders.text_encoder import TextEncoder
from ...settings import NotNegative, Settings
from ..concepts import Concepts, TokenStates
from .common import Edit, Solver, choose, result, shared
from .uce import aligned_rows, normal_matrix


@dataclass(frozen=True)
class TimeSettings(Settings):
    """TIME's published value.

    Attributes:
        lam: how much the matrices hold on to what they are.
    """

    lam: NotNegative = 0.1


def edit(
    weights: Mapping[str, Tensor], encoder: TextEncoder, concepts: Concepts, settings: TimeSettings | None = None
) -> Edit:
    """TIME on all matrices that read the prompt."""
    settings = settings or TimeSettings()
    chosen, solver = choose(weights, encoder.config.width), Solver()
    states = TokenStates(encoder)
    keys, new = aligned_rows(states, concepts)
    change = solver.right(normal_matrix(settings.lam, (1.0, keys)), (new - keys).T @ keys)
    return result("TIME", chosen, shared(chosen, change), solver, concepts, settings)
