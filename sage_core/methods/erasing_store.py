"""A whole training of ESD or RACE, kept in a store and found again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from ..encoders.text_encoder import TextEncoder, state_hash
from ..unet.training import EditResult, UnetRun, checked_config, require_width, weights_hash
from .concepts import Concepts
from .erasing import ErasingObjective, ErasingSettings, ErasingTexts


def train_erasure(
    run: UnetRun,
    encoder: TextEncoder,
    concepts: Concepts,
    settings: ErasingSettings,
    store: Path,
    *,
    preset: str = "",
    sources: Sequence[str] = (),
) -> EditResult:
    """Train an erasure, go on with one that was stopped, or find a finished one in the folder `store`.

    Args:
        run: the U-Net, and on what it is trained.
        concepts: what to erase; guides and texts to preserve are not used.
        preset: the settings' name, for reports.
        sources: texts to erase the concepts from, one each; none for the concepts themselves.

    Raises:
        SettingsError, UnetError, TrainingError: see `UnetRun.train`; a U-Net that reads states of another width, too.
    """
    require_width(checked_config(run.state, run.size), encoder.config.width)
    about = [
        weights_hash(run.state),
        state_hash(encoder.state()),
        concepts.erase,
        tuple(sources),
        settings.to_dict(),
        run.size,
    ]
    return run.train(
        store,
        hashlib.sha256(json.dumps([*about, str(run.dtype)]).encode()).hexdigest()[:32],
        lambda noise, shape: ErasingObjective(noise, ErasingTexts.of(encoder, concepts, sources), settings, shape),
        settings.trained,
        settings.steps,
        lambda _step, _used: settings.learning_rate,
        {
            "method": "RACE" if settings.race else f"ESD-{settings.trained}",
            "preset": preset or "none",
            "concept": "; ".join(concepts.erase),
        },
    )
