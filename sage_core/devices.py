"""The devices of a machine: which one to compute on, and what a measurement was made on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import SettingsError


def choose_device(name: str | None = None, *, field: str = "device") -> torch.device:
    """The device of this name; without a name CUDA or Apple's MPS if the machine has it, else the CPU.

    Raises:
        SettingsError: this machine or its PyTorch has no such device. `field` is where the name was given.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        # Move a number there and back: a well-formed name may still name a device that this machine lacks.
        torch.zeros(1, device=device).item()
        return device
    except (RuntimeError, AssertionError, ImportError):
        # PyTorch's own words may be a page long.
        found = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        found += ["mps"] * torch.backends.mps.is_available()
        raise SettingsError(
            f"{field} is {name!r}; expected one that this machine and its PyTorch have: {', '.join(found)}."
        ) from None


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
    # On Linux Python knows no more of a processor than its architecture, if that.
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def measuring_device(device: torch.device | str) -> torch.device:
    """Where to measure or decompose what is on `device`: there, or on the CPU instead of an Apple GPU (MPS).

    MPS has neither float64 nor eigenvalues. It shares the CPU's memory, so that the change costs little.
    """
    device = torch.device(device)
    return torch.device("cpu") if device.type == "mps" else device


def measurable(embeddings: Tensor) -> Tensor:
    """The embeddings on their `measuring_device`."""
    return embeddings.to(measuring_device(embeddings.device))
