"""A small text encoder for tests of trainings and of verdicts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sage_core.encoders.layouts import EncoderConfig
from sage_core.encoders.text_encoder import TextEncoder


@pytest.fixture(scope="session")
def small_base() -> dict[str, Tensor]:
    """State of two narrow layers with random weights that let words matter."""
    torch.manual_seed(0)
    encoder = TextEncoder(EncoderConfig(layers=2, width=64, heads=1, mlp_width=96, vocabulary=49408, positions=77))
    encoder.to_empty(device="cpu")
    for name, parameter in encoder.named_parameters():
        torch.nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
        if parameter.dim() > 1:
            scale = {"token_embedding": 0.5, "position_embedding": 0.02}.get(name.split(".")[-2], 0.15)
            torch.nn.init.normal_(parameter, std=scale)
    return {name: tensor.clone() for name, tensor in encoder.state().items()}
