"""diffusers' U-Net of any sizes, and trainings that are stopped, gone on with, found again and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_unets import WIDTH, check_resumed, checkpoint_state, of_nine_channels, one_layer_encoder, two_level_unet
from torch import Tensor, nn

from sage_core.encoders.text_encoder import TextEncoder
from sage_core.errors import SettingsError, TrainingError, UnetError
from sage_core.methods.concepts import Concepts
from sage_core.methods.erasing import ErasingSettings, train_erasure
from sage_core.runs.store import RunStore
from sage_core.unet.training import UnetRun, diffusers_unet

SETTINGS = ErasingSettings(sampling_steps=4, steps=4, learning_rate=1e-3)
CONCEPTS = Concepts(("a skull",))


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return two_level_unet()


@pytest.fixture(scope="module")
def state(unet: nn.Module) -> dict[str, Tensor]:
    return checkpoint_state(unet)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return one_layer_encoder()


def test_diffusers_unet_computes_the_same_and_owns_its_weights(unet: nn.Module, state: dict[str, Tensor]) -> None:
    built = diffusers_unet(state)
    latents, times, words = torch.randn(2, 4, 8, 8), torch.tensor([5, 900]), torch.randn(2, 77, WIDTH)
    with torch.no_grad():
        assert torch.equal(built(latents, times, words).sample, unet(latents, times, words).sample)
    name = "conv_in.weight"
    assert built.state_dict()[name].data_ptr() != unet.state_dict()[name].data_ptr()
    with pytest.raises(UnetError, match="not a whole U-Net"):
        diffusers_unet({name: value for name, value in state.items() if "middle_block" not in name})


def run(state: dict[str, Tensor], encoder: TextEncoder, store: Path, **options: object):
    return train_erasure(UnetRun(state, size=32, **options), encoder, CONCEPTS, SETTINGS, store, preset="mine")


def test_a_finished_training_is_found_again(state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in state.items()}
    first, again = (run(state, encoder, tmp_path) for _ in range(2))
    assert not first.found and again.found and again.history == first.history
    assert first.deltas.keys() == again.deltas.keys() and all(".attn2." in name for name in first.deltas)
    assert all(torch.equal(first.deltas[name], again.deltas[name]) for name in first.deltas)
    assert all(torch.equal(value, state[name]) for name, value in before.items())
    assert again.summary().startswith("Found, not trained again: ESD-x, preset mine, concept a skull, 4 steps")
    (listed,) = RunStore(tmp_path).runs()
    assert listed.finished and "ESD-x, mine, a skull, 4 steps" in listed.summary()
    changed = {name: value + (0.1 if name.endswith("out.2.bias") else 0) for name, value in state.items()}
    assert not run(changed, encoder, tmp_path).found


@pytest.mark.parametrize(("hook", "call"), [("on_step", 2), ("on_evaluation", 8)])
def test_a_stopped_training_goes_on_to_the_same_edit(
    hook: str, call: int, state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path
) -> None:
    check_resumed(lambda store, **options: run(state, encoder, store, **options), tmp_path, hook, call, SETTINGS.steps)


def test_bf16_trains_differences_in_fp32(state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path) -> None:
    found = run(state, encoder, tmp_path, dtype=torch.bfloat16)
    assert all(delta.dtype == torch.float32 and delta.any() for delta in found.deltas.values())


def test_what_cannot_be_trained_is_refused(state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="size is 30, expected a multiple of 8"):
        train_erasure(UnetRun(state, size=30), encoder, CONCEPTS, SETTINGS, tmp_path)
    narrow = one_layer_encoder(width=8)
    with pytest.raises(UnetError, match="reads states of width 16, and the text encoder gives 8"):
        run(state, narrow, tmp_path)
    wide = of_nine_channels(state)
    with pytest.raises(UnetError, match="reads 9 channels and gives 4"):
        run(wide, encoder, tmp_path)


def test_a_finished_training_that_has_changed_is_refused(
    state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path
) -> None:
    run(state, encoder, tmp_path)
    (report,), (weights,) = tmp_path.glob("*.json"), tmp_path.glob("*.safetensors")
    whole, stored = json.loads(report.read_text()), weights.read_bytes()
    changes: list[Any] = [
        {"metadata": None}, {"metadata": []}, {"metadata": {}}, {"history": None}, {"history": []}, {"history": [1]},
        {"history": whole["history"][:-1]}, {"history": [{**whole["history"][0], "losses": None}] * 4}, {"hash": None},
    ]  # fmt: skip
    contents = [json.dumps(whole | change).encode() for change in changes]
    for content in (b"{", b"[]", b"3", b"null", b"[" * 100_000, b"\xff", *contents):
        report.write_bytes(content)
        with pytest.raises(TrainingError, match="Delete it to train again"):
            run(state, encoder, tmp_path)
    report.write_text(json.dumps(whole))
    weights.write_bytes(stored[:-2] + bytes([stored[-2] ^ 1]) + stored[-1:])
    with pytest.raises(TrainingError, match="its weights have changed since they were written"):
        run(state, encoder, tmp_path)
    weights.write_bytes(stored)
    assert run(state, encoder, tmp_path).found
