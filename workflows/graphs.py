"""The graphs that the demo runs: the shipped training workflow on the shapes world, and pictures of many prompts."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .comfyui import Graph

API_FOLDER = Path(__file__).parent / "api"
# The shapes world draws pictures of this side.
SIDE = 64
SAMPLING = {"cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}


def load_graph(name: str) -> dict[str, dict[str, Any]]:
    """A shipped workflow in API format, by its file's name without extension."""
    return json.loads((API_FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def find(graph: Graph, title: str) -> str:
    """The id of the only node with this title."""
    (found,) = (name for name, entry in graph.items() if entry["_meta"]["title"] == title)
    return found


def on_shapes_world(
    graph: Graph, checkpoint: str, text_encoder: str, changes: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """A shipped workflow that uses the shapes world's files instead of SD 1.5's.

    The checkpoint's own text encoder is the small one widened to ViT-L/14: the same function at six times the cost.
    The small file takes its place. `changes` holds further inputs by node class.
    """
    changes = {
        "CheckpointLoaderSimple": {"ckpt_name": checkpoint},
        "EmptyLatentImage": {"width": SIDE, "height": SIDE},
        **changes,
    }
    patched = copy.deepcopy({name: dict(entry) for name, entry in graph.items()})
    loaders = [name for name, entry in graph.items() if entry["class_type"] == "CheckpointLoaderSimple"]
    for entry in patched.values():
        entry["inputs"] = entry["inputs"] | changes.get(entry["class_type"], {})
        for name, value in entry["inputs"].items():
            if isinstance(value, list) and value[0] in loaders and value[1] == 1:
                entry["inputs"][name] = ["small text encoder", 0]
    patched["small text encoder"] = node("SAGELoadEncoder", "Small text encoder", encoder_name=text_encoder)
    return patched


def picture_graph(
    checkpoint: str, text_encoder: str, prompts: Sequence[str], *, steps: int
) -> tuple[Graph, tuple[str, ...]]:
    """A graph that draws one picture of each prompt, with its row number as seed, and the node that shows each."""
    graph: dict[str, dict[str, Any]] = {
        "model": node("CheckpointLoaderSimple", "Checkpoint", ckpt_name=checkpoint),
        "encoder": node("SAGELoadEncoder", "Text encoder", encoder_name=text_encoder),
        "nothing": node("CLIPTextEncode", "Negative prompt", clip=["encoder", 0], text=""),
        "latent": node("EmptyLatentImage", "Picture size", width=SIDE, height=SIDE, batch_size=1),
    }
    for row, prompt in enumerate(prompts):
        graph[f"prompt {row}"] = node("CLIPTextEncode", f"Prompt {row}", clip=["encoder", 0], text=prompt)
        graph[f"sample {row}"] = node(
            "KSampler",
            f"Picture {row}",
            model=["model", 0],
            positive=[f"prompt {row}", 0],
            negative=["nothing", 0],
            latent_image=["latent", 0],
            seed=row,
            steps=steps,
            **SAMPLING,
        )
        graph[f"decode {row}"] = node("VAEDecode", f"Decode {row}", samples=[f"sample {row}", 0], vae=["model", 2])
        graph[f"show {row}"] = node("PreviewImage", f"Show {row}", images=[f"decode {row}", 0])
    return graph, tuple(f"show {row}" for row in range(len(prompts)))


def node(class_type: str, title: str, **inputs: Any) -> dict[str, Any]:
    """One node of a graph in API format."""
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}
