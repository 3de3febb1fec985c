"""ComfyUI's CLIPs: loaded from files, read as state dicts, copied, and moved by a difference."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import comfy.lora
import comfy.model_patcher
import comfy.sd
import folder_paths
import torch
from torch import Tensor

from ...sage_core.encoders.layouts import EncoderConfig, read_encoder, require_sd1
from ...sage_core.encoders.text_encoder import state_hash
from ...sage_core.encoders.tokens import CONTEXT_LENGTH, VOCABULARY_SIZE
from ...sage_core.errors import EncoderError, PromptError
from ...sage_core.rows import text_problem
from . import models

_TOWER = "clip_l"
_TRANSFORMER = f"{_TOWER}.transformer."
_PLAIN = (torch.float32, torch.float16, torch.bfloat16)
# ComfyUI tells encoders apart by depth: it takes a file with 23 or more layers for SD 2.x's, and fails at a single one.
_LOADABLE_LAYERS = range(2, 23)
# Of each text model that is in memory, hashes by ComfyUI's name for its patches.
_hashes: WeakKeyDictionary[torch.nn.Module, dict[object, str]] = WeakKeyDictionary()


def load_clip(path: Path, name: str, **options: bool) -> comfy.sd.CLIP:
    """Load a text encoder's file of any depth, width and MLP size as a CLIP; `name` is what messages call it.

    Args:
        options: for ComfyUI's own loader.

    Raises:
        EncoderError: the file holds no text encoder, or one that ComfyUI cannot hold.
    """
    state, _ = read_encoder(path)
    config = EncoderConfig.of(state)
    _require_loadable(config, name)
    sizes = {
        "num_hidden_layers": config.layers,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_width,
        "hidden_act": config.activation,
    }
    # SD 1.x has no projection; if the file has none, ComfyUI warns and uses uninitialised memory.
    projection = torch.eye(config.width)
    clip = comfy.sd.load_text_encoder_state_dicts(
        [{**state, "text_projection.weight": projection}],
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION,
        model_options={"model_config": sizes},
        **options,
    )
    # From version 0.16 on, hooks and clones for a second GPU use this to load a model again. It reads the file, since a
    # state dict kept for it would hold the encoder in memory twice.
    clip.patcher.cached_patcher_init = (_load_patcher, (path, name))
    return clip


def _load_patcher(path: Path, name: str, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The patcher of the same CLIP, loaded again; `cached_patcher_init` calls it."""
    takes = inspect.signature(comfy.sd.load_text_encoder_state_dicts).parameters
    options = {"disable_dynamic": disable_dynamic} if "disable_dynamic" in takes else {}
    return load_clip(path, name, **options).patcher


def _require_loadable(config: EncoderConfig, name: str) -> None:
    require_sd1(config, name)
    if config.layers not in _LOADABLE_LAYERS:
        raise EncoderError(f"{name} has {config.layers} layers; ComfyUI loads CLIP-L encoders of 2 to 22 layers.")
    if (config.vocabulary, config.positions) != (VOCABULARY_SIZE, CONTEXT_LENGTH):
        raise EncoderError(
            f"{name} knows {config.vocabulary} tokens at {config.positions} positions; an SD 1.x text encoder knows "
            f"{VOCABULARY_SIZE} at {CONTEXT_LENGTH}."
        )


def own_weights(clip: comfy.sd.CLIP) -> dict[str, Tensor]:
    """Canonical state dict of a CLIP without LoRAs or other patches, on the CPU; not to be written to.

    Raises:
        EncoderError: the CLIP is not that of an SD 1.x model.
    """
    return _canonical({key: values[:1] for key, values in _weights_and_patches(clip).items()})


def patched_weights(clip: comfy.sd.CLIP) -> dict[str, Tensor]:
    """The weights of `own_weights` with every patch (LoRA, SAGE) worked in."""
    return _canonical(_weights_and_patches(clip))


