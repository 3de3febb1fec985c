"""Reading a U-Net, or a change of one, out of every kind of file that erasing methods publish.

What is read: whole U-Nets under diffusers' or CompVis' names, checkpoints, parts of a U-Net, dicts of dicts, pipeline
folders, LoRAs in every spelling, and files of changes (`.diff`, `.diff_b`, `.set_weight`). Tensors stay in the mapped
file and come one by one, so that a file of 3.4 GB needs its largest tensor's memory. Pickles are only ever read with
`weights_only=True`: no code in them runs. `changes.py` compares what was read with a base.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..encoders.layouts import count_not_finite, is_safetensors, require_array
from ..encoders.pickles import read_pickle
from ..errors import EncoderError, UnetError
from ..files import readable
from .lora_keys import LoraModule, lora_modules
from .names import SD1, Shape, UnetConfig, UnetNames, unet_names
from .state_dicts import flattened, unwrapped

# Where pipeline folders keep their U-Net, the best precision first.
_FOLDER_FILES = tuple(
    f"{folder}diffusion_pytorch_model{variant}"
    for variant in (".safetensors", ".bin", ".fp16.safetensors", ".fp16.bin")
    for folder in ("unet/", "")
)
# Parts of a checkpoint or of a LoRA that are not the U-Net's, by the start of their keys.
_OTHER_PARTS = {
    # A copy of the U-Net that averages its training; in SalUn's file it is the untouched original.
    "model_ema.": "averaged copy (EMA)",
    "first_stage_model.": "autoencoder",
    "cond_stage_model.": "text encoder",
    "text_encoder.": "text encoder",
    "text_encoders.": "text encoder",
    "text_model.": "text encoder",
    "lora_te": "text encoder",
}
# CompVis' names of the noise schedule's numbers, which checkpoints hold next to the weights.
_SCHEDULE = ("betas", "alphas_", "sqrt_", "log_one", "posterior_", "model.betas", "logvar", "lvlb_weights")
# What tells other models' U-Nets, by a part of a name.
_OTHER_UNETS = (
    (("label_emb.", "add_embedding.", "transformer_blocks.1.", "transformer_blocks_1_"), "an SDXL U-Net"),
    (("double_blocks.", "single_transformer_blocks."), "a Flux transformer"),
    (("joint_blocks.",), "an SD 3 transformer"),
)
_OTHER_CONTEXTS = {1024: "an SD 2.x U-Net", 2048: "an SDXL U-Net", 1280: "an SDXL refiner's U-Net"}
_FLOAT8 = tuple(getattr(torch, name) for name in dir(torch) if name.startswith("float8_"))

How = Literal["weight", "change"]


@dataclass(frozen=True, eq=False)
class Stored:
    """One tensor of an edit: its shape and type, and how to get it.

    Attributes:
        how: "weight" replaces the base's tensor, "change" is added to it.
        dtype: as stored in the file.
        load: reads it, or computes it from a LoRA's factors.
    """

    how: How
    shape: Shape
    dtype: torch.dtype
    load: Callable[[], Tensor]


@dataclass(frozen=True, eq=False)
class UnetFile:
    """What a file holds of a U-Net.

    Attributes:
        source: its path, for messages.
        layout: what it is, in words: "whole U-Net, diffusers' names" and so on.
        stored: by diffusers' names.
        names: of the U-Net it was read for.
        not_applied: keys that look like a U-Net's but fit no tensor of it.
        other_parts: how many keys belong to other models (text encoder, autoencoder, averaged copy).
        ranks: ranks of a LoRA's matrices, without repetition.
        metadata: the file's own, as text.
    """

    source: str
    layout: str
    stored: Mapping[str, Stored]
    names: UnetNames
    not_applied: tuple[str, ...]
    other_parts: Mapping[str, int]
    ranks: tuple[int, ...]
    metadata: Mapping[str, str]

    @property
    def is_whole(self) -> bool:
        """Whether the file holds every tensor of the U-Net."""
        return len(self.stored) == len(self.names.shapes)

    def tensors(self) -> Iterator[tuple[str, How, Tensor]]:
        """Name, how to apply, and value of each tensor, one after the other.

        Raises:
            UnetError: a value is NaN or infinite.
        """
        for name, stored in self.stored.items():
            value = stored.load()
            require_finite(value, name, self.source)
            yield name, stored.how, value


def read_unet(path: str | os.PathLike[str], config: UnetConfig = SD1) -> UnetFile:
    """Open a file or pipeline folder of any known layout; no tensor is read yet.

    Args:
        path: what to open. The content tells a safetensors file from a pickle, whatever the suffix.
        config: sizes of the U-Net it is meant for.

    Raises:
        UnetError: it holds nothing of such a U-Net, or is damaged, of another model or in 8 bits.
    """
    with readable(path, UnetError):
        file = _weights_file(Path(path))
        handles, metadata = _open_safetensors(file) if is_safetensors(file) else _open_pickle(file)
    return sort_tensors(handles, str(file), config, metadata)


def sizes_of(path: str | os.PathLike[str]) -> UnetConfig:
    """The sizes of a whole U-Net, or of a checkpoint's, from its names and shapes alone.

    Raises:
        UnetError: it is not a whole U-Net of SD 1.x's kind, or reads prompts of another width.
    """
    file = _weights_file(Path(path))
    handles, _ = _open_safetensors(file) if is_safetensors(file) else _open_pickle(file)
    own = {name: handle for name, handle in handles.items() if _other_part(name) is None}
    _refuse_other_models(own, SD1, str(file))
    try:
        return UnetConfig.of({name: handle.shape for name, handle in own.items()})
    except UnetError as error:
        raise UnetError(f"{file}: {error}") from error


@dataclass(frozen=True, eq=False)
class Handle:
    """A tensor of a file before it is read."""

    shape: Shape
    dtype: torch.dtype
    load: Callable[[], Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> Handle:
        """Of a tensor that is in memory."""
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def sort_tensors(
    handles: Mapping[str, Handle], source: str, config: UnetConfig = SD1, metadata: Mapping[str, str] | None = None
) -> UnetFile:
    """What a state dict of any layout holds of a U-Net; `read_unet` is this for a file.

    Raises:
        UnetError: as `read_unet`.
    """
    names = unet_names(config)
    others = Counter(part for name in handles if (part := _other_part(name)))
    own = {name: handle for name, handle in handles.items() if _other_part(name) is None}
    _refuse_other_models(own, config, source)
    stored: dict[str, Stored] = {}
    left = []
    for name, handle in own.items():
        if found := names.find(name):
            stored[found] = Stored("weight", handle.shape, handle.dtype, handle.load)
        else:
            left.append(name)
    modules, not_applied = lora_modules(left, names, source)
    for module in modules:
        stored |= _stored_module(module, own, names, source)
    if not stored:
        raise UnetError(_explain_nothing(source, handles, others))
    for name, one in stored.items():
        _check(name, one, names, source)
    ranks = tuple(sorted({own[module.keys["down"]].shape[0] for module in modules if "down" in module.keys}))
    compvis = any(names.find(name) and name.rpartition("diffusion_model.")[2] in names.diffusers for name in own)
    layout = _layout(stored, names, bool(ranks), bool(modules), compvis)
    stored = {name: stored[name] for name in names.shapes if name in stored}
    return UnetFile(source, layout, stored, names, tuple(not_applied), dict(others), ranks, dict(metadata or {}))


def require_finite(value: Tensor, name: str, source: str) -> None:
    """Raise UnetError if a value is NaN or infinite."""
    if count := count_not_finite(value.float()):
        raise UnetError(
            f"{source}: {name} holds {count:,} values that are NaN or infinite. The file is damaged or its training "
            "diverged; use another."
        )


def _weights_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise UnetError(f"{path} does not exist: expected a U-Net file or a pipeline folder.")
    if (path / "text_encoder_2").is_dir():
        raise UnetError(f"{path} holds a model with two text encoders, as SDXL does; SD 1.x has one.")
    for name in _FOLDER_FILES:
        if (path / name).is_file():
            return path / name
    raise UnetError(f"{path} holds no U-Net: expected unet/diffusion_pytorch_model.safetensors or .bin in it.")


def _open_safetensors(path: Path) -> tuple[dict[str, Handle], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(str(path), framework="pt")
        handles = {}
        for name in file.keys():  # noqa: SIM118 (not a dict)
            piece = file.get_slice(name)
            dtype = _DTYPES.get(piece.get_dtype(), torch.uint8)
            handles[name] = Handle(tuple(piece.get_shape()), dtype, partial(file.get_tensor, name))
        return handles, dict(file.metadata() or {})
    except SafetensorError as error:
        raise UnetError(
            f"{path} is not a whole safetensors file, it may be cut short ({path.stat().st_size:,} bytes: {error}). "
            "Download or save it again."
        ) from error


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def _open_pickle(path: Path) -> tuple[dict[str, Handle], dict[str, str]]:
    with _as_unet_error():
        content = read_pickle(path)
    content = unwrapped(content, path)
    if not isinstance(content, Mapping):
        raise UnetError(f"{path} holds a {type(content).__name__}, expected a dict of tensors: a state dict.")
    metadata = {str(key): str(value) for key, value in content.items() if isinstance(value, str | int | float)}
    tensors = dict(flattened(content, path))
    with _as_unet_error():
        for name, tensor in tensors.items():
            if _other_part(name) is None:
                require_array(name, tensor, str(path))
    return {name: Handle.of(tensor) for name, tensor in tensors.items()}, metadata


@contextmanager
def _as_unet_error() -> Iterator[None]:
    try:
        yield
    except EncoderError as error:
        raise UnetError(str(error)) from error


def _other_part(name: str) -> str | None:
    if any(name.startswith(start) for start in _SCHEDULE):
        return "noise schedule"
    return next((part for start, part in _OTHER_PARTS.items() if name.startswith(start)), None)


def _refuse_other_models(handles: Mapping[str, Handle], config: UnetConfig, source: str) -> None:
    found = next(
        (model for marks, model in _OTHER_UNETS if any(mark in name for name in handles for mark in marks)), None
    )
    for name, handle in handles.items():
        if name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")) and len(handle.shape) == 2:
            width = handle.shape[1]
            if width != config.context and width in _OTHER_CONTEXTS:
                found = found or _OTHER_CONTEXTS[width]
    if found:
        raise UnetError(
            f"{source} seems to be {found}, or a change of one. An SD 1.x U-Net reads prompts that are "
            f"{config.context} wide, and has one transformer block an attention: use a file made for SD 1.4 or 1.5."
        )


def _stored_module(
    module: LoraModule, handles: Mapping[str, Handle], names: UnetNames, source: str
) -> dict[str, Stored]:
    """The tensors that the keys of one layer change."""
    stored = {}
    weight, bias = f"{module.path}.weight", f"{module.path}.bias"
    for kind, name, how in (("set", weight, "weight"), ("diff", weight, "change"), ("diff_b", bias, "change")):
        if kind in module.keys and name in names.shapes:
            handle = handles[module.keys[kind]]
            stored[name] = Stored(how, handle.shape, handle.dtype, handle.load)  # type: ignore[arg-type]
    if "up" in module.keys and "down" in module.keys:
        if weight in stored:
            raise UnetError(f"{source} changes {weight} twice: by a LoRA's two matrices and as a whole.")
        up, down = handles[module.keys["up"]], handles[module.keys["down"]]
        alpha = handles[module.keys["alpha"]].load if "alpha" in module.keys else None
        _check_factors(module, handles, source)
        shape = names.shapes[weight]
        if up.shape[1] != down.shape[0] or any(size != 1 for size in up.shape[2:]):
            raise UnetError(
                f"{source}: {module.keys['up']} of shape {up.shape} does not fit {module.keys['down']} of shape "
                f"{down.shape}."
            )
        found = (up.shape[0], *down.shape[1:])
        if found[:2] != shape[:2] or any(size != 1 for size in (*found[2:], *shape[2:]) if found[2:] != shape[2:]):
            reads = weight.endswith((".attn2.to_k.weight", ".attn2.to_v.weight"))
            seems = _OTHER_CONTEXTS.get(found[1] if reads else 0, "another model")
            raise UnetError(
                f"{source}: the LoRA changes {weight} by a matrix of shape {found}, expected {shape}. It seems made "
                f"for {seems}; use one for SD 1.x."
            )
        stored[weight] = Stored("change", shape, up.dtype, lambda: _product(up, down, alpha, shape))
    return stored


def _check_factors(module: LoraModule, handles: Mapping[str, Handle], source: str) -> None:
    """Raise UnetError unless a LoRA's two matrices have axes, a rank and a type to multiply, and alpha is a number."""
    for part in ("up", "down"):
        key = module.keys[part]  # type: ignore[index]
        handle = handles[key]
        if len(handle.shape) not in (2, 4) or 0 in handle.shape:
            raise UnetError(f"{source}: {key} has shape {handle.shape}, expected a matrix or a convolution's kernel.")
        _check_type(key, handle.dtype, source)
    if "alpha" in module.keys:
        key = module.keys["alpha"]
        alpha = handles[key]
        if math.prod(alpha.shape) != 1 or alpha.dtype.is_complex or alpha.dtype == torch.bool:
            raise UnetError(f"{source}: {key} is {alpha.dtype} of shape {alpha.shape}, expected one number.")


