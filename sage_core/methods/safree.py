"""SAFREE (Yoon et al., ICLR 2025): a prompt's states are moved out of a space of concepts, without any training.

E(.) is the row of the end token after the final layer norm; columns are states.

1. The concepts' E span a space with the projector P_C = C (CᵀC)⁺ Cᵀ.
2. E of the prompt with each token masked in turn spans another, with P_M.
3. A token is a trigger unless |(I − P_C) m_i| < (1 + α) · mean of the others': masking it brings the prompt away from
   the concepts.
4. The states t of triggers become (I − P_C) P_M t; all others stay.
5. The concepts, joined by commas, are the negative prompt.
6. The projected states hold for the first steps of the sampler only, the more the farther all states would move.

What the publication calls latent re-attention is left out: its released code never calls the filter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..drawing.change import Moved, Reading, states_of
from ..encoders.precision import arithmetic
from ..encoders.text_encoder import TextEncoder, embed
from ..encoders.tokens import require_short, tokenize
from ..errors import PromptError
from ..settings import NotNegative, Positive, Settings
from .concepts import last_subject

# What stands for a masked token: "!".
MASK_TOKEN = 0
# The number of steps that the self-validating filter counts in.
PUBLISHED_STEPS = 50


@dataclass(frozen=True)
class SafreeSettings(Settings):
    """SAFREE's published values; for artists `steepness` is 3.5 and `middle` 5.5.

    Attributes:
        alpha: how much farther than the others' mean a trigger lies.
        steepness, middle: of the filter, t* = round(10 · sigmoid(2 · steepness · (10 β − middle))).
        filtered: whether the projected states hold for the first t* + 1 of 50 steps; if not, for all.
    """

    alpha: NotNegative = 0.01
    steepness: Positive = 2.5
    middle: float = 5.333
    filtered: bool = True


@dataclass(frozen=True, eq=False)
class SafePrompt:
    """A prompt under SAFREE.

    Attributes:
        states: (77, width), projected at the triggers.
        original: (77, width).
        triggers: positions of the triggers, 1 for the first token.
        distances: |(I − P_C) m_i| of each token masked.
        beta: 1 − mean cosine of the prompt's states and their projections.
        share: of the sampler's steps for which `states` hold, from the first; `original` holds afterwards.
    """

    states: Tensor
    original: Tensor
    triggers: tuple[int, ...]
    distances: tuple[float, ...]
    beta: float
    share: float


def check_concepts(concepts: Sequence[str]) -> None:
    """Raise PromptError if there are no concepts, or one is empty or longer than an encoder reads."""
    if not concepts:
        raise PromptError("SAFREE needs concepts to keep away from: expected at least one, such as 'nudity'.")
    for number, text in enumerate(concepts, start=1):
        if not text.strip():
            raise PromptError(f"Concept {number} is empty: expected a word or phrase.")
        require_short(f"SAFREE's concept {number}", text)


class ConceptSpace:
    """The space of some concepts under one text encoder."""

    def __init__(self, encoder: TextEncoder, concepts: Sequence[str]) -> None:
        """Embed the concepts; raises PromptError as `check_concepts`."""
        check_concepts(concepts)
        self.encoder = encoder
        self.negative_prompt = ", ".join(concepts)
        self.projector = projector(embed(encoder, concepts, pooling="eos").cpu().double())

    @torch.no_grad()
    def project(self, prompt: str | Tensor, settings: SafreeSettings | None = None) -> SafePrompt:
        """Move a prompt, a text or its token ids (77,), out of the space."""
        ids = tokenize([prompt])[0] if isinstance(prompt, str) else prompt
        return self.moved(ids, settings or SafreeSettings())

    def moved(self, ids: Tensor, settings: SafreeSettings) -> SafePrompt:
        """The same with gradients: they go through the states, and take both projectors and the triggers as given."""
        with arithmetic("fp32", next(self.encoder.parameters()).device):
            states = states_of(self.encoder, ids[None])[0].cpu()
        masked = masked_ids(ids)
        if not len(masked):
            return SafePrompt(states, states, (), (), 0.0, 0.0)
        pooled = embed(self.encoder, masked, pooling="eos").cpu().double()
        distances = (pooled - pooled @ self.projector).norm(dim=1)
        triggers = trigger_positions(distances, settings.alpha)
        # States are rows here and both projectors symmetric: ((I − P_C) P_M t)ᵀ = tᵀ P_M (I − P_C).
        inside = states.double() @ projector(pooled)
        moved = inside - inside @ self.projector
        changed = states.clone()
        changed[triggers] = moved[triggers].float()
        used = slice(0, len(masked) + 2)
        cosines = torch.nn.functional.cosine_similarity(moved[used].detach(), states[used].detach().double(), dim=1)
        beta = 1 - float(cosines.mean())
        share = (filter_steps(beta, settings) + 1) / PUBLISHED_STEPS if settings.filtered else 1.0
        return SafePrompt(changed, states, tuple(triggers), tuple(distances.tolist()), beta, share)


@dataclass(frozen=True)
class MovedPrompts:
    """SAFREE as a reader of prompts; see `drawing.change.Reader`."""

    concepts: tuple[str, ...]
    settings: SafreeSettings = field(default_factory=SafreeSettings)

    def reading(self, base: TextEncoder, changed: TextEncoder) -> Reading:
        """Prompts are moved by the changed encoder. Raises PromptError as `check_concepts`."""
        space = ConceptSpace(changed, self.concepts)
        device = next(changed.parameters()).device

        def moved(ids: Tensor) -> Moved:
            found = [space.moved(each, self.settings) for each in ids]
            return Moved(
                torch.stack([each.states for each in found]).to(device),
                torch.stack([each.original for each in found]).to(device),
                torch.tensor([each.share for each in found], device=device),
            )

        return Reading(changed, moved, space.negative_prompt)

    def summary(self) -> str:
        """A few words for a person."""
        return f"prompts moved away from '{', '.join(self.concepts)}'"


def projector(rows: Tensor) -> Tensor:
    """P onto the span of states given as rows, (width, width), float64; of rank-deficient ones too."""
    columns = rows.double().T
    return columns @ torch.linalg.pinv(columns.T @ columns, hermitian=True) @ columns.T


def masked_ids(ids: Tensor) -> Tensor:
    """A prompt's ids (77,) with each of its n tokens masked in turn, (n, 77)."""
    count = last_subject(ids[None])[0]
    masked = ids.repeat(count, 1)
    masked[torch.arange(count), torch.arange(count) + 1] = MASK_TOKEN
    return masked


def trigger_positions(distances: Tensor, alpha: float) -> list[int]:
    """Positions, from 1, of the tokens whose masking brings the prompt away from the concepts.

    The only token of a prompt has no others to be compared with; it counts as a trigger, as in the published results.
    """
    count = len(distances)
    if count == 1:
        return [1]
    others = (distances.sum() - distances) / max(count - 1, 1)
    return (torch.nonzero(distances >= (1 + alpha) * others)[:, 0] + 1).tolist()


def filter_steps(beta: float, settings: SafreeSettings) -> int:
    """t*: the last of 50 steps, from 0, with the projected states."""
    slope = 2 * settings.steepness * (10 * beta - settings.middle)
    return round(10 / (1 + math.exp(-slope)))
