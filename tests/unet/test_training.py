"""diffusers' U-Net of any sizes, and trainings of one that are stopped, gone on with, found again and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_unets import WIDTH, checkpoint_state, of_nine_channels, one_layer_encoder, ramp, two_level_unet
from torch import Tensor, nn

from sage_core.encoders.text_encoder import TextEncoder
from sage_core.errors import SettingsError, UnetError
from sage_core.methods.concepts import Concepts
from sage_core.methods.erasing import ErasingSettings, train_erasure
from sage_core.methods.redirecting import RedirectingSettings, train_redirection
from sage_core.prompts.pairs import pairs_from_lists
from sage_core.runs.store import RunStore
from sage_core.unet.training import EditResult, UnetRun, diffusers_unet, watched

ERASING = ErasingSettings(sampling_steps=4, steps=4, learning_rate=1e-3)
REDIRECTING = RedirectingSettings(steps=4, learning_rate=1e-3, batch_size=2, keep_batch=3, pictures=3, sampling_steps=4)
PAIRS = pairs_from_lists(["a ball", "two balls", "a cube", "a kite"], ["a skull", "two skulls", "a skull", "bones"])
METHODS: dict[str, Callable[[UnetRun, TextEncoder, Path], EditResult]] = {
    "esd": lambda *run: train_erasure(*run[:2], Concepts(("a skull",)), ERASING, run[2], preset="mine"),
    "redirect": lambda *run: train_redirection(*run[:2], PAIRS, REDIRECTING, run[2], title="skulls"),
}
methods = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return two_level_unet()


@pytest.fixture(scope="module")
def state(unet: nn.Module) -> dict[str, Tensor]:
    return checkpoint_state(unet)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return one_layer_encoder()


def test_what_a_look_raises_ends_an_evaluation_and_its_way_back(state: dict[str, Tensor]) -> None:
    class Stop(Exception):
        pass

    back = False

    def stop() -> None:
        if back:
            raise Stop

    built = watched(diffusers_unet(state), stop)
    states = torch.randn(1, 77, WIDTH, requires_grad=True)
    found = built(torch.randn(1, 4, 8, 8), torch.tensor([5]), states).sample
    back = True
    with pytest.raises(Stop):
        found.sum().backward()
    with pytest.raises(Stop):
        built(torch.randn(1, 4, 8, 8), torch.tensor([5]), states)


def test_diffusers_unet_computes_the_same_and_owns_its_weights(unet: nn.Module, state: dict[str, Tensor]) -> None:
    built = diffusers_unet(state)
    latents, times, words = torch.randn(2, 4, 8, 8), torch.tensor([5, 900]), torch.randn(2, 77, WIDTH)
    with torch.no_grad():
        assert torch.equal(built(latents, times, words).sample, unet(latents, times, words).sample)
    # Each layer looks whether to stop, there and back, and changes nothing.
    looks: list[int] = []
    states = words.clone().requires_grad_(True)
    found = watched(built, lambda: looks.append(len(looks)))(latents, times, states).sample
    assert torch.equal(found, unet(latents, times, words).sample)
    there = len(looks)
    (slope,) = torch.autograd.grad(found.sum(), states)
    layers = sum(name.split(".")[-2:-1] in (["resnets"], ["attentions"]) for name, _ in built.named_modules())
    assert there == layers > 4 and len(looks) > there
    other = words.clone().requires_grad_(True)
    assert torch.equal(slope, torch.autograd.grad(unet(latents, times, other).sample.sum(), other)[0])
    name = "conv_in.weight"
    assert built.state_dict()[name].data_ptr() != unet.state_dict()[name].data_ptr()
    with pytest.raises(UnetError, match="not a whole U-Net"):
        diffusers_unet({name: value for name, value in state.items() if "middle_block" not in name})


@methods
def test_a_finished_training_is_found_again(
    method: str, state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in state.items()}
    first, again = (METHODS[method](UnetRun(state, size=32), encoder, tmp_path) for _ in range(2))
    assert not first.found and again.found and again.history == first.history and again.metadata == first.metadata
    assert first.deltas.keys() == again.deltas.keys() and all(".attn2." in name for name in first.deltas)
    assert all(torch.equal(delta, again.deltas[name]) and delta.any() for name, delta in first.deltas.items())
    assert all(torch.equal(value, state[name]) for name, value in before.items())
    about = {"esd": "ESD-x, preset mine, concept a skull", "redirect": "SAGE U-Net, preset sage_unet, concept skulls"}
    assert again.summary().startswith(f"Found, not trained again: {about[method]}, 4 steps")
    settings = {"esd": ERASING, "redirect": REDIRECTING}[method]
    assert json.loads(again.metadata["settings"]) == settings.to_dict()
    hashes = [again.metadata[name] for name in ("unet_hash", "encoder_hash", "hash")]
    assert len(set(hashes)) == 3 and again.metadata["size"] == "32" and again.metadata["precision"] == "float32"
    (listed,) = RunStore(tmp_path).runs()
    shown = about[method].replace("preset ", "").replace("concept ", "")
    assert listed.finished and listed.summary().endswith(f"{shown}, 4 steps") and listed.metadata == again.metadata


@pytest.mark.parametrize(
    ("method", "key"),
    [("esd", "59a450b489eadfc49518c41afcfb5277"), ("redirect", "3be05fbb63504650e526731f296df157")],
)
def test_the_names_of_runs_stay(
    method: str, key: str, state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path
) -> None:
    """Those of before methods had recipes: a run whose name changes would be trained again by everyone who has it."""

    class Stop(Exception):
        pass

    def stop(_report: object) -> None:
        raise Stop

    exact = TextEncoder.from_state(ramp(encoder.state())).requires_grad_(False)
    with pytest.raises(Stop):
        METHODS[method](UnetRun(ramp(state), size=32, on_step=stop), exact, tmp_path)
    assert [path.name for path in tmp_path.glob("*.checkpoint")] == [f"{key}.checkpoint"]


@methods
def test_every_input_gives_a_run_of_its_own(
    method: str, state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path
) -> None:
    changed = {name: value + (0.1 if name.endswith("out.2.bias") else 0) for name, value in state.items()}
    other = TextEncoder.from_state({name: 2 * value for name, value in encoder.state().items()})
    inputs: list[tuple[dict[str, Tensor], TextEncoder, dict[str, Any]]] = [
        (state, encoder, {}), (changed, encoder, {}), (state, other, {}), (state, encoder, {"size": 40}),
        (state, encoder, {"dtype": torch.bfloat16}),
    ]  # fmt: skip
    results = [
        METHODS[method](UnetRun(weights, **{"size": 32} | options), texts, tmp_path)
        for weights, texts, options in inputs
    ]
    assert not any(result.found for result in results)
    # Differences are trained in fp32 whatever the U-Net computes in.
    assert all(delta.dtype == torch.float32 and delta.any() for delta in results[-1].deltas.values())


@pytest.mark.parametrize(
    ("method", "hook", "call"), [("esd", "on_step", 2), ("esd", "on_evaluation", 8), ("redirect", "on_evaluation", 16)]
)
def test_a_stopped_training_goes_on_to_the_same_edit(
    method: str, hook: str, call: int, state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    calls = 0

    def stop(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Stop

    def run(store: str, **options: Any) -> EditResult:
        return METHODS[method](UnetRun(state, size=32, **options), encoder, tmp_path / store)

    with pytest.raises(Stop):
        run("parts", **{hook: stop})
    assert list((tmp_path / "parts").glob("*.checkpoint"))
    done: list[int] = []
    parts = run("parts", on_step=lambda report: done.append(report.step))
    whole = run("whole")
    assert 0 < len(done) < 4 and parts.deltas.keys() == whole.deltas.keys()
    assert all(torch.equal(parts.deltas[name], whole.deltas[name]) for name in whole.deltas)


def test_what_cannot_be_trained_is_refused(state: dict[str, Tensor], encoder: TextEncoder, tmp_path: Path) -> None:
    train = METHODS["esd"]
    with pytest.raises(SettingsError, match="size is 30, expected a multiple of 8"):
        train(UnetRun(state, size=30), encoder, tmp_path)
    with pytest.raises(UnetError, match="reads states of width 16, and the text encoder gives 8"):
        train(UnetRun(state, size=32), one_layer_encoder(width=8), tmp_path)
    with pytest.raises(UnetError, match="reads 9 channels and gives 4"):
        train(UnetRun(of_nine_channels(state), size=32), encoder, tmp_path)
    assert not list(tmp_path.iterdir())
