"""The alignment loss against a reference written from the formulas: float64, one prompt and one pair at a time."""

from __future__ import annotations

import math

import pytest
import torch
from naive_alignment import naive_parts, spread

from sage_core.alignment.losses import LOSS_PARTS, BaseBatch, alignment_loss
from sage_core.alignment.memory import chunked_backward
from sage_core.alignment.settings import PRESETS, TrainingSettings

B, D = 9, 30

OBJECTIVES = {
    "paper": PRESETS["paper"].replace(neighbours=3, batch_size=8, concept_scale=4.0, perturbation=0.7),
    "paper, product form": PRESETS["paper"].replace(
        neighbours=3, batch_size=8, concept_scale=4.0, local_form="product"
    ),
    "paper, symmetric": PRESETS["paper"].replace(neighbours=3, batch_size=8, spread_form="symmetric"),
    "released": PRESETS["released"].replace(neighbours=3, batch_size=8, concept_scale=4.0, perturbation=0.7),
    "safeclip": PRESETS["safeclip"],
    "des": PRESETS["des"].replace(concept_scale=4.0),
    "sage_plus": PRESETS["sage_plus"].replace(neighbours=3, batch_size=8, concept_scale=4.0),
    "relative units": TrainingSettings(
        neighbours=2, batch_size=8, concept_scale=0.8, scale_unit="norm", perturbation=0.1, perturbation_unit="norm"
    ),
    "no keep_concept, no shift": TrainingSettings(
        neighbours=2, batch_size=8, keep_concept=False, target_shift=0.0, keep_mse=3.0
    ),
    "each concept's own unit": PRESETS["sage_plus"].replace(
        neighbours=3, batch_size=8, concept_scale=0.8, scale_unit="concept", perturbation_unit="concept"
    ),
    "paired, no neutralise": TrainingSettings(
        neighbours=2, batch_size=8, target="paired", target_shift=0.4, concept_scale=3.0, neutralise=False
    ),
}


