"""The store of runs: listed, limited, cleared, only of files that are its own, and kept to one process a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sage_core.errors import SettingsError, TrainingError
from sage_core.runs import store as store_module
from sage_core.runs.store import RunStore

KEYS = ["a" * 32, "b" * 32, "c" * 32]
REPORT = {"metadata": {"method": "SAGE", "concept": "skull", "steps": "40"}, "history": []}


def write(path: Path, metadata: dict[str, str] | None = None) -> None:
    """A file of a run, of the kind that its name says; weights of 1,000 bytes."""
    if path.suffix == ".json":
        path.write_text(json.dumps(REPORT))
    elif path.suffix == ".checkpoint":
        torch.save({"key": path.stem, "seconds": 1.0, "optimizer": {}, "history": []}, path)
    else:
        save_file({"weight": torch.zeros(250)}, path, metadata=metadata or {"software": "sage-alignment 0.1.0"})


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """Two finished runs, and the checkpoint of a third; the first is the oldest."""
    for age, key in zip((300, 200, 100), KEYS, strict=True):
        for suffix in (".checkpoint",) if key == KEYS[2] else (".safetensors", ".json"):
            write(tmp_path / f"{key}{suffix}")
            os.utime(tmp_path / f"{key}{suffix}", (1e9 - age, 1e9 - age))
    (tmp_path / "notes.txt").write_text("of the user's own")
    (tmp_path / "mine.json").write_text(json.dumps(REPORT))
    return RunStore(tmp_path)


def test_runs_are_listed_the_newest_first(store: RunStore) -> None:
    runs = store.runs()
    assert [run.key for run in runs] == KEYS[::-1]
    assert [run.finished for run in runs] == [False, True, True]
    assert runs[1].bytes > 1000 and len(runs[1].files) == 2
    assert "SAGE, skull, 40 steps" in runs[1].summary() and "unfinished" in runs[0].summary()
    # Killed between its report and its weights.
    store.path(KEYS[0], ".safetensors").unlink()
    assert "SAGE, skull, unfinished" in store.runs()[2].summary()
    assert RunStore(store.folder / "missing").runs() == []
    # Times beyond the calendar.
    assert all("at no known time" in replace(runs[0], modified=time).summary() for time in (1e13, -1e13))


def test_a_limit_takes_the_oldest_and_nothing_that_is_not_a_run(store: RunStore) -> None:
    sizes = [run.bytes for run in store.runs()]
    assert [run.key for run in store.clear(sum(sizes[:2]))] == [KEYS[0]]
    assert [run.key for run in store.clear()] == [KEYS[1], KEYS[2]]
    assert sorted(path.name for path in store.folder.iterdir()) == ["mine.json", "notes.txt"]


def test_files_of_others_are_neither_listed_nor_deleted(tmp_path: Path) -> None:
    """Whatever they are called: a cache of somebody else names its files so, too."""
    reports = ({}, {"metadata": {"steps": "4"}}, {"metadata": {}, "history": {}}, [], 3)
    for number, content in enumerate(reports):
        (tmp_path / f"{number}{'0' * 31}.json").write_text(json.dumps(content))
    write(tmp_path / f"{'d' * 32}.safetensors", {"format": "pt", "software": "another program"})
    save_file({"weight": torch.zeros(2)}, tmp_path / f"{'e' * 32}.safetensors")
    torch.save({"state_dict": {}}, tmp_path / f"{'f' * 32}.checkpoint")
    for suffix in (".safetensors", ".json", ".checkpoint"):
        (tmp_path / f"{'9' * 32}{suffix}").write_bytes(b"0" * 900)
    # An entry whose name is no text, though the archive says that it is; and packed entries, which can be of any size.
    misnamed, packed = (tmp_path / f"{digit * 32}.checkpoint" for digit in "78")
    write(misnamed)
    content = bytearray(misnamed.read_bytes())
    central = content.find(b"PK\x01\x02")
    content[central + 9] |= 8
    content[central + 46] = 0xF3
    misnamed.write_bytes(content)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"history seconds optimizer")
    before = sorted(tmp_path.iterdir())
    assert RunStore(tmp_path).runs() == [] == RunStore(tmp_path).clear()
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"software": "sage-alignment 0.1.0", "method": "DES", "steps": "3"}, "DES, 3 steps"),
        ({"sage_method": "ESD-x", "method": "ESD-x", "preset": "esd_x"}, "ESD-x, esd_x"),
        ({"sage_gate_1": "{}"}, "gate"),
    ],
)
def test_weights_without_a_report_say_what_they_are(metadata: dict[str, str], words: str, tmp_path: Path) -> None:
    write(tmp_path / f"{KEYS[0]}.safetensors", metadata)
    (run,) = RunStore(tmp_path).runs()
    assert run.finished and run.summary().endswith(f"MiB  {words}")


def test_runs_of_several_folders_share_a_limit(store: RunStore, tmp_path: Path) -> None:
    gates = tmp_path / "gates"
    gates.mkdir()
    write(gates / f"{KEYS[0]}.safetensors", {"sage_gate_1": "{}"})
    os.utime(gates / f"{KEYS[0]}.safetensors", (1e9 - 250, 1e9 - 250))
    both = RunStore(store.folder, gates, tmp_path / "missing")
    assert [run.key for run in both.runs()] == [KEYS[2], KEYS[1], KEYS[0], KEYS[0]]
    assert len(store.runs()) == 3
    assert [len(run.files) for run in both.clear(sum(run.bytes for run in both.runs()[:2]))] == [2, 1]
    assert not list(gates.iterdir()) and len(both.runs()) == 2


@pytest.mark.parametrize("most", [-1.0, float("nan")])
def test_a_limit_that_is_none_deletes_nothing(store: RunStore, most: float) -> None:
    with pytest.raises(SettingsError, match=f"the limit is {most}, expected a finite number, 0 or more"):
        store.clear(most)
    assert len(store.runs()) == 3


def test_one_damaged_file_does_not_hide_its_run(store: RunStore) -> None:
    for content in ("[1, 2]", "{", '{"metadata": 3}', "[" * 100_000):
        store.path(KEYS[0], ".json").write_text(content)
        store.path(KEYS[1], ".safetensors").write_text(content)
        damaged = {run.key: run.metadata for run in store.runs()}
        assert damaged == {KEYS[0]: {"software": "sage-alignment 0.1.0"}, KEYS[1]: REPORT["metadata"], KEYS[2]: {}}


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
    for suffix in (".checkpoint", ".pictures", ".lock"):
        store.path(KEYS[0], suffix).write_bytes(b"")
    store.tidy(KEYS[0])
    kept = {f"{KEYS[0]}.json", f"{KEYS[0]}.safetensors"}
    assert {path.name for path in store.folder.iterdir() if KEYS[0] in path.name} == kept


def test_runs_that_vanish_while_they_are_listed_are_left_out(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    describe = store_module._in_report

    def remove_first(path: Path) -> dict[str, str] | None:
        about = describe(path)
        if path.stem == KEYS[1]:
            path.unlink()
        return about

    monkeypatch.setitem(store_module._SAID, ".json", remove_first)
    assert {run.key for run in store.runs()} == {KEYS[0], KEYS[2]}
