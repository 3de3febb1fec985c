"""One real ComfyUI for all tests here, with the shapes world's checkpoint and text encoder in its model folders.

Tests speak to it over its API and never import comfy. What a test leaves behind (files in `base`, cached results) the
next one sees: use names of your own, and `server.free()` where an earlier result would spoil the test.
"""

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sage_core.shapes.weights import ExpandedFiles, expand
from sage_demo.comfyui import PACK_NAME, Graph, Outputs, Server
from sage_demo.provision import cache_folder, provision

# A pack of nodes for tests alone: what a node hands on can be seen only from inside the server.
PROBE = Path(__file__).parent / "probe"


@pytest.fixture(scope="session")
def shapes_files() -> ExpandedFiles:
    """The shapes world's checkpoint and text encoder, expanded once into the user's cache and found again."""
    return expand(cache_folder() / "shapes")


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """ComfyUI's own folder, to be read only."""
    return provision()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's base folder: models/, input/, output/, custom_nodes/, server.log."""
    return tmp_path_factory.mktemp("comfyui")


@pytest.fixture(scope="session")
def server(comfyui: Path, base: Path, shapes_files: ExpandedFiles) -> Iterator[Server]:
    models = {"checkpoints": [shapes_files.checkpoint], "text_encoders": [shapes_files.text_encoder]}
    shutil.copytree(PROBE, base / "custom_nodes" / PROBE.name)
    arguments = ["--whitelist-custom-nodes", PACK_NAME, PROBE.name]
    with Server(comfyui, base, models=models, arguments=arguments) as running:
        yield running


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children obey SIGINT: a shell that starts the tests in the background has it ignored, and children inherit it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def run_graph(server: Server) -> Callable[[Graph], Outputs]:
    """Run a graph in API format to its end: node id -> what it shows ("images", "text", ...)."""
    return lambda graph: server.run(graph, timeout=500)
