"""Node id -> what a search knows of the node and where the menu has it, read from the source.

An older ComfyUI's schema has no aliases, and so its nodes cannot say them.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

NODES = Path(__file__).parents[2] / "nodes"


class Entry(NamedTuple):
    """A node's name, its place in the menu, and other words that find it."""

    name: str
    category: str
    aliases: tuple[str, ...]


def _read() -> dict[str, Entry]:
    found = {}
    for path in sorted(NODES.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {ast.unparse(each.targets[0]): each.value for each in tree.body if isinstance(each, ast.Assign)}
        for call in ast.walk(tree):
            if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "io.Schema"):
                continue
            given = {each.arg: each.value for each in call.keywords}
            aliases = tuple(map(ast.literal_eval, given[None].args))
            category = names.get(ast.unparse(given["category"]), given["category"])
            entry = Entry(ast.literal_eval(given["display_name"]), ast.literal_eval(category), aliases)
            found[ast.literal_eval(given["node_id"])] = entry
    return found


ENTRIES = _read()
# What people type, and the nodes one of which they should see.
SEARCHES = {
    "sage": {"SAGEApplyEncoder"},
    "safe": {"SAGEApplyEncoder", "SAGEGuidance"},
    "nsfw": {"SAGEApplyEncoder"},
    "safety": {"SAGEApplyEncoder"},
    "nudity": {"SAGEApplyEncoder"},
    "erase": {"SAGEEraseConcept"},
    "unlearn": {"SAGETrainAdvUnlearn"},
    "tifa": {"SAGEScoreTIFA"},
    "censor": {"SAGEApplyEncoder"},
    "UCE": {"SAGEEraseConcept"},
    "SLD": {"SAGEGuidance"},
}
