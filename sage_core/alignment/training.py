"""The alignment run: one loop to be read from top to bottom, with reports, checkpoints and exact resume."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..encoders.layouts import TOKEN_TABLE, EncoderConfig
from ..encoders.precision import arithmetic
from ..encoders.text_encoder import TextEncoder, state_hash
from ..errors import TrainingError
from ..files import whole_file
from ..geometry import DEFAULT_NEIGHBOURS
from ..geometry.measures import jaccard_overlap, spread_ratio
from ..prompts.pairs import PromptPairs
from ..runs.record import GeometryPoint, StepReport
from .losses import LOSS_PARTS, BaseBatch, alignment_loss
from .memory import chunked_backward, plan_memory
from .preparation import Prepared, prepare
from .schedule import batch_sizes, epoch_order, learning_rate, total_steps
from .settings import TrainingSettings, preset_name

_MEASUREMENTS = 10
_CHECKPOINT_SECONDS = 120.0


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
    concept: str,
    settings: TrainingSettings,
    *,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    free_memory: int | None = None,
    base_hash: str | None = None,
    on_prepare: Callable[[int, int], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
) -> TrainingResult:
    """Align the encoder `base` away from `concept`.

    Args:
        base: canonical state of the base encoder; not changed.
        checkpoint: file to resume from when it exists; written every two minutes and when an exception stops the run.
            It is the caller's to delete once the result is in safety.
        free_memory: bytes that the run may take on `device`; None is no limit. Decides the chunk size where the
            settings leave it open, and where the base embeddings are kept; never the result.
        base_hash: `state_hash(base)` where the caller has it already.
        on_prepare: called with (prompts embedded, in all) before step 1.
        on_step: called with each step's report, one step after it happened, so that a GPU never waits for it.
            What it raises stops the run within a step and leaves a checkpoint.

    Returns:
        The aligned encoder. The same arguments on the same machine give the same weights, resumed or not.

    Raises:
        TrainingError: too few pairs, a checkpoint of another run, a loss that is not finite, or memory that does
            not suffice even for one prompt at a time.
    """
    device = torch.device(device)
    plan = plan_memory(EncoderConfig.of(base), settings, len(pairs), free_memory)
    # bf16 is switched on around the encoder alone: losses are fp32. TF32 also has to hold in the backward pass.
    with arithmetic("tf32" if settings.precision == "tf32" else "fp32", device), ThreadPoolExecutor(1) as aside:
        # A second for a ViT-L/14, in which the device need not wait.
        hashing = aside.submit(lambda: base_hash or state_hash(base))
        prepared = prepare(
            base,
            pairs,
            concept,
            settings,
            device,
            on_host=plan.base_on_host,
            memory_budget=free_memory and free_memory // 4,
            on_batch=on_prepare,
        )
        key = run_key(hashing.result(), pairs, concept, settings)
        run = Run(prepared, settings, key, device, plan.chunk_size)
        if checkpoint is not None and checkpoint.exists():
            run.restore(checkpoint)
        saved = time.monotonic()
        try:
            while run.step < run.steps:
                run.take_step()
                run.report(on_step)
                if checkpoint is not None and time.monotonic() - saved > _CHECKPOINT_SECONDS:
                    run.report(on_step, everything=True)
                    run.save(checkpoint)
                    saved = time.monotonic()
            run.report(on_step, everything=True)
        except BaseException:
            # Cancelling arrives as an exception of the host application's own kind, a BaseException in some.
            if checkpoint is not None and run.consistent:
                run.save(checkpoint)
            raise
        state = run.full_state(base)
    metadata = run_metadata(hashing.result(), pairs, concept, settings, run.steps, state_hash(state))
    return TrainingResult(state, settings, tuple(run.history), run.seconds, metadata)


class Run:
    """The moving side of a run: weights, optimiser, step and history, and how they are saved and restored."""

    def __init__(
        self, prepared: Prepared, settings: TrainingSettings, key: str, device: torch.device, chunk_size: int | None
    ) -> None:
        self.prepared, self.settings, self.key, self.device = prepared, settings, key, device
        self.sizes = batch_sizes(len(prepared), settings)
        self.steps = total_steps(len(prepared), settings)
        self.chunk_size = chunk_size or 2 * max(self.sizes) + 1
        self.encoder: TextEncoder = prepared.encoder
        self.encoder.requires_grad_(True)
        self.optimiser = torch.optim.AdamW(
            self.encoder.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.step = 0
        self.consistent = True
        self.history: list[StepReport] = []
        self._pending: list[tuple[int, Tensor, torch.cuda.Event | None, GeometryPoint | None]] = []
        self._earlier_seconds = 0.0
        self._started = time.monotonic()
        self._epoch_rows: tuple[int, Tensor] = (-1, torch.empty(0))

    @property
    def seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._started

    def take_step(self) -> None:
        """One update of the weights, its losses queued for `report`."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.steps, self.settings)
        losses = self._gradients_within_memory(self.batch_rows(self.step))
        self.consistent = False
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.consistent = True
        self._queue(losses)

    def batch_rows(self, step: int) -> Tensor:
        """`Prepared.rows` of the batch of step `step`, (3, B), CPU: a pure function of the seed and the step, which
        is what makes a resume exact."""
        epoch, position = divmod(step, len(self.sizes))
        if self._epoch_rows[0] != epoch:
            order = epoch_order(len(self.prepared), epoch, self.settings.seed)
            self._epoch_rows = (epoch, self.prepared.rows[:, order])
        start = sum(self.sizes[:position])
        return self._epoch_rows[1][:, start : start + self.sizes[position]]

    def _gradients_within_memory(self, rows: Tensor) -> Tensor:
        """Gradients of a batch; out of memory halves the chunk and starts the batch again."""
        while True:
            try:
                return self.gradients(rows)
            except torch.OutOfMemoryError as error:
                if self.chunk_size == 1:
                    raise TrainingError(
                        f"Out of memory on {self.device} even with chunk_size 1 at batch_size "
                        f"{self.settings.batch_size}. Free memory on the device, or train on the CPU."
                    ) from error
            # Outside the handler: the exception keeps the failed step's tensors alive.
            self.optimiser.zero_grad(set_to_none=True)
            self.chunk_size = max(1, min(self.chunk_size, 2 * rows.shape[1] + 1) // 2)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def gradients(self, rows: Tensor) -> Tensor:
        """Fill the parameters' gradients for one batch and return its losses, (len(LOSS_PARTS),), detached."""
        p, size = self.prepared, rows.shape[1]
        safe, unsafe, _ = self._to_device(rows)
        base = BaseBatch(
            safe=self._base_embeddings(rows[0]),
            target=self._base_embeddings(rows[2]),
            direction=p.direction,
            empty=p.empty,
            norm=p.norm,
        )
        ids = torch.cat([p.safe_ids[safe], p.unsafe_ids[unsafe], p.concept_ids])

        def losses_of(z: Tensor) -> dict[str, Tensor]:
            with arithmetic("fp32", self.device):
                safe, unsafe, concept = z.split([size, size, 1])
                return alignment_loss(safe, unsafe, concept[0], base, self.settings)

        losses = chunked_backward(self._embed, ids, losses_of, self.chunk_size)
        return torch.stack([losses[name].detach() for name in LOSS_PARTS])

    def _to_device(self, tensor: Tensor) -> Tensor:
        """A CPU tensor on the device, without waiting for it."""
        if self.device.type == "cuda":
            tensor = torch.empty_like(tensor, pin_memory=True).copy_(tensor)
        return tensor.to(self.device, non_blocking=True)

    def _base_embeddings(self, rows: Tensor) -> Tensor:
        """φ_0 of the safe prompts `rows`, (B, D), fp32 on the device; only these leave the host if kept there."""
        stored = self.prepared.base_safe
        picked = self._to_device(stored[rows]) if stored.is_cpu else stored[self._to_device(rows)]
        return picked.float()

    def _embed(self, ids: Tensor) -> Tensor:
        with arithmetic(self.settings.precision, self.device):
            return self.encoder(ids).float().flatten(1)

    def _queue(self, losses: Tensor) -> None:
        event = None
        if self.device.type == "cuda":
            # An asynchronous copy, read a step later: reading it now would leave the GPU idle until the next launch.
            losses = torch.empty_like(losses, device="cpu", pin_memory=True).copy_(losses, non_blocking=True)
            event = torch.cuda.Event()
            # Of the run's own card, which need not be the current one.
            event.record(torch.cuda.current_stream(self.device))
        every = max(1, self.steps // _MEASUREMENTS)
        due = self.step % every == 0 or self.step == self.steps
        self._pending.append((self.step, losses, event, self._measure() if due else None))

    def _measure(self) -> GeometryPoint:
        p = self.prepared
        with torch.no_grad():
            chunks = p.measured_ids.split(min(self.chunk_size, 128))
            aligned = torch.cat([self._embed(ids) for ids in chunks])
        if not torch.isfinite(aligned).all():
            raise self._diverged(f"An embedding is not finite after step {self.step}.")
        k = min(DEFAULT_NEIGHBOURS, len(aligned) - 1)
        return GeometryPoint(
            spread_ratio=spread_ratio(p.measured_base, aligned),
            jaccard=jaccard_overlap(p.measured_base, aligned, k),
            k=k,
            prompts=len(aligned),
            held_out=p.held_out,
        )

    def report(self, on_step: Callable[[StepReport], None] | None, *, everything: bool = False) -> None:
        """Move queued losses into the history, all but the newest unless `everything`, and hand them on."""
        while len(self._pending) > (0 if everything else 1):
            step, losses, event, geometry = self._pending[0]
            if event is not None:
                event.synchronize()
            values = dict(zip(LOSS_PARTS, losses.tolist(), strict=True))
            rate = learning_rate(step - 1, self.steps, self.settings)
            report = StepReport(step, self.steps, values, rate, self.seconds, geometry)
            if not torch.isfinite(losses).all():
                raise self._diverged(f"The loss is {values['total']} at step {step}.")
            self.history.append(report)
            self._pending.pop(0)
            if on_step is not None:
                on_step(report)

    def _diverged(self, what: str) -> TrainingError:
        self.consistent = False
        return TrainingError(
            f"{what} Lower learning_rate ({self.settings.learning_rate:g}), or use precision fp32 "
            f"({self.settings.precision} now)."
        )

    def save(self, path: Path) -> None:
        """Write a checkpoint from which `restore` goes on exactly; none of weights that are no longer finite."""
        try:
            self.report(None, everything=True)
        except TrainingError:
            return
        # The losses are those before the newest update, which may be the one that broke the weights.
        if not all(torch.isfinite(parameter).all() for parameter in self.encoder.parameters()):
            return
        content = {
            "key": self.key,
            "step": self.step,
            "seconds": self.seconds,
            "model": self.encoder.state(),
            "optimiser": self.optimiser.state_dict(),
            "history": [asdict(report) for report in self.history],
        }
        with whole_file(path) as temporary:
            torch.save(content, temporary)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            TrainingError: the file is damaged, or belongs to another run.
        """
        try:
            content = torch.load(path, map_location=self.device, weights_only=True)
            key = content["key"]
        except Exception as error:
            raise TrainingError(f"{path} is not a readable checkpoint ({error}). Delete it to start anew.") from error
        if key != self.key:
            raise TrainingError(
                f"{path} belongs to a run with another base, prompts, concept or settings. "
                "Delete it or name another checkpoint."
            )
        for name, tensor in self.encoder.state().items():
            tensor.copy_(content["model"][name])
        self.optimiser.load_state_dict(content["optimiser"])
        self.step = content["step"]
        self.history = [StepReport.from_dict(row) for row in content["history"]]
        self._earlier_seconds, self._started = content["seconds"], time.monotonic()

    def full_state(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The trained encoder with its whole token table, fp32 on the CPU.

        Tokens of no prompt have no gradient, so that AdamW only decays them; their rows are not trained but
        decayed here, by the product of what the steps would have done.
        """
        state = {name: value.to("cpu", torch.float32) for name, value in self.encoder.state().items()}
        decay = 1.0
        for step in range(self.steps):
            decay *= 1 - learning_rate(step, self.steps, self.settings) * self.settings.weight_decay
        table = base[TOKEN_TABLE].to("cpu", torch.float32) * decay
        table[self.prepared.vocabulary] = state[TOKEN_TABLE]
        return state | {TOKEN_TABLE: table}


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
