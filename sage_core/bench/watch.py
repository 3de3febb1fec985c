"""What a piece of work takes: seconds, and memory as the allocator counts it on CUDA, and the system on a CPU."""

from __future__ import annotations

import ctypes
import gc
import logging
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

GIB = 2**30
# Linux keeps the most memory that a process ever held ("VmHWM"), and forgets it when a 5 is written into the second.
_STATUS = Path("/proc/self/status")
_FORGET = Path("/proc/self/clear_refs")
# Seconds between two looks at the process where the system keeps no such count.
_INTERVAL = 0.005


@dataclass(frozen=True)
class Taken:
    """What a piece of work gave and took: wall-clock seconds, and those of processors, of all threads.

    The processors' stay what they are where other work shares the machine.
    """

    result: Any
    seconds: float
    processor_seconds: float


def now(device: torch.device) -> float:
    """Seconds since some fixed moment, once the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(device: torch.device, work: Callable[..., Any], *arguments: Any) -> Taken:
    """Do a piece of work once, waiting for the device at both ends."""
    start, used = now(device), time.process_time()
    result = work(*arguments)
    return Taken(result, now(device) - start, time.process_time() - used)


def by_turns(device: torch.device, rounds: int, *works: Callable[[int], object]) -> list[list[float]]:
    """Seconds of each piece of work in each round, all in turns: what slows the machine for a while slows them all.

    Works are given the round's number. The first round, in which memory is allocated, is left out.
    """
    seconds = [[timed(device, work, number).seconds for work in works] for number in range(rounds)]
    return [list(column) for column in zip(*seconds[1:], strict=True)]


class MemoryWatch:
    """Peak memory since the last `reset`, as a context manager.

    On CUDA, the most that the allocator handed out. On a CPU, how far the process grew beyond what it held when the
    watch began: on Linux the kernel's own count, which misses nothing; elsewhere psutil's, taken every 5 ms, which
    misses what is let go between two looks. Without psutil, and on other devices, nothing is measured.
    """

    def __init__(self, device: torch.device) -> None:
        """Choose the counter for `device`; counting begins on entering."""
        self._start = 0
        self._stop = threading.Event()
        self._sampling: threading.Thread | None = None
        self._forget: Callable[[], object] = lambda: None
        self._most: Callable[[], int | None] = lambda: None
        if device.type == "cuda":
            self._forget = partial(torch.cuda.reset_peak_memory_stats, device)
            self._most = partial(torch.cuda.max_memory_allocated, device)
        elif device.type == "cpu" and _kernel_forgets():
            self._forget = partial(_FORGET.write_text, "5")
            self._most = partial(_status, "VmHWM")
        elif device.type == "cpu":
            self._sample_with_psutil()
        self._grows = device.type == "cpu"

    def __enter__(self) -> MemoryWatch:
        self.reset()
        if self._grows:
            self._start = self._most() or 0
        if self._sampling:
            self._sampling.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._sampling:
            self._sampling.join()

    def reset(self) -> None:
        """Forget the peak so far."""
        if self._grows:
            _give_back()
        self._forget()

    def peak(self) -> float | None:
        """GiB at most since the last reset, or since the watch began; None where nothing is measured."""
        most = self._most()
        return None if most is None else (most - self._start) / GIB

    def _sample_with_psutil(self) -> None:
        try:
            import psutil
        except ImportError:
            logger.warning("Memory is not measured: on this system that takes psutil. Run: pip install psutil")
            return
        process, seen = psutil.Process(), [0]

        def most() -> int:
            seen[0] = max(seen[0], process.memory_info().rss)
            return seen[0]

        def sample() -> None:
            while not self._stop.wait(_INTERVAL):
                most()

        self._forget, self._most = partial(seen.__setitem__, 0, 0), most
        self._sampling = threading.Thread(target=sample, daemon=True)


def _kernel_forgets() -> bool:
    """Whether this system keeps a peak that can be reset; some containers and sandboxes do not let it be."""
    try:
        _FORGET.write_text("5")
        return _status("VmHWM") > 0
    except (OSError, LookupError):
        return False


def _status(name: str) -> int:
    """Bytes in a line of the process's status; LookupError if there is no such line."""
    found = re.search(rf"^{name}:\s*(\d+) kB", _STATUS.read_text(encoding="utf-8"), re.M)
    if found is None:
        raise LookupError(name)
    return int(found[1]) * 1024


def _give_back() -> None:
    """Hand freed memory to the system: work that only took that again would seem to take none."""
    gc.collect()
    # Where it is not the GNU C library there is no such call, and the measure is a little low.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
