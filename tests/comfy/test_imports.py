"""Only nodes/host knows ComfyUI's memory, folders and models; the nodes themselves know its node API alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

NODES = Path(__file__).parents[2] / "nodes"
COMFYUI = {"comfy", "comfy_execution", "comfy_extras", "execution", "folder_paths", "node_helpers", "nodes", "server"}


def imported(path: Path) -> set[str]:
    """First parts of the names of all modules that a file imports, wherever in it; those of its own pack left out."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).split(".")[0])
    return found


@pytest.mark.parametrize("path", sorted(NODES.glob("*.py")), ids=lambda path: path.name)
def test_nodes_import_nothing_of_comfyui_but_its_node_api(path: Path) -> None:
    assert imported(path) & COMFYUI == set()


def test_the_host_is_where_comfyui_is_known() -> None:
    known = set().union(*map(imported, (NODES / "host").glob("*.py")))
    assert {"comfy", "comfy_api", "folder_paths"} <= known, "then the other test finds imports at all"
