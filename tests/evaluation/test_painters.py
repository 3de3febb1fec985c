"""Methods in a model, against the world's own painters, diffusers' pipeline, and sums by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sage_core.encoders.lora import apply_lora, extract_lora, save_lora
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.errors import EncoderError, SageError, SettingsError, UnetError
from sage_core.evaluation.bases import load
from sage_core.evaluation.painters import Studio
from sage_core.evaluation.plan import Drawing, Erase, MethodPlan, Part
from sage_core.methods.gate import GateSettings, save_gate, train_gate
from sage_core.shapes.bench.methods import METHODS, Ground
from sage_core.shapes.bench.painters import GuidedPainter, SafreePainter
from sage_core.shapes.exam.trials import ModelPainter
from sage_core.shapes.networks.weights import load_model
from sage_core.shapes.tasks import TASKS
from small_worlds import moved_encoder, tiny_checkpoint, tiny_folder

PROMPTS = ["two red stars on the grass", "a blue ring at night", "three skulls in the snow"]
SEEDS = [0, 1, 2]
WORLD = Drawing("ddim", 3, 2.0, 64, 64, 0, 1, 3, "fp32", 1)
PHOTO = replace(WORLD, width=32, height=32)
BASE = MethodPlan("base")


@pytest.fixture(scope="module")
def world():
    return load_model()


@pytest.fixture(scope="module")
def studio():
    return Studio(load(None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("tiny"))


def drawn(studio: Studio, method: MethodPlan, drawing: Drawing = WORLD) -> torch.Tensor:
    return studio.painter(method, drawing).draw(PROMPTS, SEEDS)


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The world's own painters compute in bf16 where that is fast; here they compute in fp32."""
    for module in ("exam.trials", "bench.painters"):
        monkeypatch.setattr(f"sage_core.shapes.{module}.drawing_precision", lambda device: None)


def test_the_base_and_guided_prompts_are_those_of_the_world(world, studio) -> None:
    ours = {
        "base": drawn(studio, BASE),
        "sld": drawn(studio, MethodPlan("sld", sld="max", safety_text="a skull")),
        "safree": drawn(studio, MethodPlan("safree", safree=("a skull", "a cranium"))),
    }
    theirs = {
        "base": ModelPainter(world),
        "sld": GuidedPainter(world, "a skull", "max"),
        "safree": SafreePainter(world, ["a skull", "a cranium"]),
    }
    for name, painter in theirs.items():
        expected = painter.draw(PROMPTS, steps=3, weight=2.0)
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=1e-4)
    assert (ours["base"] - ours["sld"]).abs().max() > 0.05 and (ours["base"] - ours["safree"]).abs().max() > 0.05


def test_a_picture_depends_on_its_prompt_and_seed_alone(studio) -> None:
    painter = studio.painter(BASE, WORLD)
    whole = painter.draw(PROMPTS, SEEDS)
    alone = painter.draw(PROMPTS[1:2], SEEDS[1:2])
    torch.testing.assert_close(whole[1:2], alone, rtol=0, atol=1e-4)
    assert torch.equal(painter.draw(PROMPTS, SEEDS), whole)


def test_closed_forms_are_those_of_the_bench_and_leave_no_trace(world, studio) -> None:
    task = TASKS["skull"]
    ground = Ground(world, world.encoder.state(), task, task.pairs(8, seed=1), 0)
    names = tuple(name.text for concept in task.concepts for name in concept.seen)
    before = drawn(studio, BASE)
    erase = Erase("uce_paper", names)
    found = drawn(studio, MethodPlan("uce", erase=erase))
    painter = replace(METHODS["uce_paper"], keep=False).paint(ground)
    torch.testing.assert_close(found, painter.draw(PROMPTS, steps=3, weight=2.0), rtol=0, atol=1e-4)
    half = drawn(studio, MethodPlan("uce", erase=replace(erase, strength=0.0)))
    assert torch.equal(half, before) and torch.equal(drawn(studio, BASE), before) and not torch.equal(found, before)


def test_text_encoders_take_a_strength_and_loras_add_up(studio, tmp_path: Path) -> None:
    base = studio.model.encoder.state()
    file = moved_encoder(tmp_path)
    aligned = load_file(file)
    whole = studio.painter(MethodPlan("whole", text_encoder=Part(file)), WORLD).encoder.state()
    half = studio.painter(MethodPlan("half", text_encoder=Part(file, 0.5)), WORLD).encoder.state()
    name = "text_model.encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(whole[name], aligned[name])
    torch.testing.assert_close(half[name], (base[name] + aligned[name]) / 2)
    lora = extract_lora(base, aligned, rank=8)
    save_lora(tmp_path / "lora.safetensors", lora, {})
    twice = studio.painter(MethodPlan("lora", loras=(Part(tmp_path / "lora.safetensors", 2.0),)), WORLD)
    expected = apply_lora(base, lora.tensors, 2.0)
    torch.testing.assert_close(twice.encoder.state()[name], expected[name])
    assert studio.painter(BASE, WORLD).encoder is studio.model.encoder


