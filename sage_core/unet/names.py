"""The tensors of SD 1.x's U-Net: their names in diffusers' and in the original (CompVis) form, and their shapes.

Inside this package a U-Net is a flat dict of tensors under diffusers' names. SD 1.x has 686 of them; 32 are matrices
that read the prompt (`attn2.to_k` and `attn2.to_v`). The names are generated from the sizes of the architecture, so
that smaller U-Nets of the same kind, such as the shapes world's, are named by the same code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from ..errors import UnetError

Shape = tuple[int, ...]
# A layer's path in diffusers' form, in CompVis' form, and the shapes of its tensors.
_Module = tuple[str, str, dict[str, Shape]]

COMFY_PREFIX = "diffusion_model."
CHECKPOINT_PREFIX = "model.diffusion_model."
_PREFIXES = (CHECKPOINT_PREFIX, COMFY_PREFIX, "module.", "unet.")

# diffusers' and CompVis' names of the layers of a residual block.
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


@dataclass(frozen=True)
class UnetConfig:
    """Sizes of a U-Net of SD 1.x's kind; the defaults are SD 1.x's own.

    Attributes:
        channels: of the first level.
        multipliers: of `channels`, one a level from the largest resolution to the smallest.
        blocks: residual blocks a level on the way down; there is one more on the way up.
        attention: whether a level has attention blocks; its middle block always has one.
        context: width of the text encoder.
        inputs: channels of what comes in: 4, or 9 for inpainting models.
        outputs: channels of what goes out.
    """

    channels: int = 320
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    attention: tuple[bool, ...] = (True, True, True, False)
    context: int = 768
    inputs: int = 4
    outputs: int = 4

    @classmethod
    def of(cls, shapes: Mapping[str, Shape]) -> UnetConfig:
        """Infer the sizes from the names and shapes of a whole U-Net in either form, with or without a prefix.

        Raises:
            UnetError: it is not a whole U-Net of this kind.
        """
        plain = {without_prefix(name): tuple(shape) for name, shape in shapes.items()}
        if not plain:
            raise UnetError("The weights are not a whole U-Net: they hold no part of one. Use an SD 1.x model's.")
        try:
            return _of_diffusers(plain) if "conv_in.weight" in plain else _of_compvis(plain)
        except (KeyError, ValueError, IndexError) as error:
            raise UnetError(
                f"The weights are not a whole U-Net of SD 1.x's kind ({len(plain)} tensors; {error} is missing or has "
                "another shape). Use the U-Net of an SD 1.x model."
            ) from error


SD1 = UnetConfig()


@dataclass(frozen=True)
class UnetNames:
    """The tensors of one U-Net; get it from `unet_names`, which keeps it.

    Attributes:
        shapes: diffusers' name and shape of every tensor.
        compvis: CompVis' name of every diffusers' name.
    """

    config: UnetConfig
    shapes: Mapping[str, Shape]
    compvis: Mapping[str, str]

    @cached_property
    def diffusers(self) -> Mapping[str, str]:
        """The name in diffusers of every CompVis name."""
        return {theirs: ours for ours, theirs in self.compvis.items()}

    @cached_property
    def underscored(self) -> Mapping[str, str]:
        """The module path in diffusers of every path of either form with underscores for dots, as in LoRA keys."""
        return {
            module_of(name).replace(".", "_"): module_of(ours)
            for ours, theirs in self.compvis.items()
            for name in (ours, theirs)
        }

    def find(self, name: str) -> str | None:
        """The name in diffusers of a tensor that is named in either form, with or without a known prefix."""
        plain = without_prefix(name)
        return plain if plain in self.shapes else self.diffusers.get(plain)


def unet_values(config: UnetConfig) -> dict[str, Any]:
    """The configuration of SD 1.x in diffusers with these sizes."""
    cross = config.attention
    return {
        "sample_size": 64,
        "in_channels": config.inputs,
        "out_channels": config.outputs,
        "layers_per_block": config.blocks,
        "block_out_channels": [config.channels * factor for factor in config.multipliers],
        "down_block_types": ["CrossAttnDownBlock2D" if there else "DownBlock2D" for there in cross],
        "up_block_types": ["CrossAttnUpBlock2D" if there else "UpBlock2D" for there in reversed(cross)],
        "cross_attention_dim": config.context,
        # diffusers' name for what are SD 1.x's 8 heads.
        "attention_head_dim": 8,
        "norm_num_groups": 32,
    }


def unet_names(config: UnetConfig = SD1) -> UnetNames:
    """All tensors of a U-Net of these sizes."""
    return _unet_names(config)


@cache
def _unet_names(config: UnetConfig) -> UnetNames:
    shapes: dict[str, Shape] = {}
    compvis: dict[str, str] = {}
    for ours, theirs, tensors in _modules(config):
        for kind, shape in tensors.items():
            shapes[f"{ours}.{kind}"] = shape
            compvis[f"{ours}.{kind}"] = f"{theirs}.{kind}"
    return UnetNames(config, shapes, compvis)


def without_prefix(name: str) -> str:
    """The name without what wrappers, checkpoints and pipelines put before a U-Net's names."""
    while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    return name


