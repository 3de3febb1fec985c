"""Runs inside.py, whose tests need ComfyUI's modules, in a process of its own: here nothing imports comfy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

INSIDE = Path(__file__).parent / "inside.py"


def test_the_parts_that_know_comfyui(comfyui: Path) -> None:
    root = INSIDE.parents[2]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={root}", str(INSIDE)]
    environment = os.environ | {"SAGE_TEST_COMFYUI": str(comfyui)}
    found = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=500)
    assert found.returncode == 0, found.stdout + found.stderr
    assert " passed" in found.stdout
