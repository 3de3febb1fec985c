"""The small U-Net and text encoder of the methods' own tests."""

from __future__ import annotations

import pytest
import torch
from tiny_unets import WIDTH, spread_encoder
from torch import nn

from sage_core.encoders.text_encoder import TextEncoder
from sage_core.shapes.networks.model import build_unet


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    torch.manual_seed(0)
    return build_unet(32, WIDTH).eval()


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return spread_encoder()
