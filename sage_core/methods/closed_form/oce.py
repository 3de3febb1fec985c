"""OCE (ICML 2026): the value matrices are rotated, so that all lengths and angles between their outputs stay.

For a value matrix W, with G an orthonormal basis of the unit vectors W c of the concepts and H one of the guides',

    M = −a G Gᵀ (I − H Hᵀ) + b₂ Σ (W p)(W p)ᵀ + b W C Wᵀ + lam W Wᵀ,   M = U S Vᵀ,   W* = U Vᵀ W

where p are states to preserve and C is the second moment of everyday captions' states. M maps the range of W into
itself, so that a matrix with more rows than columns is solved within its range; that gives the same W*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...encoders.text_encoder import TextEncoder
from ...prompts.everyday import REFERENCE_PROMPTS
from ...settings import NotNegative, Settings
from ...unet.names import is_value
from ..concepts import Concepts, TokenStates
from ..removal import Removal
from .common import Edit, Solver, choose, result
from .uce import TEMPLATES

# Directions weaker than this part of the strongest do not belong to a basis.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class OceSettings(Settings):
    """OCE's published values for nudity; for a style 500, 10, 1 and 10, and the kind "art".

    Attributes:
        erase_scale: a, of the concepts.
        caption_scale: b, of the captions' second moment.
        preserve_scale: b₂, of each text to preserve.
        lam: how much the matrices hold on to what they are.
        expand_prompts: add five templates around each concept and guide; texts to preserve stand for themselves.
        kind: of the templates, "object" or "art".
    """

    erase_scale: NotNegative = 3000.0
    caption_scale: NotNegative = 20.0
    preserve_scale: NotNegative = 0.0
    lam: NotNegative = 10.0
    expand_prompts: bool = True
    kind: Literal["object", "art"] = "object"


def recipe(settings: OceSettings, given: Removal) -> int:
    """See `table.Method.recipe`. 2: no templates around texts to preserve."""
    return 2 if given.kept and settings.preserve_scale and settings.expand_prompts else 1


def edit(
    weights: Mapping[str, Tensor], encoder: TextEncoder, concepts: Concepts, settings: OceSettings | None = None
) -> Edit:
    """OCE on the value matrices of cross-attention; without captions the 60 everyday prompts give the second moment."""
    settings = settings or OceSettings()
    chosen = choose(weights, encoder.config.width, is_value)
    states = TokenStates(encoder)
    templates = ("{}", *(TEMPLATES[settings.kind] if settings.expand_prompts else ()))

    def rows(texts: Iterable[str], templates: Sequence[str]) -> Tensor:
        found = states.rows([template.format(text) for text in texts for template in templates], "last_subject")
        return torch.cat([torch.zeros(0, states.width, dtype=torch.float64), *found])

    erase, guides = rows(concepts.erase, templates), rows(dict.fromkeys(concepts.guides), templates)
    preserve = rows(concepts.preserve, ("{}",))
    moment = settings.lam * torch.eye(states.width, dtype=torch.float64)
    if settings.caption_scale:
        captions = concepts.captions or REFERENCE_PROMPTS
        moment += settings.caption_scale * states.second_moment(captions, "non_pad")
    moment += settings.preserve_scale * preserve.T @ preserve
    deltas = {
        name: _rotated(weight, erase, guides, moment, settings.erase_scale) - weight for name, weight in chosen.items()
    }
    notes: tuple[str, ...] = ()
    if concepts.preserve and not settings.preserve_scale:
        notes = (
            "⚠ The texts to keep have no effect: OCE's own keep_scale, for nudity, is 0. Its value for styles is 1.",
        )
    return result("OCE", chosen, deltas, Solver(), concepts, settings, notes)


def _rotated(weight: Tensor, erase: Tensor, guides: Tensor, moment: Tensor, scale: float) -> Tensor:
    basis, small = torch.linalg.qr(weight) if weight.shape[0] > weight.shape[1] else (None, weight)
    concept, guide = (_basis(rows @ small.T) for rows in (erase, guides))
    away = concept.T - (concept.T @ guide) @ guide.T
    target = small @ moment @ small.T - scale * concept @ away
    left, _, right = torch.linalg.svd(target)
    turn = left @ right
    # A reflection becomes a rotation by its weakest direction; outside the range of W there is always one to spare.
    if basis is None and torch.linalg.det(turn) < 0:
        left[:, -1] *= -1
        turn = left @ right
    return turn @ small if basis is None else basis @ (turn @ small)


def _basis(values: Tensor) -> Tensor:
    """Orthonormal columns that span the rows of `values`, which may repeat one another; (outputs, n)."""
    unit = values / values.norm(dim=1, keepdim=True).clamp_min(1e-300)
    _, sizes, directions = torch.linalg.svd(unit, full_matrices=False)
    return directions[sizes > _ROUNDING * sizes[0]].T
