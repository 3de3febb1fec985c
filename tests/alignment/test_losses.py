"""The alignment loss against a reference written from the formulas: float64, one prompt and one pair at a time."""

from __future__ import annotations

import math

import pytest
import torch

from sage_core.alignment.losses import LOSS_PARTS, BaseBatch, alignment_loss
from sage_core.alignment.memory import chunked_backward
from sage_core.alignment.settings import PRESETS, TrainingSettings

B, D = 9, 40

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
}


def dot(a, b):
    return sum((x * y for x, y in zip(a, b, strict=True)), start=torch.zeros((), dtype=torch.float64))


def cosine(a, b):
    return dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()


def mean(values):
    return sum(values) / len(values)


def spread(rows):
    unit = [row / dot(row, row).sqrt() for row in rows]
    centre = sum(unit) / len(unit)
    return sum(dot(x - centre, x - centre) for x in unit) / (len(unit) - 1)


def pearson(x, y):
    mx, my = mean(x), mean(y)
    covariance = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return covariance / (sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y)).sqrt()


def naive_parts(safe, unsafe, concept, base: BaseBatch, settings: TrainingSettings):
    units = {"absolute": 1.0, "norm": base.norm, "concept": base.concept_norm}
    s = settings.concept_scale * units[settings.scale_unit]
    alpha = settings.perturbation * units[settings.perturbation_unit]
    u, size = base.direction, len(safe)
    zero = torch.zeros((), dtype=torch.float64)
    parts = dict.fromkeys(LOSS_PARTS, zero)
    parts["keep"] = mean([1 - cosine(safe[i], base.safe[i]) for i in range(size)])
    if settings.keep_concept:
        parts["keep_concept"] = mean([1 - cosine(safe[i] + s * u, base.safe[i]) for i in range(size)])
    if settings.keep_mse:
        gaps = [safe[i] - base.safe[i] for i in range(size)]
        parts["keep_mse"] = mean([dot(g, g) / dot(base.safe[i], base.safe[i]) for i, g in enumerate(gaps)])
    shift = settings.target_shift
    if shift is None:
        shift = 1 if settings.target == "farthest" else 0
    targets = [base.target[i] - shift * s * u for i in range(size)]
    parts["redirect"] = mean([1 - cosine(unsafe[i], targets[i]) for i in range(size)])
    if settings.neutralise:
        parts["neutralise"] = 1 - cosine(concept, base.empty)
    if settings.spread_weight:
        gap = spread(base.safe) - spread(safe)
        if settings.spread_form == "symmetric":
            gap = abs(gap)
        parts["spread"] = gap if gap > 0 else zero
    if settings.local_weight:
        after, before = [], []
        for i in range(size):
            others = [j for j in range(size) if j != i]
            others.sort(key=lambda j, i=i: -float(cosine(base.safe[i], base.safe[j])))
            for j in others[: settings.neighbours]:
                after.append(cosine(safe[i] + alpha * u, safe[j] + alpha * u))
                before.append(cosine(base.safe[i], base.safe[j]))
        product = mean([a * b for a, b in zip(after, before, strict=True)])
        parts["local"] = 1 - (product if settings.local_form == "product" else pearson(after, before))
    redirect = 1 - settings.keep_weight if settings.redirect_weight is None else settings.redirect_weight
    parts["total"] = (
        settings.keep_weight * (parts["keep"] + parts["keep_concept"] + settings.keep_mse * parts["keep_mse"])
        + redirect * (parts["redirect"] + parts["neutralise"])
        + settings.spread_weight * parts["spread"]
        + settings.local_weight * parts["local"]
    )
    return parts


def batch(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    offset = draw(D) * 1.5
    base_safe = draw(B, D) + offset
    direction = draw(D)
    base = BaseBatch(
        base_safe, draw(B, D) + offset, direction / direction.norm(), draw(D), 7.5, float(direction.norm())
    )
    # Less spread than the base, so that spread preservation has a gradient.
    safe = base_safe * 0.5 + offset + 0.3 * draw(B, D)
    return safe, draw(B, D) + offset, draw(D), base


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_part_and_gradient_equals_the_naive_reference(name, seed):
    settings = OBJECTIVES[name]
    safe, unsafe, concept, base = batch(seed)
    results = []
    for function in (alignment_loss, naive_parts):
        leaves = [x.clone().requires_grad_() for x in (safe, unsafe, concept)]
        parts = function(*leaves, base, settings)
        gradients = torch.autograd.grad(parts["total"], leaves, materialize_grads=True)
        results.append((parts, gradients))
    (parts, gradients), (naive, naive_gradients) = results
    assert tuple(parts) == tuple(naive) == LOSS_PARTS
    for part in LOSS_PARTS:
        assert float(parts[part].detach()) == pytest.approx(float(naive[part].detach()), rel=1e-9, abs=1e-12), part
    for ours, reference in zip(gradients, naive_gradients, strict=True):
        # A concept that is not led to the empty prompt has no gradient.
        assert settings.neutralise is False or torch.linalg.norm(reference) > 1e-3
        torch.testing.assert_close(ours, reference, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("form", ["hinge", "symmetric"])
def test_spread_that_grows_costs_in_the_symmetric_form_alone(form):
    _, unsafe, concept, base = batch(0)
    wide = base.safe + 5 * torch.randn(B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    settings = OBJECTIVES["paper"].replace(spread_form=form)
    parts = alignment_loss(wide, unsafe, concept, base, settings)
    gained = spread(wide) - spread(base.safe)
    assert gained > 0
    assert float(parts["spread"]) == pytest.approx(float(gained) if form == "symmetric" else 0)


def test_the_spread_term_is_at_work_in_the_reference_cases():
    safe, _, _, base = batch(0)
    assert spread(base.safe) > spread(safe) * 1.05


def test_the_untouched_encoder_loses_nothing_it_keeps():
    _, unsafe, concept, base = batch(2)
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
    *_, base = batch(4)
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
