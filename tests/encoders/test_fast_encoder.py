"""The fast encoder against transformers' own, in fp32, in bf16 and in its gradients."""

from __future__ import annotations

import pytest
import torch

from sage_core.encoders.fast_encoder import FastEncoder, add_and_norm, fold
from sage_core.encoders.layouts import EncoderConfig
from sage_core.encoders.precision import arithmetic
from sage_core.encoders.text_encoder import TextEncoder

CONFIG = EncoderConfig(layers=3, width=128, heads=2, mlp_width=256, vocabulary=300, positions=77)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    encoder = TextEncoder(CONFIG)
    encoder.to_empty(device="cpu")
    for name, parameter in encoder.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.1)
    return {name: tensor.clone() for name, tensor in encoder.state().items()}


def run(encoder, precision="fp32"):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(300, (4, 77), generator=generator)
    weight = torch.randn(4, 77, 128, generator=generator)
    with arithmetic(precision, "cpu"):
        hidden = encoder(ids)
    (hidden * weight.to(hidden.dtype)).sum().backward()
    # A bias of the keys adds the same to all of a query's scores: its gradient is rounding.
    return hidden.detach(), {n: p.grad for n, p in encoder.named_parameters() if not n.endswith("k_proj.bias")}


def gap(a, b):
    return float(torch.linalg.norm(a.double() - b.double()) / torch.linalg.norm(b.double()))


def test_outputs_and_gradients_equal_those_of_transformers(state):
    expected, expected_gradients = run(TextEncoder.from_state(state).double())
    hidden, gradients = run(FastEncoder.from_state(state))
    assert hidden.dtype == torch.float32
    assert gap(hidden, expected) < 2e-6
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        assert gap(gradient, expected_gradients[name]) < 1e-5, name


def test_bf16_is_as_close_to_the_truth_as_autocast_of_transformers(state):
    truth, true_gradients = run(TextEncoder.from_state(state).double())
    autocast, autocast_gradients = run(TextEncoder.from_state(state), "bf16")
    hidden, gradients = run(FastEncoder.from_state(state), "bf16")
    assert hidden.dtype == torch.float32
    assert gap(hidden, truth) < 1.3 * gap(autocast, truth) < 0.02
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        assert gap(gradient, true_gradients[name]) < 1.5 * gap(autocast_gradients[name], true_gradients[name]) + 2e-3


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("with_norm", [True, False])
def test_folding_is_the_same_linear_map_with_exact_gradients(with_norm):
    matrices, biases = [draw(3, 4), draw(5, 4)], [draw(3), draw(5)]
    scale, offset = (draw(4), draw(4) + 1) if with_norm else (None, None)
    x = draw(7, 4)
    matrix, bias = fold(matrices, biases, scale, offset, torch.float64, before=0.5, after=1.7)
    moved = x * 0.5 if scale is None else x * 0.5 * scale + offset
    expected = 1.7 * torch.cat([moved @ m.T + b for m, b in zip(matrices, biases, strict=True)], dim=1)
    torch.testing.assert_close(x @ matrix.T + bias, expected)

    def mapped(*tensors):
        norm = tensors[4:] if with_norm else (None, None)
        return fold(tensors[:2], tensors[2:4], *norm, torch.float64, before=0.5, after=1.7)

    leaves = [t.requires_grad_() for t in (*matrices, *biases, *((scale, offset) if with_norm else ()))]
    assert torch.autograd.gradcheck(mapped, leaves)


def test_the_residual_norm_has_exact_gradients():
    x, y = draw(2, 3, 8).requires_grad_(), draw(2, 3, 9)[..., :8].requires_grad_()
    total, normed = add_and_norm(x, y, torch.float64)
    torch.testing.assert_close(total, x + y)
    torch.testing.assert_close(normed, torch.nn.functional.layer_norm(x + y, (8,)))
    assert torch.autograd.gradcheck(lambda a, b: add_and_norm(a, b, torch.float64), (x, y))
