"""Trainings of a redirected U-Net that are stopped, gone on with, found again and refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tiny_unets import check_resumed, checkpoint_state, of_nine_channels, one_layer_encoder, two_level_unet
from torch import Tensor

from sage_core.encoders.text_encoder import TextEncoder
from sage_core.errors import PromptError, SettingsError, UnetError
from sage_core.methods.redirecting import RedirectingSettings, drawing_evaluations, train_redirection
from sage_core.prompts.concept_pairs import pairs_from_concepts
from sage_core.prompts.concepts import ConceptList
from sage_core.prompts.pairs import PromptPairs, pairs_from_lists
from sage_core.runs.store import RunStore
from sage_core.unet.training import EditResult, UnetRun

SETTINGS = RedirectingSettings(steps=4, learning_rate=1e-3, batch_size=2, keep_batch=3, pictures=3, sampling_steps=4)
PAIRS = pairs_from_lists(["a ball", "two balls", "a cube", "a kite"], ["a skull", "two skulls", "a skull", "bones"])
# Evaluations for the pictures: both sides of three pairs, which go through the U-Net at once.
DRAWING = 8


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return checkpoint_state(two_level_unet())


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return one_layer_encoder()


def run(
    state: dict[str, Tensor],
    encoder: TextEncoder,
    store: Path,
    pairs: PromptPairs = PAIRS,
    settings: RedirectingSettings = SETTINGS,
    title: str = "skulls",
    **options: object,
) -> EditResult:
    return train_redirection(UnetRun(state, **{"size": 32} | options), encoder, pairs, settings, store, title=title)


def test_a_finished_training_is_found_again(state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in state.items()}
    first, again = (run(state, encoder, tmp_path) for _ in range(2))
    assert not first.found and again.found and again.history == first.history
    assert first.deltas.keys() == again.deltas.keys() and all(".attn2." in name for name in first.deltas)
    assert all(
        torch.equal(first.deltas[name], again.deltas[name]) and value.any() for name, value in first.deltas.items()
    )
    assert all(torch.equal(value, state[name]) for name, value in before.items())
    assert again.summary().startswith("Found, not trained again: SAGE U-Net, preset sage_unet, concept skulls, 4 steps")
    assert again.metadata["pairs"] == "4" and json.loads(again.metadata["settings"]) == SETTINGS.to_dict()
    (listed,) = RunStore(tmp_path).runs()
    assert listed.finished and "SAGE U-Net, sage_unet, skulls, 4 steps" in listed.summary()


def test_every_input_gives_a_run_of_its_own(state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path) -> None:
    short = SETTINGS.replace(steps=1)
    other_pairs = pairs_from_lists(PAIRS.safe, ["a skull", "two skulls", "a skull", "a bone"])
    changed = {name: value + (0.1 if name.endswith("out.2.bias") else 0) for name, value in state.items()}
    encoders = (encoder, TextEncoder.from_state({name: 2 * value for name, value in encoder.state().items()}))
    results = [
        run(state, encoder, tmp_path, settings=short),
        run(state, encoder, tmp_path, settings=short.replace(strength=0.5)),
        run(state, encoder, tmp_path, settings=short, pairs=other_pairs),
        run(changed, encoder, tmp_path, settings=short),
        run(state, encoders[1], tmp_path, settings=short),
        run(state, encoder, tmp_path, settings=short, size=40),
        run(state, encoder, tmp_path, settings=short, dtype=torch.bfloat16),
    ]
    assert not any(result.found for result in results)
    # What it is called decides nothing.
    assert run(state, encoder, tmp_path, settings=short, title="bones").found


@pytest.mark.parametrize(("hook", "call"), [("on_step", 2), ("on_evaluation", DRAWING + 8)])
def test_a_stopped_training_goes_on_to_the_same_edit(
    hook: str, call: int, state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path
) -> None:
    check_resumed(lambda store, **options: run(state, encoder, store, **options), tmp_path, hook, call, SETTINGS.steps)


@pytest.mark.parametrize(("pictures", "batch"), [(3, 2), (3, 1), (64, 2)])
def test_the_pictures_are_counted_before_the_first_step(
    pictures: int, batch: int, state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path
) -> None:
    settings = SETTINGS.replace(steps=1, pictures=pictures, batch_size=batch, keep_batch=1)
    told: list[tuple[int, int]] = []
    evaluations: list[int] = []
    unet = UnetRun(state, size=32, on_evaluation=lambda: evaluations.append(len(told)))
    train_redirection(unet, encoder, PAIRS, settings, tmp_path, on_draw=lambda *counts: told.append(counts))
    total = drawing_evaluations(len(PAIRS), settings)
    assert told == [(done, total) for done in range(total + 1)]
    # A step evaluates the base for both targets and for what is kept, and the edited U-Net for either.
    assert len(evaluations) - total == 5
    assert total == 2 * settings.sampling_steps * math.ceil(min(pictures, 4) / (batch + 1))


def test_bf16_trains_differences_in_fp32(state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path) -> None:
    found = run(state, encoder, tmp_path, dtype=torch.bfloat16)
    assert all(delta.dtype == torch.float32 and delta.any() for delta in found.deltas.values())


def test_concepts_of_the_pairs_are_the_title(state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path) -> None:
    pairs = pairs_from_concepts(["a ball", "a cube"], ConceptList.of("skull", "bone"))
    short = SETTINGS.replace(steps=1)
    assert run(state, encoder, tmp_path, pairs, short).metadata["concept"] == "skull, bone"
    assert run(state, encoder, tmp_path, PAIRS, short, title=" ").metadata["concept"] == "unnamed"


def test_prompts_that_refer_to_minors_are_never_drawn(
    state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path
) -> None:
    short = SETTINGS.replace(steps=1)
    # Lists of different lengths are not paired row by row, and their safe prompts may show children.
    pairs = pairs_from_lists(["a ball", "a child in a park", "a cube"], ["a skull", "bones"])
    assert len(pairs) == 3 and "a child in a park" in pairs.safe
    found = run(state, encoder, tmp_path, pairs, short)
    assert found.metadata["pairs"] == "2"
    kept = pairs_from_lists(["a ball", "a cube"], ["a skull", "a skull"])
    assert run(state, encoder, tmp_path, kept, short).found
    alone = pairs_from_lists(["a child in a park", "a child on a beach"], ["a skull"])
    with pytest.raises(PromptError, match="2 pairs refer or may refer to a minor on one side"):
        run(state, encoder, tmp_path, alone, short)


def test_what_cannot_be_trained_is_refused(state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="size is 30, expected a multiple of 8"):
        run(state, encoder, tmp_path, size=30)
    with pytest.raises(UnetError, match="reads 9 channels and gives 4"):
        run(of_nine_channels(state), encoder, tmp_path)
    with pytest.raises(UnetError, match="reads states of width 16, and the text encoder gives 8"):
        run(state, one_layer_encoder(width=8), tmp_path)
    assert not list(tmp_path.iterdir())
