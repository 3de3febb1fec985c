"""Settings: presets as published, every bad value refused with a message that says what to do."""

from __future__ import annotations

import dataclasses
import json

import pytest

from sage_core.alignment.settings import PRESETS, TrainingSettings, preset_name
from sage_core.errors import SettingsError


def test_the_paper_preset_is_the_published_setting():
    paper = PRESETS["paper"]
    published = {
        "keep_weight": 0.3,
        "spread_weight": 2.0,
        "local_weight": 0.1,
        "neighbours": 15,
        "perturbation": 1.0,
        "concept_scale": 205.0,
        "learning_rate": 1e-5,
        "weight_decay": 0.01,
        "batch_size": 128,
        "epochs": 2,
        "precision": "fp32",
        "target": "farthest",
        "keep_mse": 0.0,
    }
    assert {name: getattr(paper, name) for name in published} == published
    des = paper.replace(spread_weight=0.0, local_weight=0.0, concept_scale=200.0)
    assert PRESETS["des"] == des


@pytest.mark.parametrize("name", PRESETS)
def test_presets_go_through_json_and_know_their_name(name):
    settings = PRESETS[name]
    assert TrainingSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert preset_name(settings.replace(seed=5, precision="bf16", chunk_size=3)) == name
    assert preset_name(settings.replace(epochs=settings.epochs + 1)) == "custom"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("keep_weight", 1.5),
        ("keep_weight", float("nan")),
        ("spread_weight", -1),
        ("learning_rate", 0),
        ("learning_rate", "fast"),
        ("neighbours", 0),
        ("batch_size", 1),
        ("batch_size", 12.5),
        ("epochs", True),
        ("steps", 0),
        ("chunk_size", -3),
        ("seed", -1),
        ("seed", 2**32),
        ("target", "random"),
        ("precision", "fp16"),
        ("scale_unit", "metres"),
        ("keep_concept", "yes"),
        ("concept_scale", float("inf")),
    ],
)
def test_a_bad_value_is_refused_by_name(field, value):
    with pytest.raises(SettingsError, match=field) as caught:
        TrainingSettings(**{field: value})
    assert repr(value) in str(caught.value)


def test_a_batch_must_hold_more_than_the_neighbours_and_the_prompt_itself():
    with pytest.raises(SettingsError, match="more than 16 prompts a batch"):
        TrainingSettings(batch_size=16)
    TrainingSettings(batch_size=17)
    TrainingSettings(batch_size=16, local_weight=0.0)


def test_an_unknown_setting_is_named_with_its_source():
    with pytest.raises(SettingsError, match=r"run\.json.*'lamda'.*keep_weight"):
        TrainingSettings.from_dict({"lamda": 1}, "run.json")
    with pytest.raises(SettingsError, match="'lamda'"):
        TrainingSettings().replace(lamda=1)


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["paper"].epochs = 3


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**10, -(10**10), 1e300])
@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(TrainingSettings)])
def test_numbers_of_any_length_are_refused(field, value):
    with pytest.raises(SettingsError, match=f"^{field} is "):
        PRESETS["paper"].replace(**{field: value})
