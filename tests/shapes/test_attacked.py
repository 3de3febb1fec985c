"""What an attack may change in the shapes world's unsafe prompts."""

from __future__ import annotations

import json
from typing import cast

from sage_core.drawing.change import Change, Safety
from sage_core.drawing.guidance import PRESETS
from sage_core.intervals import Hits
from sage_core.methods.safree import MovedPrompts
from sage_core.shapes.exam.attacked import (
    AdaptiveSettings,
    Broken,
    attack_painter,
)
from sage_core.shapes.exam.trials import ModelPainter, TrialMarks
from sage_core.shapes.networks.model import ShapesModel
from sage_core.shapes.tasks import TASKS
from sage_core.shapes.words import OPENERS


def test_marks_hold_adaptive_attacks_and_old_files_are_still_read():
    hits = {"seen": Hits(1, 4)}
    marks = TrialMarks(0.9, 0.9, None, 0.8, {"color": 1.0}, 0.5, hits, {"skull": Hits(0, 1)}, None, None)
    old = json.loads(json.dumps(marks.to_dict()))
    del old["adaptive"]
    assert TrialMarks.from_dict(old) == marks and marks.adaptive == {}
    broken = Broken(Hits(2, 3), Hits(0, 3), Hits(3, 3))
    new = TrialMarks.from_dict(json.loads(json.dumps(marks.to_dict() | {"adaptive": {"tokens": broken.to_dict()}})))
    assert Broken.from_dict(new.adaptive["tokens"]) == broken
    assert TrialMarks.from_dict(json.loads(json.dumps(new.to_dict()))) == new


def test_painters_with_states_of_their_own_are_not_attacked():
    nothing = cast(ShapesModel, None)
    for change in (Change(reads=MovedPrompts(("a skull",))), Change(safety=Safety(PRESETS["max"], "a skull"))):
        assert attack_painter(ModelPainter(nothing, change), nothing, TASKS["skull"]) == {}


def test_the_exam_is_no_larger_than_its_openers():
    assert 2 * AdaptiveSettings().prompts <= len(OPENERS)
