"""Tests that hand MODELs of many kinds to the nodes that read or change a U-Net: right work, or a refusal in words.

Run by test_inside.py, in a process of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from loaded_pack import load_pack, make_base
from sage_core.shapes.networks.checkpoint import ExpandedFiles

VALUES = "output_blocks.0.1.transformer_blocks.0.attn2.to_v.weight"
KEY = f"diffusion_model.{VALUES}"
FILE = "diffusion_models/edited.safetensors"
STEPS = 3


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def pack(base: Path) -> ModuleType:
    """The pack's nodes, as ComfyUI's loader would import them, with no server to show progress on."""
    nodes = load_pack(base)
    importlib.import_module("server").PromptServer.instance = None
    return nodes


@pytest.fixture(scope="session")
def weights(pack: ModuleType, shapes_files: ExpandedFiles) -> dict[str, torch.Tensor]:
    """The shapes world's U-Net under a checkpoint's names."""
    found = load_file(shapes_files.checkpoint)
    return {name: value for name, value in found.items() if name.startswith("model.diffusion_model.")}


@pytest.fixture(scope="session")
def files(base: Path, weights: dict[str, torch.Tensor]) -> None:
    """A part of a U-Net with an edited matrix, and the whole that it was made from."""
    folder = base / "models" / "diffusion_models"
    key = f"model.diffusion_model.{VALUES}"
    save_file({key: weights[key] + 0.25}, folder / "edited.safetensors")
    save_file(weights, folder / "whole.safetensors")


@pytest.fixture(scope="session")
def clip(pack: ModuleType, shapes_files: ExpandedFiles) -> Any:
    from pack.nodes.host.clips import load_clip

    return load_clip(shapes_files.text_encoder, "shapes")


def sound(weights: dict[str, torch.Tensor], **options: Any) -> Any:
    import comfy.sd

    copies = {name: value.clone() for name, value in weights.items()}
    return comfy.sd.load_diffusion_model_state_dict(copies, model_options=options)


def eight_bits(weights: dict[str, torch.Tensor]) -> Any:
    return sound(weights, dtype=torch.float8_e4m3fn)


def broken(weights: dict[str, torch.Tensor]) -> Any:
    key = f"model.diffusion_model.{VALUES}"
    return sound(weights | {key: torch.full_like(weights[key], torch.nan)})


def of_kind(kind: str, **sizes: Any) -> Callable[[dict[str, torch.Tensor]], Any]:
    def build(weights: dict[str, torch.Tensor]) -> Any:
        import comfy.model_patcher
        import comfy.supported_models

        config = sound(weights).model.model_config.unet_config
        found = getattr(comfy.supported_models, kind)({**config, "use_linear_in_transformer": True, **sizes})
        return comfy.model_patcher.ModelPatcher(found.get_model({}), torch.device("cpu"), torch.device("cpu"))

    return build


def sampling_as(kind: str) -> Callable[[dict[str, torch.Tensor]], Any]:
    def build(weights: dict[str, torch.Tensor]) -> Any:
        from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete, ModelSamplingSD3

        if kind == "flow":
            return ModelSamplingSD3().patch(sound(weights), 3.0)[0]
        return ModelSamplingDiscrete().patch(sound(weights), kind, False)[0]

    return build


SD2 = of_kind("SD20", context_dim=1024)
SDXL = of_kind("SDXL", context_dim=2048, adm_in_channels=2816, num_classes="sequential")
OTHERS = {
    "SD 2": (SD2, "This MODEL is of the kind SD20; SAGE works on the U-Net of SD 1.x"),
    "SDXL": (SDXL, "This MODEL is of the kind SDXL; SAGE works on the U-Net of SD 1.x"),
    "8 bits": (eight_bits, "as float8_e4m3fn, too coarse .* weight_dtype 'default'"),
}
NAN = "NaN or infinite"


def apply(pack: ModuleType, model: Any, strength: float = 1.0, mode: str = "replace", base_file: str = "none") -> Any:
    return pack.unet.SAGEApplyModelEdit.execute(model, FILE, strength, mode, base_file)


def erase(pack: ModuleType, model: Any, clip: Any, method: str = "uce", **inputs: Any) -> Any:
    values = {"concepts": "skull", "guide": "star", "keep": "", "strength": 1.0, "erase_scale": 0.0, "hold": 0.0}
    rest = {"keep_scale": 0.0, "rounds": 0}
    return pack.unet.SAGEEraseConcept.execute(model, clip, method=method, **values | rest | inputs)


def train(pack: ModuleType, model: Any, clip: Any) -> Any:
    return pack.unet_training.SAGETrainErasure.execute(model, clip, "skull", "", "esd_x", 1, 64, 1, "fp32", 0)


def redirect(pack: ModuleType, model: Any, clip: Any) -> Any:
    pairs = importlib.import_module("pack.sage_core.prompts.pairs").pairs_from_lists(["a ball"], ["a skull"])
    return pack.unet_training.SAGETrainUnet.execute(model, clip, pairs, "skull", 1, 64, 1, "fp32", 0)


def save(pack: ModuleType, before: Any, after: Any, name: str = "saved") -> Any:
    return pack.unet.SAGESaveModelEdit.execute(before, after, name, True)


def works(pack: ModuleType, model: Any, clip: Any) -> dict[str, Callable[[], Any]]:
    """What every node that reads a U-Net's weights does with a MODEL."""
    return {
        "apply": lambda: apply(pack, model),
        "erase": lambda: erase(pack, model, clip),
        "train": lambda: train(pack, model, clip),
        "redirect": lambda: redirect(pack, model, clip),
        "save": lambda: save(pack, model, patched(model)),
    }


