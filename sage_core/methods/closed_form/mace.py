"""The closed-form part of MACE (Lu et al., CVPR 2024): its first and third stage, without the LoRAs between them.

Stage 1: in some 30 sentences a concept, the words around it get the values that they have around the guide, so that
what the concept left in them goes; one system for all concepts. Stage 3 is to make the matrices do on those sentences
what stage 1 does. Both hold on to the matrices as they are, by lam and on a prior, the second moment P of everyday
captions' states. With states as columns, keys k and the new ones n, sums over all concepts' sentences:

    stage 1: W' = W (I + E),  E = Σ (n − k) kᵀ (Σ k kᵀ + s P + lam I)⁻¹
    stage 3: W* = W (I + E A (A + s P + lam I)⁻¹),  A = Σ c cᵀ over all their states

MACE itself trains a LoRA a concept on masked pictures between the two; results of this part alone are not MACE's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...encoders.text_encoder import TextEncoder
from ...encoders.tokens import CONTEXT_LENGTH, tokenize
from ...errors import PromptError
from ...settings import NotNegative, Settings
from ..concepts import Concepts, TokenStates, last_subject
from ..removal import Removal
from .common import Edit, Solver, choose, result, shared

# Sentences around a concept: openers of pictures, and scenes in which anything can stand.
SENTENCES = tuple(
    sentence
    for opener in ("a photo of", "a picture of", "an image of", "a painting of", "a drawing of", "a close-up of")
    for sentence in (
        f"{opener} {{}}",
        f"{opener} {{}} in a room",
        f"{opener} {{}} in front of a window",
        f"{opener} {{}} on a summer day",
        f"{opener} {{}} with soft light",
    )
)


@dataclass(frozen=True)
class MaceSettings(Settings):
    """MACE's values for broad concepts; for objects lam is 1,000, and there is no prior.

    Attributes:
        lam: how much the matrices hold on to what they are, in both stages.
        prior: weight of the captions, in states: s P is this number times their mean c cᵀ. MACE's scale of 7e-7 over
            the 47.5 million states of COCO's captions is 33. Without captions there is no prior.
    """

    lam: NotNegative = 0.0
    prior: NotNegative = 33.0

    @property
    def spared(self) -> tuple[str, ...]:
        """See `table.Method.needed`: with a lam the systems are regular without a prior, too."""
        return ("captions",) if self.lam else ()


def recipe(settings: MaceSettings, given: Removal) -> int:
    """See `table.Method.recipe`. 2: one system for all concepts, and lam in both stages."""
    return 2 if len(given.erase) > 1 or settings.lam else 1


def edit(
    weights: Mapping[str, Tensor], encoder: TextEncoder, concepts: Concepts, settings: MaceSettings | None = None
) -> Edit:
    """MACE's closed-form part on all matrices that read the prompt.

    Raises:
        PromptError: neither captions for a prior nor a lam.
    """
    settings = settings or MaceSettings()
    has_prior = bool(concepts.captions and settings.prior)
    if not has_prior and not settings.lam:
        raise PromptError(
            "MACE's closed-form part needs captions for its prior, with a weight above 0, or a lam above 0: without "
            "both its systems are singular. Give some hundred everyday captions, or for an object lam 1,000."
        )
    chosen = choose(weights, encoder.config.width)
    solver = Solver(advice="Give more captions, hundreds of different ones, or lam a value above 0.")
    states = TokenStates(encoder)
    held = settings.lam * torch.eye(states.width, dtype=torch.float64)
    if has_prior:
        held += settings.prior * states.second_moment(concepts.captions, "all")
    around, moved, seen = torch.zeros_like(held), torch.zeros_like(held), torch.zeros_like(held)
    for concept, guide in zip(concepts.erase, concepts.guides, strict=True):
        keys, new = surrounding_rows(states, concept, guide)
        around += keys.T @ keys
        moved += (new - keys).T @ keys
        rows = torch.cat(states.rows([sentence.format(concept) for sentence in SENTENCES], "all"))
        seen += rows.T @ rows
    change = solver.right(held + around, moved)
    change = solver.right(held + seen, change @ seen)
    notes: tuple[str, ...] = ("MACE trains LoRAs on pictures in addition, which this edit does not.",)
    if not has_prior:
        notes += ("There is no prior: lam alone holds what other prompts mean.",)
    return result("MACE (closed-form part)", chosen, shared(chosen, change), solver, concepts, settings, notes)


def surrounding_rows(states: TokenStates, concept: str, guide: str) -> tuple[Tensor, Tensor]:
    """States around the concept in every sentence, and their counterparts around the guide; (n, width) both."""
    texts = [[sentence.format(text) for sentence in SENTENCES] for text in (concept, guide)]
    old_ids, new_ids = tokenize(texts[0]), tokenize(texts[1])
    keys, new = [], []
    for old_row, new_row, old, changed in zip(old_ids, new_ids, *map(states.states, texts), strict=True):
        pairs = surrounding_positions(old_row, new_row)
        keys.append(old[[position for position, _ in pairs]])
        new.append(changed[[position for _, position in pairs]])
    return torch.cat(keys), torch.cat(new)


def surrounding_positions(old: Tensor, new: Tensor) -> list[tuple[int, int]]:
    """Positions of equal tokens before and after the part in which two rows of ids (77,) differ.

    What comes after goes on through the padding as far as both rows reach, shifted by the difference in length.
    """
    old_end, new_end = (last + 1 for last in last_subject(torch.stack([old, new])))
    shortest = min(old_end, new_end) + 1
    before = next((i for i in range(shortest) if old[i] != new[i]), shortest)
    after = 0
    while after < shortest - before and old[old_end - after] == new[new_end - after]:
        after += 1
    old_start, new_start = old_end + 1 - after, new_end + 1 - after
    count = CONTEXT_LENGTH - max(old_start, new_start)
    return [(i, i) for i in range(before)] + [(old_start + i, new_start + i) for i in range(count)]
