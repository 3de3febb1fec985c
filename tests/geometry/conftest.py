"""What the geometry's tests share."""

from __future__ import annotations

import pytest

from embedding_spaces import draw, moved
from sage_core.geometry import measures


@pytest.fixture
def base():
    return draw()


@pytest.fixture
def aligned(base):
    return moved(base)


@pytest.fixture
def small_blocks(monkeypatch):
    """A test with a few dozen prompts crosses the edges of blocks."""
    monkeypatch.setattr(measures, "BLOCK", 16)
    monkeypatch.setattr(measures, "CHUNK", 8)
    monkeypatch.setattr("sage_core.geometry.comparison.BLOCK", 16)
    monkeypatch.setattr("sage_core.geometry.comparison.CHUNK", 8)
