"""Which device a measurement was made on, and which one can make it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def machine(device: torch.device | str) -> dict[str, Any]:
    """Name of the device, its threads, the cores of the machine, and PyTorch's version; ready for JSON."""
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }


def device_name(device: torch.device | str) -> str:
    """The card's name, or the processor's."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


def _processor() -> str:
    # What Python says of a processor on Linux is its architecture, or nothing.
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def measuring_device(device: torch.device | str) -> torch.device:
    """Where to measure or decompose what is on `device`: there, or on the CPU in place of an Apple GPU (MPS).

    MPS has neither float64 nor eigenvalues; its memory is the CPU's, so that little is lost by the change.
    """
    device = torch.device(device)
    return torch.device("cpu") if device.type == "mps" else device


def measurable(embeddings: Tensor) -> Tensor:
    """The embeddings on their `measuring_device`."""
    return embeddings.to(measuring_device(embeddings.device))
