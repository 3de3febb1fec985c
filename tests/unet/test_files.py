"""Every layout that erasing methods publish is read the same; what is not an SD 1.x U-Net is refused by name."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sage_core.errors import UnetError
from sage_core.unet.changes import changes, save_changes
from sage_core.unet.files import Handle, read_unet, sort_tensors
from sage_core.unet.names import SD1, UnetConfig, in_cross_attention, is_value, kind_of, reads_prompt, unet_names

CONFIG = UnetConfig(channels=32, multipliers=(1, 2), blocks=1, attention=(True, False), context=24)
NAMES = unet_names(CONFIG)
KEYS = [name for name in NAMES.shapes if reads_prompt(name)]


def state(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in NAMES.shapes.items()}


BASE = state()


def edited(chosen: Callable[[str], bool] = reads_prompt) -> dict[str, Tensor]:
    other = state(1)
    return {name: value + 0.3 * other[name] if chosen(name) else value for name, value in BASE.items()}


EDITED = edited()
DELTAS = {name: EDITED[name] - BASE[name] for name in KEYS}


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


MAKERS = {
    "SPEED": is_value,
    "UCE, RECE, CURE, MACE or ESD-x-strict": reads_prompt,
    "ESD-x or the SAGE U-Net (all of cross-attention)": in_cross_attention,
    "AlignGuard, or another LoRA of all attention, merged": lambda name: ".attn" in name and name.endswith(".weight"),
    "ESD-u": lambda name: not in_cross_attention(name) and kind_of(name) != "norms" and ".norm" not in name,
    "ESD-u of 2023, STEREO or RACE": lambda name: not in_cross_attention(name) and not name.startswith("time_emb"),
    "ESD-all": lambda name: kind_of(name) != "norms",
    "a full edit, as by SalUn, RACE or fine-tuning": lambda name: True,
}


@pytest.mark.parametrize("maker", MAKERS)
def test_what_changed_tells_the_method(maker: str) -> None:
    report = read(edited(MAKERS[maker])).report
    assert report.maker == maker
    assert report.changed == sum(map(MAKERS[maker], NAMES.shapes)) == sum(report.by_block.values())
    assert sum(report.by_kind.values()) == report.changed
    assert any("another base" in warning for warning in report.warnings) == maker.startswith("a full")
    assert json.loads(json.dumps(report.to_dict()))["maker"] == maker
    assert maker in report.summary()


def test_a_rotation_of_the_values_is_told_from_other_edits() -> None:
    turned = {}
    for name in filter(is_value, BASE):
        turn = torch.linalg.qr(torch.randn(len(BASE[name]), len(BASE[name])))[0]
        turned[name] = (turn @ BASE[name]).half()
    assert read(turned).report.maker == "OCE (a rotation of the values)"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_is_not_a_change(dtype: torch.dtype) -> None:
    stored = {name: value.to(dtype) for name, value in EDITED.items()}
    found = read(stored)
    assert set(found.deltas) == set(KEYS)
    for name, delta in found.deltas.items():
        assert torch.equal(delta, stored[name].float() - BASE[name].to(dtype).float())
    # Nor is it when the base is the coarser one.
    found = changes(sort(EDITED), {name: value.to(dtype) for name, value in BASE.items()})
    assert set(found.deltas) == set(KEYS)


def test_a_change_whose_square_is_beyond_fp32_has_a_finite_size() -> None:
    huge = {KEYS[0]: torch.full(NAMES.shapes[KEYS[0]], 1e30)}
    report = changes(sort(huge), BASE).report
    length = 1e30 * math.sqrt(huge[KEYS[0]].numel())
    assert report.relative == pytest.approx(length / float(BASE[KEYS[0]].norm()), rel=1e-4)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["changed"] == 1


def test_relative_size_and_where() -> None:
    report = read(EDITED).report
    wanted = torch.cat([delta.flatten() for delta in DELTAS.values()]).norm()
    wanted /= torch.cat([BASE[name].flatten() for name in KEYS]).norm()
    assert report.relative == pytest.approx(float(wanted), rel=1e-5)
    assert report.by_block == {"down 0": 2, "middle": 2, "up 1": 4}
    assert report.by_kind == {"cross-attention keys and values": 8}


def test_keys_that_were_not_applied_are_named() -> None:
    extra = {"down_blocks.9.resnets.0.conv1.weight": torch.ones(2), "mid_block.gadget.alpha": torch.ones(1)}
    report = read({**EDITED, **extra}).report
    assert report.not_applied == tuple(extra)
    assert "2 keys fit no tensor" in report.warnings[-1]


def test_a_file_that_changes_nothing_is_refused() -> None:
    with pytest.raises(UnetError, match="changes nothing: its"):
        read(BASE)
    with pytest.raises(UnetError, match="changes nothing"):
        read({name: value.half() for name, value in BASE.items()})
    with pytest.raises(UnetError, match="changes nothing"):
        save_changes("never.safetensors", {KEYS[0]: torch.zeros(NAMES.shapes[KEYS[0]])}, {}, config=CONFIG)


def test_values_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    for bad in (float("nan"), float("inf")):
        broken = {**EDITED, KEYS[1]: EDITED[KEYS[1]].clone()}
        broken[KEYS[1]][0, 0] = bad
        with pytest.raises(UnetError, match=f"{KEYS[1]} holds 1 values that are NaN"):
            read(broken)
        with pytest.raises(UnetError, match="NaN"):
            save_changes(tmp_path / "x.safetensors", {KEYS[1]: broken[KEYS[1]]}, {}, config=CONFIG)
    large = {KEYS[0]: torch.full(NAMES.shapes[KEYS[0]], 1e5)}
    with pytest.raises(UnetError, match="infinite"):
        save_changes(tmp_path / "x.safetensors", large, {}, config=CONFIG, dtype=torch.float16)
    assert not list(tmp_path.iterdir())


def test_eight_bit_files_are_refused_with_a_way_out(tmp_path: Path) -> None:
    save_file({name: value.to(torch.float8_e4m3fn) for name, value in EDITED.items()}, tmp_path / "x.safetensors")
    with pytest.raises(UnetError, match=r"8 bits .*fp16, bf16 or fp32"):
        read_unet(tmp_path / "x.safetensors", CONFIG)
    with pytest.raises(UnetError, match="stored as int8"):
        read({name: value.to(torch.int8) for name, value in EDITED.items()})


def test_other_models_are_refused_by_name() -> None:
    def shapes(config: UnetConfig, rename: Callable[[str], str] = str) -> dict[str, Handle]:
        return {
            rename(name): Handle(shape, torch.float16, lambda: torch.empty(0))
            for name, shape in unet_names(config).shapes.items()
        }

    with pytest.raises(UnetError, match=r"SD 2\.x U-Net"):
        sort_tensors(shapes(UnetConfig(context=1024)), "a file")
    with pytest.raises(UnetError, match="SDXL U-Net"):
        sort_tensors(shapes(UnetConfig(context=2048)), "a file")
    with pytest.raises(UnetError, match="SDXL U-Net"):
        deeper = shapes(UnetConfig(), lambda name: name.replace("transformer_blocks.0", "transformer_blocks.1"))
        sort_tensors(deeper, "a file")
    flat = {"mid_block.attentions.0.proj_in.weight": Handle((1280, 1280), torch.float16, lambda: torch.empty(0))}
    with pytest.raises(UnetError, match=r"SD 2\.x and SDXL have matrices there"):
        sort_tensors(flat, "a file")
    with pytest.raises(UnetError, match="holds a text encoder"):
        read({"text_model.embeddings.token_embedding.weight": torch.ones(3, 2)})
    with pytest.raises(UnetError, match=r"holds nothing of an SD 1\.x U-Net; it holds decoder"):
        read({"decoder.up.weight": torch.ones(3, 2)})
    path = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    lora = {f"{path}.lora_up.weight": torch.ones(64, 1), f"{path}.lora_down.weight": torch.ones(1, 1024)}
    with pytest.raises(UnetError, match=r"made for an SD 2\.x U-Net"):
        read(lora)
    with pytest.raises(UnetError, match="DoRA"):
        read({f"{path}.dora_scale": torch.ones(1), **lora})
    with pytest.raises(UnetError, match="twice"):
        read({**lora, f"{path}.diff": torch.ones(64, 24)})


class _Hostile:
    def __reduce__(self) -> tuple:
        return (print, ("run",))


def test_hostile_and_damaged_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edit.pt"
    for write in (
        lambda: torch.save({"a": _Hostile()}, path),
        lambda: path.write_bytes(pickle.dumps({"a": _Hostile()})),
    ):
        write()
        with pytest.raises(UnetError, match="malicious"):
            read_unet(path, CONFIG)
    assert "run" not in capsys.readouterr().out
    torch.save(EDITED, path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UnetError, match="cut short"):
        read_unet(path, CONFIG)
    save_file(EDITED, tmp_path / "edit.safetensors")
    whole = (tmp_path / "edit.safetensors").read_bytes()
    (tmp_path / "edit.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnetError, match="cut short"):
        read_unet(tmp_path / "edit.safetensors", CONFIG)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("note.txt", "hello")
    with pytest.raises(UnetError):
        read_unet(path, CONFIG)
    torch.save([1, 2], path)
    with pytest.raises(UnetError, match="holds a list"):
        read_unet(path, CONFIG)
    with pytest.raises(UnetError, match="does not exist"):
        read_unet(tmp_path / "none.pt", CONFIG)


def test_a_base_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UnetError, match="The base lacks"):
        changes(sort(EDITED), {name: value for name, value in BASE.items() if name != KEYS[0]})
    with pytest.raises(UnetError, match=r"shape \(1, 2\) in the base"):
        changes(sort(EDITED), {**BASE, KEYS[0]: torch.ones(1, 2)})


def sort(values: dict[str, Tensor]):
    return sort_tensors({name: Handle.of(value) for name, value in values.items()}, "a file", CONFIG)


def read(values: dict[str, Tensor]):
    return changes(sort(values), BASE)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.timeout(60)
def test_dicts_that_hold_themselves_end(tmp_path: Path) -> None:
    circles: list[dict[str, object]] = [{}, {}, dict(BASE)]
    for key, circle in zip(("state_dict", "model", "other"), circles, strict=True):
        circle[key] = circle
    deep: dict[str, object] = dict(BASE)
    for _ in range(300):
        deep = {"weight": deep, "bias": deep}
        deep.pop("bias")
    for content in (*circles, deep):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(UnetError, match=r"a\.pt holds dicts in dicts more than 16 deep, or one that holds itself"):
            read_unet(tmp_path / "a.pt", CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"up": torch.zeros(32)}, r"shape \(32,\), expected a matrix"),
        ({"down": torch.tensor(1.0)}, r"shape \(\), expected a matrix"),
        ({"up": torch.zeros(32, 0), "down": torch.zeros(0, 24)}, "expected a matrix"),
        ({"up": torch.zeros(32, 2, 1, 1, 1), "down": torch.zeros(2, 24, 1, 1, 1)}, "expected a matrix"),
        ({"down": torch.zeros(2, 24, dtype=torch.int64)}, "stored as int64"),
        ({"down": torch.zeros(2, 24).to(torch.float8_e4m3fn)}, "stored in 8 bits"),
        ({"alpha": torch.zeros(3)}, r"float32 of shape \(3,\), expected one number"),
        ({"alpha": torch.zeros(0)}, "expected one number"),
        ({"alpha": torch.tensor(True)}, "torch.bool of shape"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_parts_of_a_lora_that_cannot_be_multiplied_are_named(
    tmp_path: Path, suffix: str, change: dict[str, Tensor], message: str
) -> None:
    parts = {"up": torch.ones(32, 2), "down": torch.ones(2, 24), "alpha": torch.tensor(2.0)} | change
    stem = "lora_unet_" + KEYS[0].removesuffix(".weight").replace(".", "_")
    names = {"up": "lora_up.weight", "down": "lora_down.weight", "alpha": "alpha"}
    file = tmp_path / f"lora{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)({f"{stem}.{names[p]}": v for p, v in parts.items()}, file)
    with pytest.raises(UnetError, match=message):
        list(read_unet(file, CONFIG).tensors())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (BASE[KEYS[0]].to_sparse(), "a sparse or nested tensor"),
        (BASE[KEYS[0]].to("meta"), "a tensor without values"),
        (torch.zeros(1).expand(BASE[KEYS[0]].shape), "4 bytes spread to shape"),
    ],
)
def test_tensors_that_are_not_arrays_are_refused(tmp_path: Path, tensor: Tensor, message: str) -> None:
    torch.save({KEYS[0]: tensor}, tmp_path / "a.pt")
    with pytest.raises(UnetError, match=rf"a\.pt: {KEYS[0]} is {message}"):
        read_unet(tmp_path / "a.pt", CONFIG)


@pytest.mark.parametrize("name", ["x" * 300, "a\0", "half \ud83d"])
def test_names_that_no_file_can_have_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnetError, match=r"cannot be read|does not exist"):
        read_unet(tmp_path / name, CONFIG)
