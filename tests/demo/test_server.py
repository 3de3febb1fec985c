"""The client against a real ComfyUI: results, progress, messages for what goes wrong, and nothing left running."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sage_core.demo.comfyui.client import ExecutionError, GraphError, Progress
from sage_core.demo.comfyui.provision import ComfyError
from sage_core.demo.comfyui.server import Server


def picture(width: object = 64, batch: int = 2, color: int = 0xFF8000) -> dict:
    inputs = {"width": width, "height": 32, "batch_size": batch, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": inputs, "_meta": {"title": "An orange picture"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def test_run_returns_pictures_and_reports_progress(server: Server) -> None:
    seen: list[Progress] = []
    outputs = server.run(picture(), seen.append)
    images = server.images(outputs)["2"]
    assert [image.size for image in images] == [(64, 32), (64, 32)]
    assert images[0].getpixel((0, 0)) == (0xFF, 0x80, 0)
    assert [(step.title, step.finished, step.nodes) for step in seen] == [
        ("An orange picture", 0, 2),
        ("PreviewImage", 1, 2),
    ]


def test_second_run_is_found_in_the_cache(server: Server) -> None:
    server.run(picture(color=1))
    seen: list[Progress] = []
    assert server.run(picture(color=1), seen.append)["2"]["images"]
    assert seen == []


def test_refused_input_names_node_input_and_reason(server: Server) -> None:
    with pytest.raises(GraphError, match=r"Node 1 \(An orange picture\), input width: .*INT value") as raised:
        server.run(picture(width="wide"))
    assert list(raised.value.nodes) == ["1"]


def test_graph_of_which_only_half_is_valid_does_not_run(server: Server) -> None:
    graph = picture(color=2)
    graph["3"] = {"class_type": "PreviewImage", "inputs": {}}
    with pytest.raises(GraphError, match=r"Node 3 \(PreviewImage\), input images: Required input is missing"):
        server.run(graph)


def test_unknown_node_and_graph_without_output_are_named(server: Server) -> None:
    with pytest.raises(GraphError, match=r"node Nowhere does not exist: Node ID '#1'"):
        server.run({"1": {"class_type": "Nowhere", "inputs": {}}})
    with pytest.raises(GraphError, match="Prompt has no outputs"):
        server.run({"1": picture()["1"]})


def test_exception_in_a_node_is_told_with_its_traceback(server: Server) -> None:
    graph = {
        "4": {"class_type": "LoadLatent", "inputs": {"latent": "broken.latent"}},
        "5": {"class_type": "SaveLatent", "inputs": {"samples": ["4", 0], "filename_prefix": "never"}},
    }
    (server.base / "input" / "broken.latent").write_bytes(b"no latent")
    with pytest.raises(ExecutionError, match=r"Node 4 \(LoadLatent\): ") as raised:
        server.run(graph)
    assert raised.value.node == "4"
    assert "in load" in raised.value.traceback


def test_exception_of_the_listener_cancels_the_run_and_propagates(server: Server) -> None:
    def fail(_: Progress) -> None:
        raise RuntimeError("the listener is tired")

    with pytest.raises(RuntimeError, match="tired"):
        server.run(picture(color=3), fail)
    assert server.run(picture(color=4))["2"]["images"]


def test_ports_are_checked(server: Server, comfyui: Path, tmp_path: Path) -> None:
    with pytest.raises(ComfyError, match=f"Port {server.port} cannot be used"):
        Server(comfyui, tmp_path / "a", port=server.port).start()
    with pytest.raises(ComfyError, match="Port 70000 does not exist"):
        Server(comfyui, tmp_path / "a", port=70000).start()


@pytest.mark.full
def test_two_servers_run_at_once(server: Server, comfyui: Path, tmp_path: Path) -> None:
    with Server(comfyui, tmp_path / "b") as other:
        assert other.port != server.port
        assert other.get("/system_stats")["system"]["comfyui_version"]
        assert server.get("/system_stats")
        process = psutil.Process(other._process.pid)
    assert not process.is_running()
    with pytest.raises(ComfyError, match="is gone"):
        other.run(picture())


def test_comfyui_folder_is_left_as_it_was(server: Server, comfyui: Path) -> None:
    server.run(picture(color=5))
    assert not list((comfyui / "custom_nodes").glob("sage*"))
    assert not (comfyui / "user").exists()
    assert not (comfyui.parent / "user").exists()
    assert (server.base / "comfyui.db").is_file()


def test_server_that_dies_on_starting_gives_its_log(comfyui: Path, tmp_path: Path) -> None:
    with pytest.raises(ComfyError, match=r"ended with code 2 on starting:\n(.|\n)*unrecognized arguments: --nonsense"):
        Server(comfyui, tmp_path, arguments=["--nonsense"]).start()


def test_server_that_does_not_answer_in_time_is_stopped(comfyui: Path, tmp_path: Path) -> None:
    silent = Server(comfyui, tmp_path, start_limit=0.5)
    with pytest.raises(ComfyError, match="did not answer within"):
        silent.start()
    assert silent._process is None


OWNER = """
import sys, time
from pathlib import Path
from sage_core.demo.comfyui.server import Server
server = Server(Path(sys.argv[1]), Path(sys.argv[2]))
server.start()
print(server._process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_server_ends_with_its_owner(comfyui: Path, tmp_path: Path) -> None:
    """However that ends: killed, it has no time for anything."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER, comfyui, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        child = psutil.Process(int(owner.stdout.readline()))
        owner.send_signal(signal.SIGKILL)
        owner.wait(20)
        child.wait(20)
    finally:
        owner.kill()
        owner.stdout.close()
    assert not child.is_running()
