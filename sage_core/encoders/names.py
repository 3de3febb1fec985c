"""The names by which files call a CLIP text encoder's tensors, and what they are called here.

Files differ in the prefix before transformers' names (`cond_stage_model.transformer.` in SD 1.x checkpoints, `module.`
after DataParallel, none in transformers 5), or use OpenAI's names (`transformer.resblocks.*`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from ..errors import EncoderError

# What every canonical name begins with.
ROOT = "text_model."
TOKENS = "embeddings.token_embedding.weight"
OPENAI_TOKENS = "token_embedding.weight"
# The canonical name of the embeddings of all tokens, (vocabulary, width).
TOKEN_TABLE = ROOT + TOKENS
_TRANSFORMERS_NAME = re.compile(
    r"embeddings\.(token|position)_embedding\.weight|final_layer_norm\.(weight|bias)"
    r"|encoder\.layers\.[0-9]+\.(layer_norm[12]|mlp\.fc[12]|self_attn\.(q_proj|k_proj|v_proj|out_proj))\.(weight|bias)"
)
_OPENAI_BLOCK = re.compile(r"transformer\.resblocks\.([0-9]+)\.(.+)")
_OPENAI_FIXED = {
    OPENAI_TOKENS: TOKENS,
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_OPENAI_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
# Queries, keys and values of OpenAI's names, stacked.
FUSED = "self_attn.in_proj."
_OTHER_MODELS = (
    (("DenseReluDense", "SelfAttention.q.weight"), "a T5 text encoder, as of SD 3, Flux or PixArt"),
    (("lora_te", "lora_up", "lora_A.", "lora_unet"), "a LoRA, which changes an encoder but is not one itself"),
    (("model.layers.0.self_attn", "model.layers.0.input_layernorm"), "a language model"),
    (("diffusion_model.", "down_blocks.", "double_blocks."), "a diffusion model without a text encoder"),
    (("vision_model.", "visual."), "an image encoder"),
    (("decoder.up", "decoder.mid", "taesd_decoder"), "a VAE"),
)
# How an error says what a text encoder's file holds.
EXPECTED = f"Expected tensors named like `{TOKEN_TABLE}`."


def select(names: Iterable[str], source: str) -> dict[str, str]:
    """Map the names that belong to the text encoder to canonical ones (`in_proj` for fused attention weights)."""
    names = list(names)
    root, rename = _find_root(names, source)
    selected = {}
    for name in names:
        if name.startswith(root) and (canonical := rename(name[len(root) :])):
            selected[name] = ROOT + canonical
    return selected


def _find_root(names: list[str], source: str) -> tuple[str, Callable[[str], str | None]]:
    roots: dict[str, Callable[[str], str | None]] = {}
    for name in names:
        if f".{name}".endswith(f".{TOKENS}"):
            roots[name.removesuffix(TOKENS)] = _transformers_name
        elif f".{name}".endswith(f".{OPENAI_TOKENS}"):
            roots[name.removesuffix(OPENAI_TOKENS)] = _openai_name
    # A checkpoint that was saved with a textual inversion loaded has a second copy outside `cond_stage_model`.
    main = {root: rename for root, rename in roots.items() if root.startswith("cond_stage_model.")} or roots
    if len(main) == 1:
        return next(iter(main.items()))
    if main:
        raise EncoderError(
            f"{source} holds {len(main)} text encoders ({', '.join(sorted(main))}), as SDXL and SD 3 do; "
            "SD 1.x has one, CLIP ViT-L/14. Use an SD 1.x checkpoint or its text encoder."
        )
    for marks, description in _OTHER_MODELS:
        if any(mark in name for name in names for mark in marks):
            raise EncoderError(f"{source} is not a CLIP text encoder; it seems to be {description}. {EXPECTED}")
    shown = ", ".join(names[:3]) or "no tensors at all"
    raise EncoderError(f"{source} is not a CLIP text encoder; it holds {shown}. {EXPECTED}")


def _transformers_name(name: str) -> str | None:
    return name if _TRANSFORMERS_NAME.fullmatch(name) else None


def _openai_name(name: str) -> str | None:
    if name in _OPENAI_FIXED:
        return _OPENAI_FIXED[name]
    match = _OPENAI_BLOCK.fullmatch(name)
    if match is None:
        return None
    layer, part = f"encoder.layers.{match[1]}.", match[2]
    if part in ("attn.in_proj_weight", "attn.in_proj_bias"):
        return layer + FUSED + part.rpartition("_")[2]
    stem, _, kind = part.rpartition(".")
    return f"{layer}{_OPENAI_PARTS[stem]}.{kind}" if stem in _OPENAI_PARTS else None


def layout_of(names: Iterable[str], source: str) -> str:
    """In words, how a file that holds these names calls a text encoder's tensors.

    Raises:
        EncoderError: there is no text encoder or more than one; `source` names the origin in the message.
    """
    names = list(names)
    root, rename = _find_root(names, source)
    style = "OpenAI's names" if rename is _openai_name else "transformers' names"
    if root.startswith("cond_stage_model."):
        return f"an SD 1.x checkpoint, {style} after `{root}`"
    return style + (f" after `{root}`" if root else ", without a prefix")
