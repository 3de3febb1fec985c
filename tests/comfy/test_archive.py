"""What the registry's archive holds of the tree works by itself: every module is imported, and the nodes are there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Large, and read by no import; the rest belongs to a working copy alone.
_NOT_COPIED = {"weights", "workflows", ".git", "__pycache__", ".mypy_cache", ".ruff_cache", ".import_linter_cache"}
_IMPORT_ALL = """
import asyncio, importlib, pkgutil, sys
from pathlib import Path

import loaded_pack, sage_core

root = Path.cwd()
names = [found.name for found in pkgutil.walk_packages(sage_core.__path__, "sage_core.")]
for name in names:
    module = importlib.import_module(name)
    assert module.__spec__.origin is None or Path(module.__spec__.origin).is_relative_to(root), name
loaded_pack.PACK = root
pack = loaded_pack.load_pack(loaded_pack.make_base(root / "base"))
nodes = asyncio.run(pack.SageExtension().get_node_list())
assert Path(pack.__file__).is_relative_to(root)
print(len(names), *(node.define_schema().node_id for node in nodes))
"""


def test_what_users_install_needs_no_bench_training_or_test(tmp_path: Path, comfyui: Path) -> None:
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    left_out = [ROOT / line.strip("/") for line in lines if line and not line.startswith("#")]
    assert all(line[0] == "/" for line in lines if line and line[0] != "#") and all(path.exists() for path in left_out)

    def ignored(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if name in _NOT_COPIED or Path(folder, name) in left_out}

    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=ignored)
    environment = os.environ | {"PYTHONPATH": f"{copy}{os.pathsep}{ROOT / 'tests' / 'helpers'}"}
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL],
        cwd=copy,
        env=environment | {"SAGE_TEST_COMFYUI": str(comfyui)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    count, *nodes = done.stdout.splitlines()[-1].split()
    assert int(count) > 150 and len(nodes) > 30 and {"SAGEApplyEncoder", "SAGETrainEncoder", "SAGECompare"} <= {*nodes}
