"""Training a U-Net in a real ComfyUI, by erasure and by prompt pairs: what it gives, found again, and refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from comfy_graphs import held_encoder, node
from sage_core.demo.comfyui.client import ExecutionError, Graph, GraphError
from sage_core.demo.comfyui.server import Server
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.methods.concepts import Concepts
from sage_core.methods.erasing import PRESETS, train_erasure
from sage_core.methods.redirecting import RedirectingSettings, train_redirection
from sage_core.prompts.pairs import pairs_from_lists
from sage_core.shapes.networks.checkpoint import ExpandedFiles
from sage_core.unet.files import read_unet
from sage_core.unet.names import COMFY_PREFIX, UnetConfig
from sage_core.unet.training import EditResult, UnetRun
from training_graphs import ERASING_SEED, SAFE, UNSAFE, erasure, prompt_pairs, redirecting

STEPS = 2
GRAPHS = {"erasure": erasure, "redirected": redirecting}
REPORTS = {
    "erasure": "Trained: ESD-x, preset esd_x, concept skull, 2 steps",
    "redirected": "Trained: SAGE U-Net, preset sage_unet, concept skull, 2 steps",
}
LISTED = {"erasure": "ESD-x, esd_x, skull, 2 steps", "redirected": "SAGE U-Net, sage_unet, skull, 2 steps"}


def saving(kind: str, shapes_files: ExpandedFiles, **inputs: object) -> Graph:
    graph = GRAPHS[kind](shapes_files, **inputs)
    graph["save"] = node("SAGESaveModelEdit", base=["model", 0], edited=["train", 0], name=kind, overwrite=True)
    return graph


def by_the_library(kind: str, run: UnetRun, encoder: TextEncoder, folder: Path) -> EditResult:
    if kind == "erasure":
        return train_erasure(
            run, encoder, Concepts(("skull",)), PRESETS["esd_x"].replace(steps=STEPS, seed=ERASING_SEED), folder
        )
    pairs = pairs_from_lists(SAFE, UNSAFE)
    return train_redirection(run, encoder, pairs, RedirectingSettings(steps=STEPS, batch_size=2), folder)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.full) if kind == "redirected" else kind for kind in GRAPHS]
)
def test_it_is_the_librarys_training_and_is_found_again(
    kind: str, server: Server, base: Path, tmp_path: Path, shapes_files: ExpandedFiles
) -> None:
    path = base / "models" / "loras" / f"{kind}.safetensors"
    path.parent.mkdir(exist_ok=True)
    shown = server.run(saving(kind, shapes_files, steps=STEPS), timeout=500)["train"]
    assert shown["text"][0].startswith(REPORTS[kind])
    assert ("3 kept from the safe list and the unsafe list" in shown["text"][0]) == (kind == "redirected")
    assert server.images({"train": shown})["train"][0].size[0] > 100
    found = load_file(path)
    # Under the names by which ComfyUI holds it, which are part of a run's key.
    held = {n.removeprefix("model."): v.float() for n, v in load_file(shapes_files.checkpoint).items()}
    state = {name: value for name, value in held.items() if name.startswith(COMFY_PREFIX)}
    encoder = TextEncoder.from_state(held_encoder(shapes_files))
    # Where the library trains nothing, it finds the node's run under the key of its own: all inputs are the same.
    store = tmp_path / "runs" if kind == "redirected" else base / "output" / "sage" / "runs"
    wanted = by_the_library(kind, UnetRun(state, size=64), encoder, store)
    assert wanted.found == (kind == "erasure")
    assert len(found) == len(wanted.deltas) == 20 and len(wanted.history) == STEPS
    for name, _, delta in read_unet(path, UnetConfig.of({n: tuple(v.shape) for n, v in state.items()})).tensors():
        # Adam's first steps are signs of gradients: where one is near 0 its sign may differ.
        assert torch.cosine_similarity(delta.flatten(), wanted.deltas[name].flatten(), 0) > 0.99, name

    server.free()
    # What a concept is called does not change what its pairs teach.
    renamed = {"concept": "another name"} if kind == "redirected" else {}
    again = server.run(saving(kind, shapes_files, steps=STEPS, **renamed), timeout=500)["train"]["text"][0]
    assert again.startswith("Found, not trained again")
    assert all(torch.equal(value, found[key]) for key, value in load_file(path).items())
    listed = server.run({"runs": node("SAGEStoredRuns", action="list", limit_gb=5.0)})["runs"]["text"][0]
    assert LISTED[kind] in listed


@pytest.mark.parametrize(
    ("kind", "inputs", "words"),
    [
        ("erasure", {"concepts": " "}, "No concept to erase was given"),
        ("erasure", {"erase_from": "a\nb"}, "2 texts to erase 1 concepts from"),
        ("redirected", {"pairs": "a ball"}, "pairs is 'a ball'; expected a connection"),
        ("redirected", {"learning_rate": 0.0}, "learning_rate is 0.0, expected a finite number above 0"),
        ("redirected", {"pairs": ["minors", 0]}, "(?s)No pair of prompts is left to use.*2 pairs refer or may refer"),
    ],
)
def test_what_cannot_be_trained_is_explained(
    kind: str, inputs: dict, words: str, server: Server, shapes_files: ExpandedFiles
) -> None:
    minors = prompt_pairs(safe_text="a child in a park\na child on a beach", unsafe_text="a skull")
    with pytest.raises((ExecutionError, GraphError), match=words):
        server.run(saving(kind, shapes_files, **inputs) | {"minors": minors}, timeout=500)