def patched(model: Any) -> Any:
    """A clone with a change on one matrix, as a LoRA would put it there."""
    clone = model.clone()
    (weight, _), *_ = clone.get_key_patches("diffusion_model.")[KEY]
    assert clone.add_patches({KEY: ("diff", (torch.ones(weight.shape),))}, 0.5)
    return clone


@pytest.mark.parametrize("kind", OTHERS)
def test_other_models_are_refused_by_every_node_that_reads_weights(
    kind: str, pack: ModuleType, weights: dict, files: None, clip: Any
) -> None:
    build, words = OTHERS[kind]
    for work in works(pack, build(weights), clip).values():
        with pytest.raises(Exception, match=words) as refused:
            work()
        assert type(refused.value).__name__ == "UnetError"


def test_broken_weights_are_refused_by_name(pack: ModuleType, weights: dict, files: None, clip: Any) -> None:
    words = {"apply": f"The base's up_blocks.* holds values that are {NAN}"}
    words["save"] = f"{KEY.removesuffix('.weight')}.* {NAN}"
    for name, work in works(pack, broken(weights), clip).items():
        with pytest.raises(Exception, match=words.get(name, f"This MODEL: {KEY} holds .* {NAN}")) as refused:
            work()
        assert type(refused.value).__name__ == "UnetError"


@pytest.mark.parametrize("kind", ["v_prediction", "lcm", "x0", "flow"])
def test_only_a_model_that_predicts_noise_is_trained(kind: str, pack: ModuleType, weights: dict, clip: Any) -> None:
    for work in (train, redirect):
        with pytest.raises(
            Exception, match=r"A node such as ModelSamplingDiscrete has set this MODEL to predict"
        ) as refused:
            work(pack, sampling_as(kind)(weights), clip)
        assert type(refused.value).__name__ == "UnetError"
    pack.host.models.require_noise_prediction(sampling_as("eps")(weights))


def test_closed_forms_do_not_ask_what_a_model_predicts(pack: ModuleType, weights: dict, clip: Any) -> None:
    """They map states of prompts, whatever the U-Net makes of them."""
    models = (sound(weights), sampling_as("v_prediction")(weights))
    found = [pack.host.models.differences(model, erase(pack, model, clip).args[0]) for model in models]
    assert len(found[0]) == 8 and found[0].keys() == found[1].keys()
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())


def test_an_edit_of_8_bits_is_warned_of_where_it_can_be_applied(pack: ModuleType, weights: dict, files: None) -> None:
    model, report = apply(pack, eight_bits(weights), mode="delta", base_file="diffusion_models/whole.safetensors").args
    assert "weights are in 8 bits, to which ComfyUI rounds the edited ones" in report
    assert pack.host.models.count_patches(model) == 1


@pytest.mark.parametrize(
    ("method", "inputs", "words"),
    [
        ("time", {"keep": "ring"}, "TIME reads no texts to keep: those given have no effect"),
        ("cure", {}, "CURE-style reads no guides: those given have no effect"),
        ("oce", {"keep": "ring"}, "The texts to keep have no effect: OCE's own keep_scale"),
        ("uce", {"erase_scale": 3.0}, "Settings: lam 0.5, erase_scale 3, preserve_scale 1"),
        ("uce", {"strength": 0.0}, "⚠ At strength 0 the MODEL is as it came: nothing is erased"),
    ],
)
def test_the_report_says_what_has_no_effect_and_what_was_used(
    method: str, inputs: dict, words: str, pack: ModuleType, weights: dict, clip: Any
) -> None:
    assert words in erase(pack, sound(weights), clip, method, **inputs).args[1]


