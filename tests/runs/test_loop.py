"""The training loop on an objective small enough to compute by hand: exact resume, signals, memory, divergence."""

from __future__ import annotations

import math
import os
import signal
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_objectives import Bowl, Stop, stop_at
from torch import Tensor

from sage_core.errors import TrainingError
from sage_core.runs import loop as loop_module
from sage_core.runs.loop import Budget, Diverged, Loop
from sage_core.runs.record import Check, StepReport


def falling(step: int, used: float) -> float:
    return 0.1 * (1 - used)


def by_hand(steps: int) -> tuple[list[float], float]:
    """Losses and the weight of AdamW without decay, written from its definition, in float64."""
    w, m, v, losses = 5.0, 0.0, 0.0, []
    for step in range(steps):
        losses.append(3 * (w - step) ** 2)
        g = 2 * (w - step)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        update = (m / (1 - 0.9 ** (step + 1))) / (math.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8)
        w -= 0.1 * (1 - step / steps) * update
    return losses, w


def test_a_run_is_that_of_the_definition() -> None:
    objective = Bowl()
    history = Loop(objective, Budget(steps=9), falling).run()
    losses, weight = by_hand(9)
    assert [report.losses["total"] for report in history] == pytest.approx(losses, rel=1e-9)
    assert objective.weight.tolist() == pytest.approx([weight] * 3, rel=1e-9)
    assert [report.learning_rate for report in history] == pytest.approx([0.1 * (1 - i / 9) for i in range(9)])
    assert [report.step for report in history if report.geometry] == [4, 8]
    assert {report.steps for report in history} == {9}
    assert objective.updates == 9


@pytest.mark.parametrize("step", range(1, 9))
def test_stopped_at_any_step_it_resumes_to_the_bit(tmp_path: Path, step: int) -> None:
    whole = Bowl()
    straight = Loop(whole, Budget(steps=9), falling).run()
    checkpoint = tmp_path / "c"
    with pytest.raises(Stop):
        Loop(Bowl(), Budget(steps=9), falling, checkpoint=checkpoint).run(stop_at(step))
    resumed = Bowl()
    seen: list[StepReport] = []
    history = Loop(resumed, Budget(steps=9), falling, checkpoint=checkpoint).run(seen.append)
    assert torch.equal(whole.weight, resumed.weight)
    assert [r.losses for r in history] == [r.losses for r in straight]
    # Each step is heard of at most once by those who hear, and stands in the history exactly once.
    assert [r.step for r in history] == list(range(1, 10))
    assert seen == list(history[len(history) - len(seen) :])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_an_update_waits_for_its_end(tmp_path: Path, number: signal.Signals) -> None:
    def handler(*_: object) -> None:
        raise Stop

    class Interrupted(Bowl):
        def after_update(self, step: int) -> None:
            if step == 3:
                os.kill(os.getpid(), number)
            super().after_update(step)

    before = signal.signal(number, handler)
    try:
        stopped = Interrupted()
        with pytest.raises(Stop):
            Loop(stopped, Budget(steps=9), falling, checkpoint=tmp_path / "c").run()
        assert stopped.updates == 3
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    whole, resumed = Bowl(), Bowl()
    Loop(whole, Budget(steps=9), falling).run()
    loop = Loop(resumed, Budget(steps=9), falling, checkpoint=tmp_path / "c")
    assert loop.step == 3
    history = loop.run()
    assert torch.equal(whole.weight, resumed.weight)
    # The interrupted step's losses are kept as well.
    assert [report.step for report in history] == list(range(1, 10))


def test_out_of_memory_shrinks_and_goes_on_with_the_same_step() -> None:
    tried: list[tuple[int, int]] = []

    def fails(step: int, size: int) -> BaseException | None:
        tried.append((step, size))
        return torch.OutOfMemoryError("pretended") if step == 2 and size > 2 else None

    small, plain = Bowl(fails), Bowl()
    Loop(small, Budget(steps=4), falling).run()
    Loop(plain, Budget(steps=4), falling).run()
    assert tried == [(0, 8), (1, 8), (2, 8), (2, 4), (2, 2), (3, 2)]
    assert torch.equal(small.weight, plain.weight)


