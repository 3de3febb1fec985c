"""Finished runs kept on disk under what they were made of, and found again instead of trained again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..encoders.layouts import read_encoder
from ..encoders.text_encoder import save_encoder, state_hash
from ..errors import EncoderError, TrainingError
from ..files import write_json
from ..prompts.pairs import PromptPairs
from ..runs.record import StepReport
from .settings import TrainingSettings
from .training import TrainingResult, run_key, train


def train_stored(
    base: Mapping[str, Tensor],
    pairs: PromptPairs,
    concept: str,
    settings: TrainingSettings,
    store: Path,
    **options: Any,
) -> tuple[TrainingResult, bool]:
    """As `training.train`, with the finished run and its checkpoint kept in the folder `store`.

    Args:
        options: passed on to `train`, all but `checkpoint` and `base_hash`.

    Returns:
        The result, and whether it was found instead of trained.
    """
    base_hash = state_hash(base)
    key = run_key(base_hash, pairs, concept, settings)
    weights, report = store / f"{key}.safetensors", store / f"{key}.json"
    if weights.exists() and report.exists():
        return _stored(weights, report, settings), True
    checkpoint = store / f"{key}.checkpoint"
    result = train(base, pairs, concept, settings, checkpoint=checkpoint, base_hash=base_hash, **options)
    write_json(report, result.to_dict())
    # Last, since its presence says that the run is whole.
    save_encoder(weights, result.state, result.metadata)
    checkpoint.unlink(missing_ok=True)
    return result, False


def _stored(weights: Path, report: Path, settings: TrainingSettings) -> TrainingResult:
    try:
        state, metadata = read_encoder(weights)
        content = json.loads(report.read_text(encoding="utf-8"))
        history = tuple(StepReport.from_dict(row) for row in content["history"])
        return TrainingResult(state, settings, history, content["seconds"], metadata)
    except (EncoderError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"The finished run {weights} cannot be read ({error}). Delete it to train again."
        ) from error
