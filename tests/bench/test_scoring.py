"""The benchmark's own claim: batched scoring gives the official procedure's answers."""

from __future__ import annotations

import json

import pytest

from sage_core.bench.scoring import main


def test_benchmark_runs_and_answers_are_identical(tmp_path, capsys):
    report = main(["--small", "--images", "3", "--official", "2", "--device", "cpu", "--output", str(tmp_path)])
    official, *batched = report["timings"]
    assert official["questions"] == 12 and [row["questions"] for row in batched] == [18, 18]
    assert [(row["identical"], row["compared"]) for row in batched] == [(12, 12), (12, 12)]
    assert official["distinct"] > 6, "answers do not depend on the image, so that like answers would say nothing"
    rates = [row["questions_per_second"] for row in report["timings"]]
    assert [row["times"] for row in batched] == pytest.approx([rate / rates[0] for rate in rates[1:]])
    table = capsys.readouterr().out
    assert "| fp32 | batched, from files |" in table and "12 of 12 identical" in table and "6 questions each" in table
    saved = json.loads((tmp_path / "bench.json").read_text())
    assert saved["machine"]["device"] and saved["machine"]["torch"] in table and len(saved["timings"]) == 3
    assert saved["timings"][1]["questions_per_second"] == rates[1]
    assert (tmp_path / "bench.md").read_text() == table
