"""What the parts of an alignment run cost; `run` has the command, `compare` what the run is held against."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from ..alignment.memory import plan_memory
from ..alignment.preparation import prepare
from ..alignment.schedule import total_steps
from ..alignment.settings import TrainingSettings
from ..alignment.targets import choose_targets
from ..alignment.training import train
from ..encoders.fast_encoder import FastEncoder
from ..encoders.layouts import VIT_L_14, EncoderConfig, read_encoder
from ..encoders.precision import Precision, PrecisionChoice, arithmetic
from ..encoders.text_encoder import TextEncoder, embed, save_encoder
from ..encoders.tokens import CONTEXT_LENGTH, tokenize
from ..prompts.pairs import PromptPairs, PromptReport
from ..runs.record import StepReport
from ..shapes.captions import CONCEPT, matched_pairs
from .watch import GIB, MemoryWatch, now, timed

State = Mapping[str, Tensor]


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


def make_pairs(count: int) -> PromptPairs:
    """So many captions of the shapes world, each paired with one that differs in the concept alone; always the same."""
    drawn = matched_pairs(count, seed=0)
    return PromptPairs(tuple(drawn.safe), tuple(drawn.unsafe), PromptReport(count, ("the shapes world",)))


def random_state(config: EncoderConfig) -> dict[str, Tensor]:
    """Canonical state with CLIP's initial weights, always the same; cost does not depend on their values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TextEncoder.fresh(config).state()


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
    timer = Timer("a @ b", globals={"a": a, "b": b}, num_threads=torch.get_num_threads(), timer=lambda: now(device))
    with arithmetic("fp32" if precision == "bf16" else precision, device):
        return 2 * size**3 / timer.blocked_autorange().median


def measure_run(
    base: State, pairs: PromptPairs, settings: TrainingSettings, device: torch.device, free_memory: int | None = None
) -> dict[str, Any]:
    """Time one run from tokens to the saved file.

    Returns:
        Seconds of its parts, `prepare`, `train`, `finish` and `save`, and `total`, their sum; `step`, the median of a
        step in the middle of training; GiB at most in training, `peak`, and as expected, `estimate`; and the total
        loss at each step, `losses`.
    """
    at: list[float] = []
    with MemoryWatch(device) as memory:

        def on_step(report: StepReport) -> None:
            at.append(time.perf_counter())
            if report.step == 1:
                memory.reset()

        start = now(device)
        result = train(base, pairs, CONCEPT, settings, device=device, free_memory=free_memory, on_step=on_step)
        done = now(device)
        peak = memory.peak()
    with tempfile.TemporaryDirectory() as folder:
        saved = timed(device, save_encoder, Path(folder) / "aligned.safetensors", result.state, result.metadata)
    training = result.history[-1].seconds
    return {
        "precision": settings.precision,
        "prepare": at[-1] - start - training,
        "train": training,
        "finish": done - at[-1],
        "save": saved.seconds,
        "total": done - start + saved.seconds,
        "step": step_seconds(result.history),
        "peak": peak,
        "estimate": plan_memory(EncoderConfig.of(base), settings, len(pairs), free_memory).bytes / GIB,
        "losses": [report.losses["total"] for report in result.history],
    }


def step_seconds(history: tuple[StepReport, ...]) -> float:
    """Median seconds between reports.

    Without the first steps, which wait for kernels to be loaded, and the last, whose report waits for no further step.
    """
    seconds = [report.seconds for report in history[:-1]]
    return statistics.median([b - a for a, b in pairwise(seconds)][min(3, len(seconds) - 2) :])


def measure_parts(
    base: State, pairs: PromptPairs, settings: TrainingSettings, device: torch.device
) -> dict[str, float]:
    """Time tokenising, embedding and pairing, each by itself, in seconds."""
    encoder = FastEncoder.from_state(base).to(device)
    ids = timed(device, lambda: [tokenize(side) for side in (pairs.unsafe, pairs.safe)])
    rows = timed(device, lambda: [embed_stored(encoder, side, settings.precision) for side in ids.result])
    with as_in_runs(settings.precision, device):
        unsafe, safe = rows.result
        pairing = timed(device, lambda: choose_targets(unsafe, safe, block=2048))
    return {"tokenise": ids.seconds, "embed": rows.seconds, "pair": pairing.seconds}


