"""Scoring and erasing at small sizes: every part is measured and kept, and batched answers are the official ones.

What all benches refuse and explain is in `test_commands`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sage_core.bench import erasing, scoring
from sage_core.bench.runner import Part
from sage_core.methods.table import METHODS


def kept(report: dict, folder: Path, shown: str) -> None:
    """The report lies in the folder as it was returned and printed."""
    saved = json.loads((folder / "bench.json").read_text())
    assert saved == json.loads(json.dumps(report)) and saved["machine"]["device"] and saved["machine"]["torch"] in shown
    assert (folder / "bench.md").read_text() == shown


def test_scoring_in_batches_gives_the_official_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--small", "--images", "3", "--official", "2", "--device", "cpu", "--output", str(tmp_path)]
    report = scoring.main(arguments)
    official, *batched = report["timings"]
    assert official["questions"] == 12 and [row["questions"] for row in batched] == [18, 18]
    assert [(row["identical"], row["compared"]) for row in batched] == [(12, 12), (12, 12)]
    assert official["distinct"] > 6, "answers do not depend on the image, so that like answers would say nothing"
    rates = [row["questions_per_second"] for row in report["timings"]]
    assert rates == [row["questions"] / row["seconds"] for row in report["timings"]]
    assert [row["times"] for row in batched] == pytest.approx([rate / rates[0] for rate in rates[1:]])
    table = capsys.readouterr().out
    assert "| fp32 | batched, from files |" in table and "12 of 12 identical" in table and "6 questions each" in table
    kept(report, tmp_path, table)


def test_erasing_is_measured_part_by_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = ["uce", "speed", "mace"]
    arguments = ["--quick", "--device", "cpu", "--methods", *methods, "--concepts", "2", "--output", str(tmp_path)]
    report = erasing.main(arguments)
    edits, reading, step = report["edits"], report["reading"], report["step"]
    assert [(cost["method"], cost["concepts"]) for cost in edits] == [(method, 2) for method in methods]
    assert [cost["matrices"] for cost in edits] == [32, 16, 32]
    for cost in edits:
        assert 0 < cost["encoder_seconds"] < cost["seconds"] and cost["processor_seconds"] > 0
        assert cost["relative"] > 0 and cost["residual"] < 1e-6
    assert reading["changed"] == 32 and reading["file_gib"] > 0.02 and reading["processor_seconds"] > 0
    # A third more of a batch costs something, and nothing else that a step does is as large.
    assert step["width"] == 32 and 1 < step["times"] < 3
    assert step["safe_seconds"] > step["plain_seconds"] > 0
    shown = capsys.readouterr().out
    assert all(f"| {METHODS[method].title} | 2 |" in shown for method in methods)
    assert "pickled: opened in" in shown and "A step of safe guidance: " in shown
    kept(report, tmp_path, shown)
    report = erasing.main(["--quick", "--device", "cpu", "--parts", "edits", "--methods", "cure", "--concepts", "1"])
    assert [cost["method"] for cost in report["edits"]] == ["cure"]
    assert report["reading"] is None and report["step"] is None and "pickled" not in capsys.readouterr().out


def test_a_part_of_a_page_is_its_text_and_its_table() -> None:
    report = {"rows": [{"name": "a", "s": 1234.5, "gib": None}, {"name": "b", "s": 0.12345, "gib": 2.0}], "n": 2}
    columns = {"way": "{name}", "s": "{s}", "GiB": "{gib:.1f}"}
    plain, turned = (Part("rows", "{n} ways:", columns, turned=turned).to_markdown(report) for turned in (False, True))
    assert plain.split("\n") == [
        "2 ways:", "", "| way | s | GiB |", "| --- | ---: | ---: |",
        "| a | 1,234 | not measured |", "| b | 0.123 | 2.0 |",
    ]  # fmt: skip
    assert turned.split("\n")[2:] == [
        "| way | a | b |", "| --- | ---: | ---: |", "| s | 1,234 | 0.123 |", "| GiB | not measured | 2.0 |"
    ]  # fmt: skip
