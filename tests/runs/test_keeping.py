"""The one protocol of kept runs, on a training of three numbers: found, locked, resumed, handed on, tidied, refused."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from small_objectives import Bowl, Stop, stop_at
from torch import Tensor

from sage_core.errors import FileError, TrainingError
from sage_core.files import write_tensors
from sage_core.runs.keeping import kept, read_run, run_name, save_run, weights_hash
from sage_core.runs.loop import Budget, Loop
from sage_core.runs.record import StepReport
from sage_core.runs.store import RunStore

KEY, OLD, OLDER = "a" * 32, "b" * 32, "c" * 32
STEPS = 4
Training = tuple[dict[str, Tensor], dict[str, str], tuple[StepReport, ...]]


def save(weights: Path, run: Training) -> None:
    save_run(weights, write_tensors, *run, own="anything")


def train(
    store: Path,
    key: str = KEY,
    *,
    on_step: Callable[[StepReport], None] | None = None,
    save: Callable[[Path, Training], object] = save,
    earlier: Sequence[str] = (),
    needed: int = 1000,
) -> tuple[Training, bool]:
    def make(checkpoint: Path) -> Training:
        objective = Bowl()
        loop = Loop(objective, Budget(steps=STEPS), lambda *_: 0.1, checkpoint=checkpoint, key=checkpoint.stem)
        history = loop.run(on_step)
        tensors = {"weight": objective.weight.detach().clone()}
        return tensors, {"method": "slope", "steps": str(STEPS), "hash": weights_hash(tensors)}, history

    def read(weights: Path) -> Training:
        tensors, metadata, history, content = read_run(weights, load_file, weights_hash, ("method",))
        assert content["own"] == "anything"
        return tensors, metadata, history

    return kept(store, key, make=make, save=save, read=read, needed=needed, earlier=earlier)


def never(*_: object) -> None:
    raise AssertionError("nothing is left to do")


def stopped(store: Path, key: str = KEY) -> None:
    with pytest.raises(Stop):
        train(store, key, on_step=stop_at(2))


def names(store: Path) -> set[str]:
    return {path.name for path in store.iterdir()}


def test_a_finished_run_is_found_and_listed(tmp_path: Path) -> None:
    first, made = train(tmp_path / "new" / "folder")
    again, found = train(tmp_path / "new" / "folder", on_step=never)
    assert (made, found) == (False, True)
    assert torch.equal(first[0]["weight"], again[0]["weight"]) and first[1:] == again[1:]
    assert names(tmp_path / "new" / "folder") == {f"{KEY}.json", f"{KEY}.safetensors"}
    (listed,) = RunStore(tmp_path / "new" / "folder").runs()
    assert listed.finished and listed.summary().endswith("slope, 4 steps")
    assert not train(tmp_path / "new" / "folder", OLD)[1]


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_stopped_run_goes_on_to_the_same_end(step: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Stop):
        train(tmp_path / "parts", on_step=stop_at(step))
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"Stopped. The same inputs go on from {tmp_path / 'parts' / KEY}.checkpoint (")
    assert names(tmp_path / "parts") == {f"{KEY}.checkpoint"}, "neither a lock nor half of a file"
    (parts, found), (whole, _) = train(tmp_path / "parts"), train(tmp_path / "whole")
    assert not found and torch.equal(parts[0]["weight"], whole[0]["weight"])
    assert [report.losses for report in parts[2]] == [report.losses for report in whole[2]]
    assert names(tmp_path / "parts") == {f"{KEY}.json", f"{KEY}.safetensors"}


def test_a_run_that_another_process_is_at_is_refused(tmp_path: Path) -> None:
    with (
        RunStore(tmp_path).locked(KEY),
        pytest.raises(TrainingError, match=rf"Another process is training this very run .*{KEY}.lock"),
    ):
        train(tmp_path, on_step=never)
    stopped(tmp_path, OLD)
    write_tensors(tmp_path / f"{OLD}.safetensors", {}, {})
    with RunStore(tmp_path).locked(OLD):
        RunStore(tmp_path).tidy(OLD)
    assert names(tmp_path) == {f"{OLD}.checkpoint", f"{OLD}.safetensors"}, "it is left to who is at it"


def test_what_another_process_finished_meanwhile_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = RunStore.locked

    @contextmanager
    def after_the_other(self: RunStore, key: str) -> Iterator[None]:
        monkeypatch.setattr(RunStore, "locked", locked)
        assert not train(tmp_path)[1]
        with locked(self, key):
            yield

    monkeypatch.setattr(RunStore, "locked", after_the_other)
    assert train(tmp_path, on_step=never)[1]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), FileError("full"), SafetensorError("full")])
def test_a_result_that_cannot_be_saved_is_handed_on(
    error: Exception, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def full(weights: Path, run: Training) -> None:
        raise error

    stopped(tmp_path)
    with caplog.at_level(logging.WARNING):
        run, found = train(tmp_path, save=full)
    assert len(run[2]) == STEPS and not found
    assert "could not be stored" in caplog.text and "it is handed on all the same" in caplog.text
    assert names(tmp_path) == {f"{KEY}.checkpoint"}
    assert torch.equal(train(tmp_path)[0][0]["weight"], run[0]["weight"])
    assert train(tmp_path, on_step=never)[1]


def test_a_store_that_takes_nothing_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="file"):
        train(tmp_path / "file", on_step=never)
    with pytest.raises(FileError, match="are free there"):
        train(tmp_path / "new", on_step=never, needed=10**18)
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.skipif(os.name == "nt", reason="no fork")
@pytest.mark.parametrize("at", ["step", "report", "weights"])
def test_a_killed_process_costs_no_more_than_its_last_steps(at: str, tmp_path: Path) -> None:
    def kill(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def on_step(report: StepReport) -> None:
        if at == "step" and report.step == STEPS:
            kill()

    def dying(weights: Path, run: Training) -> None:
        save_run(weights, kill if at == "report" else write_tensors, *run, own="anything")
        kill()

    stopped(tmp_path)
    process = multiprocessing.get_context("fork").Process(target=lambda: train(tmp_path, on_step=on_step, save=dying))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert {f"{KEY}.checkpoint", f"{KEY}.lock"} <= names(tmp_path)
    run, found = train(tmp_path)
    assert found == (at == "weights")
    assert names(tmp_path) == {f"{KEY}.json", f"{KEY}.safetensors"}
    assert torch.equal(run[0]["weight"], train(tmp_path / "whole")[0][0]["weight"])


def test_a_damaged_finished_run_says_which_file_to_delete(tmp_path: Path) -> None:
    train(tmp_path)
    weights, report = tmp_path / f"{KEY}.safetensors", tmp_path / f"{KEY}.json"
    stored, whole = weights.read_bytes(), json.loads(report.read_text())
    first, *others = whole["history"]
    changes: list[Any] = [
        {"metadata": None}, {"metadata": []}, {"metadata": {}}, {"metadata": {**whole["metadata"], "hash": "0"}},
        {"history": None}, {"history": []}, {"history": [1]}, {"history": whole["history"][:-1]},
        {"history": [{**whole["history"][0], "losses": None}] * STEPS}, {"hash": None},
        {"history": [{**first, "losses": {"other": 1.0}}, *others]}, {"history": [], "metadata": {"steps": "0"}},
        {"metadata": {name: value for name, value in whole["metadata"].items() if name != "method"}},
        {"metadata": {**whole["metadata"], "seconds": "nan"}},
    ]  # fmt: skip
    contents = [json.dumps(whole | change).encode() for change in changes]
    for content in (b"{", b"[]", b'{"history": 1e999}', b"3", b"null", b"[" * 100_000, b"\xff", *contents):
        report.write_bytes(content)
        with pytest.raises(TrainingError, match=rf"finished run .*{weights.name} cannot be read .*Delete it to train"):
            train(tmp_path, on_step=never)
    report.write_text(json.dumps(whole))
    for content, words in (
        (stored[:-2] + bytes([stored[-2] ^ 1]) + stored[-1:], "its weights have changed since they were written"),
        (stored[:50], "header"),
    ):
        weights.write_bytes(content)
        with pytest.raises(TrainingError, match=f"cannot be read .*{words}.*Delete it to train again"):
            train(tmp_path, on_step=never)
    weights.write_bytes(stored)
    assert train(tmp_path)[1]
    report.unlink()
    assert not train(tmp_path)[1], "weights without a report are no whole run"


def test_a_run_of_an_earlier_name_keeps_it(tmp_path: Path) -> None:
    stopped(tmp_path, OLDER)
    steps: list[int] = []
    train(tmp_path, earlier=[OLD, OLDER], on_step=lambda report: steps.append(report.step))
    assert names(tmp_path) == {f"{OLDER}.json", f"{OLDER}.safetensors"} and len(steps) < STEPS
    stopped(tmp_path)
    assert train(tmp_path, earlier=[OLD, OLDER], on_step=never)[1], "a finished one goes before a begun one"
    assert not train(tmp_path)[1]


def test_the_name_of_a_run_is_that_of_its_inputs() -> None:
    assert run_name(["a", 1, {"b": 2.5}]) == "c992cab01a2fb99244056d849601933d"
    assert run_name(["a"], 1) == run_name(("a",)) and len({run_name(["a"], recipe) for recipe in (1, 2, 3)}) == 3
