"""The benchmark at a tiny size: the published procedure and ours agree, and everything that is reported is measured."""

from __future__ import annotations

import json
import math
import sys
import threading

import psutil
import pytest
import torch

from sage_core.alignment.settings import TrainingSettings
from sage_core.bench import measures, watch
from sage_core.bench import run as bench
from sage_core.bench.compare import disagreements, gradient_gap, measure_naive
from sage_core.bench.measures import make_pairs, random_state
from sage_core.bench.watch import MemoryWatch
from sage_core.encoders.layouts import EncoderConfig

CONFIG = EncoderConfig(layers=2, width=64, heads=1, mlp_width=128, vocabulary=49408, positions=77)
SETTINGS = TrainingSettings(batch_size=8, neighbours=3, epochs=1, held_out=0, learning_rate=1e-4)
TINY = measures.Size("tiny", CONFIG, 30, SETTINGS, 4, 5, 3, (10, 30), (8, 16))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base():
    return random_state(CONFIG)


def test_ours_equals_the_published_procedure_in_targets_and_losses(base):
    naive = measure_naive(base, make_pairs(30), TINY, CPU, ("fp32", "bf16"))
    assert naive["same_targets"] == 1
    exact, rough = naive["steps"]
    assert exact["loss_gap"] < 1e-4 < rough["loss_gap"] < 0.02
    assert naive["step"] == exact["naive"] > 0 and exact["ours"] > 0
    assert gradient_gap(base, make_pairs(16), SETTINGS, CPU, chunk_size=5) < 1e-4


def test_a_result_beyond_its_tolerance_is_said():
    report = {
        "naive": {"same_targets": 1.0, "steps": [{"loss_gap": 1e-6}]},
        "gradient_gap": 1e-6,
        "agreement": [{"loss_gap": 1e-3, "regret": 1e-4}],
        "same_again": True,
    }
    assert disagreements(report) == []
    report["naive"]["same_targets"] = 0.5
    report["gradient_gap"] = math.nan
    report["same_again"] = False
    lines = disagreements(report)
    assert [line.split(":")[0] for line in lines[:2]] == ["targets of the published procedure", "gradient in chunks"]
    assert len(lines) == 3 and "second time" in lines[2]


needs_the_kernel = pytest.mark.skipif(not watch._kernel_forgets(), reason="the system keeps no peak to be reset")


@needs_the_kernel
def test_the_kernel_counts_what_is_let_go_at_once():
    with MemoryWatch(CPU) as memory:
        torch.ones(64 * 2**20)
        assert 0.245 < memory.peak() < 0.3
        memory.reset()
        assert memory.peak() < 0.05
        torch.ones(32 * 2**20)
        assert 0.12 < memory.peak() < 0.17


@needs_the_kernel
def test_memory_that_the_allocator_kept_counts_when_it_is_taken_again():
    pieces = [torch.ones(2**14) for _ in range(2000)]
    # Above the pieces in the heap: without it the allocator itself would give them back.
    keeper = torch.ones(2**14)
    pieces.clear()
    with MemoryWatch(CPU) as memory:
        pieces = [torch.ones(2**14) for _ in range(2000)]
        assert memory.peak() > 0.1
    del pieces, keeper


def test_samples_count_what_is_held_for_a_while(monkeypatch):
    monkeypatch.setattr(watch, "_kernel_forgets", lambda: False)
    looked, look = threading.Semaphore(0), psutil.Process.memory_info

    def memory_info(process):
        if threading.current_thread() is not threading.main_thread():
            looked.release()
        return look(process)

    monkeypatch.setattr(psutil.Process, "memory_info", memory_info)
    with MemoryWatch(CPU) as memory:
        held = torch.ones(64 * 2**20)
        # When the thread looks again, it has taken note of what it saw before.
        while looked.acquire(blocking=False):
            pass
        assert looked.acquire(timeout=30) and looked.acquire(timeout=30)
        del held
        assert 0.24 < memory.peak() < 0.3
        memory.reset()
        assert memory.peak() < 0.05


def test_what_cannot_be_measured_is_none_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(watch, "_kernel_forgets", lambda: False)
    monkeypatch.setitem(sys.modules, "psutil", None)
    with MemoryWatch(CPU) as memory:
        memory.reset()
        assert memory.peak() is None
    assert "pip install psutil" in caplog.text
    caplog.clear()
    with MemoryWatch(torch.device("mps")) as memory:
        assert memory.peak() is None
    assert not caplog.text


def test_operations_are_counted_by_the_shapes_of_the_weights(base):
    one = measures.forward_flops(CONFIG, 1)
    matrices = sum(t.numel() for name, t in base.items() if t.dim() == 2 and "embedding" not in name)
    assert one == 2 * 77 * (matrices + 2 * 2 * 77 * 64)
    assert measures.training_flops(CONFIG, [8, 6]) == 3 * one * (17 + 13)


@pytest.mark.full
def test_a_whole_bench_writes_table_json_and_picture(tmp_path, monkeypatch):
    monkeypatch.setitem(bench.SIZES, "quick", TINY)
    report = bench.main(["--quick", "--device", "cpu", "--output", str(tmp_path), "--profile"])
    assert json.loads((tmp_path / "bench.json").read_text())["steps"] == report["steps"] == 4
    assert report["same_again"]
    for row in report["agreement"]:
        assert row["loss_gap"] < 0.02
        assert row["regret"] < 0.01
    run = report["runs"]["fp32"]
    assert run["total"] == pytest.approx(run["prepare"] + run["train"] + run["finish"] + run["save"], rel=0.02)
    assert "| **total after loading** |" in (tmp_path / "bench.md").read_text()
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    assert (tmp_path / "profile.txt").exists()
