"""SPEED (ICLR 2026): the change of each matrix lies in the null space of what is to be kept.

With T the mean over concepts of Σ t tᵀ of their states, A that of Σ a tᵀ with their anchors', P the projector onto the
directions that the states to retain hardly use, K the empty prompt's states (its start and 3 centres of the others) and
M = (T P + scale I)⁻¹,

    ΔW = W (A − T) P [I − M K (Kᵀ P M K + lamb I)⁻¹ Kᵀ P] M

so that ΔW = 0 in the retained directions, and ΔW K = 0 where lamb is 0.

Two selections come before P, both by how far the edit without it, W (A − T)(I + T)⁻¹, moves a state. Of the states to
retain those stay that are moved more than their mean; of the noisy copies of these, those that are moved more than the
copies' own mean, whether or not the first selection is made. Without copies nothing is selected.

T and A have no higher rank than there are states, and I − P no higher one than there are states to retain. So all that
is solved is of the number of states: with T = tᵀ t of states as rows, M = (I − tᵀ S⁻¹ t P) / scale for
S = scale I + t P tᵀ (Woodbury), and t P M = S⁻¹ t P.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...encoders.text_encoder import TextEncoder
from ...settings import CountOrZero, NotNegative, Positive, Seed, Settings
from ...unet.names import is_value, reads_prompt
from ..concepts import Concepts, TokenStates
from ..removal import Removal
from .common import Edit, Solver, choose, result

# The published code takes all but the start token's row for exactly this list of concepts.
_ALL_ROWS_FOR = ("nudity",)
_CENTRES = 3
_ROUNDS = 50
# Singular values below this part of the largest are rounding errors.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class SpeedSettings(Settings):
    """SPEED's published values for nudity, whose anchor is the empty prompt.

    Attributes:
        matrices: "V" edits values, "K" keys, "KV" both.
        rows: "last_subject" is one state a text, "after_start" all but the start token's; "published" takes the second
            where the only concept is "nudity", and the first elsewhere.
        retain_scale: how much the matrices hold on to what they are; 1 for most concepts.
        lamb: how roughly the empty prompt's values are kept; 0 keeps them exactly.
        threshold: directions of a smaller second moment of the retained states are free to change.
        augmentations: noisy copies of each retained state, along the direction that the matrix maps to least; of them
            those count that the plain edit would change more than their average.
        filter: retain only the states that the plain edit would change more than the average; has no effect without
            augmentations, as in the published program.
        seed: of the noise.
    """

    matrices: Literal["V", "K", "KV"] = "V"
    rows: Literal["published", "last_subject", "after_start"] = "published"
    retain_scale: Positive = 0.7
    lamb: NotNegative = 0.5
    threshold: Positive = 0.1
    augmentations: CountOrZero = 10
    filter: bool = True
    seed: Seed = 0


def recipe(_settings: SpeedSettings, _given: Removal) -> int:
    """See `table.Method.recipe`. 2: noisy copies have a mean of their own; texts to keep are dropped by whole words."""
    return 2


def edit(
    weights: Mapping[str, Tensor], encoder: TextEncoder, concepts: Concepts, settings: SpeedSettings | None = None
) -> Edit:
    """SPEED on the value matrices, or those that the settings name.

    `concepts.preserve` and `concepts.captions` are what to retain, by their last subject tokens; those that name a
    concept, in whole words, are left out. Without any it is the empty prompt's states.
    """
    settings = settings or SpeedSettings()
    chosen = choose(weights, encoder.config.width, _wanted(settings.matrices))
    solver = Solver(advice="Give lamb a value above 0, or lower the threshold.")
    states = TokenStates(encoder)
    empty = states.rows([""], "all")[0]
    targets, anchors = (_rows(states, texts, concepts, settings) for texts in (concepts.erase, concepts.guides))
    own, away = _factors(torch.cat(targets), torch.cat(anchors), len(targets))
    retain = _retained(states, concepts, empty)
    keep = torch.stack([empty[0], *centres(empty[1:], _CENTRES)]).T
    # What the edit without a null space does, which shows how much each state would be disturbed.
    plain = solver.right(_with_diagonal(own @ own.T, 1.0), own.T).T
    generator = torch.Generator().manual_seed(settings.seed)
    deltas, free = {}, []
    for name, weight in chosen.items():
        moved = weight @ away.T
        held = _held_directions(weight, moved, plain, retain, settings, generator)
        free.append(states.width - held.shape[1])
        deltas[name] = moved @ _change(own, keep, held, settings, solver)
    note = f"{min(free)} to {max(free)} of {states.width} directions are free to change."
    return result("SPEED", chosen, deltas, solver, concepts, settings, (note,))


def _factors(targets: Tensor, anchors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rows t and d with T = tᵀ t and A − T = dᵀ t, no more of them than a state has numbers."""
    own, away = targets / count**0.5, (anchors - targets) / count**0.5
    if own.shape[0] > own.shape[1]:
        basis, own = torch.linalg.qr(own)
        away = basis.T @ away
    return own, away


def _change(own: Tensor, keep: Tensor, held: Tensor, settings: SpeedSettings, solver: Solver) -> Tensor:
    """The factor t P [I − M K (Kᵀ P M K + lamb I)⁻¹ Kᵀ P] M, (n, width), of which ΔW = W dᵀ is the other.

    Args:
        own: t, (n, width).
        keep: K, (width, 4).
        held: orthonormal columns that span the null space of P.
        settings: the scales.
        solver: notes the residual.
    """
    visible, seen = own - (own @ held) @ held.T, keep.T - (keep.T @ held) @ held.T
    system = _with_diagonal(visible @ own.T, settings.retain_scale)
    answered = solver.right((system + system.T) / 2, visible.T).T
    spread = answered @ keep
    inner = (seen @ keep - (seen @ own.T) @ spread) / settings.retain_scale
    # A pseudo-inverse: without lamb the empty prompt's states may all be retained, and nothing is left to correct.
    inverse = torch.linalg.pinv(_with_diagonal(inner, settings.lamb), rtol=_ROUNDING)
    return answered - spread @ inverse @ (seen - (seen @ own.T) @ answered) / settings.retain_scale


