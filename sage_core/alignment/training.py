"""The alignment run, to be read from top to bottom: prepare, train, hand on; its name, its metadata, how it is kept."""

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

from ..encoders.layouts import EncoderConfig, read_encoder
from ..encoders.precision import Precision, arithmetic, choose_precision
from ..encoders.text_encoder import save_encoder, state_hash
from ..errors import SettingsError
from ..prompts.concepts import ConceptList
from ..prompts.pairs import PromptPairs
from ..rows import parse_json
from ..runs.keeping import SOFTWARE, kept, read_run, save_run
from ..runs.loop import Budget, Loop
from ..runs.record import StepReport
from ..settings import NotNegative, checked
from .concepts import RunConcepts
from .memory import MemoryPlan, plan_memory
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
    on_plan: Callable[[MemoryPlan], None] | None = None,
    on_prepare: Callable[[int, int], None] | None = None,
    on_begin: Callable[[int, int], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    on_layer: Callable[[], None] | None = None,
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
        on_plan: called first, with what the run takes on `device` and how it is laid out.
        on_prepare: called with (prompts embedded, in all) before step 1.
        on_begin: called with (steps that an earlier run has done, in all) when the steps begin.
        on_step: called with each step's report, one step after it happened, so that a GPU never waits for it.
            What it raises stops the run within a step and leaves a checkpoint.
        on_layer: called within steps, before each layer that a batch goes through, forwards and back: on a CPU a step
            may take minutes. What it raises stops the run at once and leaves a checkpoint of the step before.

    Returns:
        The aligned encoder. The same arguments on the same machine give the same weights, resumed or not.

    Raises:
        TrainingError: too few pairs, pairs for other concepts, a checkpoint of another run, a loss that is not finite,
            or memory that does not suffice even for one prompt at a time.
    """
    device = torch.device(device)
    settings = settings.replace(precision=choose_precision(settings.precision, device))
    plan = plan_memory(EncoderConfig.of(base), settings, len(pairs), free_memory)
    if on_plan is not None:
        on_plan(plan)
    # bf16 is switched on around the encoder alone: losses are fp32. TF32 also has to hold in the backward pass.
    with arithmetic("tf32" if settings.precision == "tf32" else "fp32", device), ThreadPoolExecutor(1) as aside:
        # A second for a ViT-L/14, in which the device need not wait.
        hashing = aside.submit(lambda: base_hash or state_hash(base))
        budget = free_memory and free_memory // 4
        prepared = prepare(
            base, pairs, concept, settings, device, on_host=plan.base_on_host, memory_budget=budget, on_batch=on_prepare
        )
        key = run_key(hashing.result(), pairs, concept, settings)
        prepared.encoder.watch = on_layer
        objective = AlignmentObjective(prepared, settings, device, plan.chunk_size)
        loop = Loop(objective, Budget(steps=objective.steps), objective.rate, checkpoint=checkpoint, key=key)
        if on_begin is not None:
            on_begin(loop.step, objective.steps)
        history = loop.run(on_step)
        state = objective.full_state(base, loop.step)
    metadata = run_metadata(hashing.result(), pairs, concept, settings, loop.step, state_hash(state))
    return TrainingResult(state, settings, history, loop.seconds, metadata)


# Raised when the same inputs no longer give the same weights: of all runs, of those whose targets fit, and of those
# whose end is found by looking.
_RECIPE, _FITTING_RECIPE, _LOOKING_RECIPE = 1, 2, 3
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
    recipe = _FITTING_RECIPE if settings.target == "fitting" else _RECIPE
    if settings.until == "removed":
        recipe = _LOOKING_RECIPE
    made_of = {
        "recipe": recipe,
        "base": base_hash,
        "pairs": pairs.hash(),
        **RunConcepts.of(concept, pairs).key(),
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
    preset, run_concepts = preset_name(settings), RunConcepts.of(concept, pairs).fitted(settings.target)
    plain = settings.spread_weight == 0 and settings.local_weight == 0
    return {
        "format": "pt",
        "method": _METHODS.get(preset.partition(",")[0], "DES") if plain else "SAGE",
        "preset": preset,
        "concept": run_concepts.title,
        **({} if isinstance(concept, str) else {"concepts": json.dumps(run_concepts.about(), ensure_ascii=False)}),
        "steps": str(steps),
        "pairs": str(len(pairs)),
        "base_hash": base_hash,
        "prompts_hash": pairs.hash(),
        "hash": aligned_hash,
        "settings": json.dumps(settings.to_dict(), sort_keys=True),
        "software": SOFTWARE,
    }


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
    """Train as `train` does, and keep the finished run and its checkpoint in the folder `store`, see `runs.keeping`.

    Args:
        settings: a run of precision "auto" is one that is finished or begun in any, or else of the device's.
        options: passed on to `train`; any of its options except `checkpoint` and `base_hash`.

    Returns:
        The result, and whether it was found instead of trained.

    Raises:
        FileError: nothing can be written into the store; raised before the first step.
        TrainingError: another process trains this run; see also `train`.
    """
    base_hash, precisions = state_hash(base), [settings.precision]
    if settings.precision == "auto":
        precisions = [choose_precision("auto", torch.device(options.get("device", "cpu"))), *_EARLIER]
    each = [settings.replace(precision=precision) for precision in precisions]
    named = {run_key(base_hash, pairs, concept, one): one for one in each}
    key, *earlier = named
    return kept(
        store,
        key,
        make=lambda checkpoint: train(
            base, pairs, concept, named[checkpoint.stem], checkpoint=checkpoint, base_hash=base_hash, **options
        ),
        save=_save,
        read=lambda weights: _read(weights, named[weights.stem]),
        needed=_STORED_COPIES * 4 * sum(tensor.numel() for tensor in base.values()),
        earlier=earlier,
    )


def _save(weights: Path, result: TrainingResult) -> None:
    about = {"settings": result.settings.to_dict(), "seconds": result.seconds}
    save_run(weights, save_encoder, result.state, result.metadata, result.history, **about)


def _read(weights: Path, settings: TrainingSettings) -> TrainingResult:
    says = ("method", "preset", "concept")
    state, metadata, history, content = read_run(weights, lambda path: read_encoder(path)[0], state_hash, says)
    # Runs of one concept have no list of them.
    checked(tuple[Any, ...], parse_json(metadata.get("concepts", "[]")), "concepts")
    return TrainingResult(state, settings, history, checked(NotNegative, content["seconds"], "seconds"), metadata)
