"""The commands that people start by `python -m`: each is there and answers."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["bench", "bench.scoring", "shapes.bench", "shapes.train", "demo.demo"])
def test_it_starts_and_says_how_it_is_used(name: str) -> None:
    done = subprocess.run([sys.executable, "-m", f"sage_core.{name}", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
