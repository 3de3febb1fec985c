"""Measure what aligning an encoder costs on this machine, against the published procedure.

    python -m sage_core.bench [--quick] [--size NAME] [--device DEVICE] [--output FOLDER] [--profile]

Weights are random and prompts are the shapes world's, which does not change the cost. Results are printed as they
arrive and written to FOLDER as bench.json, bench.md and bench.png. The exit code is 1 when results differ by more than
is allowed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..alignment.schedule import batch_sizes, total_steps
from ..alignment.settings import TrainingSettings
from ..alignment.training import train
from ..encoders.precision import Precision
from ..files import write_text
from ..prompts.pairs import PromptPairs
from ..runs.record import StepReport
from ..shapes.captions import CONCEPT
from .compare import compare_precisions, disagreements, gradient_gap, measure_naive
from .measures import (
    SIZES,
    Size,
    State,
    apply_cost,
    batch_curve,
    forward_flops,
    make_pairs,
    matmul_peak,
    measure_parts,
    measure_run,
    pair_curve,
    random_state,
    small_card,
    training_flops,
)
from .report import PAGE, draw
from .runner import Bench, Report


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", choices=SIZES, help="paper on CUDA, else laptop; world is for CPUs")
    parser.add_argument("--profile", action="store_true", help="also write where the time of a step goes")


def _measure(options: argparse.Namespace, device: torch.device, report: Report) -> Iterator[str]:
    """Take all measurements, the most important first."""
    start = time.perf_counter()
    size = SIZES["quick" if options.quick else options.size or ("paper" if device.type == "cuda" else "laptop")]
    report |= {"size": size.name, "config": asdict(size.config), "pairs": size.pairs}
    for name, value in _measured(size, device, report["machine"], options.output if options.profile else None):
        report[name] = value
        yield f"{time.perf_counter() - start:6.1f} s  {name}: {_short(value)}"
    report["seconds"] = time.perf_counter() - start
    yield f"{report['seconds']:6.1f} s  in all"


def _measured(
    size: Size, device: torch.device, found: dict[str, Any], profile: Path | None
) -> Iterator[tuple[str, Any]]:
    """Name and value of each measurement; `profile` is the folder for where the time of a step goes."""
    precisions: tuple[Precision, ...] = ("bf16", "tf32", "fp32") if device.type == "cuda" else ("fp32", "bf16")
    yield "machine", found | {"peak": {p: matmul_peak(device, p) for p in precisions}}
    base, pairs, settings = random_state(size.config), make_pairs(size.pairs), size.settings
    sizes = batch_sizes(size.pairs, settings)
    steps = total_steps(size.pairs, settings)
    yield "steps", steps
    yield "settings", settings.to_dict()
    yield "training_flops", training_flops(size.config, (sizes * settings.epochs)[:steps])
    yield "embedding_flops", forward_flops(size.config, 2 * size.pairs)
    fast = settings.replace(precision=precisions[0])
    first = measure_run(base, pairs, fast, device)
    yield "first", first
    if profile is not None:
        write_text(profile / "profile.txt", _profile(base, pairs, fast, device))
    runs: dict[Precision, dict[str, Any]] = {}
    for precision in precisions:
        changed = settings.replace(precision=precision)
        whole = measure_run(base, pairs, changed, device)
        runs[precision] = whole | measure_parts(base, pairs, changed, device)
        yield "runs", runs
    yield "same_again", first["losses"] == runs[precisions[0]]["losses"]
    yield "agreement", compare_precisions(base, pairs, device, runs)
    # fp32 first, since it stands for the published procedure.
    yield "naive", measure_naive(base, pairs, size, device, sorted(precisions, key="fp32".__ne__))
    yield "batch_curve", batch_curve(base, size, fast, device)
    yield "small_card", small_card(base, pairs, size, runs, device)
    few = make_pairs(2 * settings.batch_size)
    yield "gradient_gap", gradient_gap(base, few, settings, device, max(2, settings.batch_size // 4))
    yield "apply", apply_cost(base, device)
    yield "pair_curve", pair_curve(base, size, fast, device, runs[precisions[0]]["step"])


def _profile(base: State, pairs: PromptPairs, settings: TrainingSettings, device: torch.device) -> str:
    """A table of where the time of a step goes."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    profiler = torch.profiler.profile(activities=activities)

    def on_step(report: StepReport) -> None:
        # Reports come a step late: from the middle of step 4 to the middle of step 8.
        if report.step == 3:
            profiler.start()
        if report.step == 7:
            profiler.stop()

    steps = settings.replace(steps=9, epochs=100)
    train(base, pairs, CONCEPT, steps, device=device, on_step=on_step, base_hash="bench")
    order = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return str(profiler.key_averages().table(sort_by=order, row_limit=100, max_name_column_width=90))


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_short(v)}" for k, v in value.items() if k != "losses")
    if isinstance(value, list | tuple):
        return "; ".join(_short(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


BENCH = Bench(
    module="sage_core.bench",
    about=__doc__,
    add_options=_options,
    measure=_measure,
    page=PAGE,
    quick="a small encoder, under a minute on two cores",
    disagreements=disagreements,
    draw=draw,
    output=Path("bench"),
)
main = BENCH.main
