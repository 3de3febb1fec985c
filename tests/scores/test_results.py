"""Runs next to each other: what fits together, the table, the JSON."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from sage_core.errors import QuestionError, SettingsError
from sage_core.scores.clipscore import ClipScores
from sage_core.scores.page import runs_page
from sage_core.scores.rates import Rate
from sage_core.scores.results import Run, report_csv, report_dict, report_markdown, save_report
from scored_runs import run


def only_of(whole: Run, kind: str) -> Run:
    rows = tuple(row for row in whole.tifa.questions if row.question.element_type == kind)
    return replace(whole, tifa=replace(whole.tifa, questions=rows))


def retyped(whole: Run) -> Run:
    rows = [replace(row, question=replace(row.question, element_type="shape")) for row in whole.tifa.questions]
    return replace(whole, tifa=replace(whole.tifa, questions=tuple(rows)))


def test_table_holds_every_number_of_every_run_below_what_they_come_to():
    table = report_markdown([run("base", 4), run("des", 1, 0.24, 0)])
    assert table.startswith(
        "Whether anything removed 'skull' is open: des shows it in 0.0% of the pictures, the base in 75.0%, and so few "
        "pictures cannot tell. des has a TIFA of 25.0%, the base 100.0%, which chance may make.\n\n| run |"
    )
    assert "| run | TIFA % | soft TIFA % | CLIPScore (100·cos) | skull %, by somebody |" in table
    assert "| base | 100.0 | 50.0 | 25.00 | 75.0 (30.1-95.4) |" in table
    assert "| des | 25.0 | 50.0 | 24.00 | 0.0 (0.0-49.0) |" in table
    assert "| color | 100.0 | 25.0 | -75.0 |" in table and "6 questions lost, 0 gained" in table


def test_rates_of_one_concept_by_one_rule_stand_side_by_side():
    unseen = Rate("skull", "somebody", (False, True, False, False))
    runs = [replace(r, rates=(*r.rates, unseen, *r.rates)) for r in (run("base", 4), run("des", 1, 0.24, 0))]
    head, _, base, des, *_ = report_markdown(runs).splitlines()[2:]
    assert head.endswith("| skull %, by somebody | skull %, by somebody (2) | skull %, by somebody (3) |")
    assert base.endswith("| 75.0 (30.1-95.4) | 25.0 (4.6-69.9) | 75.0 (30.1-95.4) |")
    assert des.endswith("| 0.0 (0.0-49.0) | 25.0 (4.6-69.9) | 0.0 (0.0-49.0) |")


def test_report_is_json_with_lost_questions():
    report = json.loads(json.dumps(report_dict([run("base", 4), run("des", 3), run("sage", 4)])))
    assert [r["name"] for r in report["runs"]] == ["base", "des", "sage"]
    assert [len(c["lost"]) for c in report["comparisons"]] == [2, 0]


def test_runs_of_one_name_are_numbered_and_all_else_goes_on():
    runs = [run("base", 4), run("base", 3), run("base (2)", 4), run("base", 1)]
    table = report_markdown(runs)
    assert table.startswith("⚠ 3 runs are called base: they are numbered in their order.")
    names = ["base", "base (3)", "base (2)", "base (4)"]
    report = report_dict(runs)
    assert [each["name"] for each in report["runs"]] == names
    assert [each["other"] for each in report["comparisons"]] == names[1:]
    assert all(f"| {name} |" in table for name in names)
    legend = runs_page(runs).get_axes()[0].get_legend()
    assert legend is not None and legend.get_texts()[1].get_text() == "base (3): 2 of 8 questions lost"


@pytest.mark.parametrize(
    ("base", "other", "message", "left"),
    [
        (run("base", 4), replace(run("des", 3), clip=None), "⚠ des has no CLIPScore, and base has", "– | 75.0"),
        (replace(run("base", 4), tifa=None), run("des", 3), "⚠ base has no TIFA, and des has", "25.00 | 75.0"),
        (
            run("base", 4),
            replace(run("des", 3), rates=(Rate("skull", "else", (True,)),)),
            "⚠ des has no rate of skull by somebody, and base has",
            "25.00 | – |",
        ),
        (
            run("base", 4),
            replace(run("des", 3), clip=ClipScores("other", (0.2,), 0)),
            "⚠ CLIPScore of des is left out: it is by other, and that of base by clip",
            "– | 75.0",
        ),
        (run("base", 4), only_of(run("des", 3), "object"), "share 4 questions, but 4 are only in the first", "– | – |"),
        (only_of(run("base", 4), "object"), run("des", 3), "and 4 only in the second", "– | – |"),
        (run("base", 4), retyped(run("des", 3)), "have 8 questions with other choices, answers or types", "– | – |"),
        (Run("base", rates=run("base", 4).rates), replace(run("des", 3), rates=()), "⚠ des has no rate of", "| – |"),
    ],
)
def test_what_does_not_fit_the_base_is_left_out_with_a_word(base, other, message, left):
    runs = [base, other, run("sage", 2)]
    table = report_markdown(runs)
    notes = [line for line in table.splitlines() if line.startswith("⚠ ")]
    assert any(message in note for note in notes)
    (row,) = [line for line in table.splitlines() if line.startswith("| des |")]
    assert left in row
    report = json.loads(json.dumps(report_dict(runs)))
    assert report["notes"] == notes and report["runs"][1] == other.to_dict()
    compared = [each["other"] for each in report["comparisons"]]
    assert compared == [name for name in ("des", "sage") if f"| % | base | {name} |" in table]
    assert ("des" in compared) == bool(base.tifa and "TIFA of des" not in table)
    texts = [text.get_text() for axes in runs_page(runs).get_axes() for text in axes.texts]
    assert any("not measured" in text for text in texts) == ("– |" in row)


@pytest.mark.parametrize(
    ("runs", "message"),
    [([run("base", 4)], "two runs or more, found 1"), ([Run("base"), Run("des")], "hold no scores")],
)
def test_too_little_to_compare_is_refused(runs, message):
    for use in (report_dict, report_markdown, runs_page):
        with pytest.raises(QuestionError, match=message):
            use(runs)


def test_csv_has_a_row_for_every_number_of_every_run():
    runs = [run("base", 4), replace(run("=des", 1, 0.24, 0), tifa=None), run("base", 3)]
    rows = list(csv.DictReader(report_csv(runs).splitlines()))
    found = {(row["run"], row["score"]): row for row in rows}
    whole = ["TIFA", "soft TIFA, arithmetic", "soft TIFA, geometric", "TIFA, object", "TIFA, color"]
    other = ["CLIPScore, 100 · cos", "skull"]
    assert sorted(found) == sorted(
        [(name, score) for name in ("base", "base (2)") for score in whole + other]
        # No formula for a spreadsheet.
        + [("'=des", score) for score in other]
    )
    numbers = {"value": "0.75", "low_95": repr(runs[0].rates[0].interval.low), "counted": "4", "by": "somebody"}
    assert found["base", "skull"].items() >= numbers.items()
    assert float(found["base (2)", "TIFA"]["value"]) == 0.75 and found["base", "TIFA"]["by"] == "judge, by likelihood"
    assert found["'=des", "CLIPScore, 100 · cos"].items() >= {"value": "24.0", "low_95": "", "counted": "4"}.items()


@pytest.mark.parametrize("runs", [[run("base", 4)], [run("base", 4), run("des", 1, 0.24, 0)]])
def test_saved_files_hold_the_reports(tmp_path: Path, runs: list[Run]):
    saved = save_report(runs, tmp_path / "new" / "mine.v1.json")
    assert [path.name for path in saved] == ["mine.v1.json", "mine.v1.md", "mine.v1.csv"]
    assert all(path.read_text(encoding="utf-8") == text for path, text in saved.items())
    data, table, rows = saved.values()
    assert [each["name"] for each in json.loads(data)["runs"]] == [each.name for each in runs]
    assert all(f"| {each.name} |" in table and f"\n{each.name},TIFA," in rows for each in runs)
    assert len(runs) == 1 or table == report_markdown(runs) + "\n"


def test_other_scores_of_the_same_name_are_kept(tmp_path: Path):
    path = tmp_path / "mine.json"
    before = save_report([run("base", 4)], path)
    assert save_report([run("base", 4)], path) == before, "the same may be saved again"
    for file in before:
        save_report([run("base", 4)], path, overwrite=True)
        file.write_text("notes of my own", encoding="utf-8")
        there = {each: each.read_bytes() for each in before}
        with pytest.raises(SettingsError, match=f"{file.name} exists and holds other scores.*turn overwrite on"):
            save_report([run("base", 4)], path)
        assert {each: each.read_bytes() for each in before} == there
    with pytest.raises(QuestionError, match="hold no scores"):
        save_report([Run("base")], path, overwrite=True)
    assert save_report([run("des", 3)], path, overwrite=True)[path] == path.read_text(encoding="utf-8")
