"""The curves of a run."""

from __future__ import annotations

import warnings

import pytest

from sage_core.plots import DARK, DPI, figure_to_image
from sage_core.runs.curves import running_mean, training_curves
from sage_core.runs.record import GeometryPoint, StepReport

POINT = GeometryPoint(spread_ratio=1, jaccard=0.9, k=10, prompts=100, held_out=True)


def step(number: int, losses: dict[str, float], geometry: GeometryPoint | None = None) -> StepReport:
    return StepReport(number, 40, losses, learning_rate=1e-5, seconds=1.0, geometry=geometry)


@pytest.fixture(autouse=True)
def no_warnings():
    """A glyph without a font, or texts that do not fit the layout, make matplotlib warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_training_curves_have_a_panel_for_each_loss_the_rate_and_the_geometry():
    history = [step(number, {"total": 1 / number, "local_structure": 0.0}, POINT) for number in range(1, 40)]
    figure = training_curves(history)
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["total", "local structure", "learning rate", "spread ratio", "Jaccard overlap"]
    assert figure.dpi == DPI
    assert figure_to_image(figure).width == 1024


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([], id="none"),
        pytest.param([step(1, {"total": 1.0})], id="one step"),
        pytest.param([step(5, {"total": 1.0}), step(6, {"total": 1.0, "keep": float("nan")})], id="constant and nan"),
    ],
)
def test_training_curves_of_runs_that_have_only_begun(history):
    assert figure_to_image(training_curves(history, DARK)).width == 1024


def test_running_mean_against_its_definition():
    assert running_mean([4.0, 2.0, 6.0, 8.0], 2) == [4.0, 3.0, 4.0, 7.0]
    assert running_mean([4.0, 2.0], 1) == [4.0, 2.0]
