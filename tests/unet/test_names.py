"""The U-Net's names: equal to diffusers' own model, and the CompVis form both ways."""

from __future__ import annotations

import pytest
import torch

from sage_core.errors import UnetError
from sage_core.shapes.networks.model import build_unet
from sage_core.unet.names import (
    SD1,
    UnetConfig,
    block_of,
    in_cross_attention,
    is_value,
    kind_of,
    reads_prompt,
    unet_names,
)

NAMES = unet_names()

# Pairs written by hand from the published checkpoints' names, one for each rule of the mapping.
PAIRS = {
    "conv_in.weight": "input_blocks.0.0.weight",
    "time_embedding.linear_2.bias": "time_embed.2.bias",
    "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight": "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight",  # noqa: E501
    "down_blocks.2.attentions.1.proj_in.weight": "input_blocks.8.1.proj_in.weight",
    "down_blocks.1.resnets.0.conv_shortcut.weight": "input_blocks.4.0.skip_connection.weight",
    "down_blocks.3.resnets.1.time_emb_proj.bias": "input_blocks.11.0.emb_layers.1.bias",
    "down_blocks.2.downsamplers.0.conv.weight": "input_blocks.9.0.op.weight",
    "mid_block.attentions.0.norm.weight": "middle_block.1.norm.weight",
    "mid_block.resnets.1.conv2.weight": "middle_block.2.out_layers.3.weight",
    "up_blocks.0.upsamplers.0.conv.bias": "output_blocks.2.1.conv.bias",
    "up_blocks.1.upsamplers.0.conv.weight": "output_blocks.5.2.conv.weight",
    "up_blocks.3.attentions.2.transformer_blocks.0.attn1.to_out.0.bias": "output_blocks.11.1.transformer_blocks.0.attn1.to_out.0.bias",  # noqa: E501
    "up_blocks.2.resnets.0.norm2.weight": "output_blocks.6.0.out_layers.0.weight",
    "conv_norm_out.bias": "out.0.bias",
    "conv_out.weight": "out.2.weight",
}


@pytest.fixture(scope="module")
def sd1_shapes() -> dict[str, tuple[int, ...]]:
    """What diffusers itself builds with SD 1.x's configuration."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64,
            cross_attention_dim=768,
            block_out_channels=(320, 640, 1280, 1280),
            down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
            up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
        )
    return {name: tuple(value.shape) for name, value in unet.state_dict().items()}


def test_names_and_shapes_are_those_that_diffusers_builds(sd1_shapes: dict[str, tuple[int, ...]]) -> None:
    assert len(NAMES.shapes) == 686
    assert dict(NAMES.shapes) == sd1_shapes


def test_both_forms_go_both_ways() -> None:
    assert len(set(NAMES.compvis.values())) == 686
    for ours, theirs in NAMES.compvis.items():
        assert NAMES.find(ours) == ours
        for prefix in ("", "model.diffusion_model.", "diffusion_model.", "module.model.diffusion_model."):
            assert NAMES.find(prefix + theirs) == ours
        assert NAMES.find(f"unet.{ours}") == ours
    for ours, theirs in PAIRS.items():
        assert NAMES.compvis[ours] == theirs
    assert NAMES.find("down_blocks.3.downsamplers.0.conv.weight") is None
    assert NAMES.find("model_ema.diffusion_modelinput_blocks00weight") is None


def test_underscored_module_names_are_unambiguous() -> None:
    modules = {name.rpartition(".")[0] for name in NAMES.shapes}
    assert set(NAMES.underscored.values()) == modules
    assert NAMES.underscored["mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0"] == (
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
    )
    assert NAMES.underscored["middle_block_1_proj_in"] == "mid_block.attentions.0.proj_in"


def test_counts_of_the_parts_that_methods_train() -> None:
    assert sum(map(reads_prompt, NAMES.shapes)) == 32
    assert sum(map(is_value, NAMES.shapes)) == 16
    assert sum(map(in_cross_attention, NAMES.shapes)) == 80
    assert all(NAMES.shapes[name][1] == 768 for name in NAMES.shapes if reads_prompt(name))
    blocks = {block_of(name) for name in NAMES.shapes}
    assert blocks == {*(f"{way} {i}" for way in ("down", "up") for i in range(4)), "middle", "time", "in", "out"}
    kinds = [kind_of(name) for name in NAMES.shapes]
    assert kinds.count("cross-attention keys and values") == 32
    assert kinds.count("cross-attention queries and outputs") == 48
    assert kinds.count("self-attention") == 80
    # Three norms a transformer block, one before each of 16, two a residual block of 22, one at the end.
    assert kinds.count("norms") == 2 * (16 * 4 + 22 * 2 + 1)


@pytest.mark.parametrize(
    "config",
    [SD1, UnetConfig(inputs=9), UnetConfig(channels=64, multipliers=(1, 2), blocks=1, attention=(True, False))],
)
def test_sizes_are_found_in_either_form(config: UnetConfig) -> None:
    names = unet_names(config)
    assert UnetConfig.of(names.shapes) == config
    theirs = {f"model.diffusion_model.{names.compvis[name]}": shape for name, shape in names.shapes.items()}
    assert UnetConfig.of(theirs) == config


def test_the_shapes_worlds_unet() -> None:
    shapes = {name: tuple(value.shape) for name, value in build_unet(64, 48).state_dict().items()}
    config = UnetConfig.of(shapes)
    assert config == UnetConfig(channels=64, multipliers=(1,), blocks=1, attention=(True,), context=48)
    assert dict(unet_names(config).shapes) == shapes


def test_other_weights_are_refused() -> None:
    with pytest.raises(UnetError, match="not a whole U-Net"):
        UnetConfig.of({"text_model.embeddings.token_embedding.weight": (49408, 768)})
    with pytest.raises(UnetError, match="not a whole U-Net"):
        UnetConfig.of({"conv_in.weight": (320, 4, 3, 3)})