def module_of(name: str) -> str:
    """The name of the layer that owns a tensor: all but the last part of its name."""
    return name.rpartition(".")[0]


def reads_prompt(name: str) -> bool:
    """Whether a tensor is one of the matrices that read the prompt: `attn2.to_k` or `attn2.to_v`, 32 in SD 1.x."""
    return name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight"))


def is_value(name: str) -> bool:
    """Whether a tensor is a value matrix of cross-attention, `attn2.to_v`; 16 in SD 1.x."""
    return name.endswith(".attn2.to_v.weight")


def in_cross_attention(name: str) -> bool:
    """Whether a tensor belongs to a cross-attention, `attn2`: 80 in SD 1.x (queries, keys, values, output)."""
    return ".attn2." in name


def block_of(name: str) -> str:
    """The block of a diffusers' name, as reports call it: "down 0" to "up 3", "middle", "time", "in" or "out"."""
    if match := re.match(r"(down|up)_blocks\.(\d+)\.", name):
        return f"{match[1]} {match[2]}"
    starts = {"mid_block.": "middle", "time_embedding.": "time", "conv_in.": "in"}
    return next((block for start, block in starts.items() if name.startswith(start)), "out")


# What a part of a name says about the kind of the tensor, as reports call it; the first that fits counts.
_KINDS = (
    (r"\.attn2\.to_[kv]\.", "cross-attention keys and values"),
    (r"\.attn2\.", "cross-attention queries and outputs"),
    (r"\.attn1\.", "self-attention"),
    (r"\.ff\.", "feed-forward"),
    (r"\.(norm\d?|conv_norm_out)\.|^conv_norm_out", "norms"),
    (r"\.proj_(in|out)\.", "attention projections"),
    (r"time_emb", "time"),
)


def kind_of(name: str) -> str:
    """The kind of a diffusers' name, as reports call it: "self-attention", "norms", "convolutions" and so on."""
    return next((kind for pattern, kind in _KINDS if re.search(pattern, name)), "convolutions")


def _modules(config: UnetConfig) -> Iterator[_Module]:
    """Every layer with weights: diffusers' path, CompVis' path, its tensors' shapes."""
    first, levels, per_level = config.channels, len(config.multipliers), config.blocks + 1
    widths = [first * multiplier for multiplier in config.multipliers]
    time = 4 * first
    yield "conv_in", "input_blocks.0.0", _conv(config.inputs, first)
    yield "time_embedding.linear_1", "time_embed.0", _linear(first, time)
    yield "time_embedding.linear_2", "time_embed.2", _linear(time, time)

    # Channels of each picture that the way down leaves for the way up.
    left, width = [first], first
    for level, out in enumerate(widths):
        for block in range(config.blocks):
            here, there = f"down_blocks.{level}", f"input_blocks.{1 + level * per_level + block}"
            yield from _resnet(f"{here}.resnets.{block}", f"{there}.0", width, out, time)
            if config.attention[level]:
                yield from _attention(f"{here}.attentions.{block}", f"{there}.1", out, config.context)
            width = out
            left.append(width)
        if level < levels - 1:
            there = f"input_blocks.{(level + 1) * per_level}.0.op"
            yield f"down_blocks.{level}.downsamplers.0.conv", there, _conv(width, width)
            left.append(width)

    yield from _resnet("mid_block.resnets.0", "middle_block.0", width, width, time)
    yield from _attention("mid_block.attentions.0", "middle_block.1", width, config.context)
    yield from _resnet("mid_block.resnets.1", "middle_block.2", width, width, time)

    for number, level in enumerate(reversed(range(levels))):
        for block in range(per_level):
            here, there = f"up_blocks.{number}", f"output_blocks.{number * per_level + block}"
            yield from _resnet(f"{here}.resnets.{block}", f"{there}.0", width + left.pop(), widths[level], time)
            width = widths[level]
            if config.attention[level]:
                yield from _attention(f"{here}.attentions.{block}", f"{there}.1", width, config.context)
        if level:
            there = f"output_blocks.{number * per_level + config.blocks}.{1 + config.attention[level]}.conv"
            yield f"up_blocks.{number}.upsamplers.0.conv", there, _conv(width, width)
    yield "conv_norm_out", "out.0", _norm(width)
    yield "conv_out", "out.2", _conv(width, config.outputs)


