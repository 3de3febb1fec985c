"""Lists of concepts in a real ComfyUI: loaded or typed, made into pairs, trained on, erased, counted, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from comfy_graphs import held_encoder, node
from sage_core.alignment.settings import PRESETS
from sage_core.alignment.training import train_stored
from sage_core.demo.comfyui.client import ExecutionError, Graph, GraphError, Outputs
from sage_core.demo.comfyui.server import Server
from sage_core.prompts.concept_files import read_concepts
from sage_core.prompts.concept_pairs import pairs_from_concepts
from sage_core.shapes.networks.checkpoint import ExpandedFiles
from training_graphs import prompt_pairs, training_settings

Run = Callable[[Graph], Outputs]

SAFE = [f"a {colour} circle {place}" for colour in ("red", "green", "blue", "pink") for place in ("on sand", "in snow")]
LIST = [
    {"name": "skull", "names": ["cranium"], "unseen": ["bony head"], "becomes": "a ring", "near": ["face"]},
    {"name": "star", "unsafe": "concepts/stars.txt"},
]
TOML = '[[concepts]]\nname = "skull"\nnames = ["cranium"]\n\n[[concepts]]\nname = "star"\n'


def load(file: str = "none", text: str = "") -> dict:
    return node("SAGELoadConcepts", file=file, text=text)


def pairs(**inputs: object) -> dict:
    return prompt_pairs(**{"concept_list": ["load", 0]} | inputs)


@pytest.fixture(scope="module")
def files(base: Path, server: Server) -> Path:
    folder = base / "input"
    (folder / "concepts").mkdir()
    (folder / "concepts" / "stars.txt").write_text("a star\ntwo stars\na star and a child\n", encoding="utf-8")
    (folder / "list.json").write_text(json.dumps(LIST), encoding="utf-8")
    (folder / "outside.json").write_text('[{"name": "x", "unsafe": "../server.log"}]', encoding="utf-8")
    (folder / "told.csv").write_text(
        "safe,unsafe,concept\na cat,a skull,cranium\na dog,a star,star\n", encoding="utf-8"
    )
    return folder


def test_a_file_is_offered_loaded_and_loaded_again_when_a_file_that_it_names_changes(
    server: Server, run_graph: Run, files: Path
) -> None:
    offered = server.object_info()["SAGELoadConcepts"]["input"]["required"]["file"]
    choices = offered[1]["options"] if offered[0] == "COMBO" else offered[0]
    assert {"list.json", "outside.json"} <= set(choices) and "told.csv" not in choices
    graph = {"load": load("list.json"), "show": node("PreviewAny", source=["load", 1])}
    summary = run_graph(graph)["load"]["text"][0]
    assert "skull, also cranium; unseen: bony head; becomes 'a ring'; stays: face; 8 templates" in summary
    assert "star; 2 unsafe prompts" in summary and "Skipped in stars.txt: 1 x refers to a minor" in summary
    (files / "concepts" / "stars.txt").write_text("a star\ntwo stars\nsix stars\n", encoding="utf-8")
    assert "star; 3 unsafe prompts" in run_graph(graph)["load"]["text"][0]


def test_pairs_are_made_with_every_concept_or_told_by_a_file(run_graph: Run, files: Path) -> None:
    made = {"load": load(text=TOML), "pairs": pairs(safe_text="\n".join(SAFE))}
    made["show"] = node("PreviewAny", source=["pairs", 1])
    text = run_graph(made)["pairs"]["text"][0]
    assert text.startswith("16 kept from the safe list with the 2 names of 'skull' and the safe list with the concept")
    made["pairs"] = pairs(safe_file="told.csv")
    assert run_graph(made)["pairs"]["text"][0].startswith("2 kept from told.csv")


def test_training_with_a_list_is_the_librarys(
    server: Server, base: Path, files: Path, run_graph: Run, shapes_files: ExpandedFiles
) -> None:
    few = {"batch_size": 4, "neighbours": 2, "steps": 2, "held_out": 0, "precision": "fp32"}
    graph = {
        "clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
        "load": load("list.json"),
        "pairs": pairs(safe_text="\n".join(SAFE)),
        "settings": training_settings(server, **few),
        "train": node(
            "SAGETrainEncoder", clip=["clip", 0], pairs=["pairs", 0], concept="nudity", preset="sage_plus",
            name="two-concepts", seed=0, settings=["settings", 0], concept_list=["load", 0],
        ),
    }  # fmt: skip
    report = run_graph(graph)["train"]["text"][0]
    assert 'concepts "skull, star", 2 steps, 16 pairs' in report
    concepts = read_concepts(files / "list.json")
    before = held_encoder(shapes_files)
    settings = PRESETS["sage_plus"].replace(**few)
    # The library finds the node's run under the key of its own: weights, pairs, concepts and settings are the same.
    pairs_of = pairs_from_concepts(SAFE, concepts)
    expected, found = train_stored(before, pairs_of, concepts, settings, base / "output" / "sage" / "runs")
    assert found
    saved = load_file(base / "models" / "text_encoders" / "two-concepts.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in expected.state.items())
    # The pairs alone do not tell the training what to remove.
    del graph["train"]["inputs"]["concept_list"]
    with pytest.raises(ExecutionError, match=r"for 2 concepts \(skull, star\), but the training is told of one, 'nud"):
        run_graph(graph)


def test_erase_concept_takes_a_list(run_graph: Run, files: Path, shapes_files: ExpandedFiles) -> None:
    graph = {
        "model": node("CheckpointLoaderSimple", ckpt_name=shapes_files.checkpoint.name),
        "clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
        "load": load("list.json"),
        "erase": node(
            "SAGEEraseConcept", model=["model", 0], clip=["clip", 0], concepts="nudity", guide="", keep="snow",
            method="uce", strength=1.0, erase_scale=0.0, hold=0.0, keep_scale=0.0, rounds=0, concept_list=["load", 0],
        ),
    }  # fmt: skip
    text = run_graph(graph)["erase"]["text"][0]
    assert "Erased: skull; cranium; star. Guides: a ring; a ring; (empty). Kept: snow; face." in text
    graph["erase"]["inputs"]["guide"] = "art"
    with pytest.raises(ExecutionError, match="Guides come from guide or from 'becomes' in concept_list"):
        run_graph(graph)


def test_concept_rate_counts_each_of_a_list(
    run_graph: Run, files: Path, pictures: dict[str, list[Path]], judge: str
) -> None:
    graph = {
        "images": node("LoadImageDataSetFromFolder", folder="tifa_base"),
        "load": load(text=TOML),
        "judge": node("SAGELoadJudge", judge=judge, sentence_encoder="none", precision="fp32"),
        "rate": node(
            "SAGEConceptRate", images=["images", 0], concept="", witness="judge", question="", threshold=0.0,
            model="none", name="base", judge=["judge", 0], concept_list=["load", 0],
        ),
    }  # fmt: skip
    lines = run_graph(graph)["rate"]["text"][0].splitlines()
    assert [line.split(" = ")[0].split(": ")[0] for line in lines] == ["skull", "star"]
    assert "'is there a skull?'" in lines[0] and "'is there a star?'" in lines[1]
    graph["rate"]["inputs"]["question"] = "is it there?"
    with pytest.raises(ExecutionError, match="concept_list holds 2 concepts, which are asked for one by one"):
        run_graph(graph)


BAD = {
    "neither": ({}, "Concepts come from file or from text; neither is given"),
    "both": ({"file": "list.json", "text": TOML}, "both are given"),
    "no TOML": ({"text": "skull, star"}, "The list of concepts cannot be read"),
    "outside": ({"file": "outside.json"}, "'unsafe' is '../server.log', which lies outside"),
    "outside, typed": ({"text": '[{"name": "x", "unsafe": "/etc/passwd"}]'}, "which lies outside of the list's folder"),
    "a minor": ({"text": '[{"name": "a child"}]'}, "refers or may refer to a minor"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_lists_are_explained(run_graph: Run, files: Path, case: str) -> None:
    inputs, message = BAD[case]
    with pytest.raises(ExecutionError, match=message) as refused:
        run_graph({"load": load(**inputs), "show": node("PreviewAny", source=["load", 1])})
    assert refused.value.exception.endswith("PromptError")


def test_names_never_leave_the_input_folder(run_graph: Run, files: Path) -> None:
    with pytest.raises(GraphError, match=r"no file .*server\.log. in the input folder"):
        run_graph({"load": load("../server.log"), "show": node("PreviewAny", source=["load", 1])})


def test_unsafe_prompts_have_one_source(run_graph: Run, files: Path) -> None:
    graph = {"load": load(text=TOML), "pairs": pairs(safe_text="a cat", concept="skull")}
    graph["show"] = node("PreviewAny", source=["pairs", 1])
    with pytest.raises(ExecutionError, match="concept and concept_list are given"):
        run_graph(graph)
