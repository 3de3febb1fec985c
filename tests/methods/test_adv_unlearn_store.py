"""AdvUnlearn trainings that are stopped, gone on with, found again and refused, and what is said of their memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_unets import WIDTH, checkpoint_state, of_nine_channels, one_layer_encoder, ramp
from torch import Tensor

from sage_core.encoders.layouts import VIT_L_14, read_encoder
from sage_core.encoders.text_encoder import TextEncoder, state_hash
from sage_core.errors import EncoderError, PromptError, SettingsError, UnetError
from sage_core.geometry.comparison import GeometrySettings, compare_encoders
from sage_core.methods.adv_unlearn import AdvUnlearnSettings
from sage_core.methods.adv_unlearn_store import AdvUnlearnResult, plan_unlearning, train_adv_unlearn
from sage_core.methods.concepts import Concepts
from sage_core.runs.store import RunStore
from sage_core.shapes.networks.model import build_unet
from sage_core.unet.names import SD1, unet_names
from sage_core.unet.training import UnetRun

SETTINGS = AdvUnlearnSettings(sampling_steps=4, steps=4, learning_rate=1e-3, retain_batch=2)
CONCEPTS = Concepts(("a skull",))
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def unet() -> State:
    torch.manual_seed(0)
    return checkpoint_state(build_unet(32, WIDTH))


@pytest.fixture(scope="module")
def base() -> State:
    return one_layer_encoder().state()


def run(unet: State, base: State, store: Path, **options: Any) -> AdvUnlearnResult:
    own = {name: options.pop(name) for name in ("retain", "free_memory") if name in options}
    concepts, settings = options.pop("concepts", CONCEPTS), options.pop("settings", SETTINGS)
    return train_adv_unlearn(UnetRun(unet, **{"size": 32} | options), base, concepts, settings, store, **own)


def test_a_finished_training_is_found_again_and_is_an_encoder_to_all_else(
    unet: State, base: State, tmp_path: Path
) -> None:
    before = [{name: value.clone() for name, value in state.items()} for state in (unet, base)]
    first, again = (run(unet, base, tmp_path) for _ in range(2))
    assert not first.found and again.found and again.history == first.history
    assert again.summary().startswith("Found, not trained again: AdvUnlearn, fast, concept a skull, 4 steps in ")
    assert "60 everyday prompts" in again.summary() and "retain 0 → " in again.summary()
    for state, old in zip((unet, base), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in old.items())
    assert first.state.keys() == again.state.keys() == base.keys()
    assert all(value.dtype == torch.float32 for value in first.state.values())
    assert all(torch.equal(value, again.state[name]) for name, value in first.state.items())

    (weights,) = tmp_path.glob("*.safetensors")
    state, metadata = read_encoder(weights)
    wanted = {"method": "AdvUnlearn", "concept": "a skull", "steps": "4", "base_hash": state_hash(base)}
    assert wanted.items() <= metadata.items()
    assert metadata["hash"] == state_hash(state) != metadata["base_hash"]
    assert json.loads(metadata["settings"]) == SETTINGS.to_dict()
    encoders = (TextEncoder.from_state(each) for each in (base, state))
    prompts = ["a dog", "a red car", "two cats", "a house", "a tree in snow", "a man"]
    assert compare_encoders(*encoders, prompts, settings=GeometrySettings(k=2, more_k=(1,))).spread_ratio.value != 1
    (listed,) = RunStore(tmp_path).runs()
    assert listed.finished and "AdvUnlearn, fast, a skull, 4 steps" in listed.summary()


def test_every_input_gives_a_run_of_its_own(unet: State, base: State, tmp_path: Path) -> None:
    # Two steps: in the first one nothing retained has moved yet.
    short = SETTINGS.replace(steps=2)
    runs: list[dict[str, Any]] = [
        {}, {"settings": short.replace(radius=0.0)}, {"settings": short.replace(attack_steps=2)},
        {"settings": short.replace(seed=1)}, {"retain": ["a cat", "a dog"]}, {"dtype": torch.bfloat16},
    ]  # fmt: skip
    results = [run(unet, base, tmp_path, **{"settings": short} | options) for options in runs]
    results.append(run(unet, base, tmp_path, concepts=Concepts(("a skull",), ("a ball",)), settings=short))
    changed = {name: value + (0.1 if name.endswith("out.2.bias") else 0) for name, value in unet.items()}
    results.append(run(changed, base, tmp_path, settings=short))
    assert not any(result.found for result in results)
    assert len({result.metadata["hash"] for result in results}) == len(results)
    assert [result.metadata["preset"] for result in results[:3]] == ["fast", "without attack", "2 attack steps"]
    assert results[4].metadata["retained"] == "2 retain prompts"


def test_a_stopped_training_goes_on_to_the_same_encoder(unet: State, base: State, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    done: list[object] = []
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += bool(done)
        # In a layer of an evaluation in the second step.
        if calls == 10:
            raise Stop

    with pytest.raises(Stop):
        run(unet, base, tmp_path / "parts", on_step=done.append, on_evaluation=stop)
    assert len(done) == 1
    assert list((tmp_path / "parts").glob("*.checkpoint"))
    steps: list[int] = []
    parts = run(unet, base, tmp_path / "parts", on_step=lambda report: steps.append(report.step))
    whole = run(unet, base, tmp_path / "whole")
    assert 0 < len(steps) < SETTINGS.steps
    assert all(torch.equal(parts.state[name], whole.state[name]) for name in whole.state)


def test_the_name_of_a_run_stays(unet: State, base: State, tmp_path: Path) -> None:
    """A run whose name changes would be trained again by everyone who has it."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(ramp(unet), ramp(base), tmp_path, on_step=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["a1b083529bdcd3c1a87157d9192b0aa0.checkpoint"]


