"""Each public command of the benches and of the shapes world's training starts and says what it takes."""

from __future__ import annotations

import runpy
import sys

import pytest


@pytest.mark.parametrize(
    "command", ["sage_core.bench", "sage_core.bench.scoring", "sage_core.shapes.bench", "sage_core.shapes.train"]
)
def test_the_command_explains_itself(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    # A module that an earlier test imported would be run a second time under its own name.
    monkeypatch.delitem(sys.modules, command, raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(command, run_name="__main__", alter_sys=True)
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: python -m {command}" in shown and "--output" in shown
