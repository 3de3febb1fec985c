"""Settings: presets as published, every bad value refused with a message that says what to do."""

from __future__ import annotations

import dataclasses
import json

import pytest

from sage_core.alignment.settings import PRESETS, TrainingSettings, preset_name
from sage_core.errors import SettingsError

PUBLISHED = {
    "neighbours": 15,
    "perturbation": 1.0,
    "learning_rate": 1e-5,
    "weight_decay": 0.01,
    "batch_size": 128,
    "epochs": 2,
    "target": "farthest",
    "shift": 1.0,
    "keep_mse": 0.0,
    "keep_concept": True,
    "neutralise": True,
    "held_out": 0,
    "local_form": "pearson",
    "spread_form": "hinge",
    "supervision": "tokens",
}
# λ, the weight of removal, λ_ESP, λ_LSA, s, and whether the perturbation is as long as the concept's embedding.
WEIGHTS = {
    "paper": (0.3, 1.0, 0.5, 2.0, 205.0, "concept"),
    "released": (0.3, 0.7, 2.0, 0.1, 205.0, "absolute"),
    "des": (0.3, 0.7, 0.0, 0.0, 200.0, "absolute"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_published_presets_are_as_published(name):
    preset = PRESETS[name]
    assert {field: getattr(preset, field) for field in PUBLISHED} == PUBLISHED
    fields = ("keep_weight", "redirect_share", "spread_weight", "local_weight", "concept_scale", "perturbation_unit")
    assert tuple(getattr(preset, field) for field in fields) == WEIGHTS[name]


def test_the_text_sides_of_safeclip_and_safer_clip_differ_in_their_targets_alone():
    paired, nearest = PRESETS["safeclip"], PRESETS["safer_clip"]
    assert paired.replace(target="nearest") == nearest
    assert (paired.supervision, paired.shift, paired.keep_weight, paired.redirect_share) == ("pooled", 0.0, 0.5, 0.5)


def test_only_the_farthest_target_is_moved_unless_told_otherwise():
    assert [TrainingSettings(target=target).shift for target in ("farthest", "paired", "nearest")] == [1.0, 0.0, 0.0]
    assert TrainingSettings(target="paired", target_shift=1.0).shift == 1.0
    assert TrainingSettings(target_shift=0.0).shift == 0.0


@pytest.mark.parametrize("name", PRESETS)
def test_presets_go_through_json_and_know_their_name(name):
    settings = PRESETS[name]
    assert TrainingSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert preset_name(settings.replace(seed=5, precision="bf16", chunk_size=3)) == name
    changed = {"epochs": settings.epochs + 1, "batch_size": settings.batch_size + 8, "warmup": 3, "weight_decay": 0.5}
    for count, words in enumerate(["1 setting", "2 settings", "3 settings"], start=1):
        assert preset_name(settings.replace(**dict(list(changed.items())[:count]))) == f"{name}, {words} changed"
    assert preset_name(settings.replace(**changed)) == "custom"


def test_a_batch_must_hold_more_than_the_neighbours_and_the_prompt_itself():
    with pytest.raises(SettingsError, match="more than 16 prompts a batch"):
        TrainingSettings(batch_size=16)
    TrainingSettings(batch_size=17)
    TrainingSettings(batch_size=16, local_weight=0.0)


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**10, -(10**10), 1e300])
@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(TrainingSettings)])
def test_numbers_of_any_length_are_refused(field, value):
    with pytest.raises(SettingsError, match=f"^{field} is "):
        PRESETS["paper"].replace(**{field: value})
