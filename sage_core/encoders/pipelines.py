"""An aligned text encoder in a pipeline of diffusers, in one line: `to_diffusers(pipe, "sage.safetensors")`."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import EncoderError
from .layouts import canonical_state, read_encoder
from .text_encoder import TextEncoder, own_names

Pipeline = TypeVar("Pipeline")

_ACTIVATION = "quick_gelu"


def to_diffusers(pipe: Pipeline, encoder: str | os.PathLike[str] | Mapping[str, Tensor] | TextEncoder) -> Pipeline:
    """Put a text encoder into an SD 1.x pipeline of diffusers, and return that pipeline.

    The pipeline gets a text encoder of its own with exactly these weights, in the precision and on the device of the
    one that it had; the one that it had stays as it was, in other pipelines too. A pipeline in half precision holds
    the weights rounded to it.

    Args:
        pipe: such as StableDiffusionPipeline, before its offloading is switched on.
        encoder: a file or folder of any layout that `read_encoder` knows, a state dict, or a TextEncoder.

    Raises:
        EncoderError: the file is none, or the pipeline is of another kind or carries LoRAs or offloading hooks, or its
            text encoder has other sizes, or a weight does not fit its precision. The pipeline is then unchanged.
    """
    state, source = _state_of(encoder)
    own = _own_encoder(pipe)
    wanted = _fitting(own, state, source)
    fresh = copy.deepcopy(own)
    reference = next(own.parameters())
    for name, parameter in fresh.state_dict().items():
        if name in wanted:
            value = wanted[name].to(reference.device, parameter.dtype)
            if not value.isfinite().all():
                raise EncoderError(
                    f"{source}: {name} holds values that do not fit the pipeline's {parameter.dtype}. Load the "
                    "pipeline in fp32 or bf16."
                )
            # The state dict shares its memory with the copy.
            with torch.no_grad():
                parameter.copy_(value)
    # Not by assignment: the pipeline also writes down of what class its parts are.
    pipe.register_modules(text_encoder=fresh)  # type: ignore[attr-defined]
    return pipe


def _state_of(encoder: Any) -> tuple[dict[str, Tensor], str]:
    if isinstance(encoder, TextEncoder):
        return encoder.state(), "the encoder"
    if isinstance(encoder, Mapping):
        return canonical_state(encoder), "the state"
    return read_encoder(encoder)[0], os.fspath(encoder)


def _own_encoder(pipe: Any) -> nn.Module:
    """The pipeline's text encoder, if it is one of CLIP that can be copied."""
    own = getattr(pipe, "text_encoder", None)
    name = type(pipe).__name__
    if not isinstance(own, nn.Module) or not hasattr(pipe, "register_modules"):
        raise EncoderError(
            f"A {name} has no text encoder to take the place of, expected a pipeline of diffusers for SD 1.x, such as "
            "StableDiffusionPipeline."
        )
    if getattr(pipe, "text_encoder_2", None) is not None:
        raise EncoderError(f"A {name} has two text encoders, as SDXL has; expected a pipeline for SD 1.x, with one.")
    activation = getattr(getattr(own, "config", None), "hidden_act", None)
    if activation != _ACTIVATION:
        raise EncoderError(
            f"The {name}'s text encoder is a {type(own).__name__} with the activation {activation}, expected CLIP's of "
            f"SD 1.x, with {_ACTIVATION}."
        )
    if any(hasattr(module, "_hf_hook") for module in own.modules()):
        raise EncoderError(f"The {name} offloads its parts. Call to_diffusers first, then switch offloading on.")
    if any("lora" in part.lower() for part, _ in own.named_parameters()):
        raise EncoderError(
            f"The {name}'s text encoder carries a LoRA, which was made for its old weights. Call unload_lora_weights "
            "first."
        )
    return own


def _fitting(own: nn.Module, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The state by the names of the pipeline's encoder, which has every one of them in the same shape, and no more."""
    there = {name: tensor for name, tensor in own.state_dict().items() if not name.endswith("position_ids")}
    wanted = {name: state[canonical] for canonical, name in own_names(own, state).items()}
    strange = sorted(there.keys() ^ wanted.keys())
    strange += sorted(name for name in there.keys() & wanted.keys() if there[name].shape != wanted[name].shape)
    if strange:
        raise EncoderError(
            f"{source} does not fit the pipeline's text encoder: {len(strange)} tensors are missing, foreign or of "
            f"another shape ({', '.join(strange[:3])}). Both must be of SD 1.x."
        )
    return wanted
