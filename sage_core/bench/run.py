"""Measure what aligning an encoder costs on this machine, against the published procedure.

    python -m sage_core.bench [--quick] [--size NAME] [--device DEVICE] [--output FOLDER] [--profile]

Weights are random and prompts come from a grammar, which does not change the cost. Results are printed as they arrive
and written to FOLDER as bench.json, bench.md and bench.png. The exit code is 1 when results differ by more than is
allowed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..alignment.schedule import batch_sizes, total_steps
from ..alignment.settings import TrainingSettings
from ..alignment.training import train
from ..devices import choose_device, machine
from ..encoders.precision import Precision
from ..errors import SageError
from ..files import check_writable, whole_file, write_json, write_text
from ..prompts.pairs import PromptPairs
from ..runs.record import StepReport
from .compare import compare_precisions, disagreements, gradient_gap, loss_gap, measure_naive
from .phases import (
    SIZES,
    Phases,
    Size,
    apply_cost,
    batch_curve,
    forward_flops,
    matmul_peak,
    measure_parts,
    measure_run,
    memory_at_most,
    pair_curve,
    training_flops,
)
from .prompts import CONCEPT, make_pairs, random_state
from .report import draw, to_markdown

# Gigabytes.
_SMALL_CARD = 6.0


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark that the command line asks for. Returns what bench.json holds."""
    parser = argparse.ArgumentParser(prog="python -m sage_core.bench", description="Measure the cost of alignment.")
    parser.add_argument("--quick", action="store_true", help="a small encoder, under a minute on two cores")
    parser.add_argument("--size", choices=SIZES, help="paper on CUDA, else laptop; world is for CPUs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("bench"), help="folder for the results")
    parser.add_argument("--profile", action="store_true", help="also write where the time of a step goes")
    options = parser.parse_args(arguments)
    try:
        device = choose_device(options.device, field="--device")
        check_writable(options.output / "bench.json")
    except SageError as error:
        parser.error(str(error))
    size = SIZES["quick" if options.quick else options.size or ("paper" if device.type == "cuda" else "laptop")]
    report = _Bench(size, device, options.output).run(profile=options.profile)
    write_text(options.output / "bench.md", to_markdown(report))
    with whole_file(options.output / "bench.png") as path:
        draw(report).savefig(path, format="png")
    sys.stdout.write("\n" + to_markdown(report))
    for line in disagreements(report):
        sys.stderr.write(f"NOT WITHIN TOLERANCE: {line}\n")
    return report


class _Bench:
    """The measurements, the most important first, each written to disk before the next begins."""

    def __init__(self, size: Size, device: torch.device, output: Path) -> None:
        self.size, self.device, self.output = size, device, output
        self.report: dict[str, Any] = {"size": size.name, "config": asdict(size.config), "pairs": size.pairs}
        self._start = time.perf_counter()

    def run(self, *, profile: bool) -> dict[str, Any]:
        """Take all measurements; `profile` adds where the time of a step goes."""
        size, device = self.size, self.device
        precisions: tuple[Precision, ...] = ("bf16", "tf32", "fp32") if device.type == "cuda" else ("fp32", "bf16")
        self._keep("machine", machine(device) | {"peak": {p: matmul_peak(device, p) for p in precisions}})
        base, pairs, settings = random_state(size.config), make_pairs(size.pairs), size.settings
        sizes = batch_sizes(size.pairs, settings)
        steps = total_steps(size.pairs, settings)
        self._keep("steps", steps)
        self._keep("settings", settings.to_dict())
        self._keep("training_flops", training_flops(size.config, (sizes * settings.epochs)[:steps]))
        self._keep("embedding_flops", forward_flops(size.config, 2 * size.pairs))
        fast = settings.replace(precision=precisions[0])
        first = measure_run(base, pairs, fast, device)
        self._keep("first", asdict(first))
        if profile:
            self._profile(base, pairs, fast)
        runs, rows = {}, {}
        for precision in precisions:
            changed = settings.replace(precision=precision)
            runs[precision] = measure_run(base, pairs, changed, device)
            rows[precision] = asdict(runs[precision]) | measure_parts(base, pairs, changed, device)
            self._keep("runs", rows)
        self._keep("same_again", first.losses == runs[precisions[0]].losses)
        self._keep("agreement", [asdict(row) for row in compare_precisions(base, pairs, device, runs)])
        # fp32 first, since it stands for the published procedure.
        self._keep("naive", asdict(measure_naive(base, pairs, size, device, sorted(precisions, key="fp32".__ne__))))
        self._keep("batch_curve", batch_curve(base, size, fast, device))
        self._small_card(base, pairs, runs)
        self._keep("apply", apply_cost(base, device))
        self._keep("pair_curve", pair_curve(base, size, fast, device, runs[precisions[0]].step))
        self._keep("seconds", time.perf_counter() - self._start)
        return self.report

    def _small_card(self, base: Mapping[str, Tensor], pairs: PromptPairs, runs: Mapping[Precision, Phases]) -> None:
        """Train the same batch in a small card's memory, and compare the gradient in chunks with the whole batch's."""
        settings = self.size.settings.replace(steps=min(12, total_steps(len(pairs), self.size.settings)))
        rows = []
        for precision in (p for p in runs if p != "tf32"):
            limit = int(_SMALL_CARD * 0.95e9)
            with memory_at_most(_SMALL_CARD, self.device):
                run = measure_run(base, pairs, settings.replace(precision=precision), self.device, limit)
            same = {"loss_gap": loss_gap(run.losses, runs[precision].losses)}
            rows.append(asdict(run) | same | {"times_slower": run.step / runs[precision].step})
        self._keep("small_card", rows)
        few = make_pairs(2 * settings.batch_size)
        gap = gradient_gap(base, few, settings, self.device, max(2, settings.batch_size // 4))
        self._keep("gradient_gap", gap)

    def _profile(self, base: Mapping[str, Tensor], pairs: PromptPairs, settings: TrainingSettings) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        profiler = torch.profiler.profile(activities=activities)

        def on_step(report: StepReport) -> None:
            # Reports come a step late: from the middle of step 4 to the middle of step 8.
            if report.step == 3:
                profiler.start()
            if report.step == 7:
                profiler.stop()

        steps = settings.replace(steps=9, epochs=100)
        train(base, pairs, CONCEPT, steps, device=self.device, on_step=on_step, base_hash="bench")
        order = "self_device_time_total" if self.device.type == "cuda" else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=order, row_limit=100, max_name_column_width=90)
        write_text(self.output / "profile.txt", table)

    def _keep(self, name: str, value: Any) -> None:
        self.report[name] = value
        write_json(self.output / "bench.json", self.report)
        sys.stdout.write(f"{time.perf_counter() - self._start:6.1f} s  {name}: {_short(value)}\n")
        sys.stdout.flush()


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_short(v)}" for k, v in value.items() if k != "losses")
    if isinstance(value, list | tuple):
        return "; ".join(_short(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
