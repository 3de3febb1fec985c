"""The denoising side of Stable Diffusion 1.x: its U-Net's names and files, and every way here to make it forget.

- `names`: the 686 tensors in both forms; `noise`: the noise schedule.
- `files`, `lora_keys`, `changes`: read what erasing methods publish, say what it changes, save changes.
- `concepts`: what to erase, and the text encoder's states that stand for it.
- `closed_form`: UCE, RECE, MACE's closed-form part, SPEED, OCE and a CURE-style edit, without training.
- `erasing`: ESD and RACE, by training; `redirecting`: a U-Net redirected by prompt pairs; `differences`, `unet_runs`:
  what they train, and how it is kept.
- `adv_unlearn`: AdvUnlearn, which trains the text encoder through the U-Net.
- `guidance`: Safe Latent Diffusion, at each step of a sampler; `safree`: SAFREE, on a prompt's states.
- `gate`: a classifier of prompts that refines or routes away what it flags.
"""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "read_unet": "files",
        "save_changes": "changes",
        "Concepts": "concepts",
        "METHODS": "closed_form",
        "SafeGuidance": "guidance",
        "ConceptSpace": "safree",
        "train_gate": "gate",
        "ErasingObjective": "erasing",
        "RedirectingObjective": "redirecting",
        "AdvUnlearnObjective": "adv_unlearn",
    },
)
