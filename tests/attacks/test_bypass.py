"""Vectors pass through any encoder, by the formula and in the shapes world's pictures."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from sage_core.attacks.bypass import pass_through
from sage_core.attacks.layouts import Layout, layout
from sage_core.attacks.search import states_of
from sage_core.encoders.text_encoder import EncoderConfig, TextEncoder
from sage_core.encoders.tokens import tokenize
from sage_core.errors import EncoderError, SettingsError

CONFIG = EncoderConfig(layers=2, width=32, heads=2, mlp_width=64, vocabulary=49408, positions=77)


def encoder(seed: int) -> TextEncoder:
    torch.manual_seed(seed)
    made = TextEncoder.fresh(CONFIG).requires_grad_(False)
    for name, weight in made.named_parameters():
        if "final_layer_norm" in name:
            weight.add_(0.3 * torch.randn_like(weight))
    return made


def states(made: TextEncoder, length: float, targets: torch.Tensor) -> torch.Tensor:
    where = layout(["nothing of the kind"] * len(targets), 75, "all")
    vectors = pass_through(made, targets, where, length)
    assert vectors.shape == (len(targets), 75, 32)
    return states_of(made, where.ids, where.places, vectors)[:, 1:76]


def test_another_encoders_states_come_out_the_longer_the_vectors_the_nearer() -> None:
    base, aligned = encoder(0), encoder(1)
    aligned.model.final_layer_norm.load_state_dict(base.model.final_layer_norm.state_dict())
    targets = base(tokenize(["a skull", "two skulls on the grass"]))
    exact = copy.deepcopy(aligned).double()
    errors = [
        float((states(exact, length, targets.double()) - targets[:, 1:76]).square().sum().sqrt() / targets.norm())
        for length in (1e1, 1e2, 1e3, 1e4)
    ]
    assert errors[-1] < 1e-3
    # What the layers add is bounded: ten times the length is a tenth of the error.
    assert all(after == pytest.approx(before / 10, rel=0.3) for before, after in pairwise(errors[1:]))


def test_a_final_norm_of_its_own_makes_no_difference() -> None:
    base, aligned = encoder(0), encoder(1)
    made = states(aligned, 1e4, base(tokenize(["a skull"])))
    # The nearest that this norm can give: its own γ·LN(·) + β of the target.
    norm = aligned.model.final_layer_norm
    target = (base(tokenize(["a skull"]))[:, 1:76] - norm.bias) / norm.weight
    nearest = norm(target)
    assert float((made - nearest).norm() / nearest.norm()) < 1e-3


def test_what_makes_no_sense_is_refused() -> None:
    made, where = encoder(0), layout(["a"], 3, "all")
    targets = made(tokenize(["a skull"]))
    for length in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(SettingsError, match="length is"):
            pass_through(made, targets, where, length)
    with pytest.raises(SettingsError, match="0 free positions"):
        pass_through(made, targets, replace(where, free=torch.zeros_like(where.free)))
    with pytest.raises(SettingsError, match="1, 3 free positions"):
        uneven = torch.cat([where.free, layout(["a"], 1, "all").free])
        pass_through(made, targets.expand(2, -1, -1), Layout(where.ids.expand(2, -1), uneven))
    made.model.final_layer_norm.weight[3] = 0
    with pytest.raises(EncoderError, match="by 0"):
        pass_through(made, targets, where)
