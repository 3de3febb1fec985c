"""Runs inside*.py, whose tests need ComfyUI's modules, in a process of its own: here nothing imports comfy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", ["inside.py", pytest.param("inside_models.py", marks=pytest.mark.full)])
def test_the_parts_that_know_comfyui(name: str, comfyui: Path) -> None:
    root = HERE.parents[1]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={root}", str(HERE / name)]
    environment = os.environ | {"SAGE_TEST_COMFYUI": str(comfyui)}
    found = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=500)
    assert found.returncode == 0, found.stdout + found.stderr
    assert " passed" in found.stdout
