"""How the shapes world's weights are packed into the package's small files, and made into networks again.

A part (`unet`, `autoencoder`, `text_encoder`, `judge` or `contrast`) is one safetensors file or more. In them a matrix
`name` is int8 with one float32 step a row in `name.scale`: value = int8 · scale[row]. Short tensors are float16. Of the
49,408 rows of the text encoder's vocabulary only those that training used are kept, their numbers in `used_tokens`;
`filler_rows` makes the others. What other programs read is made of them by `checkpoint`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...encoders.layouts import TOKEN_TABLE
from ...encoders.text_encoder import TextEncoder
from ...encoders.tokens import VOCABULARY_SIZE
from ...errors import ShapesError
from ...files import whole_file
from .model import ShapesModel, TinyAutoencoder, build_unet

WEIGHTS = Path(__file__).parents[1] / "weights"
USED_TOKENS = "used_tokens"
# Bytes of one file.
FILE_LIMIT = 15_000_000
# Matrices of fewer values stay float16: they take little space, and the sensitive first and last layers are among them.
SMALLEST_PACKED = 4096
# Standard deviation of `filler_rows`, CLIP's own for token embeddings.
FILLER_DEVIATION = 0.02


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Quantise every large matrix to int8 with one step a row (absmax / 127): the error is at most half a step."""
    packed = {}
    for name, value in state.items():
        value = value.detach().cpu()
        if not value.is_floating_point():
            packed[name] = value.contiguous()
        elif value.ndim < 2 or value.numel() < SMALLEST_PACKED:
            packed[name] = value.half().contiguous()
        else:
            rows = value.float().flatten(1)
            step = (rows.abs().amax(1) / 127).clamp_min(1e-12)
            packed[name] = (rows / step[:, None]).round().to(torch.int8).reshape(value.shape)
            packed[f"{name}.scale"] = step
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `pack`, but for what rounding lost: float32 tensors."""
    state = {}
    for name, value in packed.items():
        if f"{name}.scale" in packed:
            step = packed[f"{name}.scale"].view(-1, *[1] * (value.ndim - 1))
            state[name] = value.float() * step
        elif not (name.endswith(".scale") and name.removesuffix(".scale") in packed):
            state[name] = value.float() if value.is_floating_point() else value
    return state


def save_packed(folder: Path, part: str, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[Path]:
    """Pack `state` and write it as one file, or as several when it is larger than FILE_LIMIT bytes."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, value in pack(state).items():
        if size and size + value.nbytes > FILE_LIMIT:
            shards.append({})
            size = 0
        shards[-1][name] = value
        size += value.nbytes
    for stale in folder.glob(f"{part}*.safetensors"):
        stale.unlink()
    paths = []
    for number, shard in enumerate(shards, start=1):
        suffix = f"-{number:05}-of-{len(shards):05}" if len(shards) > 1 else ""
        path = folder / f"{part}{suffix}.safetensors"
        with whole_file(path) as temporary:
            save_file(shard, temporary, metadata=dict(metadata))
        paths.append(path)
    return paths


def load_packed(part: str, folder: Path = WEIGHTS) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A part's float32 tensors and its metadata; the text encoder comes with its whole vocabulary.

    Raises:
        ShapesError: a file of the part is missing or damaged.
    """
    state, metadata = read_packed(part, folder)
    return (with_vocabulary(state) if part == "text_encoder" else state), metadata


def read_packed(part: str, folder: Path = WEIGHTS) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A part's float32 tensors as they are stored, and its metadata.

    Raises:
        ShapesError: a file of the part is missing or damaged.
    """
    packed: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for path in packed_files(part, folder):
        try:
            with safe_open(path, framework="pt") as file:
                metadata |= file.metadata() or {}
                packed |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError) as error:
            raise ShapesError(f"{path} is damaged ({error}). Install the package again.") from error
    return unpack(packed), metadata


def with_vocabulary(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text encoder's state with all 49,408 rows, from one with the `used_tokens` alone."""
    whole = dict(state)
    rows = whole.pop(USED_TOKENS).long()
    table = filler_rows(width=state[TOKEN_TABLE].shape[1])
    table[rows] = state[TOKEN_TABLE].float()
    whole[TOKEN_TABLE] = table
    return whole


def used_rows(state: Mapping[str, Tensor], used: Tensor) -> dict[str, Tensor]:
    """A text encoder's state with the rows of the `used` tokens alone; `with_vocabulary` undoes it."""
    return {**state, TOKEN_TABLE: state[TOKEN_TABLE][used.long()], USED_TOKENS: used.int()}


def packed_files(part: str, folder: Path = WEIGHTS) -> list[Path]:
    """The files of a part, in order.

    Raises:
        ShapesError: one is missing.
    """
    paths = sorted(folder.glob(f"{part}.safetensors")) or sorted(folder.glob(f"{part}-*-of-*.safetensors"))
    expected = int(paths[0].stem.rsplit("-", 1)[1]) if paths and "-of-" in paths[0].stem else 1
    if len(paths) != expected:
        raise ShapesError(
            f"{folder} holds {len(paths)} of {expected} files of the shapes world's {part}. "
            "Install the package again, or train with `python -m sage_core.shapes.train`."
        )
    return paths


def load_model(folder: Path = WEIGHTS) -> ShapesModel:
    """The trained model on the CPU in float32, ready to draw."""
    return restore_model(*(load_packed(part, folder)[0] for part in ("unet", "autoencoder", "text_encoder")))


def restore_model(unet: Mapping[str, Tensor], vae: Mapping[str, Tensor], encoder: Mapping[str, Tensor]) -> ShapesModel:
    """The model whose weights these are, sizes taken from them."""
    channels = unet["conv_in.weight"].shape[0]
    context = unet["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"].shape[1]
    model = ShapesModel(
        build_unet(channels, context),
        TinyAutoencoder(vae["encoder.0.weight"].shape[0]),
        TextEncoder.from_state(encoder),
    )
    model.unet.load_state_dict(unet)
    model.vae.load_state_dict(vae)
    return model.eval()


def filler_rows(vocabulary: int = VOCABULARY_SIZE, width: int = 768) -> Tensor:
    """Embedding rows (vocabulary, width) for tokens that no caption uses: uniform, mean 0, deviation 0.02.

    Training starts all rows from them. It mixes some of these tokens into captions, so that the model learns to read
    past words that it does not know. With zeros all such words would be the same one.
    RandomState's byte stream is frozen by NumPy's compatibility policy, so the rows never change.
    """
    noise = np.frombuffer(np.random.RandomState(0).bytes(vocabulary * width), dtype=np.uint8)
    steps = torch.from_numpy(noise.copy()).view(vocabulary, width).float() - 127.5
    return steps * (FILLER_DEVIATION * 3**0.5 / 127.5)


def weights_hash(weights: Path = WEIGHTS, parts: Sequence[str] = ("unet", "autoencoder", "text_encoder")) -> str:
    """SHA-256 over the packed files of `parts`, the diffusion model's by default."""
    digest = hashlib.sha256()
    for part in parts:
        for path in packed_files(part, weights):
            digest.update(path.read_bytes())
    return digest.hexdigest()
