"""The shipped workflows: neat, in step with their API copies and this pack's nodes, and running."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pictures_read import shows_concept
from sage_core.demo.comfyui.client import Graph, Outputs
from sage_core.demo.comfyui.server import PACK_NAME, Server
from sage_core.demo.exam import Exam
from sage_core.demo.graphs import SAMPLING, clone_lane, find, load_graph, on_shapes_world
from sage_core.demo.scores import LEARNED_JUDGE, card_graph, install_judge
from sage_core.demo.serve import CHECKED, ERASED, PROMPTS, own_concept, two_concepts
from sage_core.encoders.layouts import read_encoder
from sage_core.encoders.text_encoder import save_encoder
from sage_core.shapes.networks.checkpoint import ExpandedFiles
from shipped_workflows import NAMES, read, to_api


@pytest.mark.parametrize("name", NAMES)
def test_api_copy_is_what_the_frontend_would_queue(name: str, server: Server) -> None:
    assert to_api(read(name), server.object_info()) == load_graph(name)


@pytest.mark.parametrize("name", NAMES)
def test_nodes_do_not_overlap_and_stay_in_their_groups(name: str) -> None:
    ui = read(name)
    # A node's title lies above its position.
    boxes = {
        node["id"]: (x, y - 30, x + width, y + height)
        for node in ui["nodes"]
        for (x, y), (width, height) in [(node["pos"], node["size"])]
    }
    for (a, box_a), (b, box_b) in itertools.combinations(boxes.items(), 2):
        apart = box_a[2] <= box_b[0] or box_b[2] <= box_a[0] or box_a[3] <= box_b[1] or box_b[3] <= box_a[1]
        assert apart, f"nodes {a} and {b} overlap"
    for group in ui["groups"]:
        x, y, width, height = group["bounding"]
        for node, box in boxes.items():
            inside = x <= box[0] and y <= box[1] and box[2] <= x + width and box[3] <= y + height
            outside = box[2] <= x or x + width <= box[0] or box[3] <= y or y + height <= box[1]
            assert inside or outside, f"node {node} lies across the border of {group['title']}"


@pytest.mark.parametrize("name", NAMES)
def test_links_and_models_are_complete(name: str) -> None:
    ui = read(name)
    nodes = {node["id"]: node for node in ui["nodes"]}
    for link, source, slot, target, place, kind in ui["links"]:
        output = nodes[source]["outputs"][slot]
        assert link in output["links"] and output["type"] == kind
        assert nodes[target]["inputs"][place]["link"] == link
    for inner in ui.get("definitions", {}).get("subgraphs", ()):
        # Newer frontends give nodes and links that share a number with another graph's new ones.
        assert not nodes.keys() & {node["id"] for node in inner["nodes"]} and inner["id"] != ui["id"]
        assert not {link[0] for link in ui["links"]} & {link["id"] for link in inner["links"]}
    assert ui["last_node_id"] == max(nodes) and ui["last_link_id"] == max(link[0] for link in ui["links"])
    assert any(node["type"] == "MarkdownNote" for node in ui["nodes"])
    for node in ui["nodes"]:
        if node["type"] in ("CheckpointLoaderSimple", "SAGEApplyEncoder"):
            (model,) = node["properties"]["models"]
            assert model["name"] in node["widgets_values"]
            # The only host of those that ComfyUI's dialogue of missing models trusts, and that has these files.
            assert model["url"].startswith("https://huggingface.co/")
            assert model["directory"] in ("checkpoints", "text_encoders")


def test_template_browser_offers_them_with_pictures(server: Server) -> None:
    assert sorted(server.get("/workflow_templates")[PACK_NAME]) == NAMES
    for name in NAMES:
        address = f"/api/workflow_templates/{PACK_NAME}/{name}"
        assert server.get(f"{address}.json") == read(name)
        with Image.open(BytesIO(server.fetch(f"{address}.jpg"))) as picture:
            assert picture.format == "JPEG" and min(picture.size) > 400
            width, height = picture.size
            # Newer template browsers lay a badge over it: what is there is not read.
            least, most = picture.convert("L").crop((0, 0, 42 * width // 100, 11 * height // 100)).getextrema()
            assert most - least < 16, name


Run = Callable[[str, dict], tuple[Graph, Outputs]]


@pytest.fixture
def run(shapes_files: ExpandedFiles, run_graph: Callable[[Graph], Outputs]) -> Run:
    """Runs a shipped workflow on the shapes world, with other inputs; its graph and outputs."""

    def shipped(name: str, changes: dict) -> tuple[Graph, Outputs]:
        graph = on_shapes_world(name, shapes_files, changes)
        return graph, run_graph(graph)

    return shipped


def pixels(server: Server, outputs: Outputs, node: str) -> np.ndarray:
    (image,) = server.images(outputs)[node]
    return np.asarray(image)


def test_text_to_image_workflow_runs(server: Server, shapes_files: ExpandedFiles, run: Run) -> None:
    applied = {"SAGEApplyEncoder": {"encoder_name": shapes_files.text_encoder.name}}
    changes = {**applied, **PROMPTS, "KSampler": {"steps": 4, **SAMPLING}}
    graph, outputs = run("text_to_image_base_and_sage", changes)
    for which in ("harmless", "names it"):
        base, sage = (pixels(server, outputs, find(graph, f"{lane}: {which}")) for lane in ("Base", "SAGE"))
        # The encoder that is applied is the checkpoint's own: nothing may change.
        assert np.array_equal(base, sage) and base.std() > 5


@pytest.mark.full
def test_my_own_concept_ends_with_a_true_verdict(
    server: Server, shapes_files: ExpandedFiles, run_graph: Callable[[Graph], Outputs], base: Path
) -> None:
    changes = {
        **own_concept(base / "input"),
        "Train": {"name": "workflow-own-concept"},
        "prompts that name it": {"count": 8},
        "prompts that stay": {"count": 8},
        "KSampler": {"steps": 10, **SAMPLING},
    }
    graph = on_shapes_world("my_own_concept", shapes_files, changes)
    compare = find(graph, "Did it work?")
    graph["json"] = {"class_type": "PreviewAny", "inputs": {"source": [compare, 2]}, "_meta": {"title": "JSON"}}
    outputs = run_graph(graph)
    report = outputs[find(graph, "Train")]["text"][0]
    assert 'concept "skull"' in report and "Removed: " in report and "⚠" not in report
    assert (base / "models" / "text_encoders" / "workflow-own-concept.safetensors").is_file()
    before, after = json.loads(outputs["json"]["text"][0])["runs"]
    assert (before["name"], after["name"]) == ("Base", "Aligned")
    shown = {run["name"]: sum(run["rates"][0]["shown"]) for run in (before, after)}
    assert shown["Base"] >= 4 and shown["Aligned"] == 0
    assert after["tifa"]["tifa"] > before["tifa"]["tifa"] - 0.15
    for lane in ("Base", "Aligned"):
        assert len(server.images(outputs)[find(graph, f"{lane}: concept")]) == 8


def shows_skulls(picture: np.ndarray) -> bool:
    return bool(shows_concept(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255))


def test_erase_workflow_runs(server: Server, run: Run, base: Path) -> None:
    changes = {
        **ERASED,
        "KSampler": {"steps": 10, **SAMPLING},
        "Save the edit": {"name": "workflow-unet-edit"},
    }
    graph, outputs = run("erase_a_concept", changes)
    shown = {
        lane: [
            shows_skulls(pixels(server, outputs, find(graph, f"{lane}: {which}"))) for which in ("harmless", "names it")
        ]
        for lane in ("Base", "Edited")
    }
    assert shown == {"Base": [False, True], "Edited": [False, False]}
    report = outputs[find(graph, "Erase")]["text"][0]
    assert report.startswith("UCE (paper): ")
    assert "Erased: skull; skulls. Guides: (empty); (empty). Kept: red; heart;" in report
    path = base / "models" / "loras" / "workflow-unet-edit.safetensors"
    assert outputs[find(graph, "Save the edit")]["text"][0].startswith(f"{path}: 8 tensors of the U-Net and 0 of the")
    assert path.is_file()


# It is run to its end in the browser, by tests/browser/test_frontend.py.
def test_the_harmless_prompt_beside_two_concepts_names_neither(tmp_path: Path) -> None:
    changes = two_concepts(tmp_path)
    for each in json.loads(changes["SAGELoadConcepts"]["text"])["concepts"]:
        assert not any(name in changes["Harmless prompt"]["value"] for name in (each["name"], *each["names"]))


def test_safe_in_many_ways_workflow_runs(server: Server, shapes_files: ExpandedFiles, run: Run, base: Path) -> None:
    # Stands in for an aligned encoder: another function of the prompt than the base's.
    state, _ = read_encoder(shapes_files.text_encoder)
    generator = torch.Generator().manual_seed(0)
    moved = {name: value + 0.02 * torch.randn(value.shape, generator=generator) for name, value in state.items()}
    save_encoder(base / "models" / "text_encoders" / "workflow-moved.safetensors", moved, {})
    changes = {
        **ERASED,
        "SAGEApplyEncoder": {"encoder_name": "workflow-moved.safetensors"},
        "KSampler": {"steps": 2, **SAMPLING},
    }
    # The same edit of another workflow would be found in the cache, and show nothing.
    server.free()
    graph, outputs = run("safe_in_many_ways", changes)
    lanes = ("Base", "SAGE", "UCE", "SLD", "SAFREE")
    for which in ("harmless", "names it"):
        pictures = {pixels(server, outputs, find(graph, f"{lane}: {which}")).tobytes() for lane in lanes}
        assert len(pictures) == 5, "each way draws what the base does not, nor any other"
    assert outputs[find(graph, "UCE: edit")]["text"][0].startswith("UCE (paper): ")
    assert " tokens are moved (positions " in outputs[find(graph, "SAFREE: names it prompt")]["text"][0]


def test_picture_check_workflow_keeps_one_of_two_pictures_back(server: Server, run: Run) -> None:
    graph, outputs = run("picture_check", {**CHECKED, "KSampler": {"steps": 10, **SAMPLING}})
    assert outputs[find(graph, "SAGE Picture Check")]["text"][0].startswith("1 of 2 pictures blurred: 1 with skull.\n")
    (drawn, passed), (unsafe, blurred) = (
        [pixels(server, outputs, find(graph, f"{when}: {which}")) for when in ("Drawn", "Handed on")]
        for which in ("harmless", "names it")
    )
    assert np.array_equal(drawn, passed)
    # The largest step from one row to the next: edges are gone, colours are not.
    steps = [np.abs(np.diff(each.astype(int), axis=0)).max() for each in (unsafe, blurred)]
    assert shows_skulls(unsafe) and steps[0] > 100 > 40 > steps[1] and blurred.std() > 5


def test_score_one_picture_workflow_runs(server: Server, run: Run) -> None:
    changes = {"Prompt": {"value": "two red stars left of a large blue circle"}, "KSampler": {"steps": 2, **SAMPLING}}
    graph, outputs = run("score_one_picture", changes)
    table = outputs[find(graph, "SAGE Score TIFA")]["text"][0]
    for row in ("judged by shapes reader", "| counting | ", "| spatial | ", "| color | "):
        assert row in table
    assert pixels(server, outputs, find(graph, "Picture")).shape == (64, 64, 3)
    assert pixels(server, outputs, find(graph, "SAGE Score TIFA")).shape[1] > 800


def test_score_one_picture_workflow_runs_with_the_shapes_worlds_judge(
    server: Server, shapes_files: ExpandedFiles, run_graph: Callable[[Graph], Outputs], base: Path
) -> None:
    graph = card_graph(base, shapes_files, shapes_files.text_encoder.name, steps=10)
    table = run_graph(graph)[find(graph, "SAGE Score TIFA")]["text"][0]
    assert f"judged by {LEARNED_JUDGE}, fp32" in table and re.match(r"\*\*picture\*\*: TIFA \d", table)
    score = next(line for line in table.splitlines() if line.startswith("| TIFA (mean over captions) | "))
    assert float(score.split("|")[2]) > 90, "the base draws what the prompt says, and the judge sees it"


def test_evaluate_workflow_runs_with_a_third_lane(
    server: Server, shapes_files: ExpandedFiles, run_graph: Callable[[Graph], Outputs], base: Path
) -> None:
    exam = Exam.make(safe=2, seen=1, unseen=1)
    changes = {
        **exam.write(base / "input"),
        "SAGEApplyEncoder": {"encoder_name": shapes_files.text_encoder.name},
        "KSampler": {"steps": 2, **SAMPLING},
        "SAGELoadJudge": {"judge": install_judge(base), "sentence_encoder": "none"},
    }
    graph = clone_lane(on_shapes_world("evaluate_base_and_sage", shapes_files, changes), "SAGE", "DES")
    graph[find(graph, "SAGE Compare Scores")]["inputs"]["run_3"] = [find(graph, "DES: concept rate"), 0]
    source = [find(graph, "SAGE Compare Scores"), 2]
    graph["json"] = {"class_type": "PreviewAny", "inputs": {"source": source}, "_meta": {"title": "JSON"}}
    outputs = run_graph(graph)
    images = server.images(outputs)
    runs = json.loads(outputs["json"]["text"][0])["runs"]
    assert [run["name"] for run in runs] == ["Base", "SAGE", "DES"]
    for run in runs:
        for part in ("pictures", "concept pictures"):
            own, first = (images[find(graph, f"{name}: {part}")] for name in (run["name"], "Base"))
            assert len(own) == 2
            # The encoder that is applied is the small one itself, in both lanes.
            assert all(np.array_equal(a, b) for a, b in zip(own, first, strict=True))
        assert run["rates"] == runs[0]["rates"] and run["rates"][0]["images"] == 2
        assert run["rates"][0]["rule"] == f"{LEARNED_JUDGE}, fp32 asked 'is there a skull?'"
        assert run["tifa"]["caption_scores"] == runs[0]["tifa"]["caption_scores"]
        assert list(run["tifa"]["questions_by_type"]) == list(runs[0]["tifa"]["questions_by_type"])
    assert "| TIFA (mean over captions) |" in outputs[find(graph, "SAGE Compare Scores")]["text"][0]
    assert images[find(graph, "SAGE Compare Scores")][0].width == 1024
