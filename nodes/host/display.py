"""What the user sees of a node: log, progress with Cancel, and pictures in and out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

log = logging.getLogger("sage")


_PREVIEW_WIDTH = 512


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
    """All images in a list of IMAGE batches of any sizes, each (height, width, channels)."""
    return [image for batch in images for image in batch]
