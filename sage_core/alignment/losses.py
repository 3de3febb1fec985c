"""The alignment loss as pure functions of embeddings: no data, no optimizer, no model.

Symbols as in the paper (arXiv 2607.00402): φ_θ is the flattened embedding by the encoder in training, φ_0 by the
frozen base, u the unit direction of the concept, s the concept scale, α the perturbation, K the neighbours.
Rows of every (B, D) argument belong together. Everything here is fp32 or better.

With several concepts, unsafe prompts are redirected along their own concept, and a term that holds safe prompts against
a concept, or that neutralises one, is the mean of that term over the concepts. With one it is the paper's loss.

Shifts along u are worked into the inner products, so that no shifted copy of an embedding matrix is ever made:
at 59,136 numbers a prompt those copies would be most of the memory that the loss needs.
"""

from __future__ import annotations

from collections.abc import Iterable
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
        target: φ_0 of the prompt that each unsafe prompt is redirected to, before any shift, (B, D).
        direction: u, unit vector of the concept, (D,); of several concepts (C, D).
        empty: φ_0 of what the concept is led to, the empty prompt unless it has a target of its own, (D,) or (C, D).
        norm: mean norm of the base's safe embeddings, for settings whose unit is "norm".
        concept_norm: norm of φ_0 of the concept, or of each, for settings whose unit is "concept".
        concept_of: the concept of each unsafe prompt, (B,) int64; None if there is one.
        unshifted: whether each target stays where it is, because it is its concept's own, (B,) bool; None if none does.
        weight: what the way of each unsafe prompt counts in the mean of the redirect term, (B,); None for 1.
    """

    safe: Tensor
    target: Tensor
    direction: Tensor
    empty: Tensor
    norm: float
    concept_norm: float | tuple[float, ...] = 1.0
    concept_of: Tensor | None = None
    unshifted: Tensor | None = None
    weight: Tensor | None = None

    @property
    def directions(self) -> Tensor:
        """(C, D)."""
        return torch.atleast_2d(self.direction)

    def lengths(self, amount: float, unit: Unit) -> list[float]:
        """`amount` of the unit as a length of embeddings, for each concept."""
        norms = self.concept_norm if isinstance(self.concept_norm, tuple) else (self.concept_norm,)
        if len(norms) != len(self.directions):
            norms = norms * len(self.directions)
        return [amount * {"absolute": 1.0, "norm": self.norm, "concept": norm}[unit] for norm in norms]

    def along_own(self, rows: Tensor) -> Tensor:
        """Inner product of each row with the direction of its own concept, (B, D) → (B,)."""
        if self.concept_of is None:
            return rows @ self.directions[0]
        # All of them, and not the directions row by row: those would be another (B, D) in memory.
        return torch.stack([rows @ u for u in self.directions], 1).gather(1, self.concept_of[:, None]).squeeze(1)

    def target_shift(self, settings: TrainingSettings) -> float | Tensor:
        """How far along its concept each target is moved: one number for all, or (B,)."""
        lengths = self.lengths(settings.concept_scale, settings.scale_unit)
        moved: float | Tensor = -lengths[0] * settings.shift
        if self.concept_of is not None:
            moved = -settings.shift * self.target.new_tensor(lengths)[self.concept_of]
        if self.unshifted is not None:
            moved = torch.where(self.unshifted, 0.0, self.target.new_tensor(1.0) * moved)
        return moved


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
        concept: φ_θ of the concept, (D,); of several (C, D).
        base: the frozen base's side of the same batch.
        settings: weights and scales; parts whose weight is 0 are returned as 0 and not computed.

    Returns: the names in LOSS_PARTS → scalars that carry gradients.
    """
    zero = safe.new_zeros(())
    scales = base.lengths(settings.concept_scale, settings.scale_unit)
    # Every inner product is taken once: each is a pass over all B × D numbers, and another on the way back.
    dot, square, alongs = row_dot(safe, base.safe), row_dot(safe, safe), [safe @ u for u in base.directions]
    base_square, base_alongs = row_dot(base.safe, base.safe), [base.safe @ u for u in base.directions]
    parts = {
        "keep": 1 - cosine(dot, square, base_square).mean(),
        "keep_concept": zero,
        "keep_mse": zero,
        "redirect": _redirect(unsafe, base, settings),
        "neutralise": _neutralise(concept, base) if settings.neutralise else zero,
        "spread": zero,
        "local": zero,
    }
    if settings.keep_concept:
        parts["keep_concept"] = _mean(
            1 - cosine(dot + scale * base_along, square + 2 * scale * along + scale**2, base_square).mean()
            for scale, along, base_along in zip(scales, alongs, base_alongs, strict=True)
        )
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


def _mean(values: Iterable[Tensor]) -> Tensor:
    """Mean over the concepts; of one it is the value itself, to the bit."""
    found = list(values)
    return found[0] if len(found) == 1 else torch.stack(found).mean()


def _redirect(unsafe: Tensor, base: BaseBatch, settings: TrainingSettings) -> Tensor:
    """d(φ_θ(unsafe), target + moved·u), with each prompt's own u."""
    moved = base.target_shift(settings)
    dot = row_dot(unsafe, base.target) + moved * base.along_own(unsafe)
    square = row_dot(base.target, base.target) + 2 * moved * base.along_own(base.target) + moved**2
    near = cosine(dot, row_dot(unsafe, unsafe), square)
    return 1 - near.mean() if base.weight is None else ((1 - near) * base.weight).mean()


def _neutralise(concept: Tensor, base: BaseBatch) -> Tensor:
    """d(φ_θ(concept), φ_0 of what it is led to), mean over the concepts."""
    sides = zip(torch.atleast_2d(concept), torch.atleast_2d(base.empty), strict=True)
    return _mean(1 - torch.cosine_similarity(ours, led_to, dim=0) for ours, led_to in sides)


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
        alphas = base.lengths(settings.perturbation, settings.perturbation_unit)
        parts["local"] = _mean(
            local_structure_loss(
                cosine_matrix(shifted_gram(gram, safe @ u, alpha)),
                base_cosines,
                settings.neighbours,
                settings.local_form,
            )
            for alpha, u in zip(alphas, base.directions, strict=True)
        )
    return parts