def _with_diagonal(matrix: Tensor, value: float) -> Tensor:
    return matrix + value * torch.eye(len(matrix), dtype=matrix.dtype)


def centres(points: Tensor, count: int) -> Tensor:
    """Means of `count` clusters of points (n, width), by Lloyd's algorithm from evenly spaced points; deterministic."""
    found = points[torch.linspace(0, len(points) - 1, count).round().long()]
    for _ in range(_ROUNDS):
        nearest = torch.cdist(points, found).argmin(1)
        moved = torch.stack([points[nearest == i].mean(0) if (nearest == i).any() else found[i] for i in range(count)])
        if torch.equal(moved, found):
            break
        found = moved
    return found


def _wanted(matrices: str):
    if matrices == "V":
        return is_value
    return reads_prompt if matrices == "KV" else (lambda name: reads_prompt(name) and not is_value(name))


def _rows(states: TokenStates, texts: tuple[str, ...], concepts: Concepts, settings: SpeedSettings) -> list[Tensor]:
    every = settings.rows == "after_start" or (settings.rows == "published" and concepts.erase == _ALL_ROWS_FOR)
    return [rows[1:] for rows in states.rows(texts, "all")] if every else states.rows(texts, "last_subject")


def _retained(states: TokenStates, concepts: Concepts, empty: Tensor) -> Tensor:
    # In whole words: "a cart" stays when "art" goes.
    named = re.compile("|".join(rf"(?<!\w){re.escape(text.casefold().strip())}(?!\w)" for text in concepts.erase))
    texts = [text for text in (*concepts.preserve, *concepts.captions) if not named.search(text.casefold())]
    return torch.cat(states.rows(texts, "last_subject")) if texts else empty[1:]


def _held_directions(
    weight: Tensor, moved: Tensor, plain: Tensor, retain: Tensor, settings: SpeedSettings, generator: torch.Generator
) -> Tensor:
    """Orthonormal columns: the directions in which the states to retain have a second moment to speak of."""
    # The plain edit changes a state x by moved · plain · x, whose length the small factor R of moved = Q R tells.
    scale = torch.linalg.qr(moved)[1]
    disturbed = retain @ plain.T @ scale.T
    rows = retain
    if settings.filter and settings.augmentations:
        important = _above_mean(disturbed.norm(dim=1))
        rows, disturbed = rows[important], disturbed[important]
    counts = torch.ones(len(rows), dtype=rows.dtype)
    extra: tuple[Tensor, Tensor, float] | None = None
    if settings.augmentations:
        # n P₀ of a normal n and P₀ = v vᵀ is a normal number times v.
        direction = _least_direction(weight)
        noise = torch.randn(settings.augmentations, len(rows), generator=generator, dtype=torch.float64)
        along = scale @ (plain @ direction)
        squared = disturbed.square().sum(1) + 2 * noise * (disturbed @ along) + noise.square() * along.square().sum()
        taken = _above_mean(squared.clamp_min(0).sqrt()).to(noise.dtype)
        counts = counts + taken.sum(0)
        # Σ (x + n v)(x + n v)ᵀ is Σ x xᵀ with these two.
        extra = (direction, (taken * noise).sum(0) @ rows, float((taken * noise.square()).sum()))
    return _strong_directions(rows, counts, extra, settings.threshold)


def _above_mean(sizes: Tensor) -> Tensor:
    return sizes > sizes.mean()


def _strong_directions(
    rows: Tensor, counts: Tensor, extra: tuple[Tensor, Tensor, float] | None, threshold: float
) -> Tensor:
    """Eigenvectors, as columns, of the rows' mean second moment with eigenvalues of at least `threshold`.

    Args:
        rows: states x, (n, width).
        counts: how often each counts.
        extra: v, y and a number a, of y vᵀ + v yᵀ + a v vᵀ that comes to the sum.
        threshold: the least eigenvalue.
    """
    spanning = rows if extra is None else torch.cat([rows, extra[0][None]])
    small = len(spanning) < spanning.shape[1]
    basis = torch.linalg.qr(spanning.T)[0] if small else None
    inner = rows if basis is None else rows @ basis
    moment = inner.T @ (counts[:, None] * inner)
    if extra is not None:
        direction, mixed = (each if basis is None else each @ basis for each in extra[:2])
        moment += torch.outer(mixed, direction) + torch.outer(direction, mixed)
        moment += extra[2] * torch.outer(direction, direction)
    sizes, directions = torch.linalg.eigh(moment / counts.sum().clamp_min(1))
    strong = directions[:, sizes >= threshold]
    return strong if basis is None else basis @ strong


def _least_direction(weight: Tensor) -> Tensor:
    """Right singular vector of the smallest singular value, among those of min(outputs, inputs)."""
    outputs, inputs = weight.shape
    if outputs >= inputs:
        return torch.linalg.eigh(weight.T @ weight)[1][:, 0]
    left = torch.linalg.eigh(weight @ weight.T)[1][:, 0]
    right = weight.T @ left
    return right / right.norm().clamp_min(1e-300)
