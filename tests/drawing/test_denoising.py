"""The sampling loop against a slow one by the publications' formulas: float64, one picture, one value at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sage_core.drawing.denoising import Step, Texts, denoise
from sage_core.drawing.guidance import SafeGuidance, SafeGuidanceSettings
from sage_core.drawing.noise import inverse_scheduler, make_scheduler, noise_of, noise_scheduler, noised

SAFE = SafeGuidanceSettings(warmup=15, scale=30.0, threshold=0.3, momentum_scale=0.5, momentum_beta=0.7)
SHAPE = (4, 3, 3)
STEPS, WEIGHT = 4, 3.0
TIMES = (751, 501, 251, 1)


def predict(latents: Tensor, times: Tensor, states: Tensor) -> Tensor:
    """A U-Net's stand-in: what it predicts depends on all that it is given."""
    text = states.mean((1, 2))[:, None, None, None]
    return torch.tanh(latents * (1 + times[:, None, None, None] / 1000) + text) + 0.1 * text


def texts(kind: str) -> Texts:
    plain, prompted, late, safety = torch.randn(4, 2, 77, 5, generator=torch.Generator().manual_seed(7)).double() * 9
    given = Texts(plain[:1], prompted)
    if "late" in kind:
        given = Texts(plain[:1], prompted, late, torch.tensor([0.5, 0.25]))
    return Texts(given.plain, given.prompted, given.late, given.until, safety[:1]) if "safe" in kind else given


