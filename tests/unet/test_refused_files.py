"""Files that are damaged, hostile, of other models or without numbers are refused by name."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from edited_unets import BASE, CONFIG, EDITED, KEYS, NAMES, read
from malformed import Hostile
from safetensors.torch import save_file
from torch import Tensor

from sage_core.errors import UnetError
from sage_core.unet.changes import save_changes
from sage_core.unet.files import Handle, read_unet, sort_tensors
from sage_core.unet.names import UnetConfig, unet_names


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


def test_hostile_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path, hostile = tmp_path / "edit.pt", {"a": Hostile(tmp_path / "executed")}
    for write in (
        lambda: torch.save(hostile, path),
        lambda: path.write_bytes(pickle.dumps(hostile)),
    ):
        write()
        with pytest.raises(UnetError, match="malicious"):
            read_unet(path, CONFIG)
    assert not (tmp_path / "executed").exists()
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
