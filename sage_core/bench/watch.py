"""How much memory a piece of work takes: counted by the allocator on CUDA, sampled from the system on a CPU."""

from __future__ import annotations

import ctypes
import gc
import threading
from pathlib import Path

import torch

GIB = 2**30
# Linux only; elsewhere the memory of a CPU stays unmeasured.
_STATUS = Path("/proc/self/statm")
_PAGE = 4096
_INTERVAL = 0.005


class MemoryWatch:
    """Peak memory since the last `reset`, as a context manager.

    On CUDA what the allocator handed out at most; on a CPU how far the process grew beyond what it held when the watch
    began, sampled every few milliseconds.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cuda = device.type == "cuda"
        self._sampled = device.type == "cpu" and _STATUS.exists()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._highest = self._start = 0

    def __enter__(self) -> MemoryWatch:
        if self._sampled:
            _give_back()
            self._start = self._highest = _resident()
            self._thread.start()
        self.reset()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._sampled:
            self._thread.join()

    def reset(self) -> None:
        """Forget the peak so far."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self._device)
        elif self._sampled:
            self._highest = _resident()

    def peak(self) -> float | None:
        """GiB at most since the last reset; None where nothing counts it."""
        if self._cuda:
            return torch.cuda.max_memory_allocated(self._device) / GIB
        return (max(self._highest, _resident()) - self._start) / GIB if self._sampled else None

    def _sample(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self._highest = max(self._highest, _resident())


def _give_back() -> None:
    """Hand freed memory to the system: work that only took that again would seem to take none."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return


def _resident() -> int:
    return int(_STATUS.read_text().split()[1]) * _PAGE