def embed_stored(encoder: TextEncoder, prompts: Sequence[str] | Tensor, precision: PrecisionChoice) -> Tensor:
    """Embeddings of prompts, or of their token ids, as a run of that precision keeps them."""
    stored = torch.bfloat16 if precision == "bf16" else torch.float32
    return embed(encoder, prompts, precision=precision, out_dtype=stored)


def as_in_runs(precision: PrecisionChoice, device: torch.device) -> Any:
    """What a run of that precision computes in beside its encoder: bf16 is autocast's, within the encoder."""
    return arithmetic("tf32" if precision == "tf32" else "fp32", device)


def loss_gap(losses: list[float], reference: list[float]) -> float:
    """Largest relative difference of two loss curves, over the steps that both have."""
    return max(abs(a - b) / abs(b) for a, b in zip(losses, reference, strict=False))


def small_card(
    base: State, pairs: PromptPairs, size: Size, runs: Mapping[Any, Any], device: torch.device, gigabytes: float = 6.0
) -> list[dict[str, Any]]:
    """Train the same batch in a small card's memory, in each precision of `runs`, and compare with these."""
    settings = size.settings.replace(steps=min(12, total_steps(len(pairs), size.settings)))
    rows = []
    for precision, whole in runs.items():
        if precision == "tf32":
            continue
        with memory_at_most(gigabytes, device):
            run = measure_run(base, pairs, settings.replace(precision=precision), device, int(gigabytes * 0.95e9))
        same = loss_gap(run["losses"], whole["losses"])
        rows.append(run | {"loss_gap": same, "times_slower": run["step"] / whole["step"]})
    return rows


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
    base: State, size: Size, settings: TrainingSettings, device: torch.device, step: float
) -> list[dict[str, Any]]:
    """Measure preparation for each number of pairs, and multiply out training at `step` seconds a step.

    "stored" are the GiB of the base embeddings, which grow with the pairs and may lie on the host; "working" is what
    preparing takes in addition.
    """
    points = []
    for count in size.pair_counts:
        pairs = make_pairs(count)
        with MemoryWatch(device) as memory:
            taken = timed(device, prepare, base, pairs, CONCEPT, settings, device)
            peak, stored = memory.peak(), taken.result.base_safe.nbytes / GIB
        steps = -(-count // settings.batch_size) * settings.epochs
        working = None if peak is None else peak - stored
        points.append({"pairs": count, "prepare": taken.seconds, "train": steps * step, "stored": stored})
        points[-1]["working"] = working
        del taken
    return points


def batch_curve(base: State, size: Size, settings: TrainingSettings, device: torch.device) -> list[dict[str, Any]]:
    """Measure the seconds of a step and its memory for each batch size, and estimate that memory."""
    points = []
    for batch in size.batch_sizes:
        changed = settings.replace(batch_size=batch, steps=12 if device.type == "cuda" else 4, epochs=100)
        pairs = make_pairs(max(batch, min(size.pairs, 2 * max(size.batch_sizes))))
        with MemoryWatch(device) as memory:
            result = train(base, pairs, CONCEPT, changed, device=device, base_hash="bench")
            peak = memory.peak()
        step, estimate = step_seconds(result.history), plan_memory(size.config, changed, len(pairs), None).bytes / GIB
        points.append({"batch": batch, "step": step, "peak": peak, "estimate": estimate, "rate": batch / step})
    return points


def apply_cost(base: State, device: torch.device) -> dict[str, float]:
    """Time what a graph pays once: reading an encoder file, and subtracting the graph's own weights from it."""
    own = {name: tensor.to(device) for name, tensor in base.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "aligned.safetensors"
        save_encoder(path, {name: tensor + 1e-3 for name, tensor in base.items()}, {})
        read = timed(device, read_encoder, path)
    aligned = read.result[0]
    difference = timed(device, lambda: {name: aligned[name].to(device) - own[name] for name in own})
    return {"read": read.seconds, "difference": difference.seconds}