def encoder_hash(clip: comfy.sd.CLIP) -> str:
    """The hash of `patched_weights`, by which gates know their text encoder; of a CLIP that stays it is computed once.

    Raises:
        EncoderError: the CLIP is not that of an SD 1.x model.
    """
    if clip is None:
        raise EncoderError("clip is empty: the checkpoint holds no text encoder. Load one with CLIPLoader.")
    known = _hashes.setdefault(clip.cond_stage_model, {})
    patches = clip.patcher.patches_uuid
    if patches not in known:
        known[patches] = state_hash(patched_weights(clip))
    return known[patches]


def private_copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """fp32 copies that may be trained and saved."""
    # ComfyUI runs nodes in inference mode, whose tensors can never be trained.
    with torch.inference_mode(False), torch.no_grad():
        return {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}


def encode_alike(first: comfy.sd.CLIP, second: comfy.sd.CLIP) -> bool:
    """Whether two CLIPs hold the same weights with the same patches, those of strength 0 left out."""
    one, other = (
        {key: [values[0], *(patch for patch in values[1:] if patch[0])] for key, values in found.items()}
        for found in map(_weights_and_patches, (first, second))
    )
    return one.keys() == other.keys() and all(models.same_entry(values, other[key]) for key, values in one.items())


def require_last_layer(clip: comfy.sd.CLIP) -> None:
    """Raise EncoderError for a CLIP with clip skip: what is computed here is the last layer's output."""
    if getattr(clip, "layer_idx", None) not in (None, -1):
        raise EncoderError(
            f"This CLIP stops at layer {clip.layer_idx} (CLIP Set Last Layer), which is not supported here: connect it "
            "without that node."
        )


def encode(clip: comfy.sd.CLIP, text: str) -> list:
    """CONDITIONING of a text, as ComfyUI's own CLIP Text Encode makes it.

    Raises:
        EncoderError: there is no CLIP.
        PromptError: ComfyUI's own fails at the text, or would make NaN of it.
    """
    if clip is None:
        raise EncoderError("clip is empty: the checkpoint holds no text encoder. Load one with CLIPLoader.")
    if problem := text_problem(text):
        raise PromptError(f"text holds {problem}.")
    try:
        tokens = clip.tokenize(text)
    except RecursionError:
        raise PromptError("text has more brackets within brackets than ComfyUI reads: take some out.") from None
    if not all(math.isfinite(token[1]) for batches in tokens.values() for batch in batches for token in batch):
        raise PromptError("text gives a word a weight that is no number, as in (word:nan): write a number, or none.")
    return clip.encode_from_tokens_scheduled(tokens)


def last_layer_states(clip: comfy.sd.CLIP, text: str) -> Tensor:
    """States (1, 77 n, width) of a text after the final layer norm, whatever CLIP Set Last Layer says."""
    whole = clip.clone()
    whole.layer_idx = None
    return encode(whole, text)[0][0].float()


def timed(parts: Sequence[tuple[Tensor, float]], pooled: Tensor) -> list:
    """CONDITIONING of states (77, width) that hold one after the other, each to a share of the steps; up to 1 in all.

    `pooled` is the row of the end token, (width,).
    """
    found, start = [], 0.0
    for states, end in parts:
        if end > start:
            extras = {"pooled_output": pooled[None].clone()}
            if (start, end) != (0.0, 1.0):
                extras |= {"start_percent": start, "end_percent": end}
            found.append([states[None].float().clone(), extras])
        start = max(start, end)
    return found


def count_patches(clip: comfy.sd.CLIP) -> int:
    """The number of LoRAs and other patches on the most patched tensor of a CLIP."""
    return max(len(values) - 1 for values in _weights_and_patches(clip).values())


def patch_notes(clip: comfy.sd.CLIP) -> list[str]:
    """For the report of a training: a warning if the CLIP carries patches, which it did not see."""
    if not (patches := count_patches(clip)):
        return []
    return [f"⚠ The CLIP carried {patches} patch(es), such as LoRAs: they stay on it, but took no part in training."]


