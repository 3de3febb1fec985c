"""The small text encoder and matrices that closed forms edit."""

from __future__ import annotations

import pytest
import torch
from closed_forms import WIDTH
from tiny_unets import spread_encoder
from torch import Tensor

from sage_core.encoders.text_encoder import TextEncoder
from sage_core.methods.concepts import TokenStates


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    encoder = spread_encoder(WIDTH, mlp_width=32, seed=0)
    with torch.no_grad():
        # A fresh norm leaves every state a mean of 0: one direction would be missing in all of them.
        encoder.model.final_layer_norm.weight.normal_(1, 0.3)
        encoder.model.final_layer_norm.bias.normal_(0, 0.3)
    return encoder


@pytest.fixture(scope="module")
def states(encoder: TextEncoder) -> TokenStates:
    return TokenStates(encoder)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Matrices of fewer and of more rows than columns, among tensors that are not theirs."""
    torch.manual_seed(1)
    names = [
        f"down_blocks.{i}.attentions.0.transformer_blocks.0.attn2.to_{kind}.weight" for i in (0, 1) for kind in "kv"
    ]
    sizes = (40, 40, 96, 96)
    return {name: torch.randn(size, WIDTH) / 8 for name, size in zip(names, sizes, strict=True)} | {
        "conv_in.weight": torch.randn(4, 4, 3, 3),
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k.weight": torch.randn(40, 40),
    }
