"""The shapes world's weights as files that other programs read: an SD 1.x checkpoint and a text encoder.

`weights` unpacks them; here they get the names and sizes of SD 1.x, and are written to disk once. In the checkpoint the
small text encoder is widened to ViT-L/14, as loaders expect it; the file next to it holds the small one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...encoders.layouts import VIT_L_14, EncoderConfig
from ...errors import SettingsError, ShapesError
from ...files import write_json, write_tensors
from ...rows import read_json
from ...settings import checked
from ...unet.names import CHECKPOINT_PREFIX, UnetConfig, unet_names
from .weights import WEIGHTS, load_packed, weights_hash

# What SD 1.x multiplies latents by.
LATENT_FACTOR = 0.18215


@dataclass(frozen=True)
class ExpandedFiles:
    """Where the expanded files are."""

    checkpoint: Path
    text_encoder: Path


def expand(folder: Path, weights: Path = WEIGHTS) -> ExpandedFiles:
    """Write the SD 1.x checkpoint (float16, 320 MB) and the small text encoder (90 MB) into `folder`.

    Files that are already there and whole, by their SHA-256 in `shapes.json`, are kept.

    Raises:
        ShapesError: the packed weights are missing or damaged.
    """
    files = ExpandedFiles(folder / "shapes_sd15.safetensors", folder / "shapes_text_encoder.safetensors")
    record_path = folder / "shapes.json"
    source = weights_hash(weights)
    if _is_whole(record_path, source, files):
        return files
    encoder, metadata = load_packed("text_encoder", weights)
    checkpoint = {
        **checkpoint_unet(load_packed("unet", weights)[0]),
        **{f"cond_stage_model.transformer.{name}": value for name, value in widen(encoder).items()},
        **checkpoint_autoencoder(load_packed("autoencoder", weights)[0]),
    }
    for path, state in ((files.checkpoint, checkpoint), (files.text_encoder, encoder)):
        write_tensors(path, {name: value.half() for name, value in state.items()}, metadata)
    hashes = {path.name: _file_hash(path) for path in (files.checkpoint, files.text_encoder)}
    write_json(record_path, {"source": source, "sha256": hashes})
    return files


def checkpoint_unet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a whole U-Net from diffusers' names to those of the original SD 1.x checkpoints."""
    names = unet_names(UnetConfig.of({name: value.shape for name, value in state.items()}))
    return {f"{CHECKPOINT_PREFIX}{names.compvis[name]}": value for name, value in state.items()}


def checkpoint_autoencoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the autoencoder's tensors to TAESD's names, and turn its scale and shift into TAESD's.

    Who reads a checkpoint computes x = 0.18215 · (z / vae_scale + vae_shift); ours is x = (z − shift) · scale.
    """
    vae_scale = LATENT_FACTOR / state["scale"].float()
    renamed = {
        f"first_stage_model.taesd_{name}": value
        for name, value in state.items()
        if name.startswith(("encoder.", "decoder."))
    }
    return renamed | {
        "first_stage_model.vae_scale": vae_scale,
        "first_stage_model.vae_shift": -state["shift"].float() / vae_scale,
    }


def widen(state: Mapping[str, Tensor], config: EncoderConfig = VIT_L_14) -> dict[str, Tensor]:
    """Make a CLIP text encoder of a larger `config` that computes exactly the same function.

    New hidden units of the MLP have zero weights. New layers come after the last and have zero output projections, so
    that the residual stream passes through them unchanged.

    Raises:
        ShapesError: the encoder is larger than `config` or of another width.
    """
    small = EncoderConfig.of(state)
    same = ("width", "heads", "vocabulary", "positions")
    if any(getattr(small, field) != getattr(config, field) for field in same) or small.layers > config.layers:
        raise ShapesError(f"A text encoder of {small} cannot be widened to {config}: only layers and the MLP may grow.")
    wide = {}
    for name, shape in config.shapes().items():
        if name in state:
            wide[name] = _zero_pad(state[name], shape)
        else:
            is_norm_weight = "layer_norm" in name and name.endswith("weight")
            wide[name] = torch.ones(shape) if is_norm_weight else torch.zeros(shape)
    return wide


def _zero_pad(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    padded = value.new_zeros(shape)
    padded[tuple(slice(size) for size in value.shape)] = value
    return padded


def _is_whole(record_path: Path, source: str, files: ExpandedFiles) -> bool:
    try:
        record = checked(dict[str, Any], read_json(record_path), "the record")
        hashes = checked(dict[str, str], record.get("sha256"), "sha256")
    except (OSError, ValueError, SettingsError):
        return False
    if record.get("source") != source:
        return False
    return all(
        path.is_file() and hashes.get(path.name) == _file_hash(path) for path in (files.checkpoint, files.text_encoder)
    )


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
