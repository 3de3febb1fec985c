"""What the user sees and hears of a node: log, progress with Cancel, and pictures in and out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from ...sage_core.plots import figure_to_image
from ...sage_core.runs.curves import training_curves
from ...sage_core.runs.record import StepReport

log = logging.getLogger("sage")


_PREVIEW_WIDTH = 512
# A drawn preview takes a few tenths of a second on a slow CPU: at most a twentieth of the training goes into them.
_PREVIEW_SHARE = 20


def stop_if_cancelled() -> None:
    """Raise ComfyUI's own exception once the user has pressed Cancel."""
    comfy.model_management.throw_exception_if_processing_interrupted()


class Progress:
    """The node's progress bar, with a picture now and then; raises when the user has pressed Cancel."""

    def __init__(self) -> None:
        self._bar = comfy.utils.ProgressBar(1)

    def __call__(self, done: int, total: int, picture: Image | None = None) -> None:
        # Newer versions throttle progress updates, so that those alone would notice Cancel late.
        stop_if_cancelled()
        self._bar.update_absolute(done, total, ("JPEG", picture, _PREVIEW_WIDTH) if picture else None)


class LiveCurves:
    """What the user sees of a training while it runs; raises when it is cancelled."""

    def __init__(self) -> None:
        self.progress = Progress()
        self._history: list[StepReport] = []
        self._next_picture = 0.0

    def step(self, report: StepReport) -> None:
        """Show a step, now and then with the curves so far."""
        self._history.append(report)
        picture, start = None, time.monotonic()
        if start >= self._next_picture:
            picture = figure_to_image(training_curves(self._history))
            self._next_picture = start + _PREVIEW_SHARE * (time.monotonic() - start)
        self.progress(report.step, report.steps, picture)


def counter(total: int) -> Callable[[int], None]:
    """Turns "n more are done" into progress towards `total`, which also notices Cancel."""
    progress, done = Progress(), 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(done, total)

    return count


def to_image(picture: Image) -> Tensor:
    """A picture as ComfyUI's IMAGE: (1, height, width, 3), float in 0..1."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255)[None]


def flatten(images: list[Any]) -> list[torch.Tensor]:
    """All images of a list of IMAGE batches, of whatever sizes: (height, width, channels) each."""
    return [image for batch in images for image in batch]
