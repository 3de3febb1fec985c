"""A ComfyUI server of one's own: started on a base folder of its own, spoken to over its API, stopped with its owner.

    with Server(provision(), Path("base"), models={"checkpoints": [Path("sd15.safetensors")]}) as server:
        outputs = server.run(graph, on_progress=lambda progress: ...)
        pictures = server.images(outputs)

`graph` is in API format: node id -> {"class_type", "inputs"}. ComfyUI's folder is only read: models, custom nodes,
pictures, settings and the database all live in the base folder.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import PIL.Image

from .provision import ComfyError, provision

__all__ = ["ComfyError", "ExecutionError", "GraphError", "Interrupted", "Progress", "Server", "provision"]

PACK = Path(__file__).resolve().parents[3]
PACK_NAME = "sage-alignment"
Graph = Mapping[str, Mapping[str, Any]]
Outputs = dict[str, dict[str, Any]]

# A proxy set for the internet must not be asked for this machine's own server.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class GraphError(ComfyError):
    """ComfyUI refused a graph: a node or an input in it is missing or wrong. `nodes` holds its errors by node id."""

    def __init__(self, message: str, nodes: Mapping[str, Any]):
        super().__init__(message)
        self.nodes = nodes


class ExecutionError(ComfyError):
    """A node raised while a graph ran: which one, with what exception, and ComfyUI's traceback."""

    def __init__(self, message: str, node: str, exception: str, traceback: str):
        super().__init__(message)
        self.node = node
        self.exception = exception
        self.traceback = traceback


class Interrupted(ComfyError):
    """The run was cancelled."""


@dataclass(frozen=True)
class Progress:
    """What a run is doing now.

    `node` and `title` name the node at work, `value` of `maximum` its own steps (0 of 0 before it tells), `finished` of
    `nodes` those done or found in the cache, `preview` a JPEG or PNG that the node has just shown.
    """

    node: str
    title: str
    value: float
    maximum: float
    finished: int
    nodes: int
    preview: bytes | None = None


