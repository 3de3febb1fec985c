"""The page of several runs: it draws what was measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sage_core.plots import DARK, LIGHT, figure_to_image
from sage_core.scores.page import runs_page
from scored_runs import run


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
