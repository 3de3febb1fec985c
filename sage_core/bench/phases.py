"""What an alignment run costs, phase by phase; `run` has the command."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..alignment.memory import plan_memory
from ..alignment.preparation import prepare
from ..alignment.settings import TrainingSettings
from ..alignment.targets import choose_targets
from ..alignment.training import train
from ..encoders.fast_encoder import FastEncoder
from ..encoders.layouts import VIT_L_14, EncoderConfig, read_encoder
from ..encoders.precision import Precision, PrecisionChoice, arithmetic
from ..encoders.text_encoder import TextEncoder, embed, save_encoder
from ..encoders.tokens import CONTEXT_LENGTH, tokenize
from ..prompts.pairs import PromptPairs
from ..runs.record import StepReport
from .prompts import CONCEPT, make_pairs
from .watch import GIB, Clock, MemoryWatch


@dataclass(frozen=True)
class Size:
    """What is measured under one name.

    Attributes:
        config: sizes of the text encoder.
        pairs: prompt pairs of a run.
        settings: of a run.
        naive_prompts, naive_searches, naive_steps: how much of the published procedure is measured; the rest is scaled.
        pair_counts, batch_sizes: points of the two curves.
    """

    name: str
    config: EncoderConfig
    pairs: int
    settings: TrainingSettings
    naive_prompts: int
    naive_searches: int
    naive_steps: int
    pair_counts: tuple[int, ...]
    batch_sizes: tuple[int, ...]


# SD 1.x's text encoder with fewer layers and narrower ones: the shapes world's, and one for a quick look.
_WORLD = replace(VIT_L_14, layers=2, mlp_width=2048)
_SMALL = replace(VIT_L_14, layers=2, width=128, heads=2, mlp_width=512)
# As published, in published arithmetic: precisions are compared one by one.
_SCRIPT = TrainingSettings(held_out=0, precision="fp32")
SIZES = {
    "paper": Size("paper", VIT_L_14, 6911, _SCRIPT, 64, 4, 10, (1000, 6911, 25_000, 100_000), (32, 64, 128, 256, 512)),
    "laptop": Size("laptop", VIT_L_14, 96, _SCRIPT.replace(batch_size=24, epochs=1), 6, 3, 3, (24, 48, 96), (20, 32)),
    "world": Size("world", _WORLD, 1024, _SCRIPT.replace(steps=4), 8, 3, 4, (256, 512, 1024, 2048), (20, 32, 64, 128)),
    "quick": Size(
        "quick", _SMALL, 256, _SCRIPT.replace(batch_size=32, epochs=1), 16, 4, 6, (64, 256, 1024), (20, 32, 64)
    ),
}


def forward_flops(config: EncoderConfig, prompts: int) -> float:
    """Floating-point operations of embedding so many prompts.

    Only matrix products count, a multiply-add as 2, and attention without regard to its mask.
    """
    matrices = config.layers * (4 * config.width**2 + 2 * config.width * config.mlp_width)
    attention = config.layers * 2 * CONTEXT_LENGTH * config.width
    return 2.0 * prompts * CONTEXT_LENGTH * (matrices + attention)


def training_flops(config: EncoderConfig, batches: list[int]) -> float:
    """Operations of steps of these batch sizes B: a forward pass of 2B + 1 prompts, and twice as much backward."""
    return sum(3 * forward_flops(config, 2 * size + 1) for size in batches)


def matmul_peak(device: torch.device, precision: Precision) -> float:
    """Operations a second in a large product of two square matrices: the ceiling to compare with."""
    size = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    clock = Clock(device)
    with arithmetic("fp32" if precision == "bf16" else precision, device):
        clock.seconds(lambda: a @ b, repeats=3)
        return 2 * size**3 / clock.seconds(lambda: [a @ b for _ in range(4)], repeats=3) * 4


@dataclass(frozen=True)
class Phases:
    """Seconds of one alignment run from the moment that the base is in memory.

    Attributes:
        precision: of the run.
        prepare, train, finish, save: the parts, of which `total` is the sum.
        step: median seconds of a step in the middle of training.
        peak: GiB at most in training, see `MemoryWatch`.
        estimate: GiB that `plan_memory` expects.
        losses: total loss at each step.
    """

    precision: str
    prepare: float
    train: float
    finish: float
    save: float
    total: float
    step: float
    peak: float | None
    estimate: float
    losses: tuple[float, ...] = field(repr=False)


def measure_run(
    base: Mapping[str, Tensor],
    pairs: PromptPairs,
    settings: TrainingSettings,
    device: torch.device,
    free_memory: int | None = None,
) -> Phases:
    """Time one run from tokens to the saved file."""
    clock = Clock(device)
    at: list[float] = []

    with MemoryWatch(device) as memory:

        def on_step(report: StepReport) -> None:
            at.append(time.perf_counter())
            if report.step == 1:
                memory.reset()

        start = clock.now()
        result = train(base, pairs, CONCEPT, settings, device=device, free_memory=free_memory, on_step=on_step)
        done = clock.now()
        peak = memory.peak()
    with tempfile.TemporaryDirectory() as folder:
        save = clock.seconds(lambda: save_encoder(Path(folder) / "aligned.safetensors", result.state, result.metadata))
    training = result.history[-1].seconds
    return Phases(
        precision=settings.precision,
        prepare=at[-1] - start - training,
        train=training,
        finish=done - at[-1],
        save=save,
        total=done - start + save,
        step=step_seconds(result.history),
        peak=peak,
        estimate=plan_memory(EncoderConfig.of(base), settings, len(pairs), free_memory).bytes / GIB,
        losses=tuple(report.losses["total"] for report in result.history),
    )


def step_seconds(history: tuple[StepReport, ...]) -> float:
    """Median seconds between reports.

    Without the first steps, which wait for kernels to be loaded, and the last, whose report waits for no further step.
    """
    seconds = [report.seconds for report in history[:-1]]
    return statistics.median([b - a for a, b in pairwise(seconds)][min(3, len(seconds) - 2) :])


def measure_parts(
    base: Mapping[str, Tensor], pairs: PromptPairs, settings: TrainingSettings, device: torch.device
) -> dict[str, float]:
    """Time tokenising, embedding and pairing, each by itself, in seconds."""
    clock = Clock(device)
    encoder = FastEncoder.from_state(base).to(device)
    ids: list[Tensor] = []
    rows: list[Tensor] = []
    tokenise = clock.seconds(lambda: ids.extend(tokenize(side) for side in (pairs.unsafe, pairs.safe)))
    embedding = clock.seconds(lambda: rows.extend(embed_stored(encoder, side, settings.precision) for side in ids))
    with arithmetic("tf32" if settings.precision == "tf32" else "fp32", device):
        pairing = clock.seconds(lambda: choose_targets(rows[0], rows[1], block=2048))
    return {"tokenise": tokenise, "embed": embedding, "pair": pairing}


def embed_stored(encoder: TextEncoder, prompts: Sequence[str] | Tensor, precision: PrecisionChoice) -> Tensor:
    """Embeddings as a run of that precision keeps them."""
    stored = torch.bfloat16 if precision == "bf16" else torch.float32
    return embed(encoder, prompts, precision=precision, out_dtype=stored)


@contextmanager
def memory_at_most(gigabytes: float, device: torch.device) -> Iterator[None]:
    """Let the device's allocator hand out no more than this, so that what does not fit fails."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(gigabytes * 1e9 / torch.cuda.mem_get_info(device)[1])
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def pair_curve(
    base: Mapping[str, Tensor], size: Size, settings: TrainingSettings, device: torch.device, step: float
) -> list[dict[str, Any]]:
    """Measure preparation for each number of pairs, and multiply out training at `step` seconds a step.

    "stored" are the GiB of the base embeddings, which grow with the pairs and may lie on the host; "working" is what
    preparing takes in addition.
    """
    clock, points = Clock(device), []
    for count in size.pair_counts:
        pairs = make_pairs(count)
        with MemoryWatch(device) as memory:
            start = clock.now()
            prepared = prepare(base, pairs, CONCEPT, settings, device)
            seconds = clock.now() - start
            peak, stored = memory.peak(), prepared.base_safe.nbytes / GIB
        del prepared
        steps = -(-count // settings.batch_size) * settings.epochs
        working = None if peak is None else peak - stored
        points.append({"pairs": count, "prepare": seconds, "train": steps * step, "stored": stored, "working": working})
    return points


def batch_curve(
    base: Mapping[str, Tensor], size: Size, settings: TrainingSettings, device: torch.device
) -> list[dict[str, Any]]:
    """Measure the seconds of a step and its memory for each batch size, and estimate that memory."""
    points = []
    for batch in size.batch_sizes:
        changed = settings.replace(batch_size=batch, steps=12 if device.type == "cuda" else 4, epochs=100)
        pairs = make_pairs(max(batch, min(size.pairs, 2 * max(size.batch_sizes))))
        with MemoryWatch(device) as memory:
            result = train(base, pairs, CONCEPT, changed, device=device, base_hash="bench")
            peak = memory.peak()
        estimate = plan_memory(size.config, changed, len(pairs), None).bytes / GIB
        points.append({"batch": batch, "step": step_seconds(result.history), "peak": peak, "estimate": estimate})
    return points


def apply_cost(base: Mapping[str, Tensor], device: torch.device) -> dict[str, float]:
    """Time what a graph pays once: reading an encoder file, and subtracting the graph's own weights from it."""
    clock = Clock(device)
    own = {name: tensor.to(device) for name, tensor in base.items()}
    aligned: dict[str, Tensor] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "aligned.safetensors"
        save_encoder(path, {name: tensor + 1e-3 for name, tensor in base.items()}, {})
        read = clock.seconds(lambda: aligned.update(read_encoder(path)[0]))
    difference = clock.seconds(lambda: {name: aligned[name].to(device) - own[name] for name in own})
    return {"read": read, "difference": difference}
