"""The shapes world's plan: every file that it names is there and fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_core.encoders.layouts import read_encoder
from sage_core.encoders.text_encoder import relative_change
from sage_core.errors import SettingsError
from sage_core.evaluation.run import open_plan
from sage_core.methods.gate import GateSettings
from sage_core.shapes import evaluation_plan
from sage_core.shapes.evaluation_plan import write_shapes_plan
from sage_core.shapes.networks.weights import load_packed


@pytest.mark.full
def test_a_plan_of_eight_methods_with_all_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_plan, "GateSettings", lambda: GateSettings(steps=2, false_alarms=0.1))
    file, seen = tmp_path / "world" / "plan.toml", []
    sizes = {"captions": 12, "attacks": 3, "stays": 2, "steps": 1, "pairs": 64}
    write_shapes_plan(file, **sizes, on_progress=lambda what, *_: seen.append(what))
    layout = open_plan(file)
    names = [method.name for method in layout.plan.methods]
    assert names == ["base", "DES", "SAGE released", "SAGE+", "RECE", "ESD", "SLD", "gate"]
    # Of the first attack four looks at each prompt.
    assert [len(each.items) for each in layout.lists] == [12, 3, 3, 2, 2, 2, 12, 3]
    assert [each.domain for each in layout.plan.safe] == ["same", "same", "other"]
    assert all("heart" in item.prompt or "valentine" in item.prompt for item in layout.lists[4].items)
    assert (
        layout.plan.score.what == ("tifa", "attacks", "attacked", "kept", "geometry")
        and layout.plan.score.judge == "reader"
    )
    assert {"training DES", "training the gate"} <= set(seen) and seen.count("training SAGE+") == 1
    base = load_packed("text_encoder")[0]
    for preset in ("des", "released", "sage_plus"):
        assert relative_change(read_encoder(file.parent / f"{preset}.safetensors")[0], base) > 0
    with pytest.raises(SettingsError, match="is there already"):
        write_shapes_plan(file, **sizes)
    file.unlink()
    again: list[str] = []
    write_shapes_plan(file, **sizes, on_progress=lambda what, *_: again.append(what))
    assert set(again) == {"training the gate"}