def test_little_memory_is_told_and_gives_the_same_encoder(unet: State, base: State, tmp_path: Path) -> None:
    settings = SETTINGS.replace(steps=1)
    plan = plan_unlearning(unet, base, settings, size=32)
    assert plan.chunk == 3 and plan.summary().startswith("about 0.0 GiB, 3 pictures")
    assert plan_unlearning(unet, base, settings, size=32, free=plan.bytes).chunk == 3
    less = plan_unlearning(unet, base, settings, size=32, free=plan.bytes - 1)
    assert less.chunk == 2 and less.bytes < plan.bytes
    assert plan_unlearning(unet, base, settings, size=32, free=0).chunk == 1
    whole = run(unet, base, tmp_path / "whole", settings=settings)
    parts = run(unet, base, tmp_path / "parts", settings=settings, free_memory=0)
    assert whole.history[0].losses == pytest.approx(parts.history[0].losses, rel=1e-4, abs=1e-9)


def test_memory_of_a_whole_sd1() -> None:
    """Activations as counted on tensors without values: 1.37 GiB a picture of 512 pixels in fp32, and what passes."""
    with torch.device("meta"):
        unet = {name: torch.empty(shape) for name, shape in unet_names(SD1).shapes.items()}
        base = {name: torch.empty(shape) for name, shape in VIT_L_14.shapes().items()}
    settings = AdvUnlearnSettings()
    whole = plan_unlearning(unet, base, settings)
    one = plan_unlearning(unet, base, settings, free=0)
    picture = (whole.bytes - one.bytes) / 5 / 2**30
    assert (whole.chunk, one.chunk) == (6, 1)
    assert picture == pytest.approx(1.5 * 1.3724, rel=0.01)
    # The U-Net, two encoders, and of the layers gradients and Adam's moments.
    assert one.bytes / 2**30 - picture == pytest.approx((859.5e6 + 2 * 123.06e6 + 3 * 85.05e6) * 4 / 2**30, rel=0.01)
    half = plan_unlearning(unet, base, settings, dtype=torch.bfloat16, size=256)
    assert half.bytes < whole.bytes / 2


def test_what_cannot_be_trained_is_refused(unet: State, base: State, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="size is 30, expected a multiple of 8"):
        run(unet, base, tmp_path, size=30)
    with pytest.raises(SettingsError, match="layers is 2, and the text encoder has 1"):
        run(unet, base, tmp_path, settings=SETTINGS.replace(layers=2))
    with pytest.raises(PromptError, match="names the concept 'a skull'"):
        run(unet, base, tmp_path, retain=["a dog", "A skull on sand"])
    with pytest.raises(UnetError, match="reads 9 channels and gives 4"):
        run(of_nine_channels(unet), base, tmp_path)
    name = "model.diffusion_model.input_blocks.0.0.weight"
    with pytest.raises(UnetError, match=r"input_blocks.0.0.weight holds .* values that are NaN or infinite"):
        run(unet | {name: unet[name] * float("nan")}, base, tmp_path)
    name = "text_model.final_layer_norm.weight"
    with pytest.raises(EncoderError, match="NaN or infinite"):
        run(unet, base | {name: base[name] * float("nan")}, tmp_path)
    with pytest.raises(
        UnetError, match=r"reads states of width 16, and the text encoder gives 32.*SD 2 has width 1024"
    ):
        run(unet, one_layer_encoder(width=32).state(), tmp_path)
    assert not list(tmp_path.iterdir()), "it was refused before anything was written"
