"""Every layout that erasing methods publish is read the same, and what is written is read back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from edited_unets import BASE, CONFIG, DELTAS, EDITED, KEYS, NAMES, read
from safetensors.torch import load_file, save_file
from torch import Tensor

from sage_core.errors import UnetError
from sage_core.unet.changes import changes, save_changes
from sage_core.unet.files import read_unet
from sage_core.unet.names import SD1, unet_names


def theirs(values: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    return {prefix + NAMES.compvis[name]: value for name, value in values.items()}


def nested(values: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    result: dict[str, dict[str, Tensor]] = {}
    for name, value in values.items():
        module, _, kind = name.rpartition(".")
        result.setdefault(f"unet.{module}", {})[kind] = value
    return result


SAMPLE = {name: EDITED[name] for name in KEYS}
CHECKPOINT = {
    **theirs(EDITED, "model.diffusion_model."),
    **{f"model_ema.{name.replace('.', '')}": value for name, value in theirs(BASE, "diffusion_model").items()},
    "first_stage_model.decoder.conv_in.weight": torch.ones(2),
    "cond_stage_model.transformer.text_model.final_layer_norm.weight": torch.ones(2),
    "betas": torch.ones(3),
    "sqrt_alphas_cumprod": torch.ones(3),
}
PICKLES = {
    "whole, diffusers": EDITED,
    "whole, CompVis": CHECKPOINT,
    "Lightning": {"state_dict": CHECKPOINT, "epoch": 3, "global_step": 7},
    "STEREO's": {"model_state_dict": EDITED, "saved_tokens": ["a", "b"]},
    "one key": {"unet": EDITED},
    "parallel": {f"module.{name}": value for name, value in EDITED.items()},
    "part": SAMPLE,
    "part, prefixed": {f"unet.{name}": value for name, value in SAMPLE.items()},
    "dicts of dicts": nested(EDITED),
    "dicts of dicts, part": nested(SAMPLE),
}


@pytest.mark.parametrize("layout", PICKLES)
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_of_every_layout(layout: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "edit.pt"
    torch.save(PICKLES[layout], path, _use_new_zipfile_serialization=zipped)
    found = changes(read_unet(path, CONFIG), BASE)
    assert_same(found.deltas, DELTAS)
    assert found.report.changed == len(KEYS)
    assert not found.report.not_applied


def test_the_averaged_copy_of_a_checkpoint_is_left_alone(tmp_path: Path) -> None:
    torch.save(CHECKPOINT, tmp_path / "salun.ckpt")
    file = read_unet(tmp_path / "salun.ckpt", CONFIG)
    assert file.is_whole
    assert file.layout == "whole U-Net, CompVis' names"
    assert file.other_parts == {
        "averaged copy (EMA)": len(BASE),
        "autoencoder": 1,
        "text encoder": 1,
        "noise schedule": 2,
    }


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.bin"])
def test_pipeline_folders(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir()
    save_file(EDITED, path) if path.suffix == ".safetensors" else torch.save(EDITED, path)
    assert_same(changes(read_unet(tmp_path, CONFIG), BASE).deltas, DELTAS)
    path.unlink()
    with pytest.raises(UnetError, match="holds no U-Net"):
        read_unet(tmp_path, CONFIG)
    (tmp_path / "text_encoder_2").mkdir()
    with pytest.raises(UnetError, match="two text encoders, as SDXL"):
        read_unet(tmp_path, CONFIG)


def spellings() -> dict[str, tuple[Callable[[str], str], str, str]]:
    """How a layer's path is written, and what follows for both matrices."""

    def processor(path: str) -> str:
        return path.replace(".to_", ".processor.to_").replace("to_out.0", "to_out")

    def under(path: str) -> str:
        return path.replace(".", "_")

    def compvis(path: str) -> str:
        return NAMES.compvis[f"{path}.weight"].removesuffix(".weight")

    return {
        "kohya": (lambda path: f"lora_unet_{under(path)}", ".lora_up.weight", ".lora_down.weight"),
        "kohya, CompVis": (lambda path: f"lora_unet_{under(compvis(path))}", ".lora_up.weight", ".lora_down.weight"),
        "CompVis": (lambda path: f"diffusion_model.{compvis(path)}", ".lora_up.weight", ".lora_down.weight"),
        "MACE": (processor, "_lora.up.weight", "_lora.down.weight"),
        "old diffusers": (lambda path: f"unet.{processor(path)}", "_lora.up.weight", "_lora.down.weight"),
        "AlignGuard": (lambda path: f"unet.{path}", ".lora.up.weight", ".lora.down.weight"),
        "diffusers": (lambda path: f"unet.{path}", ".lora_B.weight", ".lora_A.weight"),
        "PEFT": (lambda path: f"base_model.model.{path}", ".lora_B.default.weight", ".lora_A.default.weight"),
        "linear": (lambda path: f"unet.{path}", ".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
    }


@pytest.mark.parametrize("spelling", spellings())
@pytest.mark.parametrize("alpha", [None, 3.0])
def test_loras_of_every_spelling(spelling: str, alpha: float | None, tmp_path: Path) -> None:
    write, up_suffix, down_suffix = spellings()[spelling]
    rank, tensors, expected = 2, {}, {}
    for number, name in enumerate(name for name in NAMES.shapes if ".attn" in name and name.endswith(".weight")):
        layer = name.removesuffix(".weight")
        outputs, inputs = NAMES.shapes[name]
        generator = torch.Generator().manual_seed(number)
        up, down = torch.randn(outputs, rank, generator=generator), torch.randn(rank, inputs, generator=generator)
        tensors |= {write(layer) + up_suffix: up, write(layer) + down_suffix: down}
        if alpha is not None:
            tensors[f"{write(layer)}.alpha"] = torch.tensor(alpha)
        expected[name] = (up.double() @ down.double()) * (1 if alpha is None else alpha / rank)
    tensors["lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight"] = torch.ones(2, 2)
    save_file(tensors, tmp_path / "lora.safetensors")
    found = changes(read_unet(tmp_path / "lora.safetensors", CONFIG), BASE)
    assert_same(found.deltas, expected)
    assert found.report.layout == "LoRA"
    assert found.report.other_parts == {"text encoder": 1}
    assert "all attention" in found.report.maker


def test_loras_of_convolutions() -> None:
    name = "down_blocks.0.resnets.0.conv1.weight"
    up, down = torch.randn(32, 4, 1, 1), torch.randn(4, 32, 3, 3)
    path = "lora_unet_down_blocks_0_resnets_0_conv1"
    found = read(
        {
            f"{path}.lora_up.weight": up,
            f"{path}.lora_down.weight": down,
            "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": torch.ones(64, 1),
            "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.ones(1, 64),
        }
    ).deltas
    assert_same({name: found[name]}, {name: torch.einsum("or,rikl->oikl", up[:, :, 0, 0].double(), down.double())})
    assert found["mid_block.attentions.0.proj_in.weight"].shape == (64, 64, 1, 1)


def test_changes_are_written_as_they_are_read(tmp_path: Path) -> None:
    deltas = {**DELTAS, "conv_norm_out.bias": torch.ones(32), "conv_norm_out.weight": torch.full((32,), 2.0)}
    encoder = {"text_model.final_layer_norm.bias": torch.ones(768)}
    path = tmp_path / "edit.safetensors"
    # Any form of names will do.
    save_changes(path, theirs(deltas, "diffusion_model."), {"sage_method": "UCE"}, text_encoder=encoder, config=CONFIG)
    stored = load_file(path)
    assert set(stored) == {
        *(f"diffusion_model.{NAMES.compvis[name].removesuffix('.weight')}.diff" for name in KEYS),
        "diffusion_model.out.0.diff",
        "diffusion_model.out.0.diff_b",
        "text_encoders.clip_l.transformer.text_model.final_layer_norm.diff_b",
    }
    file = read_unet(path, CONFIG)
    assert file.layout == "changes in LoRA form"
    found = changes(file, BASE)
    assert_same(found.deltas, deltas)
    assert found.report.maker == "UCE"
    assert found.report.other_parts == {"text encoder": 1}


def test_replacing_weights_in_lora_form() -> None:
    name = KEYS[0]
    key = f"diffusion_model.{NAMES.compvis[name].removesuffix('.weight')}.set_weight"
    assert_same(read({key: EDITED[name]}).deltas, {name: DELTAS[name]})


def test_comfyui_maps_every_key_that_is_written(tmp_path: Path, comfyui: Path) -> None:
    """ComfyUI's own LoRA code, in a process of its own, finds each tensor of a whole SD 1.x edit."""
    names = unet_names(SD1)
    path = tmp_path / "edit.safetensors"
    encoder = {
        f"text_model.{name}": torch.ones(1)
        for name in (
            "embeddings.token_embedding.weight",
            "final_layer_norm.weight",
            "final_layer_norm.bias",
            "encoder.layers.3.mlp.fc1.weight",
            "encoder.layers.3.mlp.fc1.bias",
        )
    }
    # One value each, since only the keys matter: expanded tensors would be stored whole.
    tensors = {f"{key}.{kind}": torch.ones(1) for key, kind in _written(names.shapes, names.compvis)}
    tensors |= {
        f"text_encoders.clip_l.transformer.{name.rpartition('.')[0]}.diff{'_b' * name.endswith('bias')}": value
        for name, value in encoder.items()
    }
    save_file(tensors, path)
    program = f"""
import json, sys, types
import comfy.cli_args
comfy.cli_args.args.cpu = True
import comfy.lora
import comfy.utils
from safetensors.torch import load_file
def model(keys):
    config = {json.dumps({"num_res_blocks": [2] * 4, "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_output": [1] * 9 + [0] * 3, "transformer_depth_middle": 1})}
    return types.SimpleNamespace(state_dict=lambda: dict.fromkeys(keys), model_config=types.SimpleNamespace(unet_config=config))
unet = {json.dumps(["diffusion_model." + name for name in names.compvis.values()])}
clip = {json.dumps(["clip_l.transformer." + name for name in encoder])}
keys = comfy.lora.model_lora_keys_unet(model(unet), {{}})
keys = comfy.lora.model_lora_keys_clip(model(clip), keys)
found = comfy.lora.load_lora(load_file({str(path)!r}), keys)
print("FOUND", json.dumps(sorted(found)))
ours = comfy.utils.unet_to_diffusers(model([]).model_config.unet_config)
print("NAMES", json.dumps(ours))
"""  # noqa: E501
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=comfyui, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    lines = dict(line.split(" ", 1) for line in run.stdout.splitlines() if line.startswith(("FOUND", "NAMES")))
    expected = [f"diffusion_model.{name}" for name in names.compvis.values()]
    expected += [f"clip_l.transformer.{name}" for name in encoder]
    assert json.loads(lines["FOUND"]) == sorted(expected)
    comfys = json.loads(lines["NAMES"])
    assert {name: comfys[name] for name in names.compvis} == dict(names.compvis)


def _written(shapes: dict, compvis: dict) -> list[tuple[str, str]]:
    return [
        (f"diffusion_model.{compvis[name].rpartition('.')[0]}", "diff_b" if name.endswith(".bias") else "diff")
        for name in shapes
    ]


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value.double(), rtol=1e-5, atol=1e-6)
