"""A run in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sage_core.alignment.report import ending, run_summary
from sage_core.alignment.settings import PRESETS
from sage_core.alignment.training import TrainingResult
from sage_core.runs.record import Check, GeometryPoint, StepReport


def result(*points: GeometryPoint | None) -> TrainingResult:
    fields = set(StepReport.__dataclass_fields__)
    history = []
    for number, point in enumerate(points, 1):
        values = {"step": number, "steps": len(points), "losses": {"total": 4.0 / number}, "geometry": point}
        history.append(StepReport(**values | dict.fromkeys(fields - values.keys(), 0.0)))
    metadata = {"method": "SAGE", "preset": "released", "concept": "skull", "steps": str(len(points))}
    return TrainingResult(
        {"w": torch.zeros(1)},
        PRESETS["released"].replace(seed=7, held_out=128, precision="fp32"),
        tuple(history),
        12.4,
        metadata,
    )


def point(**changes) -> GeometryPoint:
    values = {"prompts": 32, "held_out": True, "spread_ratio": 0.5, "jaccard": 0.25, "k": 10}
    fields = GeometryPoint.__dataclass_fields__
    return GeometryPoint(**dict.fromkeys(fields, 0.0) | values | changes)


def test_all_that_was_done_is_told() -> None:
    found = run_summary(result(point(jaccard=0.9), point(), None), "a.safetensors", found=False, pairs=9, notes=["Hm."])
    assert found.splitlines() == [
        "Trained: a.safetensors",
        'SAGE, preset released, concept "skull", 3 steps, 9 pairs, seed 7, fp32',
        "Hm.",
        "⚠ Only 3 steps: 9 pairs in batches of 128 make no more in 2 epochs. The concept may be as it was: take the "
        "preset own_concept, set steps, or add pairs.",
        "Time: 12 s",
        "Losses, first to last step: total 4 → 1.333",
        "Embedding space on 32 held-out safe prompts: spread ratio 0.500, overlap of the 10 nearest neighbours 0.250 "
        "(both 1 for the base)",
    ]


def test_what_was_found_or_not_measured_is_told_so() -> None:
    told = run_summary(result(point(held_out=False)), "a", found=False, pairs=9)
    assert "on 32 training safe prompts" in told
    assert "⚠ No prompts were held out, though held_out is 128" in told
    lines = run_summary(result(None), "a", found=True, pairs=9).splitlines()
    assert lines[0] == "Found, not trained again: a"
    assert not any(line.startswith("Embedding space") for line in lines)


def ended(done_steps: int, limit: int, check: Check | None, **changes) -> list[str]:
    done = result(*[None] * done_steps)
    history = [replace(report, steps=limit, check=check) for report in done.history]
    return ending(replace(done, settings=done.settings.replace(**changes), history=tuple(history)), 40)


@pytest.mark.parametrize(
    ("steps", "check", "start"),
    [
        (
            56,
            Check(0, 90, 1, 80, True),
            "Ended after 56 of 400 steps: 0 of 90 watched prompts",
        ),
        (
            400,
            Check(7, 90, 1, 80, False),
            "⚠ Ended at the limit of 400 steps: 7 of 90 watched prompts",
        ),
        (
            56,
            Check(0, 90, 1, 80, True, (3,), 90),
            "Ended after 56 of 400 steps: 0 of 90 watched prompts and 1 of 90 further ones still lay with the concept, "
            "1 of 80 safe ones had moved.",
        ),
        (400, Check(0, 90, 40, 80, False), "⚠ Ended at the limit of 400 steps"),
        # It would have ended at its next check.
        (400, Check(0, 90, 0, 80, True), "Ended after 400 of 400 steps"),
    ],
)
def test_it_says_why_a_run_ended(steps: int, check: Check, start: str) -> None:
    (line,) = ended(steps, 400, check, until="removed")
    # Whether it worked the verdict says, and nothing beside it.
    assert line.startswith(start) and "removed" not in line.lower()


def test_a_handful_of_steps_is_told_unless_it_was_asked_for() -> None:
    assert ended(4, 4, None)[0].startswith("⚠ Only 4 steps: 40 pairs in batches of 128")
    assert ended(4, 4, None, steps=4) == []
    assert ended(20, 20, None) == []
