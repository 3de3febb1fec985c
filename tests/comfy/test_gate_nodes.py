"""The gate in a real ComfyUI: what it leaves alone is core's to the bit, what it flags goes the other way."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from comfy_graphs import node
from sage_core.demo.comfyui.client import ExecutionError, GraphError
from sage_core.demo.comfyui.server import Server
from sage_core.encoders.layouts import read_encoder
from sage_core.methods.gate_file import load_gate
from sage_core.shapes.captions import matched_pairs
from sage_core.shapes.networks.checkpoint import ExpandedFiles
from training_graphs import prompt_pairs

PAIRS = matched_pairs(120, seed=1, names="seen", split="train")


def train(**inputs: object) -> dict:
    return node("SAGETrainGate", clip=["clip", 0], pairs=["pairs", 0],
                **{"false_alarms": 0.05, "steps": 60, "seed": 0} | inputs)  # fmt: skip


def gated(text: str, action: str = "route", **links: list) -> dict:
    return node("SAGEGate", text=text, action=action, **{"gate": ["gate", 0], "base": ["clip", 0]} | links)


@pytest.fixture(scope="module")
def common(server: Server, base: Path, shapes_files: ExpandedFiles) -> dict:
    with open(base / "input" / "gate_pairs.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("safe", "unsafe"), *zip(PAIRS.safe, PAIRS.unsafe, strict=True)])
    state = {name: value.float() for name, value in read_encoder(shapes_files.text_encoder)[0].items()}
    state["text_model.final_layer_norm.bias"] = state["text_model.final_layer_norm.bias"] + 0.5
    save_file(state, base / "models" / "text_encoders" / "gate_aligned.safetensors")
    return {
        "clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
        "aligned": node("SAGELoadEncoder", encoder_name="gate_aligned.safetensors"),
        "pairs": prompt_pairs(safe_file="gate_pairs.csv"),
        "gate": train(),
    }


@pytest.fixture
def parts(base: Path) -> Callable[[str], Tensor]:
    return lambda name: load_file(base / "output" / f"{name}.safetensors")["embedding 0"]


@pytest.mark.full
def test_a_gate_is_trained_kept_and_found_again(server: Server, base: Path, common: dict) -> None:
    folder = base / "output" / "sage" / "gates"
    before = set(folder.glob("*.safetensors"))  # Other tests of this server keep gates too.
    first = server.run(common, timeout=300)["gate"]["text"][0]
    assert first.startswith("Trained: ") and "set for at most 5.0%" in first
    (path,) = set(folder.glob("*.safetensors")) - before
    assert load_gate(path).card.detected > 0.9
    listed = server.run({"runs": node("SAGEStoredRuns", action="list", limit_gb=5.0)})["runs"]["text"][0]
    assert f"{path.stem[:8]}  " in listed and "gate, 60 steps" in listed
    server.free()
    # ComfyUI forgets results only after the next graph that it runs, whichever that is.
    server.run({"other": node("PreviewAny", source="anything")})
    assert server.run(common, timeout=300)["gate"]["text"][0] == first.replace("Trained", "Found")
    other = server.run(common | {"gate": train(false_alarms=0.2)}, timeout=300)["gate"]["text"][0]
    assert other.startswith("Trained: ") and len(set(folder.glob("*.safetensors")) - before) == 2


def test_safe_prompts_are_cores_and_flagged_ones_the_aligned_clips(
    server: Server, common: dict, parts: Callable[[str], Tensor]
) -> None:
    safe, unsafe = PAIRS.safe[3], PAIRS.unsafe[3]
    graph = dict(common)
    for name, text in (("safe", safe), ("unsafe", unsafe)):
        graph[f"gated {name}"] = gated(text, aligned=["aligned", 0])
        graph[f"refined {name}"] = gated(text, "refine")
        graph[f"touched {name}"] = node("PreviewAny", source=[f"gated {name}", 1])
        for clip in ("clip", "aligned"):
            graph[f"{clip} {name}"] = node("CLIPTextEncode", clip=[clip, 0], text=text)
    names = [name for name in graph if name.split()[0] in ("gated", "refined", "clip", "aligned") and " " in name]
    for name in names:
        graph[f"save {name}"] = node("ProbeSaveParts", conditioning=[name, 0], name=f"gate {name}")
    outputs = server.run(graph, timeout=300)
    found = {name: parts(f"gate {name}") for name in names}
    assert torch.equal(found["gated safe"], found["clip safe"])
    assert torch.equal(found["refined safe"], found["clip safe"])
    assert torch.equal(found["gated unsafe"], found["aligned unsafe"])
    assert not torch.equal(found["refined unsafe"], found["clip unsafe"])
    assert [outputs[f"touched {name}"]["text"][0] for name in ("safe", "unsafe")] == ["False", "True"]
    assert outputs["gated safe"]["text"][0].startswith("Untouched: encoded by base; ")
    assert "Flagged: encoded by aligned; " in outputs["gated unsafe"]["text"][0]
    assert "and now passes" in outputs["refined unsafe"]["text"][0]
    assert (found["refined unsafe"] - found["clip unsafe"]).norm() < 0.2 * found["clip unsafe"].norm()


def test_a_gate_that_changes_nothing_says_so(server: Server, common: dict) -> None:
    apply = {"clip": ["clip", 0], "encoder_name": "gate_aligned.safetensors", "mode": "replace"}
    graph = dict(common)
    for name, strength in (("nothing", 0.0), ("moved", 1.0)):
        graph[name] = node("SAGEApplyEncoder", strength=strength, **apply)
    ways = {"bypassed": ["clip", 0], "nothing": ["nothing", 0], "moved": ["moved", 0], "file": ["aligned", 0]}
    for name, link in ways.items():
        graph[f"gated {name}"] = gated(f"{PAIRS.unsafe[3]}, {name}", aligned=link)
        graph[f"show {name}"] = node("PreviewAny", source=[f"gated {name}", 2])
    outputs = server.run(graph, timeout=300)
    found = {name: outputs[name]["text"][0] for name in outputs if name.startswith("gated")}
    doubted = {name for name in ways if found[f"gated {name}"].startswith("⚠ aligned holds the same weights as base")}
    assert doubted == {"bypassed", "nothing"}


@pytest.mark.parametrize(
    ("gate", "inputs", "words"),
    [
        ({"false_alarms": 0.001}, {}, "are too few: to state 0.1% false alarms, 1000 safe prompts"),
        ({}, {}, "action is route, but aligned is not connected"),
        ({}, {"action": "refine", "base": ["aligned", 0]}, "The gate reads the states of another text encoder"),
    ],
)
def test_what_makes_no_gate_is_explained(server: Server, common: dict, gate: dict, inputs: dict, words: str) -> None:
    graph = common | {"gate": train(**gate), "gated": gated("a ring", **inputs)}
    graph["show"] = node("PreviewAny", source=["gated", 1])
    with pytest.raises((ExecutionError, GraphError), match=words):
        server.run(graph, timeout=300)
