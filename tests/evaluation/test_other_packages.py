"""A package of its own adds a method, a score and a judge by entry points alone."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from sage_core.encoders.layouts import TOKEN_TABLE
from sage_core.encoders.tokens import tokenize
from sage_core.errors import SettingsError
from sage_core.evaluation import plan
from sage_core.evaluation.run import open_plan, run
from sage_core.lazy import installed
from sage_core.methods import table
from sage_core.methods.removal import Removal
from sage_core.rows import parse_toml
from sage_core.tifa.judges import base
from sage_core.tifa.questions import Question
from small_worlds import world_plan

# The package of the documents, by its files' names.
DOCUMENTED = {
    block.split("\n")[0].lstrip("# ").split(",")[0]: block
    for block in re.findall(
        r"```\w+\n(# (?:pyproject|swapped/).*?)```",
        (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
}
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
swapped = {swapped}
broken = theirs.gone:ROW
uce = {swapped}
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
    points = parse_toml(DOCUMENTED["pyproject.toml"])["project"]["entry-points"]["sage_core.methods"]
    (info / "entry_points.txt").write_text(POINTS.format(**points))
    for name, text in (DOCUMENTED | {"theirs/__init__.py": "", "theirs/score.py": SCORE}).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = dict(table.METHODS)
    installed.cache_clear()
    table._add_installed()
    monkeypatch.setattr("sage_core.evaluation.reading.SCORES", (*plan.SCORES, *installed("sage_core.scores")))
    yield caplog.text
    table.METHODS.clear()
    table.METHODS.update(before)
    installed.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("theirs", "swapped")]:
        del sys.modules[name]


def test_a_method_and_a_score_of_another_package(tmp_path: Path, their_package: str) -> None:
    assert "broken of theirs.gone:ROW cannot be loaded" in their_package
    assert "no row of a new method 'uce'" in their_package
    from swapped.swap import SwapSettings, swap

    assert list(DOCUMENTED) == ["pyproject.toml", "swapped/row.py", "swapped/swap.py"]
    method = '[[method]]\nname = "theirs"\nmake = "swapped"\nconcepts = ["skull", "two"]\nguides = ["ball"]\n'
    method += "settings = {strength = 0.5}\n"
    file = world_plan(tmp_path / "plan", method, safe=2, attacks=0, draw="steps = 1", score='what = ["light"]')
    results = run(open_plan(file), device=torch.device("cpu"))
    assert results is not None and results.tables[0].rows["theirs"]["light"].value > 0
    skull, two, ball = tokenize(["skull", "two", "ball"])[:, 1]
    base = SimpleNamespace(encoder_state=lambda: {TOKEN_TABLE: torch.arange(49408.0)[:, None]})
    rows = swap(base, Removal(("skull", "two"), ("ball",)), SwapSettings(0.5), None).encoder[TOKEN_TABLE][:, 0]
    assert [float(rows[each]) for each in (skull, two, ball)] == [(skull + ball) / 2, (two + ball) / 2, ball]
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
