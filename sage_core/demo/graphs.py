"""The graphs that the demo runs: the shipped workflows, on the shapes world."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..alignment.settings import PRESETS
from .comfyui.client import Graph

if TYPE_CHECKING:
    from ..shapes.networks.checkpoint import ExpandedFiles

API_FOLDER = Path(__file__).parent / "api"
# Pixels: the shapes world draws pictures of this side.
SIDE = 64
# One of SAGELoadJudge's choices.
READER = "shapes world reader"
# What the demo trains, by which preset's objective and as which file: DES, SAGE by its authors' script, and our own.
ALIGNED = {
    "DES": ("des", "des-encoder"),
    "SAGE": ("released", "sage-encoder"),
    "SAGE+": ("sage_plus", "sage-plus-encoder"),
}
SAMPLING = {"cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}


def load_graph(name: str) -> dict[str, dict[str, Any]]:
    """A shipped workflow in API format, by its file's name without extension."""
    return json.loads((API_FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def find(graph: Graph, title: str) -> str:
    """The id of the only node with this title."""
    (found,) = (name for name, entry in graph.items() if entry["_meta"]["title"] == title)
    return found


def on_shapes_world(
    name: str, files: ExpandedFiles, changes: Mapping[str, Mapping[str, Any]], encoder: str = ""
) -> dict[str, dict[str, Any]]:
    """A shipped workflow that uses the shapes world's files instead of SD 1.5's.

    The checkpoint's own text encoder is the small one widened to ViT-L/14: the same function at six times the cost. The
    small file takes its place.

    Args:
        name: the workflow.
        files: the world's, which ComfyUI has in its model folders.
        changes: more inputs to set, by node class or title; of what is in a subgraph by its own title, too, or after
            that of its box: "Other prompts: those with questions". The judge is the reader unless they name another.
        encoder: a file in models/text_encoders in place of the small one.
    """
    graph = load_graph(name)
    changes = {
        "CheckpointLoaderSimple": {"ckpt_name": files.checkpoint.name},
        "EmptyLatentImage": {"width": SIDE, "height": SIDE},
        "SAGELoadJudge": {"judge": READER, "sentence_encoder": "none"},
        **changes,
    }
    loaders = [name for name, entry in graph.items() if entry["class_type"] == "CheckpointLoaderSimple"]
    for entry in graph.values():
        title = entry["_meta"]["title"]
        for key in (entry["class_type"], title.rpartition(": ")[2], title):
            entry["inputs"] = entry["inputs"] | changes.get(key, {})
        for widget, value in entry["inputs"].items():
            if isinstance(value, list) and value[0] in loaders and value[1] == 1:
                entry["inputs"][widget] = ["small text encoder", 0]
    encoder = encoder or files.text_encoder.name
    graph["small text encoder"] = node("SAGELoadEncoder", "Small text encoder", encoder_name=encoder)
    return graph


def draw_together(graph: Graph, size: int, compute: str) -> dict[str, dict[str, Any]]:
    """The graph with each KSampler's prompts drawn in batches: the same pictures up to rounding, in less time.

    Its KSamplers have one model and differ in prompts and seeds alone, which are lists, as all shipped workflows' do.

    Args:
        graph: the workflow.
        size: pictures at a time.
        compute: what the U-Net computes in, one of ModelComputeDtype's choices; "default" leaves it to ComfyUI.
    """
    together = {name: dict(entry) for name, entry in graph.items()}
    for name, entry in graph.items():
        if entry["class_type"] != "KSampler":
            continue
        title, given = entry["_meta"]["title"], entry["inputs"]
        prompt, model = given["positive"][0], given["model"]
        if compute != "default":
            together["precision"] = node("ModelComputeDtype", "Precision", model=model, dtype=compute)
            model = ["precision", 0]
        schedule = {key: given[key] for key in ("scheduler", "steps", "denoise")}
        together["sampler"] = node("KSamplerSelect", "Sampler", sampler_name=given["sampler_name"])
        together["schedule"] = node("BasicScheduler", "Schedule", model=model, **schedule)
        texts = graph[prompt]["inputs"]
        together[prompt] = node(
            "SAGEBatchPrompts",
            graph[prompt]["_meta"]["title"],
            clip=texts["clip"],
            prompt=texts["text"],
            seed=given["seed"],
            latent=given["latent_image"],
            size=size,
        )
        guider = f"{name} guider"
        texts = {"positive": [prompt, 0], "negative": given["negative"], "cfg": given["cfg"]}
        together[guider] = node("CFGGuider", f"{title}, guider", model=model, **texts)
        led = {"guider": [guider, 0], "sampler": ["sampler", 0], "sigmas": ["schedule", 0]}
        together[name] = node("SamplerCustomAdvanced", title, noise=[prompt, 1], latent_image=[prompt, 2], **led)
    return together


def training_graph(
    text_encoder: str, pairs: str, concept: str, settings: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """A training for each of ALIGNED, which differ in their objective alone; a node's id is its title.

    Args:
        text_encoder: file name in models/text_encoders.
        pairs: file name in ComfyUI's input folder.
        concept: what is removed.
        settings: widgets of SAGETrainingSettings that all have.
    """
    empty = {"safe_text": "", "unsafe_file": "none", "unsafe_text": "", "concept": ""}
    graph = {
        "clip": node("SAGELoadEncoder", "clip", encoder_name=text_encoder),
        "pairs": node("SAGEPromptPairs", "pairs", safe_file=pairs, **empty),
    }
    links = {"clip": ["clip", 0], "pairs": ["pairs", 0]}
    for name, (preset, file) in ALIGNED.items():
        # A widget cannot be empty: 0 stands for what is not set.
        values = {key: value for key, value in PRESETS[preset].to_dict().items() if key not in ("seed", "target_shift")}
        widgets = {key: 0 if value is None else value for key, value in {**values, **settings}.items()}
        own = f"{name} settings"
        graph[own] = node("SAGETrainingSettings", own, target_shift=1.0, **widgets)
        train = f"Train {name}"
        about = {"concept": concept, "preset": preset, "name": file, "seed": 0}
        graph[train] = node("SAGETrainEncoder", train, **links, settings=[own, 0], **about)
    return graph


def clone_lane(graph: Graph, lane: str, name: str) -> dict[str, dict[str, Any]]:
    """The graph with a copy of one lane added. A lane is all nodes titled "`lane`: …".

    The copy is called `name`, in its titles and wherever its nodes' texts (names of runs, of files) hold `lane`.
    """
    ids = {node: f"{name} {node}" for node, entry in graph.items() if entry["_meta"]["title"].startswith(f"{lane}: ")}

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [ids.get(value[0], value[0]), value[1]]
        return value.replace(lane, name) if isinstance(value, str) else value

    copies = {
        copy_id: node(
            graph[own]["class_type"],
            graph[own]["_meta"]["title"].replace(lane, name),
            **{key: moved(value) for key, value in graph[own]["inputs"].items()},
        )
        for own, copy_id in ids.items()
    }
    return {name: dict(entry) for name, entry in graph.items()} | copies


def node(class_type: str, title: str, **inputs: Any) -> dict[str, Any]:
    """One node of a graph in API format."""
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}