def test_memory_that_never_suffices_is_said_and_the_steps_before_are_kept(tmp_path: Path) -> None:
    never = Bowl(lambda step, size: MemoryError() if step == 2 else None)
    with pytest.raises(TrainingError, match="Out of memory on cpu"):
        Loop(never, Budget(steps=4), falling, checkpoint=tmp_path / "c").run()
    assert Loop(Bowl(), Budget(steps=4), falling, checkpoint=tmp_path / "c").step == 2
    with pytest.raises(RuntimeError, match="shapes do not match"):
        Loop(Bowl(lambda step, size: RuntimeError("shapes do not match")), Budget(steps=4), falling).run()


def test_a_loss_that_is_not_finite_ends_the_run_and_is_never_saved(tmp_path: Path) -> None:
    class Breaks(Bowl):
        def gradients(self, step: int) -> Tensor:
            return super().gradients(step) * (math.nan if step == 2 else 1.0)

    with pytest.raises(Diverged, match=r"The loss is nan at step 3\. Lower the learning rate\."):
        Loop(Breaks(), Budget(steps=9), falling, checkpoint=tmp_path / "c").run()
    assert not (tmp_path / "c").exists()


def test_weights_that_an_update_broke_are_never_saved(tmp_path: Path) -> None:
    class Breaks(Bowl):
        def after_update(self, step: int) -> None:
            if step == 2:
                self.weight.data.fill_(math.nan)

    with pytest.raises(Stop):
        Loop(Breaks(), Budget(steps=9), falling, checkpoint=tmp_path / "c").run(stop_at(2))
    assert not (tmp_path / "c").exists()


def test_checkpoints_are_written_on_the_way_and_report_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop_module, "_CHECKPOINT_SHARE", 0)
    found: list[int] = []

    def on_step(report: StepReport) -> None:
        if (tmp_path / "c").exists():
            found.append(torch.load(tmp_path / "c", weights_only=True)["step"])

    history = Loop(Bowl(), Budget(steps=5), falling, checkpoint=tmp_path / "c").run(on_step)
    assert [report.step for report in history] == [1, 2, 3, 4, 5]
    assert found == [1, 2, 3, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_budget_of_seconds_ends_by_the_clock_and_a_resumed_one_has_all_of_its_own(tmp_path: Path) -> None:
    loop = Loop(Bowl(), Budget(seconds=0.2), falling, checkpoint=tmp_path / "c")
    with pytest.raises(Stop):
        loop.run(stop_at(2))
    again = Loop(Bowl(), Budget(seconds=0.2), falling, checkpoint=tmp_path / "c")
    assert again.budget.seconds == pytest.approx(0.2 + torch.load(tmp_path / "c", weights_only=True)["seconds"])
    history = again.run()
    assert len(history) > 3 and again.seconds >= 0.2


def test_checkpoints_of_others_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c"
    loop = Loop(Bowl(), Budget(steps=9), falling, checkpoint=checkpoint, key="a")
    with pytest.raises(Stop):
        loop.run(stop_at(2))
    with pytest.raises(TrainingError, match="belongs to a run with another"):
        Loop(Bowl(), Budget(steps=9), falling, checkpoint=checkpoint, key="b")
    whole = checkpoint.read_bytes()
    place = whole.index(struct.pack("<d", float(loop.objective.state()["weight"][0])))
    packed, other = tmp_path / "packed", tmp_path / "other"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**6))
    torch.save({"step": 3}, other)
    flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    for content in (b"PK not a checkpoint", b"", packed.read_bytes(), other.read_bytes(), flipped):
        checkpoint.write_bytes(content)
        with pytest.raises(TrainingError, match=r"is not a readable checkpoint of a training( \(.*\))?\. Delete it"):
            Loop(Bowl(), Budget(steps=9), falling, checkpoint=checkpoint, key="a")


