"""Tables: numbers with intervals and tests, against slow sums; and each format of them."""

from __future__ import annotations

import csv
import io
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sage_core.evaluation import published
from sage_core.evaluation.attack_results import Attacked
from sage_core.evaluation.plan import Drawing, MethodAttack, MethodPlan, Plan, Scoring
from sage_core.evaluation.report import write_answers
from sage_core.evaluation.scoring import Scores
from sage_core.evaluation.tables import PaperTable, all_tables, attack_table, quality_table
from sage_core.intervals import joined_bounds, wilson_interval
from sage_core.scores.clipscore import ClipScores
from sage_core.scores.rates import Rate
from sage_core.tables import Cell
from sage_core.tifa.comparison import compare
from sage_core.tifa.questions import ELEMENT_TYPES, Question
from sage_core.tifa.scoring import ScoredQuestion, TifaResult

METHODS = (MethodPlan("base"), MethodPlan("A_1 & b|c", sld="max"))


def plan(shown: bool = False) -> Plan:
    draw = Drawing("ddim", 50, 7.5, 512, 512, 0, 1, 8, "auto", 1)
    score = Scoring(("tifa",), "", "fp32", None, None, "nudity", "", "judge", 10, shown, 4)
    return Plan(Path("plan.toml"), Path("out"), Path("sd14.ckpt"), draw, None, (), (), score, METHODS)


def tifa(name: str, right: str) -> TifaResult:
    """Two questions for each caption, of two types; `right` says which are answered right."""
    rows = []
    for place, mark in enumerate(right):
        caption, kind = f"c{place // 2}", ("color", "counting")[place % 2]
        question = Question(caption, caption, f"question {place}?", ("yes", "no"), "yes", kind, "x")
        rows.append(ScoredQuestion(caption, question, "yes", "yes" if mark == "1" else "no", None))
    return TifaResult(name, "judge", "likelihood", tuple(rows))


def scores() -> list[Scores]:
    rates = ("1110100111", "0010000110"), ("111111", "101111")
    clips = (0.30, 0.25, 0.28, 0.31), (0.29, 0.20, 0.28, 0.25)
    right = "11111011", "10011010"
    return [
        Scores(
            method,
            tifa(method.name, right[place]),
            ClipScores("clip", clips[place], 0),
            {
                "Ring": Rate("nudity", "a judge", tuple(mark == "1" for mark in rates[0][place])),
                "MMA": Rate("nudity", "a judge", tuple(mark == "1" for mark in rates[1][place])),
            },
            {"FID": {"value": 17.0 + place}},
        )
        for place, method in enumerate(METHODS)
    ]


def exact_p(differences: list[float]) -> float:
    """Two-sided sign-flip test by counting every pattern of signs."""
    values = [value for value in differences if value]
    observed = abs(sum(values))
    flips = list(itertools.product((1, -1), repeat=len(values)))
    return sum(abs(sum(s * v for s, v in zip(signs, values, strict=True))) >= observed - 1e-9 for signs in flips) / len(
        flips
    )


def test_quality_is_counted_by_hand() -> None:
    measured = scores()
    table = quality_table(plan(), measured, {"A_1 & b|c": compare(measured[0].tifa, measured[1].tifa)})
    base, other = table.rows["base"], table.rows["A_1 & b|c"]
    assert base["TIFA"].value == pytest.approx(100 * (1 + 1 + 0.5 + 1) / 4)
    assert other["TIFA"].value == pytest.approx(100 * (0.5 + 0.5 + 0.5 + 0.5) / 4)
    assert base["color"].value == 100 and base["counting"].value == 75 and other["color"].value == 75
    assert other["TIFA change"].value == pytest.approx(-37.5)
    assert other["TIFA change"].low < -37.5 < other["TIFA change"].high
    assert other["TIFA p"].value == pytest.approx(exact_p([-0.5, -0.5, 0, -0.5]))
    changes = [-1.0, -5.0, 0.0, -6.0]
    half = stats.t.ppf(0.975, 3) * np.std(changes, ddof=1) / 2
    cell = other["CLIPScore change"]
    assert (cell.value, cell.low, cell.high) == pytest.approx((-3.0, -3 - half, -3 + half))
    assert other["CLIPScore p"].value == pytest.approx(exact_p(changes))
    assert other["FID"].value == 18 and table.columns[-1] == "FID" and "TIFA change" not in base


def test_attacks_are_counted_by_hand() -> None:
    table = attack_table(plan(), scores())
    base, other = table.rows["base"], table.rows["A_1 & b|c"]
    wilson = wilson_interval(7, 10)
    assert (base["Ring"].value, base["Ring"].low, base["Ring"].high) == pytest.approx(
        (70, 100 * wilson.low, 100 * wilson.high)
    )
    assert base["mean"].value == pytest.approx(100 * (0.7 + 1) / 2)
    full = wilson_interval(6, 6)
    low = 85 - 50 * math.hypot(0.7 - wilson.low, 1 - full.low)
    assert base["mean"].low == pytest.approx(low)
    ring = [int(b) - int(a) for a, b in zip("1110100111", "0010000110", strict=True)]
    mma = [int(b) - int(a) for a, b in zip("111111", "101111", strict=True)]
    assert other["mean change"].value == pytest.approx(100 * (sum(ring) / 10 + sum(mma) / 6) / 2)
    assert other["mean p"].value == pytest.approx(exact_p([*(r / 10 for r in ring), *(m / 6 for m in mma)]))
    assert "Ring 10, MMA 6" in table.note and "by a judge" in table.note


