"""Text encoders of random weights, small enough for a test, and files of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sage_core.encoders.layouts import EncoderConfig
from sage_core.encoders.text_encoder import save_encoder

SMALL = EncoderConfig(layers=2, width=64, heads=1, mlp_width=96, vocabulary=49408, positions=77)
# Too small for CLIP's tokens: for files alone.
TINY = EncoderConfig(layers=2, width=16, heads=1, mlp_width=24, vocabulary=50, positions=77)


def random_state(config: EncoderConfig = SMALL, seed: int = 0, scale: float = 0.05) -> dict[str, Tensor]:
    """Weights around 0, those of layer norms around 1."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: scale * torch.randn(shape, generator=draw) + ("norm" in name and name.endswith("weight"))
        for name, shape in config.shapes().items()
    }


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Two canonical states are equal to the bit, in names, their order and values."""
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def save_random(path: Path, config: EncoderConfig = SMALL, change: float = 0.0) -> str:
    """Write them, with so much of other random weights added, as an alignment might: the file's name."""
    other = torch.Generator().manual_seed(1)
    state = {
        name: value + change * torch.randn(value.shape, generator=other) for name, value in random_state(config).items()
    }
    save_encoder(path, state, {})
    return str(path)