def changed_checkpoint(path: Path, **changes: Callable[[Any], Any]) -> None:
    """Stop a run of 9 steps after 4, and put what each function makes of an entry in its place."""
    with pytest.raises(Stop):
        Loop(Bowl(), Budget(steps=9), falling, checkpoint=path).run(stop_at(3))
    content = torch.load(path, weights_only=True)
    torch.save(content | {name: change(content[name]) for name, change in changes.items()}, path)


def ended(checkpoint: Path | None = None) -> Tensor:
    """The weight after 9 steps, those before the checkpoint among them."""
    bowl = Bowl()
    Loop(bowl, Budget(steps=9), falling, checkpoint=checkpoint).run()
    return bowl.weight


def put(value: Any) -> Callable[[Any], Any]:
    return lambda _: value


def report_with(**fields: Any) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda history: [*history[:-1], history[-1] | fields]


def moment_of(value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda saved: saved | {"state": {0: saved["state"][0] | {"exp_avg": value}}}


@pytest.mark.parametrize(
    "changes",
    [
        {"step": put("x")}, {"step": put(None)}, {"step": put(-1)}, {"step": put(1.5)}, {"step": put(True)},
        {"step": put(10**9)}, {"step": put(2)}, {"step": put(5)}, {"step": put(10)},
        {"seconds": put("x")}, {"seconds": put(math.nan)}, {"seconds": put(-1.0)}, {"seconds": put(torch.ones(()))},
        {"model": put({})}, {"model": put(None)}, {"model": put({"weight": torch.zeros(2)})},
        {"model": put({"weight": torch.zeros(1)})}, {"model": put({"weight": torch.full((3,), math.nan)})},
        {"optimizer": put(None)}, {"optimizer": put({"state": {}, "param_groups": []})},
        {"optimizer": moment_of(torch.zeros(2))}, {"optimizer": moment_of(torch.full((3,), math.inf))},
        {"optimizer": moment_of("x")}, {"optimizer": lambda saved: saved | {"state": {7: saved["state"][0]}}},
        {"history": put(None)}, {"history": put([1])}, {"history": put([{}])}, {"history": put([])},
        {"history": lambda history: history[:-1]}, {"history": lambda history: history[::-1]},
        {"history": lambda history: [*history, history[-1]]},
        {"history": report_with(losses={"total": math.nan})}, {"history": report_with(losses={"total": "1"})},
        {"history": report_with(losses={"total": 10**400})}, {"history": report_with(losses={})},
        {"history": report_with(seconds=math.inf)}, {"history": report_with(learning_rate=None)},
        {"history": report_with(step="4")}, {"history": report_with(steps=2)}, {"history": report_with(geometry=3)},
        {"history": report_with(geometry={"spread_ratio": math.nan, "jaccard": 1.0, "k": 1, "prompts": 1,
                                          "held_out": False})},
        {"step": put(10**9), "history": put([])},
    ],
)  # fmt: skip
def test_every_part_of_a_checkpoint_is_checked(tmp_path: Path, changes: dict[str, Callable[[Any], Any]]) -> None:
    path = tmp_path / "c"
    changed_checkpoint(path, **changes)
    with pytest.raises(TrainingError, match=r"not a readable checkpoint of a training \(.*Delete it to"):
        Loop(Bowl(), Budget(steps=9), falling, checkpoint=path)


def test_a_run_in_seconds_believes_no_step_that_it_has_no_report_of(tmp_path: Path) -> None:
    changed_checkpoint(tmp_path / "c", step=put(10**9))
    with pytest.raises(TrainingError, match="reports 4 of 1000000000 steps"):
        Loop(Bowl(), Budget(seconds=60), falling, checkpoint=tmp_path / "c")


def test_the_optimizer_keeps_the_settings_of_the_run(tmp_path: Path) -> None:
    def others(saved: dict[str, Any]) -> dict[str, Any]:
        return saved | {"param_groups": [saved["param_groups"][0] | {"betas": ("x", None), "eps": -1.0}]}

    changed_checkpoint(tmp_path / "c", optimizer=others)
    assert torch.equal(ended(tmp_path / "c"), ended())


@pytest.mark.parametrize(
    ("kept", "fits"),
    [([0, 1, 2, 3], True), ([0, 1, 2], True), ([0, 3], True), ([3, 1, 0], False), ([3], False), ([], False)],
)
def test_a_checkpoint_of_version_0_1_goes_on_and_may_lack_reports_of_interrupted_steps(
    tmp_path: Path, kept: list[int], fits: bool
) -> None:
    path = tmp_path / "c"
    changed_checkpoint(path, history=lambda history: [history[place] for place in kept])
    content = torch.load(path, weights_only=True)
    content["optimiser"] = content.pop("optimizer")
    torch.save(content, path)
    if fits:
        assert Loop(Bowl(), Budget(steps=9), falling, checkpoint=path).step == 4
        assert torch.equal(ended(path), ended())
    else:
        with pytest.raises(TrainingError, match="of 4 steps"):
            ended(path)


class Watched(Bowl):
    """A bowl that is looked at every second step, and says so after these."""

    def __init__(self, *good: int, cut: int = 0) -> None:
        super().__init__()
        self.good, self.cut = good, cut

    def check(self, step: int) -> Check | None:
        if step == self.cut:
            self.cut = 0
            raise Stop
        if step % 2:
            return None
        return Check(0 if step in self.good else 3, 10, 1, 20, step in self.good)


@pytest.mark.parametrize(
    ("good", "steps"), [((4, 6), 6), ((4, 8), 20), ((2, 6, 8), 8), ((), 20), ((20,), 20), ((18, 20), 20)]
)
def test_it_ends_when_two_checks_in_a_row_hold(good: tuple[int, ...], steps: int) -> None:
    history = Loop(Watched(*good), Budget(steps=20), falling).run()
    assert len(history) == steps
    assert [report.step for report in history if report.check] == list(range(2, steps + 1, 2))
    assert {report.steps for report in history} == {20}


@pytest.mark.parametrize(("least", "steps"), [(3, 4), (6, 6), (7, 8), (30, 20)])
def test_no_check_ends_a_run_before_its_least(least: int, steps: int) -> None:
    watched = Watched(*range(0, 21, 2))
    watched.least = least
    assert len(Loop(watched, Budget(steps=20), falling).run()) == steps


@pytest.mark.parametrize("cut", [6, 7, 8])
def test_a_run_that_was_stopped_at_any_step_ends_at_the_same(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "run.checkpoint"
    with pytest.raises(Stop):
        Loop(Watched(6, 8, cut=cut), Budget(steps=20), falling, checkpoint=file).run()
    resumed = Watched(6, 8)
    history = Loop(resumed, Budget(steps=20), falling, checkpoint=file).run()
    whole = Watched(6, 8)
    expected = Loop(whole, Budget(steps=20), falling).run()
    assert [(r.step, r.losses, r.check) for r in history] == [(r.step, r.losses, r.check) for r in expected]
    assert torch.equal(resumed.weight, whole.weight)
    # One that had ended takes no further step.
    loop = Loop(Watched(2, 4), Budget(steps=20), falling, checkpoint=tmp_path / "ended")
    loop.run()
    loop.save()
    assert len(Loop(Watched(2, 4), Budget(steps=20), falling, checkpoint=tmp_path / "ended").run()) == 4


@pytest.mark.parametrize(
    "damage",
    [
        {"left": 11}, {"left": -1}, {"moved": 2.5}, {"holds": 1}, {"safe": float("nan")}, {"unsafe": True},
        {"again": [-1]}, {"again": [0.5]}, {"again": 3}, {"again": [4]}, {"further": 1},
    ],
)  # fmt: skip
def test_a_report_with_a_damaged_check_is_refused(damage: dict[str, Any]) -> None:
    check = {"left": 1, "unsafe": 10, "moved": 0, "safe": 5, "holds": False, "again": [3, 0], "further": 4}
    row = {"step": 1, "steps": 2, "losses": {"total": 1.0}, "learning_rate": 0.1, "seconds": 1.0, "geometry": None}
    assert StepReport.from_dict(row).check is None
    assert StepReport.from_dict({**row, "check": check}).check == Check(1, 10, 0, 5, False, (3, 0), 4)
    with pytest.raises((ValueError, TypeError)):
        StepReport.from_dict({**row, "check": check | damage})
