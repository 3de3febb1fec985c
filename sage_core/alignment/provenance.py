"""What a run was made of: its key, and what a saved encoder says of itself."""

from __future__ import annotations

import hashlib
import json

from .. import __version__
from ..prompts.pairs import PromptPairs
from .settings import TrainingSettings, preset_name

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
