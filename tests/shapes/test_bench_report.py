"""The bench's tables and figures against hand-made numbers, and its rows as files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sage_core.errors import ShapesError
from sage_core.intervals import Hits, wilson_interval
from sage_core.shapes.ask import ASKED_TYPES
from sage_core.shapes.bench import run
from sage_core.shapes.bench.report import Table, figures, read_row
from sage_core.shapes.exam.attacked import Broken
from sage_core.shapes.exam.trials import TrialMarks


def marks(tifa: float, color: float, seen: int, spread: float | None, near: float | None = 0.9) -> TrialMarks:
    return TrialMarks(
        tifa=tifa,
        tifa_held_out=tifa - 0.01,
        tifa_near=near,
        tifa_hard=tifa - 0.2,
        by_type=dict.fromkeys(ASKED_TYPES, tifa) | {"color": color},
        similarity=0.9,
        attack={"seen": Hits(seen, 10), "unseen": Hits(2 * seen, 10)},
        by_name={"calavera": Hits(seen, 10)},
        spread_ratio=spread,
        jaccard=None if spread is None else 0.5,
        near_short=Hits(9 - seen, 10),
    )


@pytest.fixture
def table() -> Table:
    runs = [
        ("base", marks(0.95, 0.9, 5, None)),
        ("one", marks(0.80, 0.5, 0, 0.6)),
        ("two", marks(0.90, 0.8, 1, None)),
        ("base", marks(0.95, 0.9, 5, None)),
        ("one", marks(0.86, 0.7, 3, 0.8)),
        ("two", marks(0.90, 0.8, 1, None)),
    ]
    return Table(runs, {"base": 1.0, "one": 2.25, "two": 3.0})


def test_the_table_averages_over_seeds(table: Table) -> None:
    rows = table.to_dict()
    assert list(rows) == ["base", "one", "two"]
    assert [row["seeds"] for row in rows.values()] == [2, 2, 2]
    assert rows["one"]["tifa_change"] == {"mean": pytest.approx(-0.12), "deviation": pytest.approx(0.06 / 2**0.5)}
    assert rows["one"]["tifa"] == {"mean": pytest.approx(0.83), "deviation": pytest.approx(0.06 / 2**0.5)}
    assert rows["base"]["tifa"]["deviation"] == 0 and rows["two"]["spread_ratio"]["mean"] is None
    assert rows["one"]["by_type"]["color"] == pytest.approx(0.6) and rows["one"]["spread_ratio"]["mean"] == 0.7
    interval = wilson_interval(3, 20)
    counted = {"k": 3, "n": 20, "share": 0.15, "wilson_95": [interval.low, interval.high]}
    assert rows["one"]["attack"]["seen"] == rows["one"]["by_name"]["calavera"] == counted
    assert rows["one"]["attack"]["unseen"]["k"] == 6 and rows["two"]["seconds"] == 3.0
    # Of two seeds' sign patterns, two of four are as extreme.
    assert rows["one"]["p_against_base"] == 0.5 and rows["base"]["p_against_base"] == 1.0
    json.dumps(rows)


def test_the_table_reads_in_per_cent(table: Table) -> None:
    kept, told, left, by_type = table.to_markdown().split("\n\n")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in kept.splitlines()]
    assert len({len(line) for line in lines}) == 1
    row = dict(zip(lines[0], lines[3], strict=True))
    assert row["method"] == "one" and row["seeds"] == "2" and row["near misses"] == "90.0 ± 0.0"
    assert row["TIFA"] == "83.0 ± 4.2" and row["change"] == "-12.00 ± 4.24" and row["spread ratio"] == "0.700 ± 0.141"
    assert dict(zip(lines[0], lines[4], strict=True))["spread ratio"] == "-"
    assert row["short near misses"] == "75.0 (53.1-88.8)"
    assert "95%" in told and "| one | 15.0 (5.2-36.0) |" in left
    assert "| two | 90.0 | 90.0 | 80.0 |" in by_type


def test_the_table_has_columns_of_attacks_only_where_there_are_any(table: Table) -> None:
    assert "attack by" not in table.to_markdown() and not any("adaptive" in row for row in table.to_dict().values())
    parts = {
        "base": [Broken(Hits(4, 4), Hits(4, 4), Hits(4, 4)), Broken(Hits(3, 6), Hits(6, 6), Hits(3, 6))],
        "one": [Broken(Hits(1, 4), Hits(0, 4), Hits(4, 4)), Broken(Hits(2, 6), Hits(1, 6), Hits(3, 6))],
    }
    runs = [(name, replace(marks(0.9, 0.9, 1, None), adaptive={"tokens": part.to_dict()}))
            for name, each in parts.items() for part in each]  # fmt: skip
    runs += [("two", marks(0.9, 0.9, 1, None))] * 2
    attacked = Table(runs, {"base": 1.0, "one": 1.0, "two": 1.0})
    found = attacked.to_dict()["one"]["adaptive"]["tokens"]
    interval = wilson_interval(3, 10)
    assert found["attacked"] == {"k": 3, "n": 10, "share": 0.3, "wilson_95": [interval.low, interval.high]}
    assert (found["before"]["k"], found["before"]["n"], found["control"]["k"]) == (1, 10, 7)
    left = attacked.to_markdown().split("\n\n")[2].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")][-1] for line in left]
    assert cells[0] == "attack by tokens" and cells[4] == "-"
    assert cells[2].startswith("70.0 (") and cells[3] == f"30.0 ({100 * interval.low:.1f}-{100 * interval.high:.1f})"
    assert left[5].startswith("| control: the attacks on the base |") and cells[5] == cells[2]
    # Of the base 10 of 10 starts draw it, of the other 1 of 10: neither control is as it should be.
    assert left[6].startswith("| control: random starts, no attack |") and cells[6].startswith("55.0 (")
    told = attacked.to_markdown().split("\n\n")
    assert any("by tokens breaks the base in less than 95%" in text for text in told)
    assert any("11 of 20 random starts of the attack by tokens draw the concept" in text for text in told)


def test_figures_show_every_method(table: Table) -> None:
    drawn = figures(table)
    bars, points = (drawn[name].axes[0] for name in ("tifa_by_type", "spread_and_tifa"))
    heights = {bar.get_label(): [round(float(p.get_height()), 6) for p in bar] for bar in bars.containers}
    assert list(heights) == ["one", "two"]
    color = ASKED_TYPES.index("color")
    assert heights["one"][color] == pytest.approx(-30) and heights["two"][color] == pytest.approx(-10)
    assert heights["one"][len(ASKED_TYPES)] == pytest.approx(-12) and heights["one"][-1] == pytest.approx(0)
    assert [label.get_text() for label in bars.get_xticklabels()] == [*ASKED_TYPES, "TIFA", "CLIP stand-in"]
    spots = {group.get_label(): group.get_offsets().tolist() for group in points.collections}
    assert spots["one"] == [[0.6, pytest.approx(80)], [0.8, pytest.approx(86)]]
    # A method that leaves the text encoder alone has no spread to show.
    assert list(spots) == ["base", "one"]


@pytest.mark.parametrize(
    "damage",
    [
        {"marks": None}, {"marks": {"tifa": "0.9"}}, {"marks": {"similarity": None}}, {"marks": {"by_type": [1]}},
        {"marks": {"attack": {"seen": {"k": 11, "n": 10}}}}, {"marks": {"near_short": {"k": "1", "n": 10}}},
        {"marks": {"by_name": {"calavera": []}}}, {"other": 1},
    ],
)  # fmt: skip
def test_a_damaged_row_is_named_with_the_way_out(damage: dict, tmp_path: Path) -> None:
    whole = run.Run("skull", "one", 0, marks(0.8, 0.5, 0, 0.6), 1.0, 2.0)
    file = tmp_path / "row.json"
    file.write_text(json.dumps(whole.to_dict()))
    assert read_row(file, "two", run.Run.from_dict) == replace(whole, method="two")
    content = whole.to_dict() | damage
    if content["marks"]:
        content["marks"] = whole.marks.to_dict() | content["marks"]
    for text in (json.dumps(content), "[" * 100_000, "[]"):
        file.write_text(text)
        with pytest.raises(ShapesError, match=r"row\.json is a damaged row .*Delete it: the method is tried again"):
            read_row(file, "two", run.Run.from_dict)