def test_a_gate_routes_or_refines_what_it_flags_alone(studio, tmp_path: Path) -> None:
    pairs = TASKS["skull"].pairs(240, seed=3)
    settings = GateSettings(steps=60, batch_size=16)
    gate = train_gate(studio.model.encoder, pairs.safe, pairs.unsafe, settings)
    save_gate(tmp_path / "gate.safetensors", gate)
    file = moved_encoder(tmp_path)
    plain = studio.painter(BASE, WORLD).texts(PROMPTS).prompted
    flags = gate.flags(plain)
    assert flags.tolist() == [False, False, True]
    routed = studio.painter(MethodPlan("g", gate=tmp_path / "gate.safetensors", text_encoder=Part(file)), WORLD)
    refined = studio.painter(MethodPlan("g", gate=tmp_path / "gate.safetensors"), WORLD)
    for painter in (routed, refined):
        states = painter.texts(PROMPTS).prompted
        assert torch.equal(states[:2], plain[:2]) and not torch.equal(states[2], plain[2])
    expected = studio.painter(MethodPlan("t", text_encoder=Part(file)), WORLD).texts(PROMPTS).prompted
    torch.testing.assert_close(routed.texts(PROMPTS).prompted[2], expected[2])
    other = Studio(load(None))
    other.model.encoder = TextEncoder.from_state(load_file(file))
    with pytest.raises(EncoderError, match="another text encoder"):
        other.painter(MethodPlan("g", gate=tmp_path / "gate.safetensors"), WORLD)


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpmpp_2m"])
def test_pictures_are_those_of_diffusers_pipeline(folder: Path, sampler: str) -> None:
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

    from sage_core.encoders.tokens import tokenize
    from sage_core.evaluation.painters import make_scheduler

    studio = Studio(load(folder))
    drawing = replace(PHOTO, sampler=sampler, steps=5)
    painter = studio.painter(BASE, drawing)
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
        prompt_embeds=prompted, negative_prompt_embeds=plain, latents=painter._noise(SEEDS), guidance_scale=2.0,
        num_inference_steps=5, output_type="pt",
    ).images  # fmt: skip
    torch.testing.assert_close(painter.draw(PROMPTS, SEEDS), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_draws_nearly_the_same(folder: Path, dtype: torch.dtype) -> None:
    expected = drawn(Studio(load(folder)), BASE, PHOTO)
    model = load(folder).to(torch.device("cpu"), dtype)
    found = drawn(Studio(model), MethodPlan("SLD", sld="max", safety_text="red"), replace(PHOTO, guidance=1.0))
    plain = drawn(Studio(model), BASE, PHOTO)
    assert (plain - expected).abs().mean() < 0.02 and found.dtype == torch.float32
    assert next(model.vae.parameters()).dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)


def test_a_checkpoint_draws_what_its_folder_draws(folder: Path, tmp_path: Path) -> None:
    file = tiny_checkpoint(folder, tmp_path / "tiny.safetensors")
    expected = drawn(Studio(load(folder)), BASE, PHOTO)
    assert torch.equal(drawn(Studio(load(file)), BASE, PHOTO), expected)
    torch.save({"state_dict": load_file(file)}, tmp_path / "tiny.ckpt")
    assert torch.equal(drawn(Studio(load(tmp_path / "tiny.ckpt")), BASE, PHOTO), expected)
    assert expected.std() > 0.01


def test_files_that_edit_the_unet_are_applied_and_undone(folder: Path, tmp_path: Path) -> None:
    studio = Studio(load(folder))
    before = drawn(studio, BASE, PHOTO)
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight"
    edited = studio.model.weight(name) * 3
    save_file({name: edited}, tmp_path / "part.safetensors")
    method = MethodPlan("part", unet=Part(tmp_path / "part.safetensors", 0.5))
    found = drawn(studio, method, PHOTO)
    torch.testing.assert_close(dict(studio.model.unet.named_parameters())[name], studio.model.weight(name) * 2)
    assert not torch.equal(found, before) and torch.equal(drawn(studio, BASE, PHOTO), before)
    save_file({"something.weight": edited}, tmp_path / "nothing.safetensors")
    with pytest.raises(UnetError, match=r"nothing of an SD 1\.x U-Net"):
        drawn(studio, MethodPlan("nothing", unet=Part(tmp_path / "nothing.safetensors")), PHOTO)


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
    studio = Studio(load(folder))
    with torch.no_grad():
        next(studio.model.vae.parameters()).fill_(float("nan"))
        studio.model.vae.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(SettingsError, match=r"draws NaN in .*draw\.precision"):
        drawn(studio, BASE, PHOTO)
