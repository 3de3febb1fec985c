"""Finished runs kept on disk under what they were made of, and found again instead of trained again."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from . import __version__
from .encoder import save_encoder, state_hash
from .files import write_json
from .layouts import read_encoder
from .prompts import PromptPairs
from .settings import TrainingSettings, preset_name

if TYPE_CHECKING:
    from .training import TrainingResult

# Raised when the same inputs no longer give the same weights.
_RECIPE = 1


def run_key(base_hash: str, pairs: PromptPairs, concept: str, settings: TrainingSettings) -> str:
    """Name of a run, 32 hex digits: base weights, prompts, concept and settings, seed among them.

    Chunk size is left out: it changes the memory that a run takes and not its result.
    """
    made_of = {
        "recipe": _RECIPE,
        "base": base_hash,
        "pairs": pairs.hash(),
        "concept": concept,
        "settings": settings.replace(chunk_size=None).to_dict(),
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]


def run_metadata(
    base_hash: str,
    pairs: PromptPairs,
    concept: str,
    settings: TrainingSettings,
    steps: int,
    aligned_hash: str,
) -> dict[str, str]:
    """What a saved encoder says of itself in its header."""
    plain = settings.spread_weight == 0 and settings.local_weight == 0
    return {
        "format": "pt",
        "method": "DES" if plain else "SAGE",
        "preset": preset_name(settings),
        "concept": concept,
        "steps": str(steps),
        "pairs": str(len(pairs)),
        "base_hash": base_hash,
        "prompts_hash": pairs.hash(),
        "hash": aligned_hash,
        "settings": json.dumps(settings.to_dict(), sort_keys=True),
        "software": f"sage-alignment {__version__}",
    }


def train_stored(
    base: Mapping[str, Tensor],
    pairs: PromptPairs,
    concept: str,
    settings: TrainingSettings,
    store: Path,
    **options: Any,
) -> tuple["TrainingResult", bool]:
    """As `training.train`, with the finished run and its checkpoint kept in the folder `store`.

    Args:
        options: passed on to `train`, all but `checkpoint` and `base_hash`.

    Returns:
        The result, and whether it was found instead of trained.
    """
    from .training import StepReport, TrainingResult, train

    base_hash = state_hash(base)
    key = run_key(base_hash, pairs, concept, settings)
    weights, report = store / f"{key}.safetensors", store / f"{key}.json"
    if weights.exists() and report.exists():
        state, metadata = read_encoder(weights)
        content = json.loads(report.read_text(encoding="utf-8"))
        history = tuple(StepReport.from_dict(row) for row in content["history"])
        return TrainingResult(state, settings, history, content["seconds"], metadata), True
    result = train(
        base, pairs, concept, settings, checkpoint=store / f"{key}.checkpoint", base_hash=base_hash, **options
    )
    write_json(report, result.to_dict())
    # Last, since its presence says that the run is whole.
    save_encoder(weights, result.state, result.metadata)
    return result, False