class Server:
    """One ComfyUI process with this pack, its models and nothing else of the user's. A context manager."""

    def __init__(
        self,
        tree: Path,
        base: Path,
        *,
        pack: Path = PACK,
        models: Mapping[str, Iterable[Path]] | None = None,
        port: int = 0,
        arguments: Iterable[str] = (),
        start_limit: float = 180.0,
    ):
        """
        tree: ComfyUI's folder, see `provision`.
        base: this server's own folder, made if missing; what an earlier server left in it is kept.
        models: files to link into `base/models/<folder name>`.
        port: 0 takes a free one.
        arguments: more of ComfyUI's own command line.
        start_limit: seconds to wait for the first answer.
        """
        self.tree = tree
        self.base = base.resolve()
        self.pack = pack.resolve()
        self.port = port
        self.log = self.base / "server.log"
        self._models = models or {}
        self._arguments = tuple(arguments)
        self._start_limit = start_limit
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        if self._process is None:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- the process ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process and wait until it answers. Raises ComfyError with the log's last lines if it does not."""
        self.port = _usable_port(self.port)
        self._fill_base()
        command = [sys.executable, str(Path(__file__).with_name("host.py")), str(self.tree)]
        command += ["--base-directory", str(self.base), "--database-url", f"sqlite:///{self.base / 'comfyui.db'}"]
        command += ["--listen", "127.0.0.1", "--port", str(self.port), "--disable-auto-launch", "--disable-api-nodes"]
        # A checkout's extra_model_paths.yaml may bring the user's other packs along.
        command += ["--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK_NAME]
        command += [*([] if _accelerated() else ["--cpu"]), *self._arguments]
        own_group: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        atexit.register(self.stop)
        try:
            with open(self.log, "wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.base,
                    env={**os.environ, "PYTHONUTF8": "1"},
                    **own_group,
                )
            self._wait_until_up(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self, grace: float = 10.0) -> None:
        """End the process and whatever it started: asked first, after `grace` seconds killed. May be repeated."""
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if process is None:
            return
        _end_group(process, force=False)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _end_group(process, force=True)
            process.wait()
            if process.stdin:
                process.stdin.close()

    def is_up(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of the server's log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def _fill_base(self) -> None:
        # ComfyUI lists these without asking whether they are there.
        for name in ("custom_nodes", "input", "output", "models", "user"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        _link(self.pack, self.base / "custom_nodes" / PACK_NAME)
        for folder, files in self._models.items():
            (self.base / "models" / folder).mkdir(parents=True, exist_ok=True)
            for file in files:
                _link(file.resolve(), self.base / "models" / folder / file.name)

    def _wait_until_up(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + self._start_limit
        while time.monotonic() < end:
            if process.poll() is not None:
                raise ComfyError(f"ComfyUI ended with code {process.returncode} on starting:\n{self.log_tail()}")
            with suppress(OSError):
                self.get("/system_stats", timeout=5)
                return
            time.sleep(0.2)
        raise ComfyError(f"ComfyUI did not answer within {self._start_limit:.0f} s:\n{self.log_tail()}")

    # -- the API -------------------------------------------------------------------------------------------------------

    def get(self, path: str, timeout: float = 60.0) -> Any:
        """GET a JSON document."""
        return json.loads(self.fetch(path, timeout))

    def fetch(self, path: str, timeout: float = 60.0) -> bytes:
        """GET anything."""
        with _open(self.url + path, timeout=timeout) as answer:
            return answer.read()

    def post(self, path: str, value: Any, timeout: float = 60.0) -> Any:
        """POST a JSON document; None when the answer is empty. An HTTP error's own JSON is the answer too."""
        request = urllib.request.Request(
            self.url + path, json.dumps(value).encode(), {"Content-Type": "application/json"}
        )
        try:
            with _open(request, timeout=timeout) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            body = error.read()
        return json.loads(body) if body else None

    def object_info(self) -> dict[str, Any]:
        """Every node's inputs and outputs, by node id."""
        return self.get("/object_info")

    def interrupt(self) -> None:
        """Cancel what runs now, as the Cancel button does."""
        self.post("/interrupt", {})

    def free(self) -> None:
        """Unload models and forget cached results once the queue is idle."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def history(self, prompt_id: str) -> dict[str, Any]:
        """What is kept of a finished run: `prompt`, `outputs`, `status`."""
        return self.get(f"/history/{prompt_id}")[prompt_id]

    def queue(self, graph: Graph, client_id: str | None = None) -> str:
        """Queue a graph and return its prompt id at once. Raises GraphError if any part of it is refused."""
        body = {"prompt": graph, "client_id": client_id or uuid.uuid4().hex}
        answer = self.post("/prompt", body)
        if "prompt_id" not in answer:
            raise GraphError(_refusal(graph, answer), answer["node_errors"])
        if answer["node_errors"]:
            # ComfyUI runs the outputs it could validate; half a graph is not what was asked for.
            self.post("/queue", {"delete": [answer["prompt_id"]]})
            self.post("/interrupt", {"prompt_id": answer["prompt_id"]})
            raise GraphError(_refusal(graph, answer), answer["node_errors"])
        return answer["prompt_id"]

    def run(
        self, graph: Graph, on_progress: Callable[[Progress], None] | None = None, timeout: float = 1800.0
    ) -> Outputs:
        """Queue a graph, follow it to its end and return what its output nodes show: node id -> kind -> values.

        Raises GraphError, ExecutionError, Interrupted, or ComfyError when `timeout` seconds have passed or the server
        is gone. An exception of `on_progress` cancels the run and propagates.
        """
        return asyncio.run(self._run(graph, on_progress or (lambda _: None), timeout))

    def images(self, outputs: Outputs) -> dict[str, list[PIL.Image.Image]]:
        """Fetch the pictures in what `run` returned, by node id."""
        return {
            node: [self._image(entry) for entry in output["images"]]
            for node, output in outputs.items()
            if "images" in output
        }

    def _image(self, entry: Mapping[str, str]) -> PIL.Image.Image:
        image = PIL.Image.open(BytesIO(self.fetch(f"/view?{urllib.parse.urlencode(entry)}")))
        image.load()
        return image

    async def _run(self, graph: Graph, on_progress: Callable[[Progress], None], timeout: float) -> Outputs:
        import aiohttp

        client_id = uuid.uuid4().hex
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"{self.url}/ws?clientId={client_id}", max_msg_size=0) as socket_,
            ):
                prompt_id = self.queue(graph, client_id)
                try:
                    await asyncio.wait_for(_follow(socket_, prompt_id, graph, on_progress), timeout)
                except asyncio.TimeoutError:
                    self.post("/interrupt", {"prompt_id": prompt_id})
                    raise ComfyError(f"The run was cancelled: it took more than {timeout:.0f} s.") from None
                except (Interrupted, ExecutionError):
                    raise
                except Exception:
                    self.post("/interrupt", {"prompt_id": prompt_id})
                    raise
        except (OSError, aiohttp.ClientError) as error:
            raise ComfyError(f"ComfyUI at {self.url} is gone ({error}):\n{self.log_tail()}") from error
        return self.history(prompt_id)["outputs"]


async def _follow(socket_: Any, prompt_id: str, graph: Graph, on_progress: Callable[[Progress], None]) -> None:
    """Read messages until the run has left the queue, and raise what ended it, if anything did."""
    now = Progress("", "", 0, 0, 0, len(graph))
    failure: ComfyError | None = None
    async for message in socket_:
        if isinstance(message.data, bytes):
            # Four bytes say what it is (1: a preview), four more which picture format.
            if message.data[:4] == b"\0\0\0\1":
                on_progress(replace(now, preview=message.data[8:]))
            continue
        event = json.loads(message.data)
        kind, data = event["type"], event["data"]
        if data.get("prompt_id") != prompt_id:
            continue
        if kind == "execution_cached":
            now = replace(now, finished=len(data["nodes"]))
        elif kind == "executing" and data["node"] is None:
            if failure:
                raise failure
            return
        elif kind == "executing":
            done = now.finished + (1 if now.node else 0)
            now = Progress(data["node"], _title(graph, data["node"]), 0, 0, done, now.nodes)
            on_progress(now)
        elif kind == "progress":
            on_progress(replace(now, value=data["value"], maximum=data["max"]))
        elif kind == "execution_interrupted":
            failure = Interrupted("The run was cancelled.")
        elif kind == "execution_error":
            node, name = data["node_id"], data["exception_type"]
            text = f"Node {node} ({_title(graph, node)}): {data['exception_message'].strip()}"
            failure = ExecutionError(text, node, name, "".join(data["traceback"]))
    raise ConnectionResetError("its connection closed")


def _title(graph: Graph, node: str) -> str:
    entry = graph.get(node, {})
    return entry.get("_meta", {}).get("title") or entry.get("class_type", "made by another node")


def _refusal(graph: Graph, answer: Mapping[str, Any]) -> str:
    lines = []
    for node, found in answer["node_errors"].items():
        for error in found["errors"]:
            place = f"Node {node} ({_title(graph, node)})"
            if name := error.get("extra_info", {}).get("input_name"):
                place += f", input {name}"
            lines.append(f"{place}: {_reason(error)}")
    return "ComfyUI refused the graph.\n" + "\n".join(lines or [_reason(answer["error"])])


def _reason(error: Mapping[str, str]) -> str:
    return ": ".join(filter(None, (error["message"].rstrip("."), error["details"])))


def _usable_port(port: int) -> int:
    if not 0 <= port <= 65535:
        raise ComfyError(f"Port {port} does not exist: choose one from 1 to 65535, or 0 for any free one.")
    with socket.socket() as probe:
        if sys.platform != "win32":
            # A port that a server has just left is usable, as ComfyUI will find; on Windows this means another thing.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ComfyError(
                f"Port {port} cannot be used ({error.strerror}): choose another, or 0 for any free one."
            ) from error
        return probe.getsockname()[1]


def _accelerated() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _link(source: Path, target: Path) -> None:
    if target.is_symlink() or target.exists():
        return
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:
        # Windows asks for a privilege to link; some file systems cannot.
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*", "__pycache__", "tests"))
        else:
            shutil.copyfile(source, target)


def _end_group(process: subprocess.Popen[bytes], force: bool) -> None:
    if sys.platform == "win32":
        if force and process.poll() is None:
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True)
        elif not force:
            process.send_signal(signal.CTRL_BREAK_EVENT)
        return
    # A group outlives its first process while anything that it started is left. macOS refuses when only a zombie is.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL if force else signal.SIGTERM)
