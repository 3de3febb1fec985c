"""Runs beside each other: what fits together, the table, the page, and the cards."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from sage_core.errors import QuestionError
from sage_core.plots import DARK, LIGHT, figure_to_image
from sage_core.scores.clipscore import ClipScores
from sage_core.scores.page import runs_page
from sage_core.scores.rates import Rate
from sage_core.scores.results import Run, check_runs, report_dict, report_markdown
from sage_core.tifa.cards import card_sheet, question_card
from sage_core.tifa.questions import Question
from sage_core.tifa.scoring import ScoredQuestion, TifaResult


def run(name: str, right: int, cosine: float = 0.25, hits: int = 3) -> Run:
    rows = tuple(
        ScoredQuestion(
            f"c{number}",
            Question(f"c{number}", "a red dog", f"{kind}?", ("yes", "no"), "yes", kind, "dog"),
            "yes" if number < right else "no",
            "yes" if number < right else "no",
            0.5,
        )
        for number in range(4)
        for kind in ("object", "color")
    )
    rate = Rate("skull", "somebody", tuple(i < hits for i in range(4)))
    return Run(name, TifaResult(name, "judge", "likelihood", rows), ClipScores("clip", (cosine,) * 4, 0), (rate,))


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


@pytest.mark.parametrize(
    ("without", "theme"), [((), DARK), (("tifa",), LIGHT), (("clip", "rates"), LIGHT), (("tifa", "rates"), LIGHT)]
)
def test_page_draws_what_was_measured(without, theme):
    empty = {"tifa": None, "clip": None, "rates": ()}
    runs = [
        replace(r, **{name: empty[name] for name in without}) for r in (run("base", 4), run("des", 1), run("sage", 3))
    ]
    figure = runs_page(runs, theme)
    picture = np.asarray(figure_to_image(figure))
    assert picture.shape[1] == 1024 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    texts = {text.get_text() for axes in figure.get_axes() for text in axes.texts}
    assert ("-75" in texts) == ("tifa" not in without)
    legends = [axes.get_legend() for axes in figure.get_axes() if axes.get_legend()]
    names = [text.get_text() for legend in legends for text in legend.get_texts()]
    assert names == ([] if "tifa" in without else ["base", "des: 6 of 8 questions lost", "sage: 2 of 8 questions lost"])
    assert ("TIFA 25.0" in texts) == ("tifa" not in without and "clip" not in without)
    assert ("3 of 4" in texts) == ("rates" not in without)
    assert (" 25.00" in texts) == ("tifa" in without and "clip" not in without)


@pytest.mark.parametrize("bases", [run("base", 0), run("base", 4, cosine=-0.1)])
def test_page_needs_no_base_above_zero(bases):
    figure = runs_page([bases, run("des", 1)])
    assert np.asarray(figure_to_image(figure)).shape[1] == 1024
    titles = [axes.get_title(loc="left") for axes in figure.get_axes()]
    assert "CLIPScore, mean of 100 · cos" in titles and not any("% of first run" in title for title in titles)


def test_cards_tick_and_cross():
    rows = run("base", 1).tifa.questions
    right = question_card(torch.rand(20, 40, 3), rows[:2])
    wrong = question_card(torch.rand(64, 30, 3), rows[2:4])

    def colors(card) -> tuple[bool, bool]:
        red, green, _ = np.asarray(card).astype(int)[:, 290:].reshape(-1, 3).T
        return bool((green - red > 60).any()), bool((red - green > 60).any())

    assert colors(right) == (True, False) and colors(wrong) == (False, True)
    sheet = card_sheet([right, wrong])
    assert sheet.size == (right.width, right.height + wrong.height)
