"""RECE, reliable and efficient concept erasure (Gong et al., ECCV 2024): UCE, then rounds against its own weak points.

Each round looks for the states c' that the edited matrices W' map where the original W maps the concept's states c,
c' = C c with C = (r I + Σ W'ᵀW')⁻¹ Σ W'ᵀW, and edits W' so that they map to the guide's, row by row, or to the empty
prompt's. The empty prompt's states are preserved against them, once for each concept.

Every step multiplies all matrices from the right by the same one, W' = W T. So the sums over the matrices follow from
S = Σ WᵀW alone, and a round is algebra of the text encoder's width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...encoders.text_encoder import TextEncoder
from ...settings import CountOrZero, NotNegative, Positive, Settings
from ..concepts import Concepts, TokenStates
from ..removal import Removal
from .common import Edit, Solver, choose, result, shared
from .uce import UcePaperSettings, aligned_rows, normal_matrix, paper_system

# What is preserved against adversarial states; the empty prompt's tokens.
_NEUTRAL = " "


@dataclass(frozen=True)
class ReceSettings(Settings):
    """RECE's published values for nudity.

    Attributes:
        epochs: rounds after UCE.
        regularisation: r, how close to 0 the adversarial states stay; 0.1 for broad concepts, 0.001 for styles.
        lam, erase_scale, preserve_scale: of a round's edit.
        uce_lam, uce_erase_scale, uce_preserve_scale: of UCE before the rounds.
        rounds_to: what adversarial states become: the concept's "guide", as in the authors' program, or the "empty"
            prompt, to which both are the same where there is no guide.
    """

    epochs: CountOrZero = 3
    regularisation: Positive = 0.1
    lam: NotNegative = 0.1
    erase_scale: Positive = 1.0
    preserve_scale: NotNegative = 0.1
    uce_lam: NotNegative = 0.5
    uce_erase_scale: Positive = 1.0
    uce_preserve_scale: NotNegative = 1.0
    rounds_to: Literal["guide", "empty"] = "guide"

    def uce(self) -> UcePaperSettings:
        """The settings of UCE before the rounds."""
        return UcePaperSettings(self.uce_lam, self.uce_erase_scale, self.uce_preserve_scale)


def recipe(settings: ReceSettings, given: Removal) -> int:
    """See `table.Method.recipe`. 2: adversarial states are mapped to the guides, which may be the empty prompt."""
    return 2 if settings.rounds_to == "guide" and any(guide.strip() for guide in given.guides) else 1


def edit(
    weights: Mapping[str, Tensor], encoder: TextEncoder, concepts: Concepts, settings: ReceSettings | None = None
) -> Edit:
    """RECE on all matrices that read the prompt; texts to preserve join the empty prompt, in UCE and in each round."""
    settings = settings or ReceSettings()
    chosen, solver = choose(weights, encoder.config.width), Solver()
    states = TokenStates(encoder)
    identity = torch.eye(states.width, dtype=torch.float64)
    moment = sum((weight.T @ weight for weight in chosen.values()), torch.zeros_like(identity))

    keys, new = aligned_rows(states, concepts)
    system = paper_system(states, keys, concepts, settings.uce())
    turned = identity + solver.right(system, settings.uce_erase_scale * (new - keys).T @ keys)

    own = states.states(concepts.erase)
    targets = concepts.guides if settings.rounds_to == "guide" else [_NEUTRAL] * len(concepts.erase)
    guides = states.states(targets).flatten(0, 1)
    kept = torch.cat(states.rows([*[_NEUTRAL] * len(concepts.erase), *concepts.preserve], "all"))
    for _ in range(settings.epochs):
        seen = turned.T @ moment
        # Cᵀ, since states are rows here: both matrices are symmetric or transposed by it.
        back = solver.right(settings.regularisation * identity + seen @ turned, seen.T)
        keys = (own @ back).flatten(0, 1)
        system = normal_matrix(settings.lam, (settings.erase_scale, keys), (settings.preserve_scale, kept))
        turned = turned + turned @ solver.right(system, settings.erase_scale * (guides - keys).T @ keys)
    return result("RECE", chosen, shared(chosen, turned - identity), solver, concepts, settings)
