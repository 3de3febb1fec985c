"""The store of runs: listed, limited, cleared, and kept to one process a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sage_core.errors import FileError, TrainingError
from sage_core.runs.store import RunStore

KEYS = ["a" * 32, "b" * 32, "c" * 32]


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """Two finished runs of 1,000 bytes of weights, and the checkpoint of a third; the first is the oldest."""
    for age, key in zip((300, 200, 100), KEYS, strict=True):
        finished = key != KEYS[2]
        names = [f"{key}.safetensors", f"{key}.json"] if finished else [f"{key}.checkpoint"]
        for name in names:
            path = tmp_path / name
            path.write_bytes(b"0" * 1000)
            if path.suffix == ".json":
                path.write_text(json.dumps({"metadata": {"method": "SAGE", "concept": "skull", "steps": "40"}}))
            os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "notes.txt").write_text("of the user's own")
    (tmp_path / "mine.json").write_text("{}")
    return RunStore(tmp_path)


def test_runs_are_listed_the_newest_first(store: RunStore) -> None:
    runs = store.runs()
    assert [run.key for run in runs] == KEYS[::-1]
    assert [run.finished for run in runs] == [False, True, True]
    assert runs[0].bytes == 1000 and runs[1].bytes > 1000 and len(runs[1].files) == 2
    assert "SAGE, skull, 40 steps" in runs[1].summary() and "unfinished" in runs[0].summary()
    assert RunStore(store.folder / "missing").runs() == []


def test_a_limit_takes_the_oldest_and_nothing_that_is_not_a_run(store: RunStore) -> None:
    assert [run.key for run in store.clear(2500)] == [KEYS[0]]
    assert [run.key for run in store.clear(0, keep=KEYS[2])] == [KEYS[1]]
    assert [run.key for run in store.clear()] == [KEYS[2]]
    assert sorted(path.name for path in store.folder.iterdir()) == ["mine.json", "notes.txt"]


def test_a_damaged_report_does_not_hide_its_run(store: RunStore) -> None:
    for content in ("[1, 2]", "{", '{"metadata": 3}', "[" * 100_000):
        store.path(KEYS[0], ".json").write_text(content)
        assert len(store.runs()) == 3 and store.runs()[0].metadata == {}


def test_a_store_that_is_no_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="file"):
        RunStore(tmp_path / "file").make_ready(KEYS[0], 1)
    with pytest.raises(FileError, match="are free there"):
        RunStore(tmp_path).make_ready(KEYS[0], 10**18)
    RunStore(tmp_path / "new" / "folder").make_ready(KEYS[0], 1)
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_two_processes_do_not_train_one_run(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from sage_core.runs.store import RunStore
with RunStore(Path({str(tmp_path)!r})).locked({KEYS[0]!r}):
    print("held", flush=True)
    sys.stdin.read()
"""
    store = RunStore(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match="Another process is training"), store.locked(KEYS[0]):
            pass
        with store.locked(KEYS[1]):
            pass
        other.kill()
        other.wait()
    # A killed process holds nothing.
    with store.locked(KEYS[0]):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_of_a_finished_run_goes(store: RunStore) -> None:
    abandoned = store.folder / f".{KEYS[0]}.checkpoint.99999999.0123abcd.part"
    abandoned.mkdir()
    (abandoned / "content").write_bytes(b"half")
    for path in (abandoned / "content", abandoned):
        os.utime(path, (1e9, 1e9))
    for suffix in (".checkpoint", ".lock"):
        store.path(KEYS[0], suffix).write_bytes(b"")
    store.tidy(KEYS[0])
    kept = {f"{KEYS[0]}.json", f"{KEYS[0]}.safetensors"}
    assert {path.name for path in store.folder.iterdir() if KEYS[0] in path.name} == kept


def test_a_run_that_another_process_is_at_is_left_alone(store: RunStore) -> None:
    with store.locked(KEYS[2]):
        store.tidy(KEYS[2])
        assert store.path(KEYS[2], ".checkpoint").exists()
    assert not store.path(KEYS[2], ".lock").exists()


def test_runs_that_vanish_while_they_are_listed_are_left_out(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    describe = RunStore._run

    def remove_first(self: RunStore, key: str, paths: list[Path]) -> object:
        if key == KEYS[1]:
            for path in paths:
                path.unlink()
        return describe(self, key, paths)

    monkeypatch.setattr(RunStore, "_run", remove_first)
    assert {run.key for run in store.runs()} == {KEYS[0], KEYS[2]}


@pytest.mark.parametrize("time", [1e13, -1e13])
def test_times_beyond_the_calendar_are_listed(store: RunStore, time: float) -> None:
    (run,) = [run for run in store.runs() if run.key == KEYS[2]]
    assert "at no known time" in replace(run, modified=time).summary()