def _resnet(
    ours: str, theirs: str, inputs: int, outputs: int, time: int
) -> Iterator[tuple[str, str, dict[str, Shape]]]:
    layers = {
        "norm1": _norm(inputs),
        "conv1": _conv(inputs, outputs),
        "time_emb_proj": _linear(time, outputs),
        "norm2": _norm(outputs),
        "conv2": _conv(outputs, outputs),
    }
    if inputs != outputs:
        layers["conv_shortcut"] = _conv(inputs, outputs, size=1)
    for layer, tensors in layers.items():
        yield f"{ours}.{layer}", f"{theirs}.{_RESNET[layer]}", tensors


def _attention(ours: str, theirs: str, width: int, context: int) -> Iterator[_Module]:
    layers = {"norm": _norm(width), "proj_in": _conv(width, width, size=1)}
    for attention, source in (("attn1", width), ("attn2", context)):
        block = f"transformer_blocks.0.{attention}"
        layers |= {
            f"{block}.to_q": {"weight": (width, width)},
            f"{block}.to_k": {"weight": (width, source)},
            f"{block}.to_v": {"weight": (width, source)},
            f"{block}.to_out.0": _linear(width, width),
        }
    layers |= {
        # The gated unit's two halves are one matrix.
        "transformer_blocks.0.ff.net.0.proj": _linear(width, 8 * width),
        "transformer_blocks.0.ff.net.2": _linear(4 * width, width),
        **{f"transformer_blocks.0.norm{number}": _norm(width) for number in (1, 2, 3)},
        "proj_out": _conv(width, width, size=1),
    }
    for layer, tensors in layers.items():
        yield f"{ours}.{layer}", f"{theirs}.{layer}", tensors


def _conv(inputs: int, outputs: int, size: int = 3) -> dict[str, Shape]:
    return {"weight": (outputs, inputs, size, size), "bias": (outputs,)}


def _linear(inputs: int, outputs: int) -> dict[str, Shape]:
    return {"weight": (outputs, inputs), "bias": (outputs,)}


def _norm(width: int) -> dict[str, Shape]:
    return {"weight": (width,), "bias": (width,)}


def _of_diffusers(shapes: Mapping[str, Shape]) -> UnetConfig:
    levels = 1 + max(_numbers(shapes, r"down_blocks\.(\d+)\."))
    first = shapes["conv_in.weight"][0]
    return UnetConfig(
        channels=first,
        multipliers=tuple(shapes[f"down_blocks.{level}.resnets.0.conv1.weight"][0] // first for level in range(levels)),
        blocks=1 + max(_numbers(shapes, r"down_blocks\.0\.resnets\.(\d+)\.")),
        attention=tuple(f"down_blocks.{level}.attentions.0.norm.weight" in shapes for level in range(levels)),
        context=shapes["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"][1],
        inputs=shapes["conv_in.weight"][1],
        outputs=shapes["conv_out.weight"][0],
    )


def _of_compvis(shapes: Mapping[str, Shape]) -> UnetConfig:
    samplers = sorted(_numbers(shapes, r"input_blocks\.(\d+)\.0\.op\."))
    last = max(_numbers(shapes, r"input_blocks\.(\d+)\."))
    # A level ends with a downsampler, the last one with the last block.
    per_level = samplers[0] if samplers else last + 1
    starts = range(1, last + 1, per_level)
    first = shapes["input_blocks.0.0.weight"][0]
    return UnetConfig(
        channels=first,
        multipliers=tuple(shapes[f"input_blocks.{start}.0.in_layers.2.weight"][0] // first for start in starts),
        blocks=per_level - 1,
        attention=tuple(f"input_blocks.{start}.1.norm.weight" in shapes for start in starts),
        context=shapes["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1],
        inputs=shapes["input_blocks.0.0.weight"][1],
        outputs=shapes["out.2.weight"][0],
    )


def _numbers(names: Iterable[str], pattern: str) -> set[int]:
    return {int(match[1]) for name in names if (match := re.match(pattern, name))}
