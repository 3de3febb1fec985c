"""Pairing by one matrix product against an exhaustive search, one pair at a time."""

from __future__ import annotations

import pytest
import torch

from sage_core.alignment.targets import choose_targets


def exhaustive(unsafe, safe, mode):
    chosen = []
    for u in unsafe.double():
        cosines = [float(u @ s / (u.norm() * s.norm())) for s in safe.double()]
        chosen.append(cosines.index(min(cosines) if mode == "farthest" else max(cosines)))
    return chosen


@pytest.mark.parametrize("mode", ["farthest", "nearest"])
@pytest.mark.parametrize("block", [4096, 7])
def test_targets_are_those_of_the_exhaustive_search(mode, block):
    generator = torch.Generator().manual_seed(0)
    # Lengths differ by orders of magnitude: an inner product that forgot the norm would choose others.
    safe = torch.randn(40, 24, generator=generator) * torch.logspace(-1, 2, 40)[torch.randperm(40)][:, None]
    unsafe = torch.randn(23, 24, generator=generator) * 5
    assert choose_targets(unsafe, safe, mode, block).tolist() == exhaustive(unsafe, safe, mode)


def test_the_first_of_equal_targets_is_taken_whatever_the_block():
    safe = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-2.0, 0.0], [-3.0, 0.0]])
    unsafe = torch.tensor([[1.0, 0.0]])
    assert choose_targets(unsafe, safe, "farthest", 2).tolist() == [1]
    assert choose_targets(unsafe, safe, "farthest", 4096).tolist() == [1]
