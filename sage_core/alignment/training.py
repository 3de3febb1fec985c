"""The alignment run, to be read from top to bottom: prepare, train, hand on; its name and what it says of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..encoders.layouts import EncoderConfig
from ..encoders.precision import arithmetic, choose_precision
from ..encoders.text_encoder import state_hash
from ..errors import SettingsError
from ..prompts.concepts import ConceptList
from ..prompts.pairs import PromptPairs
from ..runs.loop import Budget, Loop
from ..runs.record import StepReport
from .concepts import Removal
from .memory import plan_memory
from .objective import AlignmentObjective
from .preparation import prepare
from .settings import TrainingSettings, preset_name


@dataclass(frozen=True)
class TrainingResult:
    """A finished run: the aligned encoder's canonical fp32 state on the CPU, and how it came to be."""

    state: dict[str, Tensor]
    settings: TrainingSettings
    history: tuple[StepReport, ...]
    seconds: float
    metadata: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the weights, ready for JSON."""
        return {
            "settings": self.settings.to_dict(),
            "seconds": self.seconds,
            "metadata": self.metadata,
            "history": [asdict(report) for report in self.history],
        }


def train(
    base: Mapping[str, Tensor],
    pairs: PromptPairs,
    concept: str | ConceptList,
    settings: TrainingSettings,
    *,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    free_memory: int | None = None,
    base_hash: str | None = None,
    on_prepare: Callable[[int, int], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
) -> TrainingResult:
    """Align the encoder `base` away from `concept`, or from several at once.

    Args:
        base: canonical state of the base encoder; not changed.
        pairs: prompts to train on. With several concepts they say which each is for, as `pairs_from_concepts` does.
        concept: what is removed, in words or as a list of concepts.
        checkpoint: file to resume from when it exists; written every half minute and when an exception stops the run.
            The caller deletes it once the result is saved.
        free_memory: bytes that the run may take on `device`; None is no limit. Decides the chunk size where the
            settings leave it open, and where the base embeddings are kept; never the result.
        base_hash: `state_hash(base)` where the caller has it already.
        on_prepare: called with (prompts embedded, in all) before step 1.
        on_step: called with each step's report, one step after it happened, so that a GPU never waits for it.
            What it raises stops the run within a step and leaves a checkpoint.

    Returns:
        The aligned encoder. The same arguments on the same machine give the same weights, resumed or not.

    Raises:
        TrainingError: too few pairs, pairs for other concepts, a checkpoint of another run, a loss that is not finite,
            or memory that does not suffice even for one prompt at a time.
    """
    device = torch.device(device)
    settings = settings.replace(precision=choose_precision(settings.precision, device))
    plan = plan_memory(EncoderConfig.of(base), settings, len(pairs), free_memory)
    # bf16 is switched on around the encoder alone: losses are fp32. TF32 also has to hold in the backward pass.
    with arithmetic("tf32" if settings.precision == "tf32" else "fp32", device), ThreadPoolExecutor(1) as aside:
        # A second for a ViT-L/14, in which the device need not wait.
        hashing = aside.submit(lambda: base_hash or state_hash(base))
        budget = free_memory and free_memory // 4
        prepared = prepare(
            base, pairs, concept, settings, device, on_host=plan.base_on_host, memory_budget=budget, on_batch=on_prepare
        )
        key = run_key(hashing.result(), pairs, concept, settings)
        objective = AlignmentObjective(prepared, settings, device, plan.chunk_size)
        loop = Loop(objective, Budget(steps=objective.steps), objective.rate, checkpoint=checkpoint, key=key)
        history = loop.run(on_step)
        state = objective.full_state(base, loop.step)
    metadata = run_metadata(hashing.result(), pairs, concept, settings, loop.step, state_hash(state))
    return TrainingResult(state, settings, history, loop.seconds, metadata)


# Raised when the same inputs no longer give the same weights.
_RECIPE = 1
# Settings that came later do not take part in a run's name where they are as they always were.
_ADDED = {
    "redirect_weight": None,
    "spread_form": "hinge",
    "local_form": "pearson",
    "supervision": "tokens",
    "neutralise": True,
    "until": "steps",
}


def run_key(base_hash: str, pairs: PromptPairs, concept: str | ConceptList, settings: TrainingSettings) -> str:
    """Name of a run, 32 hex digits: base weights, prompts, concepts and settings, seed among them.

    Chunk size is left out: it changes the memory that a run takes and not its result.

    Raises:
        SettingsError: precision is "auto". What it comes to on the run's device is part of its name.
    """
    if settings.precision == "auto":
        raise SettingsError("precision is 'auto': replace it by `choose_precision(\"auto\", device)` to name a run.")
    named = settings.replace(chunk_size=None, target_shift=settings.shift).to_dict()
    made_of = {
        "recipe": _RECIPE,
        "base": base_hash,
        "pairs": pairs.hash(),
        **Removal.of(concept, pairs).key(),
        "settings": {name: value for name, value in named.items() if name not in _ADDED or value != _ADDED[name]},
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]


_METHODS = {"safeclip": "SafeCLIP, text side", "safer_clip": "SafeR-CLIP, text side"}


def run_metadata(
    base_hash: str,
    pairs: PromptPairs,
    concept: str | ConceptList,
    settings: TrainingSettings,
    steps: int,
    aligned_hash: str,
) -> dict[str, str]:
    """What a saved encoder says of itself in its header."""
    preset, removal = preset_name(settings), Removal.of(concept, pairs)
    plain = settings.spread_weight == 0 and settings.local_weight == 0
    return {
        "format": "pt",
        "method": _METHODS.get(preset, "DES" if plain else "SAGE"),
        "preset": preset,
        "concept": removal.title,
        **({} if isinstance(concept, str) else {"concepts": json.dumps(removal.about(), ensure_ascii=False)}),
        "steps": str(steps),
        "pairs": str(len(pairs)),
        "base_hash": base_hash,
        "prompts_hash": pairs.hash(),
        "hash": aligned_hash,
        "settings": json.dumps(settings.to_dict(), sort_keys=True),
        "software": f"sage-alignment {__version__}",
    }
