"""Devices: what is measured where."""

from __future__ import annotations

import pytest
import torch

from sage_core.devices import measuring_device


@pytest.mark.parametrize(
    ("device", "expected"), [("mps", "cpu"), ("mps:0", "cpu"), ("cpu", "cpu"), ("cuda:1", "cuda:1")]
)
def test_only_apple_gpus_are_measured_elsewhere(device, expected):
    assert measuring_device(device) == torch.device(expected)