def _product(up: Handle, down: Handle, alpha: Callable[[], Tensor] | None, shape: Shape) -> Tensor:
    scale = float(alpha()) / down.shape[0] if alpha else 1.0
    return scale * (up.load().float().flatten(1) @ down.load().float().flatten(1)).reshape(shape)


def _check(name: str, stored: Stored, names: UnetNames, source: str) -> None:
    _check_type(name, stored.dtype, source)
    if tuple(stored.shape) != (shape := names.shapes[name]):
        hint = " SD 2.x and SDXL have matrices there." if ".proj_" in name and len(stored.shape) == 2 else ""
        raise UnetError(f"{source}: {name} has shape {tuple(stored.shape)}, expected {shape}, as in SD 1.x.{hint}")


def _check_type(name: str, dtype: torch.dtype, source: str) -> None:
    if dtype in _FLOAT8:
        raise UnetError(
            f"{source}: {name} is stored in 8 bits ({dtype}), too coarse to tell an edit from rounding. Use the fp16, "
            "bf16 or fp32 file that it was made from."
        )
    if not dtype.is_floating_point:
        kind = str(dtype).removeprefix("torch.")
        raise UnetError(f"{source}: {name} is stored as {kind}, expected fp32, fp16 or bf16.")


def _layout(stored: Mapping[str, Stored], names: UnetNames, ranks: bool, changes: bool, compvis: bool) -> str:
    if ranks:
        return "LoRA"
    if changes:
        return "changes in LoRA form"
    form = "CompVis' names" if compvis else "diffusers' names"
    return f"{'whole U-Net' if len(stored) == len(names.shapes) else 'part of a U-Net'}, {form}"


def _explain_nothing(source: str, handles: Mapping[str, Handle], others: Mapping[str, int]) -> str:
    shown = ", ".join(list(handles)[:3]) or "no tensors at all"
    if others.get("text encoder"):
        return (
            f"{source} holds a text encoder and nothing of a U-Net. Load it as a text encoder, such as by SAGE's "
            "encoder node."
        )
    return (
        f"{source} holds nothing of an SD 1.x U-Net; it holds {shown}. Expected tensors named like "
        "`down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight` or "
        "`model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight`."
    )
