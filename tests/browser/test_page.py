"""A report's page in a real browser: on a telephone, in the dark, enlarged, and with its conclusion first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sage_core.page import Page, cards, heading, lead, lines, paragraph, picture, side_by_side, table
from sage_core.plots import DARK, LIGHT
from sage_core.scores.conclusion import Outcome, conclusion
from sage_core.tables import Cell, Table

pytestmark = pytest.mark.full

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with blocks of every kind, wider than any telephone."""
    folder = tmp_path_factory.mktemp("page")
    Image.new("RGB", (600, 300), "red").save(folder / "lost.png")
    figures = [picture(f"{name}.png", Image.new("RGB", (1400, 500), name), name) for name in ("red", "blue", "green")]
    cell = Cell(50.0, 40.0, 60.0)
    wide = Table(("method", *(f"column {number}" for number in range(12))), [("SAGE", *[cell] * 12)], title="Wide")
    said = conclusion(Outcome("Base", Cell(90, 80, 95)), [Outcome("SAGE", Cell(5, 1, 10))], "a skull")
    long_word = "averylongwordwithoutanyblank" * 8
    blocks = [lead(said), paragraph(f"text {long_word}"), table(wide), figures[0], heading("More")]
    blocks += [side_by_side(figures[1:]), lines(f"line {long_word}")]
    Page("A report", [*blocks, cards([({"base": folder / "lost.png"}, "a caption", ["a question"])])]).write(folder)
    return folder / "report.html"


@pytest.fixture
def opened(chromium: Any, report: Path, request: pytest.FixtureRequest) -> Any:
    with chromium.new_context(viewport=PHONE, color_scheme=request.param) as context:
        page = context.new_page()
        page.goto(report.as_uri())
        yield page


@pytest.mark.parametrize("opened", ["light"], indirect=True)
def test_on_a_telephone_the_page_stays_and_tables_scroll(opened: Any) -> None:
    script = "([css]) => { const each = document.querySelector(css); return [each.scrollWidth, each.clientWidth]; }"
    assert opened.evaluate(script, ["html"]) == [390, 390]
    inner, outer = opened.evaluate(script, [".table"])
    assert inner > outer and outer <= 390
    first = opened.evaluate("() => document.querySelector('h1').nextElementSibling.textContent")
    assert first == "SAGE shows a skull in 5.0% of the pictures that ask for it, the base in 90.0%."


@pytest.mark.parametrize("opened", ["light"], indirect=True)
def test_a_click_enlarges_a_picture_and_another_makes_it_small(opened: Any) -> None:
    width = "() => document.querySelector('figure img').getBoundingClientRect().width"
    small = opened.evaluate(width)
    opened.click("figure img")
    assert opened.evaluate(width) >= 1400 and small < 390
    opened.click("figure img")
    assert opened.evaluate(width) == small


@pytest.mark.parametrize("opened", ["light", "dark"], indirect=True)
def test_the_page_has_the_systems_colours(opened: Any, request: pytest.FixtureRequest) -> None:
    theme = {"light": LIGHT, "dark": DARK}[request.node.callspec.params["opened"]]
    found = opened.evaluate("() => { const { color, backgroundColor } = getComputedStyle(document.body);"
                            " return [color, backgroundColor]; }")  # fmt: skip
    wanted = [tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5)) for colour in (theme.text, theme.background)]
    assert found == [f"rgb({red}, {green}, {blue})" for red, green, blue in wanted]
