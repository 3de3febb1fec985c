"""SAGE Stored Runs in a real ComfyUI."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sage_core.demo.comfyui.client import ExecutionError, GraphError
from sage_core.demo.comfyui.server import Server

KEY = "0123456789abcdef" * 2


def test_runs_are_listed_and_limited(server: Server, base: Path) -> None:
    folder = base / "output" / "sage" / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"key": KEY, "seconds": 1.0, "optimizer": {}, "history": []}, folder / f"{KEY}.checkpoint")
    inputs = {"limit_gb": 10_000.0}

    def report(action: object) -> str:
        graph = {"runs": {"class_type": "SAGEStoredRuns", "inputs": inputs | {"action": action}}}
        return server.run(graph)["runs"]["text"][0]

    assert f"{KEY[:8]}  " in report("list") and "unfinished" in report("list")
    # Far below the limit nothing goes; that the oldest do beyond it is tested where it happens.
    assert "Deleted 0 runs" in report("limit") and (folder / f"{KEY}.checkpoint").is_file()
    (folder / f"{KEY}.checkpoint").unlink()
    assert KEY[:8] not in report("list"), "what is in the folder is looked at anew each time"
    with pytest.raises(ExecutionError, match="action is 'burn'"):
        report("burn")
    # Neither is a choice, and neither may be taken for a wish to delete.
    for action in ({}, [], ["list"]):
        with pytest.raises((ExecutionError, GraphError)):
            report(action)
