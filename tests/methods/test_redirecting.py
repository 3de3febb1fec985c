"""The redirected U-Net against a slow reference on a small U-Net, its pictures, exact resume, chunks, a whole run."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_unets import checkpoint_state, one_layer_encoder, two_level_unet
from torch import Tensor, nn

from sage_core.drawing.noise import noise_scheduler
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.errors import PromptError, TrainingError
from sage_core.methods.redirecting import (
    PairStates,
    RedirectingObjective,
    RedirectingSettings,
    train_redirection,
)
from sage_core.prompts.concept_pairs import pairs_from_concepts
from sage_core.prompts.concepts import ConceptList
from sage_core.prompts.pairs import PromptPairs, pairs_from_lists
from sage_core.runs.record import StepReport
from sage_core.runs.store import RunStore
from sage_core.unet.differences import DiffusersNoise
from sage_core.unet.training import EditResult, UnetRun

LATENTS = (4, 4, 4)
SMALL = RedirectingSettings(
    steps=4,
    learning_rate=1e-3,
    batch_size=2,
    keep_batch=3,
    pictures=3,
    sampling_steps=4,
    strength=0.7,
    keep_weight=4.0,
    plain=0.4,
)
PAIRS = pairs_from_lists(["a ball", "two balls", "a cube", "a kite"], ["a skull", "two skulls", "a skull", "bones"])


@pytest.fixture(scope="module")
def states(encoder: TextEncoder) -> PairStates:
    return PairStates.of(encoder, PAIRS)


def objective(unet: nn.Module, states: PairStates, settings: RedirectingSettings = SMALL) -> RedirectingObjective:
    return RedirectingObjective(DiffusersNoise(copy.deepcopy(unet)), states, settings, LATENTS)


def disturb(it: RedirectingObjective) -> None:
    with torch.no_grad():
        for number, delta in enumerate(it.deltas.values()):
            delta.copy_(0.02 * torch.randn(delta.shape, generator=torch.Generator().manual_seed(number)))


def rows_of_step(it: RedirectingObjective, count: int, crossed: float, generator: torch.Generator) -> list[Any]:
    """Pair, noised picture and time of each row, in the order in which the random numbers are drawn."""
    which = torch.randint(3, (count,), generator=generator).tolist()
    others = torch.randint(4, (count,), generator=generator).tolist()
    alone = (torch.rand(count, generator=generator) < 0.5).tolist()
    times = torch.randint(1000, (count,), generator=generator).tolist()
    added = torch.randn(count, *LATENTS, generator=generator)
    safe = torch.rand(count, 1, 1, 1, generator=generator).flatten() < crossed
    alphas = noise_scheduler().alphas_cumprod.double()
    rows = []
    for i in range(count):
        clean = (it.pictures.safe if safe[i] else it.pictures.unsafe)[which[i]].double()
        a = alphas[times[i]]
        x = a.sqrt() * clean + (1 - a).sqrt() * added[i].double()
        rows.append((others[i] if alone[i] else int(it.drawn[which[i]]), x, times[i]))
    return rows


def test_the_loss_and_its_gradient_are_the_formula(unet: nn.Module, states: PairStates) -> None:
    it = objective(unet, states)
    disturb(it)
    exact, own = copy.deepcopy(unet).double(), copy.deepcopy(unet).double()
    weights = own.state_dict()
    for name, delta in it.deltas.items():
        weights[name.removeprefix("unet.")] += delta.detach().double()
    own.load_state_dict(weights)

    def safe(pair: int) -> Tensor:
        return states.safe(torch.tensor([pair]))[0]

    def unsafe(pair: int) -> Tensor:
        return states.unsafe(torch.tensor([pair]))[0]

    def at(net: nn.Module, x: Tensor, time: int, words: Tensor) -> Tensor:
        return net(x[None], time, words[None].double()).sample

    generator = torch.Generator().manual_seed(2)
    redirect, keep = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for pair, x, time in rows_of_step(it, 2, 0.3, generator):
        with torch.no_grad():
            to, away = (
                at(exact, x, time, safe(pair)),
                at(exact, x, time, unsafe(pair)),
            )
        redirect = redirect + (at(own, x, time, unsafe(pair)) - (1.7 * to - 0.7 * away)).square().mean() / 2
    rows = rows_of_step(it, 3, 0.7, generator)
    plain = torch.rand(3, 1, 1, generator=generator).flatten() < 0.4
    assert plain.any() and not plain.all()
    for (pair, x, time), empty in zip(rows, plain, strict=True):
        words = states.empty[0] if empty else safe(pair)
        with torch.no_grad():
            target = at(exact, x, time, words)
        keep = keep + (at(own, x, time, words) - target).square().mean() / 3
    total = redirect + 4 * keep
    total.backward()

    found = it.gradients(2)
    torch.testing.assert_close(found.double(), torch.stack([total, redirect, keep]).detach(), rtol=1e-4, atol=0)
    slopes = dict(own.named_parameters())
    for name, delta in it.deltas.items():
        expected = slopes[name.removeprefix("unet.")].grad.float()
        torch.testing.assert_close(delta.grad, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()) + 1e-8)


def test_an_untrained_edit_keeps_everything(unet: nn.Module, states: PairStates) -> None:
    total, redirect, keep = objective(unet, states).gradients(0).tolist()
    assert keep == pytest.approx(0, abs=1e-10)
    assert total == pytest.approx(redirect) and redirect > 0


def test_both_sides_of_a_pair_are_drawn_from_the_same_noise(unet: nn.Module, states: PairStates) -> None:
    alike = replace(states, unsafe_ids=states.safe_ids)
    all_drawn = SMALL.replace(steps=100)
    pictures = objective(unet, alike, all_drawn).pictures
    torch.testing.assert_close(pictures.unsafe, pictures.safe)
    different = objective(unet, states, all_drawn)
    assert not torch.allclose(different.pictures.unsafe, different.pictures.safe)
    assert len(set(different.drawn.tolist())) == 3
    # Fewer at once: the same pictures.
    parts = objective(unet, states, all_drawn.replace(batch_size=1, keep_batch=1))
    torch.testing.assert_close(parts.pictures.safe, different.pictures.safe, rtol=1e-3, atol=1e-4)


def test_pictures_that_do_not_fit_into_memory_are_drawn_one_by_one(unet: nn.Module, states: PairStates) -> None:
    class Small(DiffusersNoise):
        # With guidance a picture goes through twice.
        most, refused = 2, 0

        def forward(self, latents: Tensor, times: Tensor, words: Tensor) -> Tensor:
            if len(latents) > self.most:
                self.refused += 1
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(latents, times, words)

    small = Small(copy.deepcopy(unet))
    found = RedirectingObjective(small, states, SMALL, LATENTS).pictures
    assert small.refused > 0
    whole = objective(unet, states).pictures
    torch.testing.assert_close(found.unsafe, whole.unsafe, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.safe, whole.safe, rtol=1e-3, atol=1e-4)
    small.most = 1
    with pytest.raises(TrainingError, match="Out of memory with a single item"):
        RedirectingObjective(small, states, SMALL, LATENTS)


def test_chunks_give_the_same_gradients(unet: nn.Module, states: PairStates) -> None:
    whole, parts = objective(unet, states), objective(unet, states)
    disturb(whole)
    disturb(parts)
    while parts.chunk > 2:
        parts.shrink()
    torch.testing.assert_close(whole.gradients(1), parts.gradients(1), rtol=1e-4, atol=1e-6)
    for name, delta in whole.deltas.items():
        torch.testing.assert_close(delta.grad, parts.deltas[name].grad, rtol=1e-3, atol=1e-6)


def test_the_rate_falls_along_a_cosine() -> None:
    settings = RedirectingSettings(steps=10, learning_rate=2e-3)
    assert settings.rate(0, 0.0) == 2e-3
    assert settings.rate(5, 0.5) == pytest.approx(1e-3)
    assert settings.rate(9, 0.9) == pytest.approx(1e-3 * (1 + math.cos(0.9 * math.pi)))


def test_no_pairs_are_refused(encoder: TextEncoder) -> None:
    with pytest.raises(PromptError):
        PairStates.of(encoder, pairs_from_lists([], []))


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return checkpoint_state(two_level_unet())


@pytest.fixture(scope="module")
def reader() -> TextEncoder:
    return one_layer_encoder()


def run(
    state: dict[str, Tensor], reader: TextEncoder, store: Path, pairs: PromptPairs = PAIRS, title: str = "skulls"
) -> EditResult:
    settings = SMALL.replace(steps=1)
    return train_redirection(UnetRun(state, size=32), reader, pairs, settings, store, title=title)


def test_its_name_is_of_the_pairs_and_of_nothing_that_it_is_called(
    state: dict[str, Tensor], reader: TextEncoder, tmp_path: Path
) -> None:
    others = pairs_from_lists(PAIRS.safe, ["a skull", "two skulls", "a skull", "a bone"])
    assert not any(run(state, reader, tmp_path, pairs).found for pairs in (PAIRS, others))
    assert run(state, reader, tmp_path, title="bones").found


@pytest.mark.parametrize("steps", [1, 300])
def test_only_pictures_that_a_step_takes_are_drawn_and_counted(steps: int, unet: nn.Module, states: PairStates) -> None:
    """Before the first step, which a user waits for."""
    told: list[tuple[int, int]] = []
    settings = SMALL.replace(steps=steps, batch_size=1, keep_batch=2)
    noise = DiffusersNoise(copy.deepcopy(unet))
    it = RedirectingObjective(noise, states, settings, LATENTS, on_draw=lambda *counts: told.append(counts))
    drawn = [int(side.flatten(1).any(1).sum()) for side in (it.pictures.unsafe, it.pictures.safe)]
    assert sum(drawn) <= min(3 * steps, 6) and (steps == 1 or drawn == [3, 3])
    total = settings.sampling_steps * sum(math.ceil(found / 3) for found in drawn)
    assert told == [(done, total) for done in range(total + 1)]
    wanted = it.gradients(0)
    it.optimizer.zero_grad()
    it.pictures = objective(unet, states, settings.replace(steps=300)).pictures
    torch.testing.assert_close(it.gradients(0), wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("damage", [False, True])
def test_pictures_of_a_stopped_training_are_not_drawn_again(
    damage: bool, state: dict[str, Tensor], reader: TextEncoder, tmp_path: Path
) -> None:
    settings = SMALL.replace(steps=30, batch_size=1, keep_batch=1)

    def training(store: Path, stop: int = -1, step: int = -1) -> tuple[EditResult, list[tuple[int, int]]]:
        told: list[tuple[int, int]] = []

        def on_draw(done: int, total: int) -> None:
            told.append((done, total))
            if done == stop:
                raise KeyboardInterrupt

        def on_step(report: StepReport) -> None:
            if report.step == step:
                raise KeyboardInterrupt

        unet = UnetRun(state, size=32, on_step=on_step)
        return train_redirection(unet, reader, PAIRS, settings, store, on_draw=on_draw), told

    wanted, told = training(tmp_path / "whole")
    assert told[-1] == (16, 16) and not list((tmp_path / "whole").glob("*.pictures"))
    store = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        training(store, stop=13)
    (kept,) = store.glob("*.pictures")
    assert [run.summary().split("  ")[-1] for run in RunStore(store).runs()] == ["SAGE U-Net, unfinished"]
    if damage:
        kept.write_bytes(kept.read_bytes()[:-4] + b"oops")
    with pytest.raises(KeyboardInterrupt):
        training(store, step=5)
    found, told = training(store)
    assert told == []
    assert not found.found and all(torch.equal(found.deltas[name], delta) for name, delta in wanted.deltas.items())
    assert {path.suffix for path in store.iterdir()} == {".safetensors", ".json"}


def test_concepts_of_the_pairs_are_the_title(state: dict[str, Tensor], reader: TextEncoder, tmp_path: Path) -> None:
    pairs = pairs_from_concepts(["a ball", "a cube"], ConceptList.of("skull", "bone"))
    assert run(state, reader, tmp_path, pairs).metadata["concept"] == "skull, bone"
    assert run(state, reader, tmp_path, PAIRS, title=" ").metadata["concept"] == "unnamed"


def test_prompts_that_refer_to_minors_are_never_drawn(
    state: dict[str, Tensor], reader: TextEncoder, tmp_path: Path
) -> None:
    # Lists of different lengths are not paired row by row, and their safe prompts may show children.
    pairs = pairs_from_lists(["a ball", "a child in a park", "a cube"], ["a skull", "bones"])
    assert len(pairs) == 3 and "a child in a park" in pairs.safe
    found = run(state, reader, tmp_path, pairs)
    assert found.metadata["pairs"] == "2"
    kept = pairs_from_lists(["a ball", "a cube"], ["a skull", "a skull"])
    assert run(state, reader, tmp_path, kept).found
    alone = pairs_from_lists(["a child in a park", "a child on a beach"], ["a skull"])
    with pytest.raises(PromptError, match="2 pairs refer or may refer to a minor on one side"):
        run(state, reader, tmp_path, alone)
