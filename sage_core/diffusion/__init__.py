"""The denoising side of Stable Diffusion 1.x: edits of its U-Net read, made and saved; safe guidance; gates.

Every other system that SAGE's paper compares with, from its published formulas.
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
    },
)
