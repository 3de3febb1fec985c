"""What the frontend reads beside the nodes: translations and blueprints fit the nodes that the server has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from node_entries import ENTRIES
from sage_core.demo.comfyui.server import PACK, Server

LANGUAGES = ("ja", "zh")
BLUEPRINTS = sorted((PACK / "subgraphs").glob("*.json"))
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def info(server: Server) -> dict[str, Any]:
    return server.object_info()


def options(node: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of each input of a node: its options, with its type."""
    found = {}
    for section in ("required", "optional"):
        for name, (kind, *more) in node["input"].get(section, {}).items():
            found[name] = {"type": "COMBO" if isinstance(kind, list) else kind, **(more[0] if more else {})}
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_name_and_tooltip_is_translated(language: str, info: dict[str, Any]) -> None:
    translated = read(PACK / "locales" / language / "nodeDefs.json")
    assert set(translated) == set(ENTRIES)
    for name, entry in translated.items():
        node = info[name]
        assert entry["display_name"].startswith("SAGE ") and entry["description"], name
        inputs = options(node)
        assert set(entry["inputs"]) == set(inputs), name
        assert {key for key, each in entry["inputs"].items() if "tooltip" in each} == {
            key for key, each in inputs.items() if each.get("tooltip")
        }, name
        tooltips = node.get("output_tooltips") or [None] * len(node["output"])
        assert [*entry["outputs"]] == [str(place) for place in range(len(node["output"]))], name
        assert ["tooltip" in each for each in entry["outputs"].values()] == [bool(each) for each in tooltips], name
        assert all(each["name"] for group in ("inputs", "outputs") for each in entry[group].values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_nodes_that_translations_name_are_there(language: str) -> None:
    folder = PACK / "locales" / language
    text = (folder / "nodeDefs.json").read_text(encoding="utf-8")
    names = {re.sub(r" \(.*\)", "", entry["display_name"]) for entry in json.loads(text).values()}
    assert len(names) == len(ENTRIES)
    named = {re.sub(r" \(.*\)", "", name) for name in re.findall(r"[“「](SAGE[^”」]*)[”」]", text)}
    assert named and named <= names
    menu = read(folder / "main.json")["nodeCategories"]
    assert set(menu) == {part for entry in ENTRIES.values() for part in entry.category.split("/")}


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_blueprints_fit_the_nodes(path: Path, info: dict[str, Any]) -> None:
    # ComfyUI reads them in the system's own encoding.
    assert path.read_bytes().isascii()
    blueprint = read(path)
    (box,), (definition,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    assert box["type"] == definition["id"] and definition["name"] == box["title"] == path.stem
    assert blueprint["extra"]["BlueprintDescription"] and blueprint["extra"]["BlueprintSearchAliases"]
    for side in ("inputs", "outputs"):
        assert [each["name"] for each in box[side]] == [each["name"] for each in definition[side]]
    nodes = {node["id"]: node for node in definition["nodes"]}
    for node in nodes.values():
        known = options(info[node["type"]])
        assert {each["name"] for each in node["inputs"]} <= set(known), node["type"]
        # Values go by their places: inputs that came later follow, and have their defaults.
        widgets = [name for name, each in known.items() if each["type"] in WIDGETS and not each.get("forceInput")]
        held = [each["name"] for each in node["inputs"] if "widget" in each]
        assert held == widgets[: len(held)], node["type"]
        extra = sum(bool(known[name].get("control_after_generate")) for name in held)
        assert len(node["widgets_values"]) == len(held) + extra, node["type"]
        names = [each["name"] for each in node["outputs"]]
        assert names == info[node["type"]]["output_name"][: len(names)], node["type"]
    for link in definition["links"]:
        if link["origin_id"] != -10:
            assert link["id"] in nodes[link["origin_id"]]["outputs"][link["origin_slot"]]["links"]
        if link["target_id"] != -20:
            target = nodes[link["target_id"]]["inputs"][link["target_slot"]]
            assert target["link"] == link["id"] and target["type"] == link["type"]


def test_the_server_offers_them(server: Server) -> None:
    offered = server.get("/global_subgraphs")
    assert {path.stem for path in BLUEPRINTS} <= {each["name"] for each in offered.values()}
    assert set(LANGUAGES) <= set(server.get("/i18n"))
