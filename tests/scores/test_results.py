"""Runs next to each other: what fits together, the table, the JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sage_core.errors import QuestionError
from sage_core.scores.clipscore import ClipScores
from sage_core.scores.page import runs_page
from sage_core.scores.rates import Rate
from sage_core.scores.results import Run, check_runs, report_dict, report_markdown
from scored_runs import run


def only_of(whole: Run, kind: str) -> Run:
    rows = tuple(row for row in whole.tifa.questions if row.question.element_type == kind)
    return replace(whole, tifa=replace(whole.tifa, questions=rows))


def retyped(whole: Run) -> Run:
    rows = [replace(row, question=replace(row.question, element_type="shape")) for row in whole.tifa.questions]
    return replace(whole, tifa=replace(whole.tifa, questions=tuple(rows)))


def test_table_holds_every_number_of_every_run():
    table = report_markdown([run("base", 4), run("des", 1, 0.24, 0)])
    assert "| run | TIFA % | soft TIFA % | CLIPScore (100·cos) | skull %, by somebody |" in table
    assert "| base | 100.0 | 50.0 | 25.00 | 75.0 (30.1-95.4) |" in table
    assert "| des | 25.0 | 50.0 | 24.00 | 0.0 (0.0-49.0) |" in table
    assert "| color | 100.0 | 25.0 | -75.0 |" in table and "6 questions lost, 0 gained" in table


def test_rates_of_one_concept_by_one_rule_stand_side_by_side():
    unseen = Rate("skull", "somebody", (False, True, False, False))
    runs = [replace(r, rates=(*r.rates, unseen, *r.rates)) for r in (run("base", 4), run("des", 1, 0.24, 0))]
    head, _, base, des, *_ = report_markdown(runs).splitlines()
    assert head.endswith("| skull %, by somebody | skull %, by somebody (2) | skull %, by somebody (3) |")
    assert base.endswith("| 75.0 (30.1-95.4) | 25.0 (4.6-69.9) | 75.0 (30.1-95.4) |")
    assert des.endswith("| 0.0 (0.0-49.0) | 25.0 (4.6-69.9) | 0.0 (0.0-49.0) |")


def test_report_is_json_with_lost_questions():
    report = json.loads(json.dumps(report_dict([run("base", 4), run("des", 3), run("sage", 4)])))
    assert [r["name"] for r in report["runs"]] == ["base", "des", "sage"]
    assert [len(c["lost"]) for c in report["comparisons"]] == [2, 0]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([run("base", 4)], "two runs or more, found 1"),
        ([run("base", 4), run("base", 3)], "runs are called base, base"),
        ([run("base", 4), replace(run("des", 3), clip=None)], "des has no CLIPScore"),
        ([replace(run("base", 4), tifa=None), run("des", 3)], "base has no TIFA"),
        ([run("base", 4), replace(run("des", 3), rates=(Rate("skull", "else", (True,)),))], "different rules"),
        ([Run("base"), Run("des")], "hold no scores"),
        (
            [run("base", 4), replace(run("des", 3), clip=ClipScores("other", (0.2,), 0))],
            "'base' by clip, 'des' by other",
        ),
        ([run("base", 4), only_of(run("des", 3), "object")], "share 4 questions, but 4 are only in the first"),
        ([only_of(run("base", 4), "object"), run("des", 3)], "and 4 only in the second"),
        ([run("base", 4), retyped(run("des", 3))], "have 8 questions with other choices, answers or types"),
    ],
)
def test_runs_that_do_not_fit_are_refused(runs, message):
    for use in (check_runs, report_markdown, runs_page):
        with pytest.raises(QuestionError, match=message):
            use(runs)
