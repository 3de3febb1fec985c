"""Captions for training, written and tokenised by several processes while the autoencoder trains."""

from __future__ import annotations

import logging
import multiprocessing
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...encoders.tokens import CONTEXT_LENGTH, tokenize
from ..captions import write_captions
from ..scenes import Scenes, concatenate, sample_scenes

logger = logging.getLogger(__name__)

# Of the scenes, in addition to those that show the unsafe shape by chance: its many names need many pictures.
UNSAFE_SHARE = 0.15
PARTIAL_SHARE = 0.1

_CHUNK = 10_000


@dataclass(frozen=True)
class Pool:
    """Scenes, and `captions` token rows (N, K, 77) int32, K captions of each scene."""

    scenes: Scenes
    captions: Tensor

    def __len__(self) -> int:
        return len(self.scenes)

    def to(self, device: torch.device | str) -> Pool:
        """The pool on `device`."""
        return Pool(self.scenes.to(device), self.captions.to(device))

    def used_tokens(self) -> Tensor:
        """Sorted ids of all tokens of the captions."""
        return torch.unique(self.captions).cpu()


def training_scenes(n: int, seed: int) -> Scenes:
    """`n` scenes of the training split."""
    unsafe = int(n * UNSAFE_SHARE)
    return concatenate(
        [
            sample_scenes(n - unsafe, seed=seed, unsafe=None, split="train"),
            sample_scenes(unsafe, seed=seed + 1, unsafe=True, split="train"),
        ]
    )


class PoolWriter:
    """Writes a pool in other processes: the constructor returns at once, `pool` waits."""

    def __init__(self, scenes: Scenes, captions_each: int, seed: int, workers: int) -> None:
        self._scenes = scenes
        self._started = time.monotonic()
        # Not forked: a copy of a process that has touched CUDA or started threads may hang.
        self._executor = ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
        )
        self._parts: list[Future[np.ndarray]] = [
            self._executor.submit(_tokens, scenes[start : start + _CHUNK], captions_each, seed + start)
            for start in range(0, len(scenes), _CHUNK)
        ]

    def pool(self) -> Pool:
        """Wait for all captions."""
        waited = time.monotonic()
        captions = torch.from_numpy(np.concatenate([part.result() for part in self._parts])).int()
        self._executor.shutdown()
        logger.info(
            "pool: %d scenes, %d captions each, %.0f s (waited %.0f s)",
            *captions.shape[:2],
            time.monotonic() - self._started,
            time.monotonic() - waited,
        )
        return Pool(self._scenes, captions)

    def cancel(self) -> None:
        """Drop what is not written yet."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _tokens(scenes: Scenes, captions_each: int, seed: int) -> np.ndarray:
    """Tokens (n, captions_each, 77) in uint16: CLIP's vocabulary fits, and half as much travels between processes."""
    rows = [
        tokenize(write_captions(scenes, seed=seed * captions_each + number, names="all", partial=PARTIAL_SHARE))
        for number in range(captions_each)
    ]
    return torch.stack(rows, 1).numpy().astype(np.uint16).reshape(len(scenes), captions_each, CONTEXT_LENGTH)
