"""The alignment loss as pure functions of embeddings: no data, no optimizer, no model.

Symbols as in the paper (arXiv 2607.00402): φ_θ is the flattened embedding by the encoder in training, φ_0 by the
frozen base, u the unit direction of the concept, s the concept scale, α the perturbation, K the neighbours.
Rows of every (B, D) argument belong together. Everything here is fp32 or better.

Shifts along u are worked into the inner products, so that no shifted copy of an embedding matrix is ever made:
at 59,136 numbers a prompt those copies would be most of the memory that the loss needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .settings import LocalForm, TrainingSettings, Unit

LOSS_PARTS = ("keep", "keep_concept", "keep_mse", "redirect", "neutralise", "spread", "local", "total")

_TINY = 1e-12
# What embeddings in bf16 can make of a spread.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class BaseBatch:
    """What the frozen base knows about a batch.

    Attributes:
        safe: φ_0 of the batch's safe prompts, (B, D).
        target: φ_0 of the safe prompt that each unsafe prompt is redirected to, before any shift, (B, D).
        direction: u, unit vector of the concept, (D,).
        empty: φ_0 of the empty prompt, (D,).
        norm: mean norm of the base's safe embeddings, for settings whose unit is "norm".
        concept_norm: norm of φ_0 of the concept, for settings whose unit is "concept".
    """

    safe: Tensor
    target: Tensor
    direction: Tensor
    empty: Tensor
    norm: float
    concept_norm: float = 1.0

    def length(self, amount: float, unit: Unit) -> float:
        """`amount` of the unit as a length of embeddings."""
        return amount * {"absolute": 1.0, "norm": self.norm, "concept": self.concept_norm}[unit]


def row_dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each row of `a` with the same row of `b`: (B, D), (B, D) → (B,)."""
    return torch.linalg.vecdot(a, b)


def cosine(dot: Tensor, square: Tensor, other_square: Tensor) -> Tensor:
    """Cosine from the inner product and the squared norms of both sides, elementwise."""
    return dot / (square * other_square).clamp_min(_TINY).sqrt()


def cosine_matrix(gram: Tensor) -> Tensor:
    """Cosines of all pairs (B, B) from the matrix of inner products (B, B)."""
    norm = gram.diagonal().clamp_min(_TINY).sqrt()
    return gram / (norm[:, None] * norm[None, :])


def shifted_gram(gram: Tensor, along: Tensor, shift: float) -> Tensor:
    """Inner products of x_i + shift·u from those of x_i (B, B) and from x·u (B,), for unit u."""
    return gram + shift * (along[:, None] + along[None, :]) + shift**2


def spread_of_cosines(cosines: Tensor) -> Tensor:
    """Spread tr = Σ‖x_i − mean‖² / (B − 1) over L2-normalised rows, from their cosines (B, B).

    For unit rows Σ‖x_i − mean‖² = B − B‖mean‖², and ‖Σ x_i‖² is the sum of all cosines.
    """
    size = len(cosines)
    return (size - cosines.sum() / size) / (size - 1)


def nearest_in_batch(cosines: Tensor, neighbours: int) -> Tensor:
    """The `neighbours` most similar other rows of each row, (B, K), from cosines (B, B)."""
    others = cosines.detach().clone().fill_diagonal_(-torch.inf)
    return others.topk(neighbours, dim=1).indices


def local_structure_loss(cosines: Tensor, base_cosines: Tensor, neighbours: int, form: LocalForm = "pearson") -> Tensor:
    """LSA over all pairs (i, j in the K nearest of i in the base), taken together as one sample.

    "pearson" is 1 − the correlation of the two cosines; "product" is 1 − the mean of their products, which any rise of
    a neighbour's cosine lowers.

    Args:
        cosines: by the encoder in training, (B, B).
        base_cosines: by the base, (B, B); it alone decides who is a neighbour.
        neighbours: K < B.
        form: see above.
    """
    pairs = nearest_in_batch(base_cosines, neighbours)
    x = cosines.gather(1, pairs)
    y = base_cosines.gather(1, pairs)
    if form == "product":
        return 1 - (x * y).mean()
    x = x - x.mean()
    y = y - y.mean()
    return 1 - (x * y).sum() / (x.square().sum() * y.square().sum()).clamp_min(_TINY**2).sqrt()


