"""The bench of erasing, at small sizes: every part is measured, kept, and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sage_core.bench.erasing import main
from sage_core.methods.table import METHODS


def test_every_part_is_measured_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = ["uce", "speed", "mace"]
    report = main(["--quick", "--device", "cpu", "--methods", *methods, "--concepts", "2", "--output", str(tmp_path)])
    edits, reading, step = report["edits"], report["reading"], report["step"]
    assert [cost["method"] for cost in edits] == methods
    assert [cost["matrices"] for cost in edits] == [32, 16, 32]
    for cost in edits:
        assert 0 < cost["encoder_seconds"] < cost["seconds"] and cost["concepts"] == 2
        assert cost["processor_seconds"] > 0
        assert cost["relative"] > 0 and cost["residual"] < 1e-6
    assert reading["changed"] == 32 and reading["file_gib"] > 0.02 and reading["processor_seconds"] > 0
    # A third more of a batch costs something, and nothing else that a step does is as large.
    assert step["width"] == 32 and 1 < step["times"] < 3
    assert step["safe_seconds"] > step["plain_seconds"] > 0
    shown = capsys.readouterr().out
    saved = json.loads((tmp_path / "bench.json").read_text())
    assert saved == json.loads(json.dumps(report)) and saved["machine"]["device"]
    assert (tmp_path / "bench.md").read_text() == shown
    assert all(f"| {METHODS[method].title} | 2 |" in shown for method in methods)
    assert "pickled: opened in" in shown and "A step of safe guidance: " in shown


def test_parts_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    report = main(["--quick", "--device", "cpu", "--parts", "edits", "--methods", "cure", "--concepts", "1"])
    assert [cost["method"] for cost in report["edits"]] == ["cure"]
    assert report["reading"] is None and report["step"] is None
    assert "pickled" not in capsys.readouterr().out
