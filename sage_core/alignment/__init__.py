"""Align a text encoder away from a concept: settings and presets, losses, and the training itself."""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "train": "training",
        "TrainingResult": "training",
        "train_stored": "training",
        "TrainingSettings": "settings",
        "PRESETS": "settings",
        "alignment_loss": "losses",
        "plan_memory": "memory",
    },
)
