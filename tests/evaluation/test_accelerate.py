"""`python -m sage_core.evaluation`: without accelerate it says what to install; with it processes share a plan."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sage_core.evaluation.__main__ import _started, main
from small_worlds import world_plan

ROOT = str(Path(__file__).parents[2])


def test_a_missing_accelerate_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert main([str(tmp_path / "plan.toml")]) == 1
    assert "pip install -e '.[evaluate]'" in capsys.readouterr().err


def test_one_process_points_to_what_starts_several() -> None:
    """accelerate starts one on a CPU, whatever --num_processes says."""
    assert "one process, on cpu" in _started(1, "cpu") and "`sage evaluate PLAN --processes N`" in _started(1, "cpu")
    assert _started(2, "cuda:0") == "2 processes share the work; this one computes on cuda:0.\n"


@pytest.mark.full
@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="accelerate is an extra")
def test_two_processes_of_accelerate_share_a_plan(tmp_path: Path) -> None:
    file = world_plan(tmp_path, safe=11, attacks=2, draw="steps = 1\nbatch = 4")
    # On a GPU `accelerate launch` starts as many processes; on a CPU PyTorch's own launcher does.
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "sage_core.evaluation"]
    path = os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Table 2. ") == 1 and "drawing: 30 of 30" in done.stderr
    assert done.stderr.count("2 processes share the work; this one computes on cpu") == 1
    records = [json.loads(path.read_text()) for path in (tmp_path / "evaluation" / "records").rglob("*.json")]
    assert sum(len(record["pictures"]) for record in records) == 30
    assert len({record["process"] for record in records}) == 2
    assert (tmp_path / "evaluation" / "report" / "report.html").exists()
