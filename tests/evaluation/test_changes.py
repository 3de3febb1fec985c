"""Methods of a plan in a model, against diffusers' pipeline and sums by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sage_core.drawing.models import Model
from sage_core.drawing.noise import make_scheduler, noise_of
from sage_core.drawing.pictures import ChangedModel
from sage_core.encoders.lora import apply_lora, extract_lora, save_lora
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.encoders.tokens import tokenize
from sage_core.errors import EncoderError, SageError, SettingsError, UnetError
from sage_core.evaluation.bases import load
from sage_core.evaluation.changes import change_of
from sage_core.evaluation.drawing import draw_batch
from sage_core.evaluation.plan import Drawing, Making, MethodPlan, Part
from sage_core.evaluation.prompts import Item
from sage_core.methods.gate import GateSettings, train_gate
from sage_core.methods.gate_file import save_gate
from sage_core.shapes.bench.methods import METHODS, Ground
from sage_core.shapes.tasks import TASKS
from small_worlds import moved_encoder, tiny_checkpoint, tiny_folder

PROMPTS = ["two red stars on the grass", "a blue ring at night", "three skulls in the snow"]
SEEDS = [0, 1, 2]
WORLD = Drawing("ddim", 3, 2.0, 64, 64, 0, 1, 3, "fp32", 1)
PHOTO = replace(WORLD, width=32, height=32)
BASE = MethodPlan("base")


@pytest.fixture(scope="module")
def model() -> Model:
    return load(None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("tiny"))


def changed(model: Model, method: MethodPlan) -> ChangedModel:
    return ChangedModel(model, change_of(method, model))


def drawn(model: Model, method: MethodPlan, drawing: Drawing = WORLD) -> torch.Tensor:
    items = [Item(seed, "", str(seed), text, seed) for seed, text in zip(SEEDS, PROMPTS, strict=True)]
    return draw_batch(changed(model, method), items, drawing, method.name)


def test_closed_forms_are_those_of_the_bench_and_leave_no_trace(model) -> None:
    task = TASKS["skull"]
    ground = Ground(model, model.encoder.state(), task, task.pairs(8, seed=1), 0)
    names = tuple(name.text for concept in task.concepts for name in concept.seen)
    before = drawn(model, BASE)
    expected = replace(METHODS["uce_paper"].parts[0], keep=False).make(ground).deltas
    making = Making("uce_paper", names)
    found = drawn(model, MethodPlan("uce", make=making))
    solved = change_of(MethodPlan("uce", make=making), model).deltas
    assert solved.keys() == expected.keys() and len(solved) > 2
    for name, delta in solved.items():
        torch.testing.assert_close(delta, expected[name])
    half = drawn(model, MethodPlan("uce", make=replace(making, strength=0.0)))
    assert torch.equal(half, before) and torch.equal(drawn(model, BASE), before) and not torch.equal(found, before)


def test_text_encoders_take_a_strength_and_loras_add_up(model, tmp_path: Path) -> None:
    base = model.encoder.state()
    file = moved_encoder(tmp_path)
    aligned = load_file(file)
    whole = change_of(MethodPlan("whole", text_encoder=Part(file)), model).encoder
    half = change_of(MethodPlan("half", text_encoder=Part(file, 0.5)), model).encoder
    name = "text_model.encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(whole[name], aligned[name])
    torch.testing.assert_close(half[name], (base[name] + aligned[name]) / 2)
    lora = extract_lora(base, aligned, rank=8)
    save_lora(tmp_path / "lora.safetensors", lora, {})
    twice = change_of(MethodPlan("lora", loras=(Part(tmp_path / "lora.safetensors", 2.0),)), model)
    torch.testing.assert_close(twice.encoder[name], apply_lora(base, lora.tensors, 2.0)[name])
    assert change_of(BASE, model).summary() == "nothing" and changed(model, BASE).encoder is model.encoder


def test_a_gate_routes_or_refines_what_it_flags_alone(model, tmp_path: Path) -> None:
    pairs = TASKS["skull"].pairs(80, seed=3)
    settings = GateSettings(steps=60, batch_size=16, false_alarms=0.05)
    gate = train_gate(model.encoder, pairs.safe, pairs.unsafe, settings)
    save_gate(tmp_path / "gate.safetensors", gate)
    file = moved_encoder(tmp_path)
    plain = changed(model, BASE).texts(PROMPTS)
    assert gate.flags(plain.prompted).tolist() == [False, False, True]
    routing = MethodPlan("g", gate=tmp_path / "gate.safetensors", text_encoder=Part(file), sld="max")
    routed = changed(model, routing).texts(PROMPTS)
    refined = changed(model, MethodPlan("g", gate=tmp_path / "gate.safetensors")).texts(PROMPTS)
    for texts in (routed, refined):
        assert torch.equal(texts.prompted[:2], plain.prompted[:2]) and torch.equal(texts.plain, plain.plain)
        assert not torch.equal(texts.prompted[2], plain.prompted[2])
    expected = changed(model, MethodPlan("t", text_encoder=Part(file))).texts(PROMPTS).prompted
    torch.testing.assert_close(routed.prompted[2], expected[2])
    # What no gate looks at is read by the base, the safety text too.
    assert torch.equal(routed.safety, changed(model, MethodPlan("s", sld="max")).texts(PROMPTS).safety)
    other = load(None)
    other.encoder = TextEncoder.from_state(load_file(file))
    with pytest.raises(EncoderError, match="another text encoder"):
        change_of(MethodPlan("g", gate=tmp_path / "gate.safetensors"), other)
    with pytest.raises(EncoderError, match="another text encoder"):
        ChangedModel(other, change_of(MethodPlan("g", gate=tmp_path / "gate.safetensors"), model))


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpmpp_2m"])
def test_pictures_are_those_of_diffusers_pipeline(folder: Path, sampler: str) -> None:
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

    found = drawn(load(folder), BASE, replace(PHOTO, sampler=sampler, steps=5))
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
    pipeline = StableDiffusionPipeline(
        vae, None, None, unet, make_scheduler(sampler), None, None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    encoder = TextEncoder.from_file(folder / "text_encoder")
    with torch.no_grad():
        prompted, plain = encoder(tokenize(PROMPTS)), encoder(tokenize([""] * 3))
    expected = pipeline(
        prompt_embeds=prompted, negative_prompt_embeds=plain, latents=noise_of(SEEDS, (4, 4, 4)), guidance_scale=2.0,
        num_inference_steps=5, output_type="pt",
    ).images  # fmt: skip
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_draws_nearly_the_same(folder: Path, dtype: torch.dtype) -> None:
    expected = drawn(load(folder), BASE, PHOTO)
    model = load(folder).to(torch.device("cpu"), dtype)
    found = drawn(model, MethodPlan("SLD", sld="max", safety_text="red"), replace(PHOTO, guidance=1.0))
    plain = drawn(model, BASE, PHOTO)
    assert (plain - expected).abs().mean() < 0.02 and found.dtype == torch.float32
    assert next(model.vae.parameters()).dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)


def test_a_checkpoint_draws_what_its_folder_draws(folder: Path, tmp_path: Path) -> None:
    file = tiny_checkpoint(folder, tmp_path / "tiny.safetensors")
    expected = drawn(load(folder), BASE, PHOTO)
    assert torch.equal(drawn(load(file), BASE, PHOTO), expected)
    torch.save({"state_dict": load_file(file)}, tmp_path / "tiny.ckpt")
    assert torch.equal(drawn(load(tmp_path / "tiny.ckpt"), BASE, PHOTO), expected)
    assert expected.std() > 0.01


def test_files_that_edit_the_unet_are_applied_and_undone(folder: Path, tmp_path: Path) -> None:
    model = load(folder)
    before = drawn(model, BASE, PHOTO)
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight"
    edited = model.weight(name) * 3
    save_file({name: edited}, tmp_path / "part.safetensors")
    method = MethodPlan("part", unet=Part(tmp_path / "part.safetensors", 0.5))
    found = drawn(model, method, PHOTO)
    torch.testing.assert_close(dict(model.unet.named_parameters())[name], model.weight(name) * 2)
    assert not torch.equal(found, before) and torch.equal(drawn(model, BASE, PHOTO), before)
    save_file({"something.weight": edited}, tmp_path / "nothing.safetensors")
    with pytest.raises(UnetError, match=r"nothing of an SD 1\.x U-Net"):
        drawn(model, MethodPlan("nothing", unet=Part(tmp_path / "nothing.safetensors")), PHOTO)


def test_what_is_no_whole_model_is_refused(folder: Path, tmp_path: Path) -> None:
    file = tiny_checkpoint(folder, tmp_path / "tiny.safetensors")
    tensors = load_file(file)
    for start, words in (("first_stage_model.", "no autoencoder"), ("cond_stage_model.", "text encoder")):
        save_file({k: v for k, v in tensors.items() if not k.startswith(start)}, tmp_path / "part.safetensors")
        with pytest.raises(SageError, match=words):
            load(tmp_path / "part.safetensors")
    save_file({k: v for k, v in tensors.items() if "decoder.up.0.block.0" not in k}, tmp_path / "part.safetensors")
    with pytest.raises(SettingsError, match="autoencoder is not whole"):
        load(tmp_path / "part.safetensors")
    (folder / "scheduler" / "scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    with pytest.raises(SettingsError, match="prediction_type is 'v_prediction'"):
        load(folder)
    (folder / "scheduler" / "scheduler_config.json").unlink()


def test_a_model_that_draws_nan_is_not_scored(folder: Path) -> None:
    model = load(folder)
    with torch.no_grad():
        next(model.vae.parameters()).fill_(float("nan"))
        model.vae.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(SettingsError, match=r"draws NaN in .*draw\.precision"):
        drawn(model, BASE, PHOTO)
