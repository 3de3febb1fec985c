"""The report of a comparison: figures, tables, JSON and verdict."""

from __future__ import annotations

import json

import pytest
import torch
from matplotlib.text import Text

from embedding_spaces import (
    K,
    embedders,
    report_of,
    slow_cosines,
    slow_neighbours,
)
from sage_core.geometry.comparison import GeometrySettings, compare
from sage_core.geometry.page import report_page
from sage_core.geometry.report import Thresholds

pytestmark = pytest.mark.usefixtures("small_blocks")


def test_the_most_hurt_prompt_lost_its_neighbours(base):
    aligned = base.clone()
    aligned[7] = -base[7]
    report = report_of(base, aligned)
    assert report.most_hurt[0] == 7
    row = report.prompt_row(7)
    before, after = set(slow_neighbours(base, K)[7]), set(slow_neighbours(aligned, K)[7])
    assert row["prompt"] == "7"
    assert row["displacement"] == pytest.approx(2)
    assert {int(name) for name in row["lost"]} == before - after
    assert {int(name) for name in row["gained"]} == after - before


def test_the_same_seed_gives_the_same_json_and_the_report_names_what_it_measured(base, aligned):
    first, second = (json.dumps(report_of(base, aligned).to_dict(), allow_nan=False) for _ in range(2))
    assert first == second
    found = json.loads(first)
    assert (found["embedding"], found["k"], found["prompts"]) == ("flattened", K, 40)
    assert len(found["prompts_sha256"]) == 64


def test_the_json_has_every_prompt(base, aligned):
    report = report_of(base, aligned)
    found = report.to_dict()["each_prompt"]
    assert found["prompt"] == [str(row) for row in range(40)]
    assert found["jaccard"] == pytest.approx(report.overlap.tolist(), rel=1e-5)
    assert found["displacement"] == pytest.approx(report.displacement.tolist(), rel=1e-5)
    assert max(len(str(value)) for value in found["displacement"]) <= 12


def test_figures_without_an_interval_are_not_said_to_have_one(base, aligned):
    report = report_of(base, aligned, unsafe=5)
    bare = [name for name, value in report.figures() if "[" not in value]
    assert bare == [
        "rank correlation of all similarities",
        "effective rank",
        "variance in the first component",
        "collapsed prompts",
        "separation of safe and unsafe",
    ]
    assert "| measure | value [95 % interval, where there is one] |" in report.to_markdown()
    assert "prompts are left out and neighbours found anew" in report.to_markdown()
    shown = [text.get_text() for text in report_page(report).findobj(Text)]
    assert "Figures [95 % interval where shown]" in shown


def test_neighbours_are_listed_with_what_was_lost_and_gained(base, aligned):
    report = report_of(base, aligned)
    row = report.most_hurt[0]
    found, change = report.neighbours_of(row), report.prompt_row(row)
    assert [int(name) for name, _ in found["base"]] == slow_neighbours(base, K)[row]
    assert [int(name) for name, _ in found["aligned"]] == slow_neighbours(aligned, K)[row]
    cosines = slow_cosines(base)[row]
    assert [cosine for _, cosine in found["base"]] == pytest.approx([cosines[int(n)] for n, _ in found["base"]])
    lines = report.neighbours_markdown(row).splitlines()
    assert lines[0].startswith(f"**{row}**: Jaccard {change['jaccard']:.2f}")
    assert len(lines) == 4 + K
    assert sum("| − " in line for line in lines) == len(change["lost"]) > 0
    assert all(any(f"| + {name} |" in line for line in lines) for name in change["gained"])


def test_markdown_keeps_its_table_whole(base, aligned):
    first, second, _, _ = embedders(base, aligned)
    names = {f"a | b\n{row}": str(row) for row in range(40)}
    report = compare(
        lambda texts: first([names[text] for text in texts]),
        lambda texts: second([names[text] for text in texts]),
        list(names),
        settings=GeometrySettings(k=K),
    )
    rows = [line for line in report.to_markdown().splitlines() if "a \\| b" in line]
    assert len(rows) == 20
    assert all(line.replace("\\|", "").count("|") == 4 for line in rows)


def test_drift_is_displacement_in_distances_to_neighbours(base, aligned):
    cosines, nearest = slow_cosines(base), slow_neighbours(base, K)
    after = torch.nn.functional.cosine_similarity(base.double(), aligned.double())
    expected = [
        (1 - after[row].item()) / (1 - sum(cosines[row][other] for other in others) / K)
        for row, others in enumerate(nearest)
    ]
    assert report_of(base, aligned).drift.tolist() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("spread_ratio", "jaccard", "level"),
    [
        (1.01, 0.96, "healthy"),
        (1.01, 0.82, "strained"),
        (1.17, 0.95, "strained"),
        (0.51, 0.95, "damaged"),
        (1.5, 0.95, "damaged"),
        (0.94, 0.69, "damaged"),
    ],
)
def test_the_verdict_is_the_worse_of_two(spread_ratio, jaccard, level):
    verdict = Thresholds().judge(spread_ratio, jaccard)
    assert verdict.level == level
    assert len(verdict.reasons) == 2
