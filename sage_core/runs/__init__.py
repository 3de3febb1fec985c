"""Runs of any training: the one loop that resumes exactly, what a step reports, curves, and the store of runs."""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Loop": "loop",
        "Objective": "loop",
        "Budget": "loop",
        "StepReport": "record",
        "training_curves": "curves",
        "RunStore": "store",
        "kept": "keeping",
    },
)
