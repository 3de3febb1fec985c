"""What a piece of work takes: seconds, and memory as the allocator counts it on CUDA, and the system on a CPU."""

from __future__ import annotations

import ctypes
import gc
import logging
import re
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import psutil

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


class Clock:
    """Wall-clock seconds of work on a device, waited for at both ends."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def now(self) -> float:
        """Seconds since some fixed moment, once the device is idle."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def seconds(self, work: Callable[[], Any], repeats: int = 1) -> float:
        """Median seconds that `work` takes, over `repeats` times."""
        return statistics.median(self.timed(work).seconds for _ in range(repeats))

    def timed(self, work: Callable[[], Any]) -> Taken:
        """Do `work` once."""
        start, used = self.now(), time.process_time()
        result = work()
        end = self.now()
        return Taken(result, end - start, time.process_time() - used)


class MemoryWatch:
    """Peak memory since the last `reset`, as a context manager.

    On CUDA, the most that the allocator handed out. On a CPU, how far the process grew beyond what it held when the
    watch began: on Linux the kernel's own count, which misses nothing; elsewhere psutil's, taken every 5 ms, which
    misses what is let go between two looks. Without psutil, and on other devices, nothing is measured.
    """

    def __init__(self, device: torch.device) -> None:
        """Choose the counter for `device`; counting begins on entering."""
        self._counter = _counter(device)

    def __enter__(self) -> MemoryWatch:
        self._counter.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._counter.end()

    def reset(self) -> None:
        """Forget the peak so far."""
        self._counter.reset()

    def peak(self) -> float | None:
        """GiB at most since the last reset, or since the watch began; None where nothing is measured."""
        most = self._counter.most()
        return None if most is None else most / GIB


class _Counter:
    """One way to know the peak; this one knows none."""

    def begin(self) -> None:
        self.reset()

    def end(self) -> None:
        """There is nothing to stop."""

    def reset(self) -> None:
        """There is nothing to forget."""

    def most(self) -> int | None:
        """Bytes at most since `begin` or the last `reset`."""
        return None


def _counter(device: torch.device) -> _Counter:
    if device.type == "cuda":
        return _Allocator(device)
    if device.type != "cpu":
        return _Counter()
    if _kernel_forgets():
        return _Kernel()
    try:
        import psutil
    except ImportError:
        logger.warning("Memory is not measured: on this system that takes psutil. Run: pip install psutil")
        return _Counter()
    return _Samples(psutil.Process())


class _Allocator(_Counter):
    """PyTorch's own statistics of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def reset(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._device)

    def most(self) -> int:
        return torch.cuda.max_memory_allocated(self._device)


class _Kernel(_Counter):
    """Linux's count of the resident memory of this process."""

    def begin(self) -> None:
        self.reset()
        self._start = _status("VmRSS")

    def reset(self) -> None:
        _give_back()
        _FORGET.write_text("5")

    def most(self) -> int:
        return _status("VmHWM") - self._start


class _Samples(_Counter):
    """Resident memory as psutil sees it every few milliseconds. `process` is this one."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def begin(self) -> None:
        self.reset()
        self._start = self._highest
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()

    def reset(self) -> None:
        _give_back()
        self._highest = self._held()

    def most(self) -> int:
        return max(self._highest, self._held()) - self._start

    def _held(self) -> int:
        return self._process.memory_info().rss

    def _sample(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self._highest = max(self._highest, self._held())


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
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        # Not the GNU C library: there is no such call, and the measure is a little low.
        return
