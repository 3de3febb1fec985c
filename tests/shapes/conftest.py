"""A tiny shapes world of random weights, whose text encoder has two layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sage_core.encoders.layouts import EncoderConfig
from sage_core.encoders.tokens import CONTEXT_LENGTH, VOCABULARY_SIZE
from sage_core.shapes.bench.run import World, load_world
from small_worlds import tiny_weights

CONFIG = EncoderConfig(layers=2, width=64, heads=1, mlp_width=64, vocabulary=VOCABULARY_SIZE, positions=CONTEXT_LENGTH)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its packed weights."""
    return tiny_weights(tmp_path_factory.mktemp("weights"), CONFIG)


@pytest.fixture(scope="session")
def world(weights: Path) -> World:
    return load_world(weights, torch.device("cpu"))
