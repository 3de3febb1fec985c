"""A tiny U-Net, text encoder and checkpoint of random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sage_core.encoders.text_encoder import EncoderConfig, TextEncoder
from sage_core.encoders.tokens import tokenize
from sage_core.unet.names import CHECKPOINT_PREFIX, UnetConfig, unet_names

# Of the states that the U-Net of two levels reads.
WIDTH = 16
# What `write_checkpoint` writes.
CHECKPOINT_UNET = UnetConfig(channels=32, multipliers=(1,), blocks=1, attention=(True,), context=64)
CHECKPOINT_ENCODER = EncoderConfig(layers=1, width=64, heads=1, mlp_width=64, vocabulary=49408, positions=77)


def two_level_unet() -> nn.Module:
    """Two levels, one of them without attention, by diffusers' own hands."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        layers_per_block=1, block_out_channels=(32, 64), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=WIDTH, attention_head_dim=8,
    ).eval()  # fmt: skip


def checkpoint_state(unet: nn.Module) -> dict[str, Tensor]:
    """Its weights under CompVis' names, as a checkpoint has them."""
    own = unet.state_dict()
    names = unet_names(UnetConfig.of({name: tuple(value.shape) for name, value in own.items()}))
    return {f"model.diffusion_model.{names.compvis[name]}": value for name, value in own.items()}


def of_nine_channels(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same as an inpainting model's, which reads a mask and a picture, too."""
    name = "model.diffusion_model.input_blocks.0.0.weight"
    return state | {name: torch.cat([state[name], torch.zeros(32, 5, 3, 3)], 1)}


def one_layer_encoder(width: int = WIDTH) -> TextEncoder:
    torch.manual_seed(1)
    config = EncoderConfig(layers=1, width=width, heads=1, mlp_width=16, vocabulary=49408, positions=77)
    return TextEncoder.fresh(config).requires_grad_(False)


def spread_encoder(width: int = WIDTH, layers: int = 1, mlp_width: int = 16, seed: int = 1) -> TextEncoder:
    """An encoder whose states differ: fresh token embeddings are so small that all would be nearly the same."""
    torch.manual_seed(seed)
    config = EncoderConfig(layers=layers, width=width, heads=1, mlp_width=mlp_width, vocabulary=49408, positions=77)
    encoder = TextEncoder.fresh(config)
    with torch.no_grad():
        encoder.token_table.weight.mul_(50)
    return encoder


def ramp(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of these shapes that every machine has to the bit."""
    return {name: (torch.arange(value.numel()) % 7 / 64).view(value.shape) for name, value in state.items()}


def last(text: str) -> int:
    """Position of the last token: the number of tokens before the end token, without the start."""
    ids = tokenize([text])[0].tolist()
    return ids.index(49407) - 1


def write_checkpoint(folder: Path) -> Path:
    """A checkpoint of SD 1.x's kind, with a U-Net and a text encoder."""
    draw = torch.Generator().manual_seed(0)
    names = unet_names(CHECKPOINT_UNET)
    tensors = {
        f"{CHECKPOINT_PREFIX}{names.compvis[name]}": 0.1 * torch.randn(shape, generator=draw)
        for name, shape in names.shapes.items()
    }
    for name, shape in CHECKPOINT_ENCODER.shapes().items():
        scale = 1.0 if "token_embedding" in name else 0.05
        norm = float("norm" in name and name.endswith("weight"))
        tensors[f"cond_stage_model.transformer.{name}"] = scale * torch.randn(shape, generator=draw) + norm
    path = folder / "tiny.safetensors"
    save_file(tensors, path)
    return path
