"""The names of finished runs: pinned, since a run whose name changes would be trained again by everyone who has it."""

from __future__ import annotations

from typing import Any

import pytest

from sage_core.alignment.settings import PRESETS, TrainingSettings
from sage_core.alignment.training import run_key
from sage_core.errors import SettingsError
from sage_core.prompts.pairs import pairs_from_lists

PAIRS = pairs_from_lists(
    ["two red cats on a mat", "a blue cup left of a plate", "a green door"],
    ["a skull", "two skulls", "a skull in the snow"],
)
BASE_HASH = "ab" * 32


@pytest.mark.parametrize(
    ("preset", "key"),
    [
        # What release 0.1 called "paper".
        ("released", "24e5c3a0bb5d9cda6bc11795ae7ca463"),
        ("des", "96365112864a64d35e031d9ae838483d"),
        ("sage_plus", "74186c2f4d2d0f3c7d639caac2372305"),
    ],
)
def test_the_keys_of_the_presets_of_release_0_1_stay(preset: str, key: str) -> None:
    settings = PRESETS[preset].replace(held_out=128, precision="fp32")
    assert run_key(BASE_HASH, PAIRS, "skull", settings) == key
    # The same said in full.
    assert run_key(BASE_HASH, PAIRS, "skull", settings.replace(target_shift=1.0)) == key


@pytest.mark.parametrize(
    "change",
    [
        {"redirect_weight": 1.0},
        {"spread_form": "symmetric"},
        {"local_form": "product"},
        {"supervision": "pooled"},
        {"neutralise": False},
        {"until": "removed"},
        {"perturbation_unit": "concept"},
        {"precision": "bf16"},
        {"target": "paired"},
        {"seed": 1},
        {"keep_mse": 3.0},
        {"held_out": 3},
    ],
)
def test_whatever_changes_the_result_changes_the_key(change: dict[str, Any]) -> None:
    settings = PRESETS["released"].replace(precision="fp32")
    changed = run_key(BASE_HASH, PAIRS, "skull", settings.replace(**change))
    assert changed != run_key(BASE_HASH, PAIRS, "skull", settings)


def test_so_do_other_weights_pairs_and_concepts_but_not_the_memory_that_it_takes() -> None:
    settings = PRESETS["released"].replace(precision="fp32")
    others = pairs_from_lists(PAIRS.safe, PAIRS.unsafe[::-1])
    keys = [
        run_key(*inputs, settings)
        for inputs in (
            (BASE_HASH, PAIRS, "skull"), ("cd" * 32, PAIRS, "skull"), (BASE_HASH, others, "skull"),
            (BASE_HASH, PAIRS, "bone"),
        )
    ]  # fmt: skip
    assert len(set(keys)) == 4 and run_key(BASE_HASH, PAIRS, "skull", settings.replace(chunk_size=5)) == keys[0]


def test_a_precision_that_is_not_chosen_yet_has_no_key() -> None:
    with pytest.raises(SettingsError, match="precision is 'auto'"):
        run_key(BASE_HASH, PAIRS, "skull", PRESETS["released"])


def test_the_key_of_settings_of_ones_own_stays() -> None:
    settings = TrainingSettings(seed=7, steps=12, chunk_size=4, precision="fp32")
    assert run_key(BASE_HASH, PAIRS, "skull", settings) == "0bf37e099bf4ae9d5490f372e8c0c752"