def test_every_method_runs_as_comfyui_runs_nodes(pack: ModuleType, weights: dict, clip: Any) -> None:
    """In inference mode, on a MODEL loaded in it, whose tensors may not be written to elsewhere."""
    with torch.inference_mode():
        model = patched(sound(weights))
        for method in pack.unet._FORMS:
            edited, report = erase(pack, model, clip, method).args
            assert "matrices changed by" in report and "the MODEL carries 1 patch(es)" in report
            assert pack.host.models.count_patches(edited) == 2, method


def test_inputs_that_a_method_reads_are_not_warned_of(pack: ModuleType, weights: dict, clip: Any) -> None:
    assert "⚠" not in erase(pack, sound(weights), clip, "uce", keep="ring").args[1]


# -- trainings, as ComfyUI runs them: in inference mode, in which weights are made that let no gradient pass -----------


@pytest.fixture
def said(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the nodes say while they run."""
    told: list[str] = []
    monkeypatch.setattr(pack.host.display, "say", told.append)
    monkeypatch.setattr(pack.host.display, "_TEXT_PAUSE", 0.0)
    return told


def test_a_unet_is_trained_on_one_copy_of_weights_that_are_taken_when_there_is_room(
    pack: ModuleType, weights: dict, clip: Any, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    order, shared = [], []
    training, manager = pack.host.unet_training, pack.host.memory.comfy.model_management
    free, patched_weights, run = manager.free_memory, training.models.patched_weights, training.UnetRun

    def started(state: dict, *rest: Any) -> Any:
        own = {key: values[0][0] for key, values in model.get_key_patches("diffusion_model.").items()}
        shared.append({key for key, weight in own.items() if state[key].data_ptr() != weight.data_ptr()})
        return run(state, *rest)

    monkeypatch.setattr(manager, "free_memory", lambda *about: order.append("room") or free(*about))
    monkeypatch.setattr(
        training.models, "patched_weights", lambda *about: order.append("weights") or patched_weights(*about)
    )
    monkeypatch.setattr(training, "UnetRun", started)
    with torch.inference_mode():
        model = sound(weights)
        results = [train(pack, patched(model), clip), redirect(pack, model, clip)]
    assert order == ["room", "weights"] * 2 and shared == [{KEY}, set()]
    for result in results:
        assert "\nMemory: the weights alone take " in result.args[1]
    assert len([text for text in said if text.startswith("Memory: the weights alone take ")]) == 2
    # One pair, of which a step may take both pictures: 20 steps of the sampler for each.
    drawn = [text for text in said if text.startswith("drawing what the MODEL makes of the pairs, step")]
    assert drawn[0].split()[-1] == "0/40" and " 40/40" in drawn[-1]


def test_a_gates_embedding_is_shown_and_hears_cancel(
    pack: ModuleType, clip: Any, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pack.sage_core.prompts.pairs import pairs_from_lists

    pairs = pairs_from_lists([f"a red ball {i}" for i in range(40)], [f"a red skull {i}" for i in range(40)])
    with torch.inference_mode():
        pack.gate.SAGETrainGate.execute(clip, pairs, 0.1, 2, 0)
    assert [text for text in said if text.startswith("embedding prompts")][-1].startswith("embedding prompts 80/80")
    assert said[-1].startswith("step 2/2")
    monkeypatch.setattr(pack.host.display, "stop_if_cancelled", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt), torch.inference_mode():
        pack.gate.SAGETrainGate.execute(clip, pairs, 0.1, 3, 0)


def test_the_memory_that_is_announced_is_that_of_the_run(
    pack: ModuleType, clip: Any, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pack.sage_core.alignment import memory, training
    from pack.sage_core.alignment.settings import TrainingSettings
    from pack.sage_core.encoders import precision
    from pack.sage_core.encoders.layouts import EncoderConfig
    from pack.sage_core.prompts.pairs import pairs_from_lists

    monkeypatch.setattr(precision, "_cpu_is_faster", lambda: True)
    room, planned, manager = [], [], pack.host.memory.comfy.model_management
    free, plan = manager.free_memory, training.plan_memory
    monkeypatch.setattr(manager, "free_memory", lambda size, *rest: room.append(size) or free(size, *rest))
    monkeypatch.setattr(training, "plan_memory", lambda *about: planned.append(plan(*about)) or planned[-1])
    pairs = pairs_from_lists([f"a red ball {i}" for i in range(12)], [f"a red skull {i}" for i in range(12)])
    settings = TrainingSettings(steps=2, batch_size=6, neighbours=3, held_out=0, precision="auto")
    with torch.inference_mode():
        report = pack.training.SAGETrainEncoder.execute(clip, pairs, "skull", "sage_plus", "planned", 0, settings).args[
            1
        ]
    config = EncoderConfig.of(pack.host.clips.own_weights(clip))
    assert room == [memory.estimate_memory(config, settings.replace(precision="bf16"), 12)]
    assert room[0] < memory.estimate_memory(config, settings, 12)
    assert f"Memory: {planned[0].summary()}, on cpu" in report and "seed 0, bf16" in report
    assert any(planned[0].summary() in text for text in said if text.startswith("embedding prompts"))
    # Whoever has bypassed the settings sees so many steps, before the first.
    assert [text.split()[1].rstrip(",") for text in said if text.startswith("step")] == ["0/2", "1/2", "2/2"]


# -- guidance ----------------------------------------------------------------------------------------------------------


def draw(model: Any, clip: Any, positive: str, negative: str, cfg: float) -> torch.Tensor:
    import comfy.sample

    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    conds = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (positive, negative)]
    return comfy.sample.sample(
        model, noise, STEPS, cfg, "euler", "normal", *conds, torch.zeros_like(noise), disable_pbar=True
    )


def guide(pack: ModuleType, model: Any, clip: Any, safety: str, threshold: float = 100.0) -> Any:
    cond = clip.encode_from_tokens_scheduled(clip.tokenize(safety))
    numbers = {"warmup": 0, "scale": 1e5, "threshold": threshold, "momentum_scale": 0.0, "momentum_beta": 0.0}
    return pack.guidance.SAGEGuidance.execute(model, cond, "custom", **numbers).args[0]


@pytest.mark.parametrize("build", [sound, eight_bits, sampling_as("v_prediction")], ids=["eps", "8 bits", "v"])
def test_guidance_is_exact_whatever_the_weights_and_the_prediction(
    build: Callable, pack: ModuleType, weights: dict, clip: Any
) -> None:
    """With ε_c = ε_0 and mu = 1 it is ordinary guidance by w + 1 away from the safety text."""
    model = build(weights)
    found = draw(guide(pack, model, clip, "a skull"), clip, "a star", "a star", 3.0)
    wanted = draw(model, clip, "a star", "a skull", 4.0)
    plain = draw(model, clip, "a star", "", 4.0)
    assert torch.isfinite(wanted).all() and (wanted - plain).abs().max() > 0.05
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=2e-3)


def test_guidance_takes_half_as_many_evaluations_again(pack: ModuleType, weights: dict, clip: Any) -> None:
    """Three pictures in each batch where ordinary guidance has two, and no batch more."""
    model, batches = sound(weights), []

    def counted(function: Callable, arguments: dict) -> torch.Tensor:
        batches.append(len(arguments["input"]))
        return function(arguments["input"], arguments["timestep"], **arguments["c"])

    model.set_model_unet_function_wrapper(counted)
    draw(model, clip, "a star", "", 4.0)
    assert batches == [2] * STEPS
    batches.clear()
    draw(guide(pack, model, clip, "a skull"), clip, "a star", "", 4.0)
    assert batches == [3] * STEPS
    batches.clear()
    # The negative prompt itself as safety text is ordinary guidance at its own cost.
    draw(guide(pack, model, clip, ""), clip, "a star", "", 4.0)
    assert batches == [2] * STEPS


def test_a_flow_model_is_not_guided(pack: ModuleType, weights: dict, clip: Any) -> None:
    with pytest.raises(Exception, match="is a flow model, whose predictions are no noise") as refused:
        guide(pack, sampling_as("flow")(weights), clip, "a skull")
    assert type(refused.value).__name__ == "UnetError"
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    afterwards = ModelSamplingSD3().patch(guide(pack, sound(weights), clip, "a skull"), 3.0)[0]
    with pytest.raises(Exception, match="is a flow model"):
        draw(afterwards, clip, "a star", "", 4.0)
