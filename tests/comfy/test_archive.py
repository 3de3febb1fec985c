"""What users install, a wheel or the archive of the registry: it works, and holds nothing that is refused there."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from comfy_graphs import node
from node_entries import ENTRIES, NODES
from sage_core import __version__
from sage_core.demo.comfyui.server import PACK_NAME, Server
from sage_core.shapes.networks.checkpoint import ExpandedFiles

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
# Of a working copy alone, and in no archive.
_NOT_COPIED = {".git", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".import_linter_cache"}
# What starts programs or runs texts as code: the registry never makes such a version its latest.
_REFUSED = {"subprocess", "os.system", "os.popen", "eval", "exec", "pty", "ctypes"}
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


# What nodes/host alone may know of ComfyUI.
_COMFYUI = {"comfy", "comfy_execution", "comfy_extras", "execution", "folder_paths", "node_helpers", "nodes", "server"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the registry's archive holds of the tree, unpacked."""
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    left_out = [ROOT / line.strip("/") for line in lines if line and not line.startswith("#")]
    assert all(line[0] == "/" for line in lines if line and line[0] != "#") and all(path.exists() for path in left_out)

    def ignored(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if name in _NOT_COPIED or Path(folder, name) in left_out}

    copy = tmp_path_factory.mktemp("archive") / "copy"
    shutil.copytree(ROOT, copy, ignore=ignored)
    return copy


