"""What was made with release 0.1 still works: node ids, sockets, widgets in their order, and saved workflows.

`release_0_1/nodes.json` holds the nodes as that release's server described them, without choices of files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sage_core.demo.comfyui.client import Graph
from sage_core.demo.comfyui.server import Server
from shipped_workflows import to_api

RELEASE = Path(__file__).parent / "release_0_1"
NODES: dict[str, dict[str, Any]] = json.loads((RELEASE / "nodes.json").read_text(encoding="utf-8"))
WORKFLOWS = sorted(path.stem for path in (RELEASE / "api").glob("*.json"))
# Inputs that choose among files of a user's own, which the test server has not.
FILES = {"ckpt_name", "encoder_name", "model", "judge", "sentence_encoder", "file", "safe_file", "unsafe_file"}


@pytest.fixture(scope="session")
def info(server: Server, question_file: str) -> dict[str, Any]:
    """The nodes of today's server, which has a question file to offer."""
    return server.object_info()


def described(schema: dict[str, Any], section: str) -> list[dict[str, Any]]:
    """A section of a node's inputs, in order and in the manner of nodes.json."""
    rows = []
    for name in schema["input_order"].get(section, []):
        kind, *options = schema["input"][section][name]
        rows.append({"name": name, "type": kind, **(options[0] if options else {})})
    return rows


KEPT = ("name", "type", "forceInput", "default")
# A saved graph carries its values: a better default changes none.
NEW_DEFAULTS = {
    ("SAGEConceptRate", "threshold"),
    ("SAGETrainingSettings", "precision"),
    ("SAGETrainEncoder", "preset"),
}


@pytest.mark.parametrize("node", list(NODES))
def test_inputs_are_those_of_the_release(node: str, info: dict[str, Any]) -> None:
    for section in ("required", "optional"):
        old, new = NODES[node][section], described(info[node], section)
        # A required input that comes in addition would stop every saved graph; an optional one may follow the others.
        assert len(new) == len(old) if section == "required" else len(new) >= len(old)
        for before, now in zip(old, new, strict=False):
            kept = ("name", "type", "forceInput") if (node, before["name"]) in NEW_DEFAULTS else KEPT
            for key in kept:
                assert now.get(key) == before.get(key), (before["name"], key)
            assert set(before.get("options", ())) <= set(now.get("options", ()))
            assert now.get("min", 0) <= before.get("min", 0) and now.get("max", 0) >= before.get("max", 0)


@pytest.mark.parametrize("node", list(NODES))
def test_outputs_are_those_of_the_release(node: str, info: dict[str, Any]) -> None:
    schema, old = info[node], NODES[node]
    columns = schema["output_name"], schema["output"], schema["output_is_list"]
    new = [dict(zip(("name", "type", "list"), row, strict=True)) for row in zip(*columns, strict=True)]
    assert new[: len(old["outputs"])] == old["outputs"]
    assert schema["output_node"] == old["output_node"]
    # The pack's nodes may be sorted into folders of its own, but stay in it.
    assert schema["category"].split("/")[0] == old["category"]


# -- saved workflows ---------------------------------------------------------------------------------------------------


def widgets_of_the_release(info: dict[str, Any]) -> dict[str, Any]:
    """`info` without inputs that came later: a saved workflow holds no values for their widgets."""
    cut = {}
    for name, old in NODES.items():
        order = {section: [row["name"] for row in old[section]] for section in ("required", "optional")}
        cut[name] = {**info[name], "input_order": order}
    return info | cut


def choices(node: dict[str, Any], info: dict[str, Any]) -> dict[str, list[Any]]:
    """What a node's combo boxes offer, by their names; those that a connection replaces left out."""
    offered = {}
    for section in info[node["class_type"]]["input"].values():
        for name, (kind, *options) in section.items():
            if isinstance(node["inputs"].get(name, []), list):
                continue
            if isinstance(kind, list) or kind == "COMBO":
                offered[name] = kind if isinstance(kind, list) else options[0]["options"]
    return offered


def with_files_that_are_here(graph: Graph, info: dict[str, Any]) -> Graph:
    """The graph with the names of files that this server has, in place of those of the user's own."""
    for node in graph.values():
        for name, offered in choices(node, info).items():
            assert offered, f"the server offers nothing for {node['class_type']}'s {name}"
            if name in FILES and node["inputs"][name] not in offered:
                node["inputs"][name] = offered[-1]
    return graph


def problems(server: Server, graph: Graph, info: dict[str, Any]) -> list[str]:
    """Why the server would refuse a graph or a part of it, and choices that are not offered, which it lets pass."""
    found = server.post("/probe/validate", graph)
    assert found["valid"] or found["errors"]
    strange = [
        f"{node['class_type']}: {name} is {node['inputs'][name]!r}"
        for node in graph.values()
        for name, offered in choices(node, info).items()
        if node["inputs"][name] not in offered
    ]
    return [*map(json.dumps, found["errors"].values()), *strange]


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_saved_with_the_release_can_be_queued(name: str, server: Server, info: dict[str, Any]) -> None:
    graph = to_api(read(RELEASE / f"{name}.json"), widgets_of_the_release(info))
    assert problems(server, with_files_that_are_here(graph, info), info) == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_graph_exported_with_the_release_can_be_queued(name: str, server: Server, info: dict[str, Any]) -> None:
    graph = with_files_that_are_here(read(RELEASE / "api" / f"{name}.json"), info)
    assert problems(server, graph, info) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("mode", "paint", "SAGEApplyEncoder: mode is 'paint'"),
        ("strength", 9.0, "value_bigger_than_max"),
        ("clip", ["9999", 0], "9999"),
        ("encoder_name", "missing.safetensors", "There is no text encoder 'missing.safetensors'"),
    ],
)
def test_what_does_not_fit_is_found(server: Server, info: dict[str, Any], name: str, value: Any, words: str) -> None:
    graph = with_files_that_are_here(read(RELEASE / "api" / "text_to_image_base_and_sage.json"), info)
    apply = next(node for node in graph.values() if node["class_type"] == "SAGEApplyEncoder")
    apply["inputs"][name] = value
    assert words in " ".join(problems(server, graph, info))
