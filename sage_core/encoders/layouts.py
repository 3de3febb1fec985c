"""Reading an SD 1.x text encoder out of every kind of file that carries one.

Inside this package an encoder is a flat dict of tensors under transformers' names, `text_model.*` (the canonical
state); `names` knows what files call them. Pickles are read only with `weights_only=True`, so that no code in them
runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..batches import is_out_of_memory
from ..errors import EncoderError
from ..files import readable
from .names import EXPECTED, FUSED, OPENAI_TOKENS, ROOT, TOKEN_TABLE, TOKENS, select
from .pickles import read_pickle
from .tokens import CONTEXT_LENGTH, VOCABULARY_SIZE

SD1_WIDTH = 768
_HEAD_WIDTH = 64
_LONGEST_HEADER = 100_000_000
# How many dicts a state dict may lie in.
_DEEPEST = 3
# Digits that a layer's number may have.
_LONGEST_NUMBER = 4
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_FOLDER_FILES = ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin", "pytorch_model.fp16.bin")
_OTHER_WIDTHS = {1024: "the OpenCLIP ViT-H text encoder of SD 2.x", 1280: "the OpenCLIP bigG text encoder of SDXL"}


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of a CLIP text encoder. SD 1.x: 12 layers, width 768, 12 heads, MLP 3072, 49,408 tokens, 77 positions.

    `activation` cannot be read from weights: SD 1.x encoders all use CLIP's x * sigmoid(1.702 x), "quick_gelu".
    """

    layers: int
    width: int
    heads: int
    mlp_width: int
    vocabulary: int
    positions: int
    activation: str = "quick_gelu"

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise EncoderError("The text encoder has no layers (`encoder.layers.*`): the file may be cut or filtered.")
        if min(self.width, self.heads, self.mlp_width, self.vocabulary, self.positions) < 1:
            raise EncoderError(f"A text encoder of {self} is empty: the file may be cut or filtered.")
        if self.width % self.heads:
            raise EncoderError(f"A text encoder of width {self.width} cannot be split into {self.heads} heads.")

    @classmethod
    def of(cls, state: Mapping[str, torch.Tensor]) -> EncoderConfig:
        """Infer the sizes from a canonical state; heads are width // 64, as in every published CLIP.

        Raises:
            EncoderError: a layer is missing between others, or there is none.
        """
        vocabulary, width = state[TOKEN_TABLE].shape
        positions = state[f"{ROOT}embeddings.position_embedding.weight"].shape[0]
        return cls(
            layers=_count_layers(state),
            width=width,
            heads=max(1, width // _HEAD_WIDTH),
            mlp_width=state[f"{ROOT}encoder.layers.0.mlp.fc1.weight"].shape[0],
            vocabulary=vocabulary,
            positions=positions,
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of a canonical state of these sizes."""
        width, mlp = self.width, self.mlp_width
        shapes: dict[str, tuple[int, ...]] = {
            TOKENS: (self.vocabulary, width),
            "embeddings.position_embedding.weight": (self.positions, width),
            "final_layer_norm.weight": (width,),
            "final_layer_norm.bias": (width,),
        }
        for number in range(self.layers):
            layer = f"encoder.layers.{number}."
            for norm in ("layer_norm1", "layer_norm2"):
                shapes |= {f"{layer}{norm}.weight": (width,), f"{layer}{norm}.bias": (width,)}
            for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                name = f"{layer}self_attn.{projection}"
                shapes |= {f"{name}.weight": (width, width), f"{name}.bias": (width,)}
            shapes |= {f"{layer}mlp.fc1.weight": (mlp, width), f"{layer}mlp.fc1.bias": (mlp,)}
            shapes |= {f"{layer}mlp.fc2.weight": (width, mlp), f"{layer}mlp.fc2.bias": (width,)}
        return {ROOT + name: shape for name, shape in shapes.items()}


# The text encoder of Stable Diffusion 1.x.
VIT_L_14 = EncoderConfig(
    layers=12, width=SD1_WIDTH, heads=12, mlp_width=3072, vocabulary=VOCABULARY_SIZE, positions=CONTEXT_LENGTH
)


def _count_layers(names: Iterable[str]) -> int:
    # The work is bounded by the number of names, whatever numbers stand in them.
    found = {name.split(".")[3] for name in names if name.startswith(f"{ROOT}encoder.layers.")}
    if strange := next((digits for digits in found if len(digits) > _LONGEST_NUMBER), None):
        raise EncoderError(
            f"The text encoder has a layer of number {strange[:12]}{'…' if len(strange) > 12 else ''}, expected fewer "
            f"than {10**_LONGEST_NUMBER:,}: the file is damaged. Download or save it again."
        )
    numbers = {int(digits) for digits in found}
    missing = next((number for number in range(len(numbers)) if number not in numbers), None)
    if missing is not None:
        raise EncoderError(
            f"The text encoder is incomplete: it has a layer {max(numbers)}, and layer {missing} "
            f"({ROOT}encoder.layers.{missing}.*) is missing. Download or save it again."
        )
    return len(numbers)


def require_sd1(config: EncoderConfig, source: str) -> None:
    """Raise EncoderError unless the encoder has SD 1.x's width, positions and vocabulary; depth and MLP are free."""
    if config.width != SD1_WIDTH:
        seems = _OTHER_WIDTHS.get(config.width)
        raise EncoderError(
            f"{source} holds a text encoder of width {config.width}{f', it seems {seems}' if seems else ''}; "
            f"SD 1.x needs width {SD1_WIDTH} (CLIP ViT-L/14). Use the text encoder of an SD 1.x model."
        )
    require_positions(config, source)


def require_positions(config: EncoderConfig, source: str) -> None:
    """Raise EncoderError unless the encoder has SD 1.x's 77 positions and its vocabulary; its width is free."""
    if config.positions != CONTEXT_LENGTH:
        seems = ", as LongCLIP has" if config.positions == 248 else ""
        raise EncoderError(
            f"{source} holds a text encoder of {config.positions} positions{seems}; SD 1.x needs {CONTEXT_LENGTH}. "
            "Use the text encoder of an SD 1.x model."
        )
    if config.vocabulary < VOCABULARY_SIZE:
        raise EncoderError(
            f"{source} holds a text encoder of {config.vocabulary:,} tokens; SD 1.x's prompts are made of "
            f"{VOCABULARY_SIZE:,}. Use the text encoder of an SD 1.x model, with its whole table of tokens."
        )


def read_encoder(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a text encoder from a file or folder of any known layout.

    The content tells a safetensors file from a pickle, whatever the suffix, since people rename files. Only the
    encoder's tensors of a whole checkpoint are read.

    Returns:
        The canonical state, on the CPU in the stored precision and in memory of its own, and the file's metadata: the
        header of safetensors, or the plain values of a pickle, such as `epoch`.

    Raises:
        EncoderError: the file does not hold exactly one whole CLIP text encoder; the message says what it seems to be.
    """
    file, state, metadata = read_stored(path)
    canonical = canonical_state(state, str(file))
    try:
        # The tensors still lie in the mapped file. Copies outlive it and do not keep it from being replaced.
        return {name: tensor.clone() for name, tensor in canonical.items()}, metadata
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size = sum(tensor.nbytes for tensor in canonical.values())
        raise EncoderError(f"{file} takes {size / 1e6:,.0f} MB, which do not fit into memory. Free some.") from error


def read_stored(path: str | os.PathLike[str]) -> tuple[Path, dict[str, torch.Tensor], dict[str, str]]:
    """A text encoder's tensors under the file's own names, not checked, in the mapped file where there is one.

    Returns:
        The file itself, found in a folder if need be, the tensors, and the metadata; see `read_encoder`.

    Raises:
        EncoderError: the file holds no CLIP text encoder, or more than one.
    """
    with readable(path, EncoderError):
        file = _weights_file(Path(path))
        return file, *(_read_safetensors(file) if is_safetensors(file) else _read_pickled(file))


def canonical_state(
    state: Mapping[str, torch.Tensor], source: str = "the model", *, finite: bool = True
) -> dict[str, torch.Tensor]:
    """The text encoder inside `state` under canonical names, checked for completeness, shapes and finite values.

    `finite=False` lets NaN and infinity pass.

    Tensors keep their type and device, and share memory with those given. `position_ids`, `text_projection`,
    `logit_scale` and everything outside the text encoder are left out. `source` names the origin in errors.
    """
    found: dict[str, torch.Tensor] = {}
    for name, canonical in select(state, source).items():
        _require_plain(name, state[name], source)
        if FUSED in canonical:
            if state[name].dim() < 1 or len(state[name]) % 3:
                found_shape = f"{source}: {name} has shape {tuple(state[name].shape)}"
                raise EncoderError(f"{found_shape}, expected queries, keys and values of one size.")
            for part, tensor in zip("qkv", state[name].tensor_split(3), strict=True):
                found[canonical.replace("in_proj", f"{part}_proj")] = tensor
        else:
            found[canonical] = state[name]
    _check(found, source, finite)
    return {name: found[name].detach() for name in EncoderConfig.of(found).shapes()}


def _require_plain(name: str, tensor: torch.Tensor, source: str) -> None:
    """Raise EncoderError unless a tensor is an array of floats in memory: others can claim any size."""
    if tensor.is_quantized or (tensor.layout == torch.strided and tensor.dtype not in _DTYPES):
        stored = f"{source}: {name} is stored as {tensor.dtype}, expected fp32, fp16, bf16 or fp64: a quantised file."
        raise EncoderError(f"{stored} Use the encoder that it was made from.")
    require_array(name, tensor, source)


def require_array(name: str, tensor: torch.Tensor, source: str) -> None:
    """Raise EncoderError unless a tensor is an array in memory of its own size, whatever its type."""
    if tensor.layout != torch.strided or tensor.is_nested:
        kind = "a sparse or nested tensor"
    elif tensor.device.type == "meta":
        kind = "a tensor without values (meta)"
    elif tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        kind = f"{tensor.untyped_storage().nbytes():,} bytes spread to shape {tuple(tensor.shape)}"
    else:
        return
    way_out = "Save the file again, each tensor after .contiguous()."
    raise EncoderError(f"{source}: {name} is {kind}, expected an array. {way_out}")


def _check(state: Mapping[str, torch.Tensor], source: str, finite: bool) -> None:
    for name in (TOKENS, "embeddings.position_embedding.weight", "encoder.layers.0.mlp.fc1.weight"):
        if ROOT + name not in state or state[ROOT + name].dim() != 2:
            raise EncoderError(
                f"{source} is an incomplete text encoder: the matrix {ROOT}{name} is missing. "
                "Download or save it again."
            )
    try:
        shapes = EncoderConfig.of(state).shapes()
    except EncoderError as error:
        raise EncoderError(f"{source}: {error}") from None
    if missing := [name for name in shapes if name not in state]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise EncoderError(
            f"{source} is an incomplete text encoder: {', '.join(missing[:3])}{more} missing. "
            "Download or save it again."
        )
    for name, shape in shapes.items():
        tensor = state[name].detach()
        if tuple(tensor.shape) != shape:
            raise EncoderError(f"{source}: {name} has shape {tuple(tensor.shape)}, expected {shape}.")
        if finite and (count := count_not_finite(tensor)):
            raise EncoderError(
                f"{source}: {name} holds {count:,} values that are NaN or infinite in fp32. The file is damaged or its "
                "training diverged; use another."
            )


def count_not_finite(tensor: torch.Tensor) -> int:
    """How many values are NaN or infinite in fp32."""
    # One pass over the memory. A sum can also overflow without a bad value; only then is each value checked.
    return 0 if tensor.sum(dtype=torch.float32).isfinite() else int((~tensor.float().isfinite()).sum())


def _weights_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise EncoderError(f"{path} does not exist: expected a text encoder file or a folder with one.")
    if (path / "text_encoder_2").is_dir():
        raise EncoderError(f"{path} holds a model with two text encoders, as SDXL does; SD 1.x has one.")
    for folder in (path, path / "text_encoder"):
        for name in _FOLDER_FILES:
            if (folder / name).is_file():
                return folder / name
    raise EncoderError(f"{path} holds no weights: expected {' or '.join(_FOLDER_FILES)} in it or in text_encoder/.")


def is_safetensors(path: Path) -> bool:
    """Whether its suffix says so, even of a damaged file, or its first bytes: a header's length, then the header."""
    if path.suffix.lower() in (".safetensors", ".sft"):
        return True
    with open(path, "rb") as file:
        start = file.read(9)
    # A pickle's first bytes, read as a length, are beyond what the format allows.
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= _LONGEST_HEADER


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            state = {name: file.get_tensor(name) for name in select(file.keys(), str(path))}
            return state, dict(file.metadata() or {})
    except EncoderError:
        raise
    except Exception as error:
        # Besides its own error, safetensors raises those of PyTorch and Python for types and sizes unknown to them.
        raise EncoderError(
            f"{path} is not a whole safetensors file; it may be cut short ({path.stat().st_size:,} bytes: {error}). "
            "Download or save it again."
        ) from error


def _read_pickled(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    content = read_pickle(path)
    if not isinstance(content, Mapping):
        raise EncoderError(f"{path} holds a {type(content).__name__}, expected a dict of tensors. {EXPECTED}")
    metadata = {str(key): str(value) for key, value in content.items() if isinstance(value, str | int | float)}
    state = _tensors(content)
    selected = {name: state[name] for name in select(state, str(path))}
    for name, tensor in selected.items():
        _require_plain(name, tensor, str(path))
    # Tensors in a pickle may share memory; their copies do not, so that a small file could fill the machine.
    total, stored = sum(tensor.nbytes for tensor in selected.values()), path.stat().st_size
    if total > stored:
        raise EncoderError(
            f"{path} has {stored:,} bytes, and its text encoder takes {total:,}: its tensors share their values, which "
            "no text encoder's do. Use another file."
        )
    return selected, metadata


def _dicts(content: Mapping[Any, Any]) -> list[Mapping[Any, Any]]:
    """The content and the dicts inside it, those that lie nearest first: Lightning and others nest two."""
    found = level = {id(content): content}
    for _ in range(_DEEPEST):
        inner = {id(value): value for each in level.values() for value in each.values() if isinstance(value, Mapping)}
        # A pickle may hold a dict within itself.
        level = {key: value for key, value in inner.items() if key not in found}
        found = found | level
    return list(found.values())


def _tensors(content: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
    """The state dict of a pickle: the content itself, or the first dict inside it that holds a token embedding."""
    states = [
        {name: value for name, value in each.items() if isinstance(name, str) and isinstance(value, torch.Tensor)}
        for each in _dicts(content)
    ]
    with_tokens = [state for state in states if any(name.endswith(OPENAI_TOKENS) for name in state)]
    return next(iter(with_tokens or [state for state in states if state] or [{}]))
