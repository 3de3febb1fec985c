"""The workflows that are shipped, and what ComfyUI's frontend queues for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from sage_core.demo.comfyui.server import PACK

FOLDER = PACK / "workflows"
NAMES = [
    "erase_a_concept",
    "evaluate_base_and_sage",
    "my_own_concept",
    "picture_check",
    "remove_two_concepts",
    "safe_in_many_ways",
    "score_one_picture",
    "text_to_image_base_and_sage",
]
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def read(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def to_api(ui: dict, info: dict) -> dict:
    """What the frontend queues for a graph: widget values by position, links by number, subgraphs unpacked.

    A node in a subgraph goes by its box's title and its own, and what the box shows of it has the box's value.
    """
    definitions = {each["id"]: each for each in ui.get("definitions", {}).get("subgraphs", ())}
    nodes = {node["id"]: node for node in ui["nodes"]}
    links = {link[0]: link for link in ui["links"]}

    def source(link: int) -> list:
        _, origin, slot, *_ = links[link]
        box = definitions.get(nodes[origin]["type"])
        if box is None:
            return [str(origin), slot]
        (last,) = (each for each in box["links"] if (each["target_id"], each["target_slot"]) == (-20, slot))
        return [f"{origin}:{last['origin_id']}", last["origin_slot"]]

    def inner_source(box: dict, definition: dict, link: int) -> Any:
        (found,) = (each for each in definition["links"] if each["id"] == link)
        if found["origin_id"] == -10:
            outer = box["inputs"][found["origin_slot"]]
            shown = [each for each in box["inputs"] if "widget" in each]
            return box["widgets_values"][shown.index(outer)] if outer["link"] is None else source(outer["link"])
        (origin,) = (node for node in definition["nodes"] if node["id"] == found["origin_id"])
        if origin["type"] == "Reroute":
            return inner_source(box, definition, origin["inputs"][0]["link"])
        return [f"{box['id']}:{origin['id']}", found["origin_slot"]]

    def entry(node: dict, title: str, find: Callable[[int], Any]) -> dict:
        linked = {each["name"]: find(each["link"]) for each in node["inputs"] if each["link"] is not None}
        inputs = widget_values(node, info[node["type"]]) | linked
        return {"class_type": node["type"], "inputs": inputs, "_meta": {"title": title}}

    api = {}
    for node in ui["nodes"]:
        if definition := definitions.get(node["type"]):
            for inner in definition["nodes"]:
                if inner["type"] != "Reroute":
                    find = partial(inner_source, node, definition)
                    title = f"{node['title']}: {inner['title']}"
                    api[f"{node['id']}:{inner['id']}"] = entry(inner, title, find)
        elif node["type"] != "MarkdownNote":
            api[str(node["id"])] = entry(node, node.get("title") or info[node["type"]]["display_name"], source)
    return api


def widget_values(node: dict, schema: dict) -> dict:
    values = iter(node["widgets_values"])
    inputs = {}
    for section in ("required", "optional"):
        for name in schema["input_order"].get(section, []):
            kind, *options = schema["input"][section][name]
            if isinstance(kind, list) or kind in WIDGETS:
                inputs[name] = next(values)
                if options and options[0].get("control_after_generate"):
                    assert next(values) == "fixed"
    assert next(values, None) is None, f"{node['type']} has more values than widgets"
    return inputs
