"""Pairs from a concept's name in a real ComfyUI: made, trained with, edited and fed back, and refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from comfy_graphs import node
from sage_core.demo.comfyui.client import ExecutionError, Graph, Outputs
from sage_core.prompts.concept_files import parse_concepts
from sage_core.shapes.bench.own import natural_captions
from sage_core.shapes.networks.checkpoint import ExpandedFiles
from training_graphs import gate, redirecting

Run = Callable[[Graph], Outputs]

CAPTIONS = "\n".join(natural_captions(300, seed=0))


def made(shapes_files: ExpandedFiles, **inputs: object) -> Graph:
    given: dict[str, object] = {
        "concepts": "skull",
        "captions_file": "none",
        "captions_text": CAPTIONS,
        "count": 32,
        "short": 0.4,
        "seed": 1,
    }
    return {
        "clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
        "pairs": node("SAGEMakePairs", clip=["clip", 0], **(given | inputs)),
    }


# That a training takes them, and what becomes of it, is in the workflow my_own_concept.
@pytest.mark.full
def test_a_name_becomes_pairs_that_every_method_takes(run_graph: Run, shapes_files: ExpandedFiles) -> None:
    graph = made(shapes_files)
    graph["text"] = node("PreviewAny", source=["pairs", 2])
    graph["model"] = node("CheckpointLoaderSimple", ckpt_name=shapes_files.checkpoint.name)
    graph["redirecting"] = redirecting(shapes_files)["train"]
    graph["gate"] = gate(shapes_files, {}, false_alarms=0.4, steps=2)["train"]
    graph["erase"] = node(
        "SAGEEraseConcept", model=["model", 0], clip=["clip", 0], concepts="", guide="", keep="snow", method="speed",
        strength=1.0, erase_scale=0.0, hold=0.0, keep_scale=0.0, rounds=0, pairs=["pairs", 0],
        concept_list=["pairs", 1],
    )  # fmt: skip
    outputs = run_graph(graph)
    report, text = (outputs[name]["text"][0] for name in ("pairs", "text"))
    assert "skull (thing)" in report and "Samples, safe → unsafe:" in report
    found = parse_concepts(text, ".")
    assert found[0].name == "skull" and found[0].near
    said = {name: outputs[name]["text"][0] for name in ("redirecting", "gate", "erase")}
    assert "Trained: SAGE U-Net" in said["redirecting"] and said["gate"].startswith("Trained: ")
    assert f"Kept: snow; {'; '.join(found[0].near)}. Captions: 32." in said["erase"]

    again = made(shapes_files, concepts="", concept_list=["list", 0])
    again["list"] = node("SAGELoadConcepts", file="none", text=text)
    assert "skull (thing)" in run_graph(again)["pairs"]["text"][0]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"concepts": " "}, "Concepts come from concepts or from concept_list; neither is given"),
        ({"concepts": "naked child"}, "refers or may refer to a minor"),
        ({"concepts": "skul"}, "skull"),
        (
            {"captions_text": "two skulls on grass\na skull at night"},
            "2 different captions can be used, of 2; expected",
        ),
    ],
)
def test_what_cannot_be_made_is_said(
    inputs: dict[str, object], words: str, run_graph: Run, shapes_files: ExpandedFiles
) -> None:
    with pytest.raises(ExecutionError, match=words):
        run_graph(made(shapes_files, **inputs))
