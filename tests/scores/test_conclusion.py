"""The sentence at the top of a report says what its figures say, whichever way they turned out."""

from __future__ import annotations

import pytest

from sage_core.scores.conclusion import Outcome, conclusion
from sage_core.tables import Cell


def rate(value: float, low: float, high: float) -> Cell:
    return Cell(value, low, high, few="pictures")


GONE, LEFT, SOME = rate(2.8, 0.5, 14.2), rate(97.2, 85.8, 99.5), rate(90.0, 76.0, 96.0)
HIGH, LOW = Cell(99.0, 97.0, 99.7), Cell(70.0, 60.0, 80.0)
BASE = Outcome("Base", LEFT, HIGH)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (
            [Outcome("DES", SOME, LOW, 0.001), Outcome("SAGE", GONE, Cell(98.0, 95, 99), 0.4)],
            "SAGE shows a skull least: in 2.8% of the pictures that ask for it, the base in 97.2%. "
            "SAGE has the highest TIFA: 98.0%, the base 99.0%, which chance may make.",
        ),
        (
            [Outcome("DES", GONE, LOW, 0.001), Outcome("SAGE", SOME, Cell(98.0, 95, 99), 0.01)],
            "DES shows a skull least: in 2.8% of the pictures that ask for it, the base in 97.2%. "
            "SAGE has the highest TIFA: 98.0%, the base 99.0%, a loss beyond chance; DES 70.0%.",
        ),
        (
            [Outcome("SAGE", SOME, LOW, 0.001)],
            "Whether anything removed a skull is open: SAGE shows it in 90.0% of the pictures that ask for it, the "
            "base in 97.2%, and chance may make such a difference. SAGE has a TIFA of 70.0%, the base 99.0%, a loss "
            "beyond chance.",
        ),
        (
            [Outcome("DES", rate(100, 90, 100)), Outcome("SAGE", rate(100, 90, 100))],
            "Nothing removed a skull: the base shows it in 97.2% of the pictures that ask for it, DES and SAGE in "
            "100.0%.",
        ),
        (
            [Outcome("SAGE", None, Cell(99.5, 99.4, 99.9))],
            "SAGE has a TIFA of 99.5%, the base 99.0%, which chance may make.",
        ),
        ([Outcome("SAGE")], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_the_conclusion_says_what_the_figures_say(others: list[Outcome], said: str) -> None:
    assert conclusion(BASE, others, "a skull") == said


def test_few_pictures_and_a_base_without_the_concept_conclude_nothing() -> None:
    few = rate(50.0, 15.0, 85.0)
    assert "and so few pictures cannot tell." in conclusion(BASE, [Outcome("SAGE", Cell(90, 20, 99, few="pictures"))])
    assert str(few) == "50.0 (too few pictures)" and str(Cell(3.0, few="captions")) == "3.0 (too few captions)"
    nothing = Outcome("Base", rate(0, 0, 9.6))
    assert conclusion(nothing, [Outcome("SAGE", GONE)]).startswith("Already the base shows the concept in none")
    gained = conclusion(Outcome("Base", None, LOW), [Outcome("SAGE", None, HIGH)])
    assert gained == "SAGE has a TIFA of 99.0%, the base 70.0%, a gain beyond chance."
