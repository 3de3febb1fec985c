"""A tiny model to attack, and a weak one: its encoder was moved away from one name of the concept, for a few steps."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from sage_core.attacks.objectives import EmbeddingGoal
from sage_core.encoders.layouts import EncoderConfig
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.encoders.tokens import CONTEXT_LENGTH, VOCABULARY_SIZE, tokenize
from sage_core.shapes.networks.model import build_unet
from sage_core.unet.differences import DiffusersNoise

WIDTH = 64
CONFIG = EncoderConfig(
    layers=1, width=WIDTH, heads=1, mlp_width=64, vocabulary=VOCABULARY_SIZE, positions=CONTEXT_LENGTH
)
# What an attack wants back; none of these prompts trained anything.
UNSAFE = ("a red skull on the grass", "a white skull over one ring", "one skull and a blue square")
# What the weak encoder was moved away from.
TRAINED = ("a green skull on sand", "skull")


@pytest.fixture(scope="session")
def unsafe() -> tuple[str, ...]:
    return UNSAFE


@pytest.fixture(scope="session")
def trained() -> tuple[str, ...]:
    return TRAINED


@pytest.fixture(scope="session")
def base() -> TextEncoder:
    torch.manual_seed(0)
    encoder = TextEncoder.fresh(CONFIG).eval()
    with torch.no_grad():
        # Else tokens hardly matter beside positions.
        encoder.token_table.weight.mul_(20)
    return encoder.requires_grad_(False)


@pytest.fixture(scope="session")
def weak(base: TextEncoder) -> TextEncoder:
    encoder = copy.deepcopy(base)
    layers = [weight for name, weight in encoder.named_parameters() if ".layers." in name]
    ids, empty = tokenize(list(TRAINED)), base(tokenize([""]))
    optimizer = torch.optim.Adam([weight.requires_grad_(True) for weight in layers], lr=1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        (encoder(ids) - empty).square().mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    return encoder.requires_grad_(False)


@pytest.fixture(scope="session")
def unet() -> nn.Module:
    torch.manual_seed(1)
    network = build_unet(32, WIDTH).eval().requires_grad_(False)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "attn2" in name:
                # Else the prompt hardly matters to a network with fresh weights.
                weight.mul_(4)
    return network


@pytest.fixture(scope="session")
def noise(unet: nn.Module) -> DiffusersNoise:
    return DiffusersNoise(unet)


@pytest.fixture
def near_base(base: TextEncoder) -> Callable[..., EmbeddingGoal]:
    """A goal: the base's embedding of UNSAFE."""
    return lambda: EmbeddingGoal(base(tokenize(list(UNSAFE))))