def slow(start: Tensor, given: Texts, row: int) -> Tensor:
    """Song et al. 2021, eq. 12 with η = 0; Ho & Salimans 2022, eq. 6; Schramowski et al. 2023, eqs. 3 to 8."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    x, momentum = start[row].clone(), torch.zeros(SHAPE, dtype=torch.float64)
    for number, time in enumerate(TIMES):
        is_late = given.late is not None and number >= float(given.until[row]) * STEPS
        states = [given.plain[0], (given.late if is_late else given.prompted)[row]]
        states += [given.safety[0]] if given.safety is not None else []
        found = [predict(x[None], torch.tensor([time]), each[None])[0] for each in states]
        noise = torch.empty_like(x)
        for place in torch.cartesian_prod(*map(torch.arange, SHAPE)).tolist():
            at = tuple(place)
            plain, prompt = float(found[0][at]), float(found[1][at])
            away = 0.0
            if given.safety is not None:
                gap = prompt - float(found[2][at])
                share = 0.0 if gap >= SAFE.threshold else min(abs(gap) * SAFE.scale, 1.0)
                term = (float(found[2][at]) - plain) * share + SAFE.momentum_scale * float(momentum[at])
                momentum[at] = SAFE.momentum_beta * momentum[at] + (1 - SAFE.momentum_beta) * term
                away = term if number >= round(15 * STEPS / 50) else 0.0
            noise[at] = plain + WEIGHT * (prompt - plain - away)
        before = kept[time - 250] if time >= 250 else kept[0]
        clean = (x - math.sqrt(1 - kept[time]) * noise) / math.sqrt(kept[time])
        x = math.sqrt(before) * clean + math.sqrt(1 - before) * noise
    return x


@pytest.mark.parametrize("kind", ["plain", "safe", "late", "safe and late"])
def test_the_loop_is_the_formulas(kind: str) -> None:
    start, given = noise_of([5, 6], SHAPE).double(), texts(kind)
    safe = SafeGuidance(SAFE, STEPS) if "safe" in kind else None
    found = denoise(predict, make_scheduler("ddim", STEPS), start, given, WEIGHT, safe=safe)
    for row in range(2):
        torch.testing.assert_close(found[row], slow(start, given, row), rtol=1e-4, atol=1e-4)
    if kind != "plain":
        other = denoise(predict, make_scheduler("ddim", STEPS), start, texts("plain"), WEIGHT)
        assert (other - found).abs().max() > 0.01


def test_texts_give_way_to_others_after_their_share_of_the_steps() -> None:
    early, late = torch.zeros(2, 77, 4), torch.ones(2, 77, 4)
    given = Texts(early[:1], early, late, torch.tensor([0.5, 0.0]))
    assert [given.at(step, 4)[:, 0, 0].tolist() for step in range(4)] == [[0, 1], [0, 1], [1, 1], [1, 1]]


def test_each_step_is_seen_and_a_part_of_them_may_be_taken() -> None:
    seen: list[Step] = []
    start, given = noise_of([5, 6], SHAPE), texts("late")
    found = denoise(predict, make_scheduler("ddim", STEPS), start, given, WEIGHT, steps=3, watch=seen.append)
    assert [(step.number, int(step.time)) for step in seen] == [(0, 751), (1, 501), (2, 251)]
    assert torch.equal(seen[0].latents, start)
    for step in seen:
        times = step.time.expand(2)
        assert torch.equal(step.plain, predict(step.latents, times, given.plain.expand(2, -1, -1)).float())
        assert torch.equal(step.prompted, predict(step.latents, times, given.at(step.number, STEPS)).float())
    # The rest from there is the whole: DDIM has no memory.
    rest = make_scheduler("ddim", STEPS)
    noise = seen[-1].plain + WEIGHT * (seen[-1].prompted - seen[-1].plain)
    assert torch.equal(rest.step(noise, seen[-1].time, seen[-1].latents).prev_sample, found)
    assert torch.equal(denoise(predict, rest, start, given, WEIGHT, steps=0), start)


def test_noise_depends_on_its_own_seed_alone() -> None:
    noise = noise_of([3, 4, 3], SHAPE)
    assert noise.shape == (3, *SHAPE) and torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[1])
    assert torch.equal(noise[0], torch.randn(SHAPE, generator=torch.Generator().manual_seed(3)))


def test_noised_latents_are_the_formula_in_any_shape() -> None:
    latents, noise = torch.randn(2, 2, 5, *SHAPE).double()
    times = torch.tensor([[0, 1, 500, 900, 999], [3, 2, 1, 0, 7]])
    kept = noise_scheduler().alphas_cumprod.double()[times]
    for row in range(2):
        for draw in range(5):
            share = float(kept[row, draw])
            expected = math.sqrt(share) * latents[row, draw] + math.sqrt(1 - share) * noise[row, draw]
            torch.testing.assert_close(noised(latents, times, noise)[row, draw], expected)
    assert torch.equal(noised(latents[:, :1], times, noise)[0, 3], noised(latents[0, 0], times[0, 3], noise[0, 3]))


def test_a_later_step_goes_on_from_the_latents_there() -> None:
    start, given, seen = noise_of([5, 6], SHAPE).double(), texts("late"), {}
    whole = denoise(
        predict, make_scheduler("ddim", STEPS), start, given, WEIGHT,
        watch=lambda step: seen.setdefault(step.number, step.latents),
    )  # fmt: skip
    found = denoise(predict, make_scheduler("ddim", STEPS), seen[2], given, WEIGHT, first=2)
    torch.testing.assert_close(found, whole, rtol=0, atol=0)


def test_what_is_filled_in_goes_on() -> None:
    start, given, told = noise_of([5, 6], SHAPE).double(), texts("plain"), []

    def fill(latents: Tensor, number: int) -> Tensor:
        told.append(number)
        return torch.cat([latents[:1], torch.full_like(latents[1:], number)])

    found = denoise(predict, make_scheduler("ddim", STEPS), start, given, WEIGHT, fill=fill)
    plain = denoise(predict, make_scheduler("ddim", STEPS), start, given, WEIGHT)
    assert told == [0, 1, 2, 3, 4] and torch.equal(found[0], plain[0]) and (found[1] == STEPS).all()


def test_the_noise_of_an_inversion_leads_back() -> None:
    start, given = noise_of([5, 6], SHAPE).double(), texts("plain")
    drawn = denoise(predict, make_scheduler("ddim", 500), start, given, 1.0)
    found = denoise(predict, inverse_scheduler(500), drawn, given, 1.0)
    again = denoise(predict, make_scheduler("ddim", 500), found, given, 1.0)
    change = (again - drawn).square().mean() / drawn.square().mean()
    assert change < 1e-3 and not torch.allclose(found, drawn, atol=0.1)
