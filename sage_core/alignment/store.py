"""Finished alignments are kept in a store of runs, and found there instead of trained again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..encoders.layouts import read_encoder
from ..encoders.precision import Precision, choose_precision
from ..encoders.text_encoder import save_encoder, state_hash
from ..errors import EncoderError, TrainingError
from ..files import write_json
from ..prompts.concepts import ConceptList
from ..prompts.pairs import PromptPairs
from ..rows import parse_json
from ..runs.record import StepReport
from ..runs.store import CHECKPOINT, REPORT, WEIGHTS, RunStore
from .settings import TrainingSettings
from .training import TrainingResult, run_key, train

logger = logging.getLogger(__name__)

# A checkpoint holds the weights and AdamW's two moments, and the result is written before it goes.
_STORED_COPIES = 4
# What "auto" may have come to on another machine, or was the default before there was "auto".
_EARLIER: tuple[Precision, ...] = ("bf16", "fp32")


def train_stored(
    base: Mapping[str, Tensor],
    pairs: PromptPairs,
    concept: str | ConceptList,
    settings: TrainingSettings,
    store: Path,
    **options: Any,
) -> tuple[TrainingResult, bool]:
    """Train as `training.train` does, and keep the finished run and its checkpoint in the folder `store`.

    A result that cannot be stored at the end, for instance because the disk has filled up, is returned all the
    same, and its checkpoint stays. The caller can save it elsewhere.

    Args:
        options: passed on to `train`; any of its options except `checkpoint` and `base_hash`.

    Returns:
        The result, and whether it was found instead of trained.

    Raises:
        FileError: nothing can be written into the store; raised before the first step.
        TrainingError: another process trains this run; see also `train`.
    """
    base_hash = state_hash(base)
    runs = RunStore(store)

    def name(settings: TrainingSettings) -> str:
        return run_key(base_hash, pairs, concept, settings)

    settings = _with_precision(settings, torch.device(options.get("device", "cpu")), runs, name)
    key = name(settings)
    weights, report, checkpoint = (runs.path(key, suffix) for suffix in (WEIGHTS, REPORT, CHECKPOINT))
    if weights.exists() and report.exists():
        runs.tidy(key)
        return _stored(weights, report, settings), True
    runs.make_ready(key, _STORED_COPIES * 4 * sum(tensor.numel() for tensor in base.values()))
    with runs.locked(key):
        if weights.exists() and report.exists():
            # Another process has finished it since the first look.
            return _stored(weights, report, settings), True
        result = train(base, pairs, concept, settings, checkpoint=checkpoint, base_hash=base_hash, **options)
        try:
            write_json(report, result.to_dict())
            # Last, since its presence says that the run is whole.
            save_encoder(weights, result.state, result.metadata)
            checkpoint.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            logger.warning(
                "The finished run could not be stored in %s (%s); it is handed on all the same.", store, error
            )
    return result, False


def _with_precision(
    settings: TrainingSettings, device: torch.device, runs: RunStore, name: Callable[[TrainingSettings], str]
) -> TrainingSettings:
    """The settings with "auto" replaced: by the precision of a run that is finished or begun, or else the device's."""
    if settings.precision != "auto":
        return settings
    chosen = choose_precision("auto", device)
    candidates = [settings.replace(precision=precision) for precision in dict.fromkeys([chosen, *_EARLIER])]
    for suffix in (WEIGHTS, CHECKPOINT):
        for candidate in candidates:
            if runs.path(name(candidate), suffix).exists():
                return candidate
    return candidates[0]


def _stored(weights: Path, report: Path, settings: TrainingSettings) -> TrainingResult:
    try:
        state, metadata = read_encoder(weights)
        content = parse_json(report.read_text(encoding="utf-8"))
        history = tuple(StepReport.from_dict(row) for row in content["history"])
        if len(history) != int(metadata["steps"]):
            raise ValueError(f"it reports {len(history)} of {metadata['steps']} steps")
        if metadata.get("hash") != state_hash(state):
            # safetensors carries no checksum.
            raise ValueError("its weights have changed since they were written")
        return TrainingResult(state, settings, history, float(content["seconds"]), metadata)
    except (EncoderError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"The finished run {weights} cannot be read ({error}). Delete it to train again."
        ) from error
