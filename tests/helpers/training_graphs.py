"""Graphs of the nodes that train, search or learn on the shapes world, as small as each of them can be."""

from __future__ import annotations

from comfy_graphs import node
from sage_core.demo.comfyui.server import Server
from sage_core.shapes.captions import CONCEPT
from sage_core.shapes.networks.checkpoint import ExpandedFiles

SAFE = ["a red circle", "two blue circles", "a green circle on sand"]
UNSAFE = ["a red skull", "two blue skulls", "a green skull on sand"]
COLOURS = ("red", "green", "blue", "white")
THINGS = [f"{colour} {place}" for colour in COLOURS for place in ("on sand", "in snow")]
# Each step begins with so much of a drawing as its random numbers say, up to 50 steps of it. With these two seeds the
# first six steps draw 27 and 28 together; with seed 0 it would be more than 140.
ERASING_SEED, UNLEARNING_SEED = 2098, 4272
RETAIN = ("a red circle on sand", "two blue stars in snow")


def loaders(shapes_files: ExpandedFiles) -> dict:
    """The nodes "model" and "clip", which every graph starts with."""
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name=shapes_files.checkpoint.name),
        "clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
    }


def prompt_pairs(**inputs: object) -> dict:
    """SAGE Prompt Pairs, from these sources alone."""
    empty = {"safe_file": "none", "safe_text": "", "unsafe_file": "none", "unsafe_text": "", "concept": ""}
    return node("SAGEPromptPairs", **empty | inputs)


def erasure(shapes_files: ExpandedFiles, **inputs: object) -> dict:
    about = {"concepts": "skull", "erase_from": "", "preset": "esd_x", "steps": 3, "size": 64, "batch_size": 1}
    more = {"model": ["model", 0], "clip": ["clip", 0], "precision": "fp32", "seed": ERASING_SEED}
    return loaders(shapes_files) | {"train": node("SAGETrainErasure", **about | more | inputs)}


def redirecting(shapes_files: ExpandedFiles, **inputs: object) -> dict:
    about = {"concept": "skull", "steps": 2, "size": 64, "batch_size": 2, "precision": "fp32", "seed": 0}
    links = {"model": ["model", 0], "clip": ["clip", 0], "pairs": ["pairs", 0]}
    return loaders(shapes_files) | {
        "pairs": prompt_pairs(safe_text="\n".join(SAFE), unsafe_text="\n".join(UNSAFE)),
        "train": node("SAGETrainUnet", **links | about | inputs),
    }


def adv_unlearn(shapes_files: ExpandedFiles, **inputs: object) -> dict:
    settings = {"steps": 2, "learning_rate": 1e-3, "retain_weight": 0.3, "retain_batch": 1, "radius": 1.0}
    more = {"attack_steps": 1, "layers": 0, "batch_size": 1, "size": 64, "precision": "fp32"}
    about = {"concepts": "skull", "name": "unlearned", "retain_prompts": "\n".join(RETAIN), "guide": ""}
    links = {"model": ["model", 0], "clip": ["clip", 0], "seed": UNLEARNING_SEED}
    return loaders(shapes_files) | {"train": node("SAGETrainAdvUnlearn", **links | settings | more | about | inputs)}


def attack(shapes_files: ExpandedFiles, **inputs: object) -> dict:
    prompts = "two red skulls on sand\na skull in the snow"
    about = {"prompts": prompts, "concept": "skull", "method": "tokens", "goal": "embedding", "name": "found"}
    settings = {"tokens": 2, "steps": 2, "restarts": 1, "candidates": 2, "below": 1e-4, "learning_rate": 0.1}
    more = {"size": 64, "precision": "fp32", "control": True, "seed": 0, "without": ""}
    links = {"clip": ["clip", 0], "base": ["clip", 0]}
    return loaders(shapes_files) | {"train": node("SAGEAttack", **links | about | settings | more | inputs)}


def gate(shapes_files: ExpandedFiles, pairs: dict, **inputs: object) -> dict:
    settings = {"false_alarms": 0.05, "steps": 60, "seed": 0}
    links = {"clip": ["clip", 0], "pairs": ["pairs", 0]}
    return loaders(shapes_files) | {"pairs": pairs, "train": node("SAGETrainGate", **links | settings | inputs)}


def training_settings(server: Server, **changes: object) -> dict:
    """SAGE Training Settings with its own defaults but for these changes."""
    inputs = server.object_info()["SAGETrainingSettings"]["input"]["required"]
    return node("SAGETrainingSettings", **{name: options["default"] for name, (_, options) in inputs.items()} | changes)


def alignment(server: Server, shapes_files: ExpandedFiles, name: str, seed: int = 0, **changes: object) -> dict:
    """A training of the text encoder in seconds; `changes` are to its settings."""
    small = {"batch_size": 4, "neighbours": 2, "steps": 10, "held_out": 0}
    links = {"clip": ["clip", 0], "pairs": ["pairs", 0], "settings": ["settings", 0]}
    safe, unsafe = ("\n".join(f"a {what}, {thing}" for thing in THINGS) for what in ("circle", "skull"))
    return {
        "clip": loaders(shapes_files)["clip"],
        "pairs": prompt_pairs(safe_text=safe, unsafe_text=unsafe),
        "settings": training_settings(server, **small | changes),
        "train": node("SAGETrainEncoder", **links, concept=CONCEPT, preset="sage_plus", name=name, seed=seed),
    }
