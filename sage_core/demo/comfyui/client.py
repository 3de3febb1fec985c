"""Speaking to a ComfyUI over its API: queue a graph, follow it to its end, fetch what it made.

`graph` is in API format: node id -> {"class_type", "inputs"}. `server` starts a ComfyUI to speak to.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import PIL.Image

from .provision import ComfyError

Graph = Mapping[str, Mapping[str, Any]]
Outputs = dict[str, dict[str, Any]]

# A proxy set for the internet must not be asked for this machine's own server.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class GraphError(ComfyError):
    """ComfyUI refused a graph: a node or an input in it is missing or wrong. `nodes` holds its errors by node id."""

    def __init__(self, message: str, nodes: Mapping[str, Any]) -> None:
        """Keep the errors that ComfyUI found, by node id."""
        super().__init__(message)
        self.nodes = nodes


class ExecutionError(ComfyError):
    """A node raised while a graph ran: which one, with what exception, and ComfyUI's traceback."""

    def __init__(self, message: str, node: str, exception: str, traceback: str) -> None:
        """Keep the node's id, the exception's name and ComfyUI's traceback."""
        super().__init__(message)
        self.node = node
        self.exception = exception
        self.traceback = traceback


class Interrupted(ComfyError):
    """The run was cancelled."""


@dataclass(frozen=True)
class Progress:
    """What a run is doing now.

    Attributes:
        node, title: of the node at work.
        value, maximum: its own steps, done and in all; 0 of 0 before it tells.
        finished, nodes: nodes done or found in the cache, and all of them.
        preview: a JPEG or PNG that the node has just shown.
    """

    node: str
    title: str
    value: float
    maximum: float
    finished: int
    nodes: int
    preview: bytes | None = None


class Client:
    """What can be asked of a ComfyUI. A subclass says where it is, and what it said last."""

    @property
    def url(self) -> str:
        """Where ComfyUI answers, without a slash at the end."""
        raise NotImplementedError

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of ComfyUI's log, for errors."""
        raise NotImplementedError

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
        """Unload models and forget cached results, before the next graph.

        Raises:
            ComfyError: the server is gone, or busy for a minute.
        """
        # It unloads models as well. To ask for both would set two flags in turn, and the second could be overlooked
        # until the next graph has run.
        self.post("/free", {"free_memory": True})
        # So could the one, if that graph comes too soon: a small one goes first, after which ComfyUI looks.
        image = {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}}
        shown = {"class_type": "PreviewImage", "inputs": {"images": ["image", 0]}}
        prompt_id, until = self.queue({"image": image, "shown": shown}), time.monotonic() + 60
        # Not by `run`, which needs an event loop of its own.
        while prompt_id not in self.get(f"/history/{prompt_id}"):
            if time.monotonic() > until:
                raise ComfyError(f"ComfyUI at {self.url} has not freed its memory in 60 s:\n{self.log_tail()}")
            time.sleep(0.02)

    def queue(self, graph: Graph, client_id: str | None = None) -> str:
        """Queue a graph and return its prompt id at once.

        Raises:
            GraphError: any part of it is refused.
        """
        body = {"prompt": graph, "client_id": client_id or uuid.uuid4().hex}
        answer = self.post("/prompt", body)
        if "prompt_id" not in answer:
            raise GraphError(_refusal(graph, answer), answer["node_errors"])
        if answer["node_errors"]:
            # ComfyUI would run the outputs that it could validate: half of what was asked for.
            self.post("/queue", {"delete": [answer["prompt_id"]]})
            self.post("/interrupt", {"prompt_id": answer["prompt_id"]})
            raise GraphError(_refusal(graph, answer), answer["node_errors"])
        return answer["prompt_id"]

    def run(
        self, graph: Graph, on_progress: Callable[[Progress], None] | None = None, timeout: float = 1800.0
    ) -> Outputs:
        """Queue a graph, follow it to its end and return what its output nodes show: node id -> kind -> values.

        An exception of `on_progress` cancels the run and propagates.

        Raises:
            GraphError: the graph is refused.
            ExecutionError: a node raised.
            Interrupted: the run was cancelled.
            ComfyError: `timeout` seconds have passed, or the server is gone.
        """
        return asyncio.run(self._run(graph, on_progress or (lambda _: None), timeout))

    def images(self, outputs: Outputs) -> dict[str, list[PIL.Image.Image]]:
        """Fetch the pictures in what `run` returned, by node id."""
        found: dict[str, list[PIL.Image.Image]] = {}
        for node, output in outputs.items():
            for entry in output.get("images", ()):
                image = PIL.Image.open(BytesIO(self.fetch(f"/view?{urllib.parse.urlencode(entry)}")))
                image.load()
                found.setdefault(node, []).append(image)
        return found

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
        return self.get(f"/history/{prompt_id}")[prompt_id]["outputs"]


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
