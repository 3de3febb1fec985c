"""SAGE Attack in a real ComfyUI: prompts, an embedding that ComfyUI reads, found again, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from comfy_graphs import node
from sage_core.demo.comfyui.client import ExecutionError, GraphError
from sage_core.demo.comfyui.server import Server
from sage_core.encoders.tokens import tokenize
from sage_core.shapes.networks.checkpoint import ExpandedFiles
from training_graphs import attack, loaders


def test_it_finds_prompts_and_finds_them_again(server: Server, base: Path, shapes_files: ExpandedFiles) -> None:
    outputs = server.run(attack(shapes_files), timeout=500)
    shown = outputs["train"]["text"][0]
    # The encoder under attack is the base here, so that the control is the same run and found again.
    for words in (
        "Attacked: token search, goal embedding, 2 prompts, 2 free tokens (front)",
        "Control, the same attack",
    ):
        assert words in shown
    found = shown.split("\n\n")[1].splitlines()
    assert len(found) == 2 and found[1].endswith("a skull in the snow")
    assert torch.equal(tokenize([found[1]])[0, 3:8], tokenize(["a skull in the snow"])[0, 1:6])
    assert server.images(outputs)["train"][0].size == (1024, 420)
    server.free()
    again = server.run(attack(shapes_files), timeout=500)["train"]["text"][0]
    assert again.startswith("Found, not run again") and again.split("\n\n")[1].splitlines() == found
    listed = server.run({"runs": node("SAGEStoredRuns", action="list", limit_gb=5.0)})["runs"]["text"][0]
    assert "token search, attack on the embedding, control on the base, skull, 2 steps" in listed


def test_comfyui_reads_the_embedding(server: Server, base: Path, shapes_files: ExpandedFiles) -> None:
    asked = attack(
        shapes_files, method="inversion", goal="noise", model=["model", 0], tokens=3, control=False, name="inverted"
    )
    shown = server.run(asked, timeout=500)["train"]["text"][0]
    path = base / "models" / "embeddings" / "inverted.safetensors"
    assert f"Saved: {path}" in shown and "two red * on sand" not in shown
    assert "a embedding:inverted in the snow" in shown
    assert load_file(path)["emb_params"].shape == (3, 768)
    check = loaders(shapes_files)
    for name, text in (("word", "a skull in the snow"), ("vectors", "a embedding:inverted in the snow")):
        check[name] = node("CLIPTextEncode", clip=["clip", 0], text=text)
        check[f"probe {name}"] = node("ProbeSaveParts", conditioning=[name, 0], name=f"attack {name}")
    server.run(check, timeout=500)
    states = {
        name: load_file(base / f"output/attack {name}.safetensors")["embedding 0"] for name in ("word", "vectors")
    }
    # The same start and article; then three vectors in place of a word.
    torch.testing.assert_close(states["word"][0, :2], states["vectors"][0, :2])
    assert (states["word"][0, 2] - states["vectors"][0, 2]).abs().max() > 0.01


def test_a_list_of_concepts_names_what_is_attacked(server: Server, shapes_files: ExpandedFiles) -> None:
    text = '[[concepts]]\nname = "skull"\nnames = ["cranium"]\nunseen = ["bony head"]\n'
    mine = attack(shapes_files, prompts="a red ball", concept="nudity", control=False, concept_list=["list", 0])
    mine["list"] = node("SAGELoadConcepts", file="none", text=text)
    shown = server.run(mine, timeout=500)["train"]["text"][0]
    found = shown.split("\n\n")[1]
    assert "red ball" in found and "bony head" in found and "skull" not in found and "cranium" not in found
    mine["list"]["inputs"]["text"] = text + '[[concepts]]\nname = "star"\n'
    with pytest.raises(ExecutionError, match="no concept 'nudity'; expected one of skull, star"):
        server.run(mine, timeout=500)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"prompts": "a skull\na naked child"}, "refers or may refer to a minor; no attack is run"),
        ({"prompts": " "}, "No prompt to attack with"),
        ({"goal": "noise"}, "connect a MODEL"),
        ({"goal": "direction", "concept": ""}, "no concept was named"),
        ({"name": "a/b"}, "expected a plain file name"),
    ],
)
def test_what_cannot_be_attacked_is_explained(
    server: Server, shapes_files: ExpandedFiles, inputs: dict, words: str
) -> None:
    with pytest.raises((ExecutionError, GraphError), match=words):
        server.run(attack(shapes_files, **inputs), timeout=500)
