"""Every way here to make a model forget, but for the alignment of its text encoder.

- `table`, `removal`, `making`: a row for each method, what it is given, and how its change is made.
- `concepts`: what to erase, and the text encoder's states that stand for it.
- `closed_form`: UCE, RECE, MACE's closed-form part, SPEED, OCE and a CURE-style edit, without training.
- `erasing`: ESD and RACE, by training; `redirecting`: a U-Net redirected by prompt pairs.
- `adv_unlearn`: AdvUnlearn, which trains the text encoder through the U-Net.
- `safree`: SAFREE, on a prompt's states; `gate`: a classifier of prompts that refines or routes away what it flags.
"""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Concepts": "concepts",
        "METHODS": "table",
        "make": "making",
        "Removal": "removal",
        "ConceptSpace": "safree",
        "train_gate": "gate",
        "ErasingObjective": "erasing",
        "RedirectingObjective": "redirecting",
        "AdvUnlearnObjective": "adv_unlearn",
    },
)