def alignment_loss(
    safe: Tensor, unsafe: Tensor, concept: Tensor, base: BaseBatch, settings: TrainingSettings
) -> dict[str, Tensor]:
    """All parts of the alignment loss of one batch, unweighted, and their weighted sum "total".

    L = λ(keep + keep_concept + w·keep_mse) + (1 − λ)(redirect + neutralise) + λ_ESP·spread + λ_LSA·local,
    where settings may have another weight in place of 1 − λ.

    Args:
        safe: φ_θ of the safe prompts, (B, D).
        unsafe: φ_θ of the unsafe prompts, (B, D).
        concept: φ_θ of the concept, (D,).
        base: the frozen base's side of the same batch.
        settings: weights and scales; parts whose weight is 0 are returned as 0 and not computed.

    Returns: the names in LOSS_PARTS → scalars that carry gradients.
    """
    zero = safe.new_zeros(())
    scale = base.length(settings.concept_scale, settings.scale_unit)
    moved = -scale * settings.shift
    u = base.direction
    # Every inner product is taken once: each is a pass over all B × D numbers, and another on the way back.
    dot, square, along = row_dot(safe, base.safe), row_dot(safe, safe), safe @ u
    base_square, base_along = row_dot(base.safe, base.safe), base.safe @ u
    target_dot = row_dot(unsafe, base.target) + moved * (unsafe @ u)
    target_square = row_dot(base.target, base.target) + 2 * moved * (base.target @ u) + moved**2
    shifted_square = square + 2 * scale * along + scale**2
    parts = {
        "keep": 1 - cosine(dot, square, base_square).mean(),
        "keep_concept": zero,
        "keep_mse": zero,
        "redirect": 1 - cosine(target_dot, row_dot(unsafe, unsafe), target_square).mean(),
        "neutralise": 1 - torch.cosine_similarity(concept, base.empty, dim=0) if settings.neutralise else zero,
        "spread": zero,
        "local": zero,
    }
    if settings.keep_concept:
        parts["keep_concept"] = 1 - cosine(dot + scale * base_along, shifted_square, base_square).mean()
    if settings.keep_mse:
        # Not from the inner products: their difference would lose the small errors that this term is there for.
        parts["keep_mse"] = ((safe - base.safe).square().sum(1) / base_square.clamp_min(_TINY)).mean()
    if settings.spread_weight or settings.local_weight:
        parts.update(_structure(safe, base, settings))
    keep = parts["keep"] + parts["keep_concept"] + settings.keep_mse * parts["keep_mse"]
    parts["total"] = (
        settings.keep_weight * keep
        + settings.redirect_share * (parts["redirect"] + parts["neutralise"])
        + settings.spread_weight * parts["spread"]
        + settings.local_weight * parts["local"]
    )
    return parts


def _structure(safe: Tensor, base: BaseBatch, settings: TrainingSettings) -> dict[str, Tensor]:
    """ESP = max(0, tr_0 − tr_θ), or |tr_0 − tr_θ|, and LSA of a batch; both read one matrix of inner products."""
    gram = safe @ safe.T
    base_cosines = cosine_matrix(base.safe @ base.safe.T)
    parts = {}
    if settings.spread_weight:
        spread = spread_of_cosines(base_cosines)
        lost = spread - spread_of_cosines(cosine_matrix(gram))
        cost = lost.abs() if settings.spread_form == "symmetric" else lost
        # The untouched encoder is on the kink of either form: rounding must not decide whether it has a gradient.
        parts["spread"] = torch.where(cost > _ROUNDING * spread, cost, 0.0)
    if settings.local_weight:
        alpha = base.length(settings.perturbation, settings.perturbation_unit)
        cosines = cosine_matrix(shifted_gram(gram, safe @ base.direction, alpha))
        parts["local"] = local_structure_loss(cosines, base_cosines, settings.neighbours, settings.local_form)
    return parts