def rounding(clip: comfy.sd.CLIP, target: Mapping[str, Tensor], base: Mapping[str, Tensor], strength: float) -> float:
    """How much of strength · (target − base) is lost when it is added to weights that this CLIP holds coarsely.

    ComfyUI adds in fp32 and rounds to the CLIP's own precision. Of a CLIP in fp32 or fp16 it is taken for 0.
    """
    lost = whole = 0.0
    for key, values in _weights_and_patches(clip).items():
        weight, name = values[0][0], _name(key)
        if weight.dtype in (torch.float32, torch.float16) or name not in base:
            continue
        delta = strength * (target[name].float() - base[name].float())
        own = weight.to("cpu", torch.float32)
        lost += float((((own + delta).to(weight.dtype).float() - own) - delta).square().sum())
        whole += float(delta.square().sum())
    return (lost / whole) ** 0.5 if whole else 0.0


def add_difference(
    clip: comfy.sd.CLIP, target: Mapping[str, Tensor], base: Mapping[str, Tensor], strength: float
) -> comfy.sd.CLIP:
    """A clone of `clip` whose weights are moved by strength · (target − base); `clip` itself stays as it was.

    It is a patch, not a swap: it adds up with LoRAs and works with offloading and hooks.

    Raises:
        EncoderError: clip, target and base differ in depth, width or another size.
    """
    own = EncoderConfig.of({_name(key): values[0][0] for key, values in _weights_and_patches(clip).items()})
    for role, state in (("encoder", target), ("encoder_base", base)):
        if differences := _differences(EncoderConfig.of(state), own):
            raise EncoderError(
                f"The {role} does not fit this CLIP: {differences}. Both must be of the same kind of model: use "
                "the CLIP of a checkpoint like the one that the encoder was made from."
            )
    moved = clip.clone()
    moved.add_patches({_TRANSFORMER + name: ("diff", (target[name].float() - base[name],)) for name in base}, strength)
    return moved


def _differences(found: EncoderConfig, expected: EncoderConfig) -> str:
    """The sizes in which an encoder differs from a CLIP, in words; empty if there are none."""
    sizes = {
        "layers": "layers",
        "width": "width",
        "heads": "attention heads",
        "mlp_width": "MLP width",
        "vocabulary": "tokens in its vocabulary",
        "positions": "positions",
    }
    pairs = {words: (getattr(found, name), getattr(expected, name)) for name, words in sizes.items()}
    return ", ".join(
        f"{words} {one:,} where the CLIP has {other:,}" for words, (one, other) in pairs.items() if one != other
    )


def _weights_and_patches(clip: comfy.sd.CLIP | None) -> dict[str, list]:
    """ComfyUI's key → [(weight as loaded, its conversion), patch, …] of the text model alone.

    `text_projection` and `logit_scale` are left out: on SD 1.x they are uninitialised memory.
    """
    if clip is None:
        raise EncoderError("clip is empty: the checkpoint holds no text encoder. Load one with CLIPLoader.")
    everything = clip.get_key_patches()
    towers = sorted({key.split(".", 1)[0] for key in everything})
    if towers != [_TOWER]:
        raise EncoderError(
            f"This CLIP holds {', '.join(towers)}; SAGE works on the text encoder of SD 1.x, which is {_TOWER} alone. "
            "Use the CLIP of an SD 1.4 or 1.5 checkpoint."
        )
    return {key: values for key, values in everything.items() if key.startswith(_TRANSFORMER + "text_model.")}


def _canonical(weights: Mapping[str, list]) -> dict[str, Tensor]:
    state = {}
    for key, ((weight, convert), *patches) in weights.items():
        # Copying 123 million weights takes longer than all the rest of applying an encoder.
        if patches or weight.dtype not in _PLAIN:
            value = convert(weight.to("cpu", torch.float32, copy=True), inplace=True)
            state[_name(key)] = comfy.lora.calculate_weight(patches, value, key)
        else:
            state[_name(key)] = weight.detach().cpu()
    return state


def _name(key: str) -> str:
    return key.removeprefix(_TRANSFORMER)
