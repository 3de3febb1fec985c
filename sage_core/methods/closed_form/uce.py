"""UCE, unified concept editing (Gandikota et al., WACV 2024), in its authors' present form and as in the paper.

Both minimise over each matrix W*, with keys k, values v and weights w,

    Σ w ‖W* k − v‖² + lam ‖W* − W‖²

so W* = W + Σ w (v − W k) kᵀ D⁻¹ with D = lam I + Σ w k kᵀ; a state to preserve is a key with the value W k. They differ
in which states are the keys. With v = W n the change is W E with E = Σ w (n − k) kᵀ D⁻¹, the same for all matrices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...encoders.text_encoder import TextEncoder
from ...encoders.tokens import CONTEXT_LENGTH, tokenize
from ...settings import NotNegative, Positive, Settings
from ..concepts import Concepts, TokenStates, last_subject
from ..removal import Removal
from .common import Edit, Solver, choose, result, shared

# What `expand_prompts` puts around a concept and around its guide.
TEMPLATES = {
    "object": ("image of {}", "photo of {}", "portrait of {}", "picture of {}", "painting of {}"),
    "art": ("painting by {}", "art by {}", "artwork by {}", "picture by {}", "style of {}"),
}


@dataclass(frozen=True)
class UceSettings(Settings):
    """UCE of 2025: one state a text, the last subject token's.

    Attributes:
        lam: how much the matrices hold on to what they are.
        erase_scale, preserve_scale: weight of a concept, and of a text to preserve.
        expand_prompts: add five templates around each concept and its guide.
        kind: of the templates, "object" or "art".
    """

    lam: NotNegative = 0.5
    erase_scale: Positive = 1.0
    preserve_scale: NotNegative = 1.0
    expand_prompts: bool = False
    kind: Literal["object", "art"] = "object"


@dataclass(frozen=True)
class UcePaperSettings(Settings):
    """UCE as in the paper: all states from the last subject token to the end of the 77.

    Attributes:
        lam, erase_scale: as in `UceSettings`.
        preserve_scale: weight of a text to preserve, the empty prompt among them; None is the authors' rule,
            max(0.1, 1 / number of these texts).
        technique: "replace" gives a concept the values of its guide; "tensor" these without their component along the
            concept's own, where all rows of a concept together are one vector.
    """

    lam: NotNegative = 0.5
    erase_scale: Positive = 1.0
    preserve_scale: NotNegative | None = None
    technique: Literal["replace", "tensor"] = "replace"


def recipe(settings: UceSettings | UcePaperSettings, _given: Removal) -> int:
    """See `table.Method.recipe`. 2: "tensor" projects all rows of a concept together."""
    return 2 if isinstance(settings, UcePaperSettings) and settings.technique == "tensor" else 1


def edit(
    weights: Mapping[str, Tensor], encoder: TextEncoder, concepts: Concepts, settings: UceSettings | None = None
) -> Edit:
    """UCE of 2025 on all matrices that read the prompt."""
    settings = settings or UceSettings()
    chosen, solver = choose(weights, encoder.config.width), Solver()
    states = TokenStates(encoder)
    templates = ("{}", *(TEMPLATES[settings.kind] if settings.expand_prompts else ()))
    keys, new = (
        torch.cat(states.rows([template.format(text) for text in texts for template in templates], "last_subject"))
        for texts in (concepts.erase, concepts.guides)
    )
    kept = torch.cat([keys[:0], *states.rows(concepts.preserve, "last_subject")])
    system = normal_matrix(settings.lam, (settings.erase_scale, keys), (settings.preserve_scale, kept))
    change = solver.right(system, settings.erase_scale * (new - keys).T @ keys)
    return result("UCE", chosen, shared(chosen, change), solver, concepts, settings)


def edit_as_in_paper(
    weights: Mapping[str, Tensor], encoder: TextEncoder, concepts: Concepts, settings: UcePaperSettings | None = None
) -> Edit:
    """UCE as in the paper on all matrices that read the prompt; the empty prompt is always preserved."""
    settings = settings or UcePaperSettings()
    chosen, solver = choose(weights, encoder.config.width), Solver()
    states = TokenStates(encoder)
    pairs = aligned_pairs(states, concepts)
    keys, new = (torch.cat(rows) for rows in zip(*pairs, strict=True))
    system = paper_system(states, keys, concepts, settings)
    if settings.technique == "replace":
        deltas = shared(chosen, solver.right(system, settings.erase_scale * (new - keys).T @ keys))
    else:
        right = solver.right(system, settings.erase_scale * keys)
        deltas = {
            name: torch.cat([_without_own(weight, *pair) for pair in pairs]).T @ right
            for name, weight in chosen.items()
        }
    return result("UCE (paper)", chosen, deltas, solver, concepts, settings)


def aligned_rows(states: TokenStates, concepts: Concepts) -> tuple[Tensor, Tensor]:
    """The rows of `aligned_pairs` of all concepts; (n, width) both."""
    keys, new = zip(*aligned_pairs(states, concepts), strict=True)
    return torch.cat(keys), torch.cat(new)


def aligned_pairs(states: TokenStates, concepts: Concepts) -> list[tuple[Tensor, Tensor]]:
    """Rows of each concept from its last subject token on, and its guide's, aligned at that token; (n, width) both."""
    found = []
    places = zip(last_subject(tokenize(concepts.erase)), last_subject(tokenize(concepts.guides)), strict=True)
    pairs = zip(states.states(concepts.erase), states.states(concepts.guides), places, strict=True)
    for concept, guide, (old_last, new_last) in pairs:
        count = CONTEXT_LENGTH - max(old_last, new_last)
        found.append((concept[old_last : old_last + count], guide[new_last : new_last + count]))
    return found


def paper_system(states: TokenStates, keys: Tensor, concepts: Concepts, settings: UcePaperSettings) -> Tensor:
    """D of the paper's form: all 77 rows of every text to preserve, the empty prompt among them."""
    texts = list(dict.fromkeys((*concepts.preserve, "")))
    scale = settings.preserve_scale
    if scale is None:
        scale = round(max(0.1, 1 / len(texts)), 3)
    kept = torch.cat(states.rows(texts, "all"))
    return normal_matrix(settings.lam, (settings.erase_scale, keys), (scale, kept))


def normal_matrix(lam: float, *weighted: tuple[float, Tensor]) -> Tensor:
    """The matrix lam I + Σ w k kᵀ over rows k of the weighted groups, (width, width)."""
    total = lam * torch.eye(weighted[0][1].shape[1], dtype=torch.float64)
    for weight, rows in weighted:
        total = total + weight * rows.T @ rows
    return total


def _without_own(weight: Tensor, keys: Tensor, new: Tensor) -> Tensor:
    """Values v − W k of the "tensor" technique, (n, outputs): v is W n without its component along W k.

    The rows of one concept together are one vector: published is one projection, not one for each token.
    """
    own, value = keys @ weight.T, new @ weight.T
    along = (value * own).sum() / own.square().sum().clamp_min(1e-300)
    return value - along * own - own
