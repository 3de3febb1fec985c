"""`sage runs`: what a store holds, and room made in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sage_core.cli.main import main


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for age, key in ((200, "a" * 32), (100, "b" * 32)):
        report = {"metadata": {"concept": "skull", "steps": "4"}, "history": []}
        for suffix, content in ((".safetensors", "0" * 900), (".json", json.dumps(report))):
            path = tmp_path / f"{key}{suffix}"
            path.write_text(content)
            os.utime(path, (1e9 - age, 1e9 - age))
    return tmp_path


def test_runs_are_listed(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(store)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:8] for line in lines[:2]] == ["bbbbbbbb", "aaaaaaaa"]
    assert "skull, 4 steps" in lines[0] and lines[2].startswith("2 runs, 0.0 MiB in ")
    assert len(list(store.iterdir())) == 4


def test_a_limit_deletes_the_oldest(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(store), "--limit", "0.000001", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["key"][0] for run in found["deleted"]] == ["a"] and [run["key"][0] for run in found["runs"]] == ["b"]
    (store / f"{'c' * 32}.json").write_text('{"of": "another program"}')
    assert main(["runs", str(store), "--clear"]) == 0
    assert "Deleted 1 runs" in capsys.readouterr().out
    assert [path.name for path in store.iterdir()] == [f"{'c' * 32}.json"]


@pytest.mark.parametrize("limit", ["nan", "-1", "x"])
def test_a_limit_that_is_no_size_deletes_nothing(store: Path, limit: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["runs", str(store), "--limit", limit])
    assert stopped.value.code == 2 and len(list(store.iterdir())) == 4


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path / "x")]) == 1
    assert "is not a folder" in capsys.readouterr().err


def test_a_limit_beyond_all_disks_deletes_nothing(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(store), "--limit", "1e308"]) == 0
    assert "Deleted 0 runs" in capsys.readouterr().out
