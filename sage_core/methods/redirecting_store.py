"""A whole training of a redirected U-Net, the SAGE U-Net, kept in a store and found again."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..encoders.text_encoder import TextEncoder, state_hash
from ..prompts.minors import without_minors
from ..prompts.pairs import PromptPairs
from ..unet.training import EditResult, UnetRun, checked_config, require_width, weights_hash
from .redirecting import PairStates, RedirectingObjective, RedirectingSettings

METHOD, PRESET = "SAGE U-Net", "sage_unet"


def train_redirection(
    run: UnetRun,
    encoder: TextEncoder,
    pairs: PromptPairs,
    settings: RedirectingSettings,
    store: Path,
    *,
    title: str = "",
    on_draw: Callable[[int, int], None] | None = None,
) -> EditResult:
    """Redirect a U-Net by pairs, go on with a training that was stopped, or find a finished one in the folder `store`.

    Pairs of which a side refers or may refer to a minor are left out: the base draws pictures of both sides.

    Args:
        run: the U-Net, and on what it is trained.
        encoder: of the prompts; the U-Net is used with it or with an aligned one.
        pairs: the unsafe prompts, and what is drawn instead.
        settings: how.
        title: the concept's name in reports, where the pairs name none.
        on_draw: called with (done, total) before each evaluation of the U-Net for the base's pictures, and once after
            the last; may raise to stop.

    Raises:
        PromptError: no pair is left.
        SettingsError, UnetError, TrainingError: see `UnetRun.train`; a U-Net that reads states of another width, too.
    """
    pairs = drawable(pairs)
    require_width(checked_config(run.state, run.size), encoder.config.width)
    about = [weights_hash(run.state), state_hash(encoder.state()), pairs.hash(), settings.to_dict(), run.size]
    if on_draw is not None:
        run = _telling(run, on_draw, drawing_evaluations(len(pairs), settings))
    return run.train(
        store,
        hashlib.sha256(json.dumps([METHOD, *about, str(run.dtype)]).encode()).hexdigest()[:32],
        lambda noise, shape: RedirectingObjective(noise, PairStates.of(encoder, pairs), settings, shape),
        settings.trained,
        settings.steps,
        settings.rate,
        {
            "method": METHOD,
            "preset": PRESET,
            # As trainings of the text encoder title theirs.
            "concept": ", ".join(dict.fromkeys(pairs.concepts)) or title.strip() or "unnamed",
            "pairs": str(len(pairs)),
            "settings": json.dumps(settings.to_dict(), sort_keys=True),
        },
    )


def drawable(pairs: PromptPairs) -> PromptPairs:
    """The pairs of which neither side refers or may refer to a minor; the report says how many others there were.

    Raises:
        PromptError: none is left.
    """
    kept = sorted(set(without_minors(pairs.safe)[0]) & set(without_minors(pairs.unsafe)[0]))
    if len(kept) == len(pairs):
        return pairs
    note = (
        f"{len(pairs) - len(kept):,} pairs refer or may refer to a minor on one side: they are neither drawn nor used."
    )
    report = replace(pairs.report, kept=len(kept), notes=(*pairs.report.notes, note))
    safe, unsafe, concepts = (
        tuple(side[row] for row in kept) if side else () for side in (pairs.safe, pairs.unsafe, pairs.concepts)
    )
    return PromptPairs(safe, unsafe, report, concepts)


def drawing_evaluations(pairs: int, settings: RedirectingSettings) -> int:
    """How many times the base's U-Net is evaluated for the pictures, before the first step."""
    at_once = settings.batch_size + settings.keep_batch
    return 2 * settings.sampling_steps * math.ceil(min(pairs, settings.pictures) / at_once)


def _telling(run: UnetRun, on_draw: Callable[[int, int], None], total: int) -> UnetRun:
    """The same run, which tells its first `total` evaluations to `on_draw`."""
    done = 0

    def watch() -> None:
        nonlocal done
        if run.on_evaluation is not None:
            run.on_evaluation()
        if done <= total:
            on_draw(done, total)
            done += 1

    return replace(run, on_evaluation=watch)
