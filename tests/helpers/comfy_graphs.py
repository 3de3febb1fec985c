"""Graphs in ComfyUI's API format, and weights as ComfyUI holds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from sage_core.demo.comfyui.client import Outputs
from sage_core.encoders.layouts import read_encoder
from sage_core.shapes.networks.checkpoint import ExpandedFiles


def node(kind: str, **inputs: object) -> dict:
    """One node of a graph; a link is a list of another node's id and an output's number."""
    return {"class_type": kind, "inputs": inputs}


def held(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text encoder's weights as ComfyUI holds them: rounded to fp16, and in fp32 for work."""
    return {name: tensor.half().float() for name, tensor in state.items()}


def held_encoder(shapes_files: ExpandedFiles) -> dict[str, Tensor]:
    """The shapes world's text encoder, as ComfyUI holds it."""
    return held(read_encoder(shapes_files.text_encoder)[0])


def latents(base: Path, outputs: Outputs, name: str) -> list[Tensor]:
    """What a node SaveLatent has saved, batch by batch."""
    places = [base / "output" / at["subfolder"] / at["filename"] for at in outputs[name]["latents"]]
    return [load_file(place)["latent_tensor"] for place in places]