def test_what_users_install_needs_no_bench_demo_training_or_test(archive: Path, comfyui: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{archive}{os.pathsep}{ROOT / 'tests' / 'helpers'}"}
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL],
        cwd=archive,
        env=environment | {"SAGE_TEST_COMFYUI": str(comfyui)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    count, *nodes = done.stdout.splitlines()[-1].split()
    assert int(count) > 150 and {*nodes} == {*ENTRIES}


def used(path: Path) -> set[str]:
    """First parts of the modules that a file imports, its own pack's left out, and names that it calls."""
    found = set()
    for each in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(each, ast.Import):
            found |= {alias.name.split(".")[0] for alias in each.names}
        elif isinstance(each, ast.ImportFrom) and not each.level:
            found.add(str(each.module).split(".")[0])
        elif isinstance(each, ast.Call):
            found.add(ast.unparse(each.func))
    return found


def test_nodes_know_nothing_of_comfyui_but_its_node_api() -> None:
    known = {path.name: used(path) & _COMFYUI for path in NODES.glob("*.py")}
    assert {name: modules for name, modules in known.items() if modules} == {}
    assert {"comfy", "folder_paths"} <= set().union(*map(used, (NODES / "host").glob("*.py"))), "they are found"


def test_what_users_install_starts_no_program_and_runs_no_text(archive: Path) -> None:
    assert "subprocess" in used(Path(__file__)), "it is found where it is"
    refused = {str(path.relative_to(archive)): used(path) & _REFUSED for path in archive.rglob("*.py")}
    assert {path: names for path, names in refused.items() if names} == {}


def test_the_registry_finds_what_it_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    comfy = project["tool"]["comfy"]
    # As comfy-cli reads it: the first line of this form.
    version = re.search(r'^__version__ = "(.*)"', (ROOT / comfy["version"]["path"]).read_text(encoding="utf-8"), re.M)
    assert version and version[1] == __version__ and re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").startswith(f"# Changelog\n\n## {__version__}\n")
    assert project["project"]["urls"]["Repository"].startswith("https://github.com/")
    assert comfy["PublisherId"] and comfy["requires-comfyui"] == ">=0.3.64"
    icon, banner = (Image.open(ROOT / comfy[name]).size for name in ("Icon", "Banner"))
    assert icon[0] == icon[1] <= 400 and banner[0] * 9 == banner[1] * 21


def named_absolutely(path: Path) -> list[str]:
    """Where a file names a module of this library by a name that it has only where it is installed."""
    found, groups = [], set()
    for each in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(each, ast.Import | ast.ImportFrom):
            names = [each.module] if isinstance(each, ast.ImportFrom) else [alias.name for alias in each.names]
            if not getattr(each, "level", 0) and any(str(name).split(".")[0] == "sage_core" for name in names):
                found.append(ast.unparse(each))
        elif isinstance(each, ast.Call):
            name = ast.unparse(each.func).rpartition(".")[2]
            # Groups of entry points are a name of ours, wherever the library is.
            groups |= {id(argument) for argument in each.args} if name == "installed" else set()
            relative = name == "import_module" and ast.unparse(each.args[0]).lstrip("f")[1:2] == "."
            if name == "__import__" or (name == "import_module" and not relative):
                found.append(ast.unparse(each))
        elif isinstance(each, ast.Constant) and str(each.value).startswith("sage_core") and id(each) not in groups:
            found.append(ast.unparse(each))
    return found


def test_what_users_install_names_none_of_its_modules_absolutely(archive: Path, tmp_path: Path) -> None:
    (bad := tmp_path / "bad.py").write_text(
        "import sage_core.rows\nfrom sage_core import rows\nimport_module(name)\n__import__('os')\n"
        'NAMED = "sage_core.rows"\ninstalled("sage_core.judges")\nimport_module(f".{name}", p)\n'
    )
    assert len(named_absolutely(bad)) == 5
    files = [archive / "__init__.py", *(archive / "nodes").rglob("*.py"), *(archive / "sage_core").rglob("*.py")]
    assert {str(path.relative_to(archive)): found for path in files if (found := named_absolutely(path))} == {}


@pytest.mark.full
def test_a_wheel_holds_the_files_that_the_code_reads(archive: Path, tmp_path: Path) -> None:
    build = "from setuptools import build_meta; import sys; print(build_meta.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, tmp_path], cwd=archive, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / f"sage_alignment-{__version__}-py3-none-any.whl") as wheel:
        wheel.extractall(tmp_path / "installed")
    script = "import sage_core; from sage_core.shapes.networks.weights import load_model; load_model()\n"
    script += "from sage_core.encoders import doctor; print(sage_core.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and str(tmp_path / "installed") in done.stdout, done.stderr
    code = {path.relative_to(archive) for path in (archive / "sage_core").rglob("*") if path.suffix in (".py", ".json")}
    assert code <= {path.relative_to(tmp_path / "installed") for path in (tmp_path / "installed").rglob("*")}


@pytest.mark.full
def test_the_archive_runs_a_graph_in_comfyui(
    archive: Path, comfyui: Path, shapes_files: ExpandedFiles, tmp_path: Path
) -> None:
    graph = {
        "1": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
        "2": node("SAGESaveEncoder", clip=["1", 0], name="kept", overwrite=False),
    }
    with Server(comfyui, tmp_path, pack=archive, models={"text_encoders": [shapes_files.text_encoder]}) as server:
        server.run(graph, timeout=300)
    assert (tmp_path / "models" / "text_encoders" / "kept.safetensors").is_file()


@pytest.mark.full
def test_a_second_copy_is_refused_in_words_and_nothing_of_it_is_loaded(
    archive: Path, comfyui: Path, tmp_path: Path
) -> None:
    shutil.copytree(archive, tmp_path / "custom_nodes" / "sage-alignment-2")
    arguments = ["--whitelist-custom-nodes", PACK_NAME, "sage-alignment-2"]
    with Server(comfyui, tmp_path, pack=archive, arguments=arguments) as server:
        ours = {name: each for name, each in server.object_info().items() if name in ENTRIES}
        (loaded,) = {each["python_module"].removeprefix("custom_nodes.") for each in ours.values()}
        (refused,) = {PACK_NAME, "sage-alignment-2"} - {loaded}
        assert ours.keys() == ENTRIES.keys()
        folder = tmp_path / "custom_nodes"
        assert f"{folder / loaded} is loaded, {folder / refused} is not. Keep the newer of the two" in server.log_tail(
            99
        )
        assert {path.split("/")[2] for path in server.get("/extensions") if "/sage" in path} == {loaded}