def test_the_mean_of_lists_has_an_interval_that_covers() -> None:
    generator = np.random.default_rng(0)
    shares, counts, covered = (0.1, 0.5, 0.9), (40, 60, 80), 0
    for _ in range(400):
        hits = [generator.binomial(n, p) for n, p in zip(counts, shares, strict=True)]
        bounds = [wilson_interval(k, n) for k, n in zip(hits, counts, strict=True)]
        values = [k / n for k, n in zip(hits, counts, strict=True)]
        low, high = joined_bounds(values, [(b.low, b.high) for b in bounds])
        covered += low <= 0.5 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_published_figures_stand_apart() -> None:
    assert published.QUALITY["SAGE"]["TIFA"] == 75.4 and published.QUALITY["base"]["FID"] == 17.23
    assert published.ATTACKS["DES"]["P4D"] == 0.0 and published.GEOMETRY["SAGE"]["Jaccard"] == 0.63
    assert set(published.QUALITY["SLD"]) == {*ELEMENT_TYPES[:-1], "TIFA", "CLIPScore", "FID"}
    text = attack_table(plan(shown=True), scores()).shown.to_markdown()
    assert "| SAGE, published | 2.8 | 0.4 | 1.2 | – | – | 26.4 |" in text
    assert "published" not in attack_table(plan(), scores()).shown.to_markdown()
    assert "by NudeNet, at a threshold that is not known here" in text
    rows = list(csv.DictReader(io.StringIO(attack_table(plan(shown=True), scores()).to_csv())))
    assert {row["source"] for row in rows if row["method"] == "SAGE"} == {"published"}
    assert [row["method"] for row in rows[:2]] == ["base", "A_1 & b|c"] and rows[0]["source"] == "measured"


def test_a_leaderboard_stands_next_to_the_rate_of_its_own_prompts() -> None:
    found = scores()
    assert "unlearndiffatk" not in [table.name for table in all_tables(plan(True), found, {}, {})]
    found = [replace(each, attacks={"UnlearnDiffAtk": each.attacks["Ring"]}) for each in found]
    assert "unlearndiffatk" not in [table.name for table in all_tables(plan(), found, {}, {})]
    (table,) = [table for table in all_tables(plan(True), found, {}, {}) if table.name == "unlearndiffatk"]
    text = table.shown.to_markdown()
    assert "| RECE, published | 13.4 | 75.4 | 17.20 | 0.259 |" in text
    assert "| base | 70.0 (39.7 to 89.2) | – | – | – |" in text
    # Both judges are named, theirs with its threshold.
    assert "by a judge; 95% Wilson" in text and "nine exposed classes" in text and "above 0.45" in text
    # With an attack of that kind on these prompts the other column is measured too.
    ours = replace(plan(True), attacking=(MethodAttack("ours", "unlearndiffatk", "UnlearnDiffAtk"),))
    broken = Attacked(found[0].attacks["UnlearnDiffAtk"], (5, 10), (False,) * 5)
    (table,) = [
        table
        for table in all_tables(ours, [replace(each, attacked={"ours": broken}) for each in found], {}, {})
        if table.name == "unlearndiffatk"
    ]
    # 11 10 10 01 11: of each prompt one look or the other.
    assert table.rows["base"]["after attack"].value == 100 and "that ours breaks within its budget" in table.note
    assert len(published.UNLEARNDIFFATK) == 11 and published.UNLEARNDIFFATK["RECE"]["before attack"] == 13.38


def test_every_method_is_a_row_with_its_bounds_in_full_precision() -> None:
    table = PaperTable("t", "Title", "Note", ("x & y", "p"), {"A_1 & b|c": {"x & y": Cell(1.25, 1, 1.5)}})
    assert r"| A_1 & b\|c | 1.2 (1.0 to 1.5) | – |" in table.shown.to_markdown()
    row = next(csv.DictReader(io.StringIO(table.to_csv())))
    assert row["x & y"] == "1.25" and row["x & y high"] == "1.5" and row["p"] == ""


def test_every_answer_is_a_row_of_parquet_where_pyarrow_is(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_answers(tmp_path, scores())
    rows = parquet.read_table(tmp_path / "answers.parquet").to_pylist()
    assert len(rows) == sum(len(each.tifa.questions) for each in scores() if each.tifa)
    assert {row["score"] for row in rows} == {0, 1} and rows[0]["probability"] is None
    assert [row["question"] for row in csv.DictReader((tmp_path / "answers.csv").open())] == [
        row["question"] for row in rows
    ]
