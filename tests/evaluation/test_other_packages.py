"""A package of its own adds a method, a score and a judge by entry points alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sage_core.errors import SettingsError
from sage_core.evaluation import plan
from sage_core.evaluation.run import open_plan, run
from sage_core.lazy import installed
from sage_core.methods import table
from sage_core.tifa.judges import base
from sage_core.tifa.questions import Question
from small_worlds import world_plan

ROW = """
from __future__ import annotations
from sage_core.methods.table import Method
FADED = Method("Faded", "own", "faded", "FadedSettings", function="fade", package="theirs", help="draws nothing at all")
"""
FADED = """
from __future__ import annotations
from dataclasses import dataclass
from sage_core.drawing.change import Change
from sage_core.settings import Share, Settings

@dataclass(frozen=True)
class FadedSettings(Settings):
    "How faint."
    strength: Share = 1.0

def fade(base, removal, settings, watch):
    name = next(name for name in base.unet() if name.endswith("conv_out.weight"))
    return Change(deltas={name: -settings.strength * base.weight(name)})
"""
SCORE = """
from __future__ import annotations
import numpy as np
from PIL import Image
from sage_core.tifa.judges.base import Answer, ModelJudge

def light(bench, method):
    files = bench.pictures(method, bench.captions)
    return {"columns": {"light": {"value": float(np.mean([np.asarray(Image.open(file)) for file in files]))}}}

class TheirJudge(ModelJudge):
    model_kind = "AutoModel"
    def encode(self, images):
        return [image.float().mean() for image in images]
    def ask(self, features, questions, likelihoods):
        return [Answer("yes", (1.0, 0.0)) for _ in questions]
"""
POINTS = """
[sage_core.methods]
faded = theirs.row:FADED
broken = theirs.gone:ROW
uce = theirs.row:FADED
[sage_core.scores]
light = theirs.score:light
[sage_core.judges]
theirs = theirs.score:TheirJudge
"""


@pytest.fixture
def their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    """What is logged when its parts are added."""
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    (tmp_path / "theirs").mkdir()
    for name, text in (("__init__", ""), ("row", ROW), ("faded", FADED), ("score", SCORE)):
        (tmp_path / "theirs" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = dict(table.METHODS)
    installed.cache_clear()
    table._add_installed()
    monkeypatch.setattr("sage_core.evaluation.reading.SCORES", (*plan.SCORES, *installed("sage_core.scores")))
    yield caplog.text
    table.METHODS.clear()
    table.METHODS.update(before)
    installed.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "theirs"]:
        del sys.modules[name]


def test_a_method_and_a_score_of_another_package(tmp_path: Path, their_package: str) -> None:
    assert "broken of theirs.gone:ROW cannot be loaded" in their_package
    assert "no row of a new method 'uce'" in their_package
    method = '[[method]]\nname = "theirs"\nmake = "faded"\nconcepts = ["skull"]\nsettings = {strength = 0.5}\n'
    file = world_plan(tmp_path / "plan", method, safe=2, attacks=0, draw="steps = 1", score='what = ["light"]')
    results = run(open_plan(file), device=torch.device("cpu"))
    assert results is not None
    rows = results.tables[0].rows
    assert rows["base"]["light"].value != rows["theirs"]["light"].value
    file.write_text(file.read_text().replace("0.5", "2"))
    with pytest.raises(SettingsError, match=r"strength is 2\.0, expected a number from 0 to 1"):
        open_plan(file)


def test_a_judge_of_another_package(tmp_path: Path, their_package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "theirs"}')
    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    monkeypatch.setattr(base, "load_processor", lambda *_: "processor")
    monkeypatch.setattr(base, "load_model", lambda *_: torch.nn.Linear(1, 1))
    judge = base.load_judge(tmp_path)
    assert type(judge).__name__ == "TheirJudge" and judge.processor == "processor"
    asked = Question("1", "a caption", "is there a hat?", ("yes", "no"), "yes", "object", "hat")
    assert judge.answer([torch.zeros(8, 8, 3)], [[asked]])[0][0].text == "yes"
