"""What the user sees of a node: log, progress with Cancel, and pictures in and out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.utils import get_executing_context
from PIL.Image import Image
from server import PromptServer
from torch import Tensor

from ...sage_core.batches import counting
from ...sage_core.plots import figure_to_image
from ...sage_core.rows import printable
from ...sage_core.runs.curves import training_curves
from ...sage_core.runs.record import StepReport

log = logging.getLogger("sage")


def _spelled(record: logging.LogRecord) -> bool:
    """For a filter: names and reports out of files command no terminal."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True


log.addFilter(_spelled)

# Of a plot, so that its labels stay readable.
_PREVIEW_WIDTH = 1024
# Seconds between two texts of a node's progress: what a reader can follow, and a browser too.
_TEXT_PAUSE = 0.3
# A preview takes a few tenths of a second on a slow CPU; at most a twentieth of the training goes into previews.
_PREVIEW_SHARE = 20


def stop_if_cancelled() -> None:
    """Raise ComfyUI's own exception once the user has pressed Cancel."""
    comfy.model_management.throw_exception_if_processing_interrupted()


class Progress:
    """The node's progress bar, in words too, with a picture now and then; raises when the user has pressed Cancel.

    `what` is counted, such as "questions": the node says "questions 12/40", and how long the rest will take.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._bar = comfy.utils.ProgressBar(1)
        self._next_text = 0.0
        self._first: tuple[int, float] | None = None

    def __call__(self, done: int, total: int, picture: Image | None = None, note: str = "") -> None:
        # Newer versions throttle progress updates, so that those alone would notice Cancel late.
        stop_if_cancelled()
        self._bar.update_absolute(done, total, ("JPEG", picture, _PREVIEW_WIDTH) if picture else None)
        if done == total or time.monotonic() >= self._next_text:
            self._next_text = time.monotonic() + _TEXT_PAUSE
            say(f"{self.what} {done}/{total}{note}{self._left(done, total)}")

    def _left(self, done: int, total: int) -> str:
        """The time that is left, by what was done since the first call; nothing where that is too little to tell."""
        first, start = self._first = self._first or (done, time.monotonic())
        passed = time.monotonic() - start
        return f", {(total - done) * passed / (done - first):.0f} s left" if done > first and passed > 1 else ""


def say(text: str) -> None:
    """Show a line on the node that runs, where the server can send one."""
    context, server = get_executing_context(), PromptServer.instance
    if context and hasattr(server, "send_progress_text"):
        server.send_progress_text(text, context.node_id, server.client_id)


class LiveCurves:
    """Shows a training to the user while it runs; raises when it is cancelled."""

    def __init__(self) -> None:
        self._progress = Progress("step")
        self._history: list[StepReport] = []
        self._next_picture = 0.0

    def begin(self, done: int, total: int) -> None:
        """Say how many steps there will be, before there is one to show."""
        self._progress(done, total)

    def step(self, report: StepReport) -> None:
        """Show a step and the time that is left, now and then with the curves so far."""
        self._history.append(report)
        picture, start = None, time.monotonic()
        # The last one always: the frontend goes on showing it, and not the node's own picture.
        if start >= self._next_picture or report.step == report.steps:
            picture = figure_to_image(training_curves(self._history))
            self._next_picture = start + _PREVIEW_SHARE * (time.monotonic() - start)
        self._progress(report.step, report.steps, picture, f", loss {report.losses['total']:.4g}")


def counter(what: str, total: int) -> Callable[[int], None]:
    """Turns "n more are done" into progress towards `total`, which also notices Cancel; `what` is counted."""
    return counting(Progress(what), total)


def to_image(picture: Image) -> Tensor:
    """A picture as ComfyUI's IMAGE: (1, height, width, 3), float in 0..1."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255)[None]


def preview(picture: Tensor, text: str, cls: type[io.ComfyNode]) -> dict[str, Any]:
    """What a node shows of a picture and a text below it."""
    return ui.PreviewImage(picture, cls=cls).as_dict() | ui.PreviewText(text).as_dict()


def trained(
    cls: type[io.ComfyNode], made: Any, report: str, history: Sequence[StepReport], *more: Any
) -> io.NodeOutput:
    """What a training shows and hands on: what it made, its report, its LOSS_MAP, its losses as a picture, and more."""
    log.info("SAGE: %s", report)
    curves = to_image(figure_to_image(training_curves(history)))
    losses = {"loss": [step.losses["total"] for step in history]}
    return io.NodeOutput(made, report, losses, curves, *more, ui=preview(curves, report, cls))


def previews(pictures: Sequence[Tensor], cls: type[io.ComfyNode]) -> dict[str, Any]:
    """What a node shows of pictures of different sizes, which one batch cannot hold."""
    shown = [ui.PreviewImage(picture, cls=cls).as_dict() for picture in pictures]
    return shown[0] | {"images": [image for each in shown for image in each["images"]]}


def flatten(images: list[Any]) -> list[torch.Tensor]:
    """All images in a list of IMAGE batches of any sizes, each (height, width, channels)."""
    return [image for batch in images for image in batch]


def missing(why: str) -> ExecutionBlocker:
    """An output that there is none of: what would use it stops with these words, and nothing else does."""
    return ExecutionBlocker(why)
