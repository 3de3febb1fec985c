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


# The workflow my_own_concept and tests/prompts/test_making.py say the same in parts.
@pytest.mark.full
def test_a_name_becomes_pairs_a_training_and_a_verdict(run_graph: Run, shapes_files: ExpandedFiles) -> None:
    graph = made(shapes_files)
    graph["settings"] = node(
        "SAGETrainingSettings",
        **{
            "learning_rate": 3e-4, "epochs": 1, "steps": 2, "batch_size": 4, "chunk_size": 0, "keep_weight": 0.3,
            "spread_weight": 2.0, "local_weight": 0.1, "keep_mse": 20.0, "keep_concept": True, "target": "farthest",
            "target_shift": 1.0, "concept_scale": 205.0, "scale_unit": "absolute", "neighbours": 2,
            "perturbation": 1.0, "perturbation_unit": "absolute", "weight_decay": 0.01, "warmup": 0,
            "precision": "fp32", "held_out": 0, "schedule": "constant", "until": "removed",
        },
    )  # fmt: skip
    graph["train"] = node(
        "SAGETrainEncoder", clip=["clip", 0], pairs=["pairs", 0], concept="skull", preset="sage_plus",
        name="from a name", seed=0, settings=["settings", 0],
    )  # fmt: skip
    graph["text"] = node("PreviewAny", source=["pairs", 2])
    outputs = run_graph(graph)
    report = outputs["pairs"]["text"][0]
    assert "skull (thing)" in report and "Samples, safe → unsafe:" in report
    # Two steps remove nothing, and the node says so.
    lines = outputs["train"]["text"][0].splitlines()
    assert lines[0].startswith("⚠ Not removed: ") and any(line.startswith("Trained: ") for line in lines)
    text = outputs["text"]["text"][0]
    found = parse_concepts(text, ".")
    assert found[0].name == "skull" and found[0].near

    # The other methods take what was made as it is.
    graph["model"] = node("CheckpointLoaderSimple", ckpt_name=shapes_files.checkpoint.name)
    graph["redirecting"] = redirecting(shapes_files)["train"]
    graph["gate"] = gate(shapes_files, {}, false_alarms=0.4, steps=2)["train"]
    graph["erase"] = node(
        "SAGEEraseConcept", model=["model", 0], clip=["clip", 0], concepts="", guide="", keep="snow", method="speed",
        strength=1.0, erase_scale=0.0, hold=0.0, keep_scale=0.0, rounds=0, pairs=["pairs", 0],
        concept_list=["pairs", 1],
    )  # fmt: skip
    outputs = run_graph(graph)
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
        ({"short": float("nan")}, "short is nan; expected a finite number"),
    ],
)
def test_what_cannot_be_made_is_said(
    inputs: dict[str, object], words: str, run_graph: Run, shapes_files: ExpandedFiles
) -> None:
    with pytest.raises(ExecutionError, match=words):
        run_graph(made(shapes_files, **inputs))