def batch(seed, count, own):
    """Safe and unsafe prompts and concepts as an encoder has them, and what the base says of them."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    offset = 1.5 * draw(D)
    base_safe = draw(B, D) + offset
    raw = draw(count, D) * torch.arange(1, count + 1)[:, None]
    given = (
        base_safe, draw(B, D) + offset, raw / raw.norm(dim=1, keepdim=True), draw(count, D), 7.5,
        tuple(raw.norm(dim=1).tolist()), torch.arange(B) % count, torch.arange(B) % 3 == 0 if own else [False] * B,
    )  # fmt: skip
    given += (1 + torch.arange(B) % 4.0,) if own else ()
    # Less spread than the base, so that spread preservation has a gradient.
    safe = base_safe * 0.5 + offset + 0.3 * draw(B, D)
    return safe, draw(B, D) + offset, draw(count, D), given


def as_base(given, own):
    safe, target, directions, led_to, norm, norms, of, unshifted, *weights = given
    return BaseBatch(safe, target, directions, led_to, norm, norms, of, unshifted if own else None, *weights)


def of_one(seed):
    """The same for one concept that is no list."""
    safe, unsafe, concepts, (base_safe, target, directions, led_to, norm, norms, *_) = batch(seed, 1, False)
    return safe, unsafe, concepts[0], BaseBatch(base_safe, target, directions[0], led_to[0], norm, norms[0])


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(("count", "own"), [(1, False), (2, False), (3, True)])
def test_every_part_and_gradient_equals_the_naive_reference(name, count, own):
    settings = OBJECTIVES[name]
    safe, unsafe, concepts, given = batch(count, count, own)
    found = []
    for function, side in ((alignment_loss, as_base(given, own)), (naive_parts, given)):
        leaves = [x.clone().requires_grad_() for x in (safe, unsafe, concepts)]
        parts = function(*leaves, side, settings)
        found.append((parts, torch.autograd.grad(parts["total"], leaves, materialize_grads=True)))
    (parts, gradients), (expected, reference) = found
    assert tuple(parts) == LOSS_PARTS
    for part in LOSS_PARTS:
        assert float(parts[part].detach()) == pytest.approx(float(expected[part].detach()), rel=1e-9, abs=1e-12), part
    for ours, theirs in zip(gradients, reference, strict=True):
        # A concept that is not led to the empty prompt has no gradient.
        assert settings.neutralise is False or torch.linalg.norm(theirs) > 1e-3
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_list_of_one_is_the_loss_of_one_to_the_bit(name):
    safe, unsafe, concepts, given = batch(0, 1, False)
    safe, unsafe, concepts = (x.float() for x in (safe, unsafe, concepts))
    values = [x.float() for x in given[:4]]
    several = alignment_loss(safe, unsafe, concepts, BaseBatch(*values, 7.5, given[5]), OBJECTIVES[name])
    values[2:] = [x[0] for x in values[2:]]
    one = alignment_loss(safe, unsafe, concepts[0], BaseBatch(*values, 7.5, given[5][0]), OBJECTIVES[name])
    assert all(torch.equal(several[part], one[part]) for part in LOSS_PARTS)


@pytest.mark.parametrize("form", ["hinge", "symmetric"])
def test_spread_that_grows_costs_in_the_symmetric_form_alone(form):
    _, unsafe, concept, base = of_one(0)
    wide = base.safe + 5 * torch.randn(B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    settings = OBJECTIVES["paper"].replace(spread_form=form)
    parts = alignment_loss(wide, unsafe, concept, base, settings)
    gained = spread(wide) - spread(base.safe)
    assert gained > 0
    assert float(parts["spread"]) == pytest.approx(float(gained) if form == "symmetric" else 0)


def test_the_spread_term_is_at_work_in_the_reference_cases():
    safe, _, _, base = of_one(0)
    assert spread(base.safe) > spread(safe) * 1.05


def test_the_untouched_encoder_loses_nothing_it_keeps():
    _, unsafe, concept, base = of_one(2)
    parts = alignment_loss(base.safe, unsafe, concept, base, OBJECTIVES["sage_plus"].replace(perturbation=0.0))
    for part in ("keep", "keep_mse", "spread", "local"):
        assert float(parts[part]) == pytest.approx(0, abs=1e-12), part


def test_fp32_is_close_to_float64_at_the_size_of_real_embeddings():
    generator = torch.Generator().manual_seed(0)
    width = 77 * 768
    common = torch.randn(width, generator=generator, dtype=torch.float64) * 0.8
    rows = [common + 0.6 * torch.randn(20, width, generator=generator, dtype=torch.float64) for _ in range(3)]
    direction = torch.randn(width, generator=generator, dtype=torch.float64)
    settings = PRESETS["sage_plus"]

    def losses(dtype):
        base = BaseBatch(
            rows[0].to(dtype), rows[1].to(dtype), (direction / direction.norm()).to(dtype), common.to(dtype), 240.0
        )
        safe = (rows[0] * 0.9 + 0.1 * rows[2]).to(dtype)
        return alignment_loss(safe, rows[2].to(dtype), rows[2][0].to(dtype), base, settings)

    single, double = losses(torch.float32), losses(torch.float64)
    for part in LOSS_PARTS:
        # These cosines differ in their third digit alone: of their correlation fp32 keeps that many digits less,
        # and which ones depends on the order in which a processor adds up 59,136 products.
        tolerance = 2e-3 if part == "local" else 2e-4
        assert math.isclose(float(single[part]), float(double[part]), rel_tol=tolerance, abs_tol=2e-6), part


@pytest.mark.parametrize("chunk_size", [1, 4, 18, 19, 100])
def test_chunks_give_the_gradients_of_the_whole_batch(chunk_size):
    *_, base = of_one(4)
    settings = OBJECTIVES["sage_plus"]
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(50, (2 * B + 1, 6), generator=generator)
    layer = torch.nn.Sequential(torch.nn.EmbeddingBag(50, 16), torch.nn.Tanh(), torch.nn.Linear(16, D)).double()

    def gradients(chunk):
        layer.zero_grad()
        losses = chunked_backward(
            layer, ids, lambda z: alignment_loss(z[:B], z[B:-1], z[-1], base, settings), chunk_size=chunk
        )
        return losses["total"].detach(), [p.grad.clone() for p in layer.parameters()]

    whole, expected = gradients(len(ids))
    total, found = gradients(chunk_size)
    assert float(total) == pytest.approx(float(whole), rel=1e-12)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)
