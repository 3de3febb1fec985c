"""What an alignment plans before its first step: batches, learning rates, memory and precision."""

from __future__ import annotations

import os
import time

import pytest
import torch

from sage_core.alignment.memory import estimate_memory, plan_memory
from sage_core.alignment.schedule import batch_sizes, learning_rate
from sage_core.alignment.settings import PRESETS, TrainingSettings
from sage_core.encoders import precision
from sage_core.encoders.layouts import EncoderConfig
from sage_core.errors import SettingsError


@pytest.mark.parametrize(
    ("pairs", "batch", "neighbours", "expected"),
    [(6911, 128, 15, [128] * 53 + [127]), (130, 128, 15, [130]), (40, 12, 3, [12, 12, 16]), (10, 128, 3, [10]),
     (41, 12, 3, [12, 12, 12, 5])],
)  # fmt: skip
def test_a_last_batch_too_small_for_the_loss_is_merged(pairs, batch, neighbours, expected):
    settings = TrainingSettings(batch_size=batch, neighbours=neighbours)
    assert batch_sizes(pairs, settings) == expected


def test_warm_up_is_linear_and_then_constant():
    settings = TrainingSettings(warmup=4, learning_rate=1e-4)
    assert [learning_rate(step, 6, settings) for step in range(6)] == pytest.approx(
        [2.5e-5, 5e-5, 7.5e-5, 1e-4, 1e-4, 1e-4]
    )
    assert learning_rate(0, 106, PRESETS["paper"]) == learning_rate(105, 106, PRESETS["paper"]) == 1e-5


def test_schedules_fall_from_the_warm_up_to_nothing():
    settings = TrainingSettings(warmup=2, learning_rate=1.0, schedule="linear")
    assert [learning_rate(step, 6, settings) for step in range(7)] == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25, 0])
    settings = settings.replace(schedule="cosine", warmup=0)
    assert [learning_rate(step, 4, settings) for step in range(5)] == pytest.approx(
        [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0]
    )
    with pytest.raises(SettingsError, match=r"schedule is 'step', expected one of constant, linear, cosine"):
        TrainingSettings(schedule="step")


def test_the_memory_plan_is_the_fastest_that_fits():
    config = EncoderConfig(layers=12, width=768, heads=12, mlp_width=3072, vocabulary=49408, positions=77)
    settings = PRESETS["paper"]
    whole = estimate_memory(config, settings, 6911)
    assert plan_memory(config, settings, 6911, None).chunk_size is None
    assert plan_memory(config, settings, 6911, whole).chunk_size is None
    tight = plan_memory(config, settings, 6911, 6 * 2**30)
    assert tight.base_on_host
    assert 1 < tight.chunk_size < 128
    assert tight.bytes <= 6 * 2**30
    smallest = plan_memory(config, settings, 6911, 1)
    assert smallest.chunk_size <= 5
    assert plan_memory(config, settings.replace(chunk_size=64), 6911, 1).chunk_size == 64


@pytest.mark.parametrize(("gains", "chosen"), [(6.0, "bf16"), (1.1, "fp32"), (0.2, "fp32")])
def test_a_precision_left_open_is_the_fast_one(monkeypatch, gains, chosen):
    monkeypatch.setattr(precision, "_cpu_gains", lambda: gains)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert precision.choose_precision("auto", "cpu") == chosen
    assert precision.choose_precision("tf32", "cpu") == "tf32"
    assert precision.choose_precision("auto", "mps") == "fp32"
    with pytest.raises(SettingsError, match="precision is 'fp16'"):
        precision.choose_precision("fp16", "cpu")


@pytest.mark.parametrize(
    ("told", "chosen"),
    [
        ({"avx512_bf16": True}, "bf16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bf16"),
        ({"avx512_bf16": False}, "fp32"),
    ],
)
def test_what_a_processor_says_of_itself_decides_and_no_clock(monkeypatch, told, chosen):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", **told}, raising=False)
    monkeypatch.setattr(precision, "_cpu_gains", lambda: pytest.fail("timed"))
    assert precision.choose_precision("auto", "cpu") == chosen


@pytest.mark.skipif(os.name == "nt", reason="its clock of the processor ticks too seldom")
def test_what_auto_comes_to_counts_no_wait_for_other_processes() -> None:
    assert precision._seconds(lambda: time.sleep(0.02)) < 0.01
