"""A finished run in words, for a terminal and for a node."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .preparation import LEAST_HELD_OUT
from .training import TrainingResult

# A run of fewer steps that nobody asked for by their number has hardly begun.
_HANDFUL = 20


def ending(result: TrainingResult, pairs: int) -> list[str]:
    """Why the run ended where it did, where that is more than a number of steps that was asked for: no line or one.

    Whether the concept is removed the verdict says, on more prompts than a run looks at.
    """
    settings, steps = result.settings, len(result.history)
    check = next((report.check for report in reversed(result.history) if report.check), None)
    if settings.until == "removed" and check is not None:
        further = f" and {len(check.again)} of {check.further} further ones" if check.further else ""
        counts = (
            f"{check.left} of {check.unsafe} watched prompts{further} still lay with the concept, {check.moved} of "
            f"{check.safe} safe ones had moved"
        )
        if check.holds:
            return [f"Ended after {steps} of {result.history[-1].steps} steps: {counts}."]
        return [
            f"⚠ Ended at the limit of {steps} steps: {counts}. Give more names and short prompts, or "
            "raise the limit (steps)."
        ]
    if settings.until == "steps" and settings.steps is None and steps < _HANDFUL:
        return [
            f"⚠ Only {steps} steps: {pairs} pairs in batches of {settings.batch_size} make no more in "
            f"{settings.epochs} epochs. The concept may be as it was: take the preset own_concept, set steps, or add "
            "pairs."
        ]
    return []


def run_summary(result: TrainingResult, path: str, *, found: bool, pairs: int, notes: Sequence[str] = ()) -> str:
    """What was done, and what it did to the losses and to the embedding space.

    Args:
        path: where the encoder is saved.
        found: whether the run was made before and its result was read from disk.
        pairs: how many pairs of prompts it was trained on.
        notes: further lines, after those that say what was done.
    """
    meta, first, last = result.metadata, result.history[0].losses, result.history[-1].losses
    several = "concepts" if "concepts" in meta and len(json.loads(meta["concepts"])) > 1 else "concept"
    lines = [
        f"{'Found, not trained again' if found else 'Trained'}: {path}",
        f'{meta["method"]}, preset {meta["preset"]}, {several} "{meta["concept"]}", {meta["steps"]} steps, '
        f"{pairs} pairs, seed {result.settings.seed}, {result.settings.precision}",
        *notes,
        *ending(result, pairs),
        f"Time: {result.seconds:.0f} s",
        "Losses, first to last step: " + ", ".join(f"{name} {first[name]:.4g} → {last[name]:.4g}" for name in last),
    ]
    if point := next((step.geometry for step in reversed(result.history) if step.geometry), None):
        kind = "held-out" if point.held_out else "training"
        lines.append(
            f"Embedding space on {point.prompts} {kind} safe prompts: spread ratio {point.spread_ratio:.3f}, "
            f"overlap of the {point.k} nearest neighbours {point.jaccard:.3f} (both 1 for the base)"
        )
        if result.settings.held_out and not point.held_out:
            lines.append(
                f"⚠ No prompts were held out, though held_out is {result.settings.held_out}: at most a tenth of the "
                f"safe prompts is, and fewer than {LEAST_HELD_OUT} say too little. These figures are of the training's."
            )
    return "\n".join(lines)
