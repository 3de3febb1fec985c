"""ESD and RACE against slow references on a small U-Net, and the choice of parameters."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from slow_sampling import ddim
from torch import Tensor, nn

from sage_core.encoders.text_encoder import TextEncoder
from sage_core.errors import SettingsError, UnetError
from sage_core.methods.concepts import Concepts
from sage_core.methods.erasing import (
    ErasingObjective,
    ErasingSettings,
    ErasingTexts,
    RaceSettings,
)
from sage_core.runs.loop import Budget, Loop
from sage_core.unet.differences import DiffusersNoise, trained_names
from sage_core.unet.names import kind_of, unet_names

LATENTS = (4, 4, 4)
SMALL = ErasingSettings(sampling_steps=4, steps=4, learning_rate=1e-3, batch_size=2)


CONCEPTS = Concepts(("a skull", "death mask"))


def objective(unet: nn.Module, encoder: TextEncoder, settings: ErasingSettings, sources: Any = ()) -> ErasingObjective:
    texts = ErasingTexts.of(encoder, CONCEPTS, sources)
    return ErasingObjective(DiffusersNoise(copy.deepcopy(unet)), texts, settings, LATENTS)


def edited(unet: nn.Module, deltas: dict[str, Tensor]) -> nn.Module:
    """A copy of the U-Net with the differences added to its own weights."""
    other = copy.deepcopy(unet)
    weights = other.state_dict()
    for name, delta in deltas.items():
        weights[name.removeprefix("unet.")] += delta
    other.load_state_dict(weights)
    return other


@torch.no_grad()
def sampled(
    unet: nn.Module, start: Tensor, states: Tensor, empty: Tensor, steps: int, settings: ErasingSettings
) -> Tensor:
    def drawn(row: int) -> Tensor:
        both = empty[None], states[row][None]
        return ddim(
            lambda x, time: (unet(x.float()[None], time, each).sample[0].double() for each in both),
            start[row], steps, of=settings.sampling_steps, guidance=settings.guidance,
        )  # fmt: skip

    return torch.stack([drawn(row) for row in range(len(start))]).float()


@pytest.mark.parametrize(
    ("form", "sources", "trained"),
    [("2025", (), "x"), ("2025", ("two skulls", "a king"), "u"), ("2023", ("two skulls", "a king"), "x")],
)
def test_the_loss_and_its_gradient_are_the_formula(
    form: Any, sources: Any, trained: Any, unet: nn.Module, encoder: TextEncoder
) -> None:
    settings = SMALL.replace(form=form, trained=trained, strength=1.5)
    it = objective(unet, encoder, settings, sources)
    with torch.no_grad():
        for number, delta in enumerate(it.deltas.values()):
            delta.copy_(0.02 * torch.randn(delta.shape, generator=torch.Generator().manual_seed(number)))
    own = edited(unet, it.result())
    # Step 2: its random numbers, in the order in which they are drawn.
    generator = torch.Generator().manual_seed(2)
    chosen = torch.randint(2, (2,), generator=generator).tolist()
    done = int(torch.randint(4, (), generator=generator))
    time = 250 * (3 - done) + 1
    if form == "2023":
        time = int(torch.randint(250 * (3 - done), 250 * (4 - done), (), generator=generator))
    start = torch.randn(2, *LATENTS, generator=generator)
    texts = ErasingTexts.of(encoder, CONCEPTS, sources)
    concept = texts.erase[chosen]
    source = texts.sources[chosen] if form == "2025" else concept
    drawing = own if form == "2023" else unet
    x = sampled(drawing, start, source, texts.empty[0], done, settings)

    own.requires_grad_(True)
    total = torch.zeros(())
    for i in range(2):
        at = lambda net, states, i=i: net(x[i : i + 1], time, states[None]).sample  # noqa: E731
        with torch.no_grad():
            without = at(unet, concept[i]) - at(unet, texts.empty[0])
            anchor = at(unet, source[i]) if form == "2025" else at(unet, texts.empty[0])
        total = total + (at(own, source[i]) - (anchor - 1.5 * without)).square().mean() / 2
    total.backward()
    found = it.gradients(2)
    assert found[0].item() == pytest.approx(total.item(), rel=1e-4)
    slopes = dict(own.named_parameters())
    for name, delta in it.deltas.items():
        expected = slopes[name.removeprefix("unet.")].grad
        torch.testing.assert_close(delta.grad, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()) + 1e-8)


def test_the_base_is_left_as_it_is_and_learns_nothing(unet: nn.Module, encoder: TextEncoder) -> None:
    it = objective(unet, encoder, SMALL)
    before = {name: value.clone() for name, value in it.base.items()}
    Loop(it, Budget(steps=2), lambda step, used: 1e-3).run()
    assert all(torch.equal(it.base[name], value) for name, value in before.items())
    assert all(value.grad is None for value in it.base.values())
    assert all(delta.abs().sum() > 0 for name, delta in it.result().items() if name.endswith("weight"))


def test_chunks_give_the_same_gradients(unet: nn.Module, encoder: TextEncoder) -> None:
    whole, parts = (objective(unet, encoder, SMALL.replace(batch_size=3)) for _ in range(2))
    parts.shrink()
    assert parts.chunk == 2
    torch.testing.assert_close(whole.gradients(1), parts.gradients(1))
    for name, delta in whole.deltas.items():
        torch.testing.assert_close(delta.grad, parts.deltas[name].grad, rtol=1e-3, atol=1e-6)


def test_race_moves_the_states_to_where_the_concept_is_drawn(unet: nn.Module, encoder: TextEncoder) -> None:
    settings = SMALL.replace(race=RaceSettings(0.3, 8))
    it = objective(unet, encoder, settings)
    states = it.texts.erase
    latents, start = torch.randn(2, *LATENTS), torch.randn(2, *LATENTS)
    times, shift = torch.tensor([500, 500]), torch.rand(states.shape) * 2 - 1

    def error(moved: Tensor) -> float:
        with torch.no_grad():
            return float((unet(latents, times, moved).sample - start).square().mean())

    found = it._attacked(latents, times, states, start, shift)
    assert float((found - states).abs().max()) <= 0.3 + 1e-6
    assert error(found) < min(error(states), error(states + 0.3 * shift))
    # By the definition, in double precision.
    moved = 0.3 * shift.clone().double()
    exact = copy.deepcopy(unet).double()
    for _ in range(8):
        moved.requires_grad_(True)
        (exact(latents.double(), times, states.double() + moved).sample - start.double()).square().mean().backward()
        with torch.no_grad():
            moved = (moved - 0.3 / 4 * moved.grad.sign()).clamp(-0.3, 0.3)
    same = torch.isclose(found.double(), states.double() + moved, atol=1e-5).double().mean()
    # A slope of nearly 0 may have either sign.
    assert same > 0.98
    assert all(delta.grad is None for delta in it.deltas.values())
    it.gradients(0)
    assert any(delta.grad is not None for delta in it.deltas.values())


def test_race_may_begin_as_esd(unet: nn.Module, encoder: TextEncoder) -> None:
    race = SMALL.replace(race=RaceSettings(plain_steps=3))
    plain, raced = objective(unet, encoder, SMALL), objective(unet, encoder, race)
    for step, same in ((2, True), (3, False)):
        # At first the edited noise is the base's, whatever is searched for.
        for each in (plain, raced):
            each.deltas = {name: nn.Parameter(torch.full_like(delta, 0.01)) for name, delta in each.deltas.items()}
        assert torch.equal(plain.gradients(step), raced.gradients(step)) == same
    with pytest.raises(SettingsError, match="race: plain_steps is 4, expected fewer than the training's 4 steps"):
        SMALL.replace(race=RaceSettings(plain_steps=4))
    # Runs of before it could are found.
    assert SMALL.replace(race=RaceSettings()).key()["race"] == {"radius": 0.1, "iterations": 10}
    assert race.key()["race"]["plain_steps"] == 3


def test_l1_holds_on_to_the_base(unet: nn.Module, encoder: TextEncoder) -> None:
    it = objective(unet, encoder, SMALL.replace(l1=0.1))
    with torch.no_grad():
        for delta in it.deltas.values():
            delta.fill_(0.5)
    total, erasing, l1 = it.gradients(0).tolist()
    # The mean of each tensor, summed.
    assert l1 == pytest.approx(0.05 * len(it.deltas))
    assert total == pytest.approx(erasing + l1)


def test_what_each_method_trains() -> None:
    names = unet_names()
    ours = dict(names.shapes)
    counts = {trained: len(trained_names(ours, trained)) for trained in ("x", "x-strict", "u", "all", "noxattn")}
    norms = sum(kind_of(name) == "norms" for name in ours)
    assert counts["x"] == 80
    assert counts["x-strict"] == 32
    assert counts["u"] == 686 - 80 - norms
    assert counts["all"] == 686 - norms
    # The time's two layers and the output's two, weight and bias.
    assert counts["noxattn"] == 686 - 80 - 8
    theirs = {f"diffusion_model.{names.compvis[name]}": shape for name, shape in ours.items()}
    assert set(trained_names(theirs, "x")) == {
        f"diffusion_model.{names.compvis[name]}" for name in trained_names(ours, "x")
    }
    with pytest.raises(UnetError):
        trained_names({"a.weight": (1, 2)}, "x")


def test_as_many_texts_to_erase_from_as_concepts_are_needed(encoder: TextEncoder) -> None:
    with pytest.raises(SettingsError, match="give one each"):
        ErasingTexts.of(encoder, CONCEPTS, ("a",))
