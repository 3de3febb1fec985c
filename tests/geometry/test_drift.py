"""Drift reports: the same figures as a table and in words."""

from __future__ import annotations

import pytest

from sage_core.geometry.drift import DriftReport
from sage_core.geometry.report import GeometryReport


def row(prompt: str, drift: float, lost: tuple[str, ...] = (), gained: tuple[str, ...] = ()) -> dict:
    return {"prompt": prompt, "drift": drift, "jaccard": 1 - drift, "lost": list(lost), "gained": list(gained)}


class Report:
    """What a DriftReport asks of a GeometryReport, with drifts of our own choice."""

    rows = (row("a | b", 0.25), row("c", 0.75, ("x", "y"), ("z",)), row("d", 0.5), row("everyday", 0.9))
    prompts = tuple(each["prompt"] for each in rows)

    def prompt_row(self, place: int) -> dict:
        return self.rows[place]


def report(count: int, threshold: float | None = None) -> DriftReport:
    assert hasattr(GeometryReport, "prompt_row")
    return DriftReport.of(Report(), count, threshold)  # type: ignore[arg-type]


def test_prompts_are_ranked_and_counted() -> None:
    found = report(3, 0.5)
    assert [each["prompt"] for each in found.rows] == ["c", "d", "a | b"]
    # Not more than: the one at the threshold itself stays.
    assert (found.among, found.beyond) == (3, 1)
    assert found.to_dict() == {"above": 0.5, "beyond": 1, "drift": list(found.rows)}
    assert report(3).beyond is None


def test_the_table() -> None:
    table = "| prompt | drift | Jaccard |\n| --- | --- | --- |\n| c | 0.75 | 0.25 |\n| d | 0.50 | 0.50 |\n"
    table += "| a \\| b | 0.25 | 0.75 |\n"
    assert report(3).to_markdown() == table
    assert report(3, 0.5).to_markdown() == table + "\n1 of 3 prompts drifted further than 0.5.\n"


def test_one_prompt_in_words() -> None:
    assert report(1, 0.5).summary() == "Drift 0.25, neighbour overlap 0.75 among 3 prompts.\nLost: none\nGained: none"
    assert report(1, 0.1).summary().startswith("⚠ Alignment moved this prompt beyond the threshold of 0.1.\nDrift 0.25")


def test_many_prompts_in_words() -> None:
    assert report(3, 0.2).summary().splitlines() == [
        "⚠ Alignment moved 3 of 3 prompts beyond the threshold of 0.2.",
        "Drift and neighbour overlap of 3 prompts, most hurt first, each among 3:",
        "0.75  0.25  c",
        "0.50  0.50  d",
        "0.25  0.75  a | b",
        "The first lost: x; y",
        "The first gained: z",
    ]


@pytest.mark.parametrize(("count", "words"), [(1, "The prompt is longer than 75"), (2, "1 prompts are longer than 75")])
def test_what_was_not_measured_is_told(count: int, words: str) -> None:
    rows = (row("cat " * 76, 0.5), row("cat " * 75, 0.25))[:count]
    assert words in DriftReport(rows, 60).summary()
    assert "longer" not in DriftReport(rows[1:] or (row("c", 0.1),), 60).summary()


def test_a_long_list_is_cut() -> None:
    rows = tuple(row(f"prompt {number}", 1 - number / 100) for number in range(30))
    lines = DriftReport(rows, 60).summary().splitlines()
    assert lines[20] == "0.81  0.19  prompt 19"
    assert lines[21] == "… and 10 that moved less."
