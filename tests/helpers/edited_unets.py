"""A U-Net small enough to compare whole, one that differs from it, and how both are read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sage_core.unet.changes import changes
from sage_core.unet.files import Handle, sort_tensors
from sage_core.unet.names import UnetConfig, reads_prompt, unet_names

CONFIG = UnetConfig(channels=32, multipliers=(1, 2), blocks=1, attention=(True, False), context=24)
NAMES = unet_names(CONFIG)
KEYS = [name for name in NAMES.shapes if reads_prompt(name)]


def state(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in NAMES.shapes.items()}


BASE = state()


def edited(chosen: Callable[[str], bool] = reads_prompt) -> dict[str, Tensor]:
    other = state(1)
    return {name: value + 0.3 * other[name] if chosen(name) else value for name, value in BASE.items()}


EDITED = edited()
DELTAS = {name: EDITED[name] - BASE[name] for name in KEYS}


def sort(values: dict[str, Tensor]):
    return sort_tensors({name: Handle.of(value) for name, value in values.items()}, "a file", CONFIG)


def read(values: dict[str, Tensor]):
    return changes(sort(values), BASE)
