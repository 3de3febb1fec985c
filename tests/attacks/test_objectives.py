"""Goals against slow references in float64 and finite differences, and chunks that change nothing."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from sage_core.attacks.inversion import NoiseGoal, NoisyPictures
from sage_core.attacks.objectives import (
    EmbeddingGoal,
    Goal,
    PooledGoal,
    concept_direction,
    concept_targets,
    end_places,
    slopes,
)
from sage_core.attacks.search import states_of
from sage_core.drawing.noise import noise_scheduler
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.encoders.tokens import tokenize
from sage_core.errors import PromptError, SettingsError
from sage_core.unet.differences import DiffusersNoise

SHAPE = (4, 4, 4)


@pytest.fixture(scope="module")
def exact(base: TextEncoder, unet: nn.Module) -> tuple[TextEncoder, DiffusersNoise]:
    """The base in float64."""
    return copy.deepcopy(base).double(), DiffusersNoise(copy.deepcopy(unet).double())


def states(encoder: TextEncoder, texts: tuple[str, ...]) -> torch.Tensor:
    with torch.no_grad():
        return encoder(tokenize(list(texts)))


def ends(texts: tuple[str, ...]) -> torch.Tensor:
    return end_places(tokenize(list(texts)))


@pytest.fixture(scope="module")
def goals(exact: tuple[TextEncoder, DiffusersNoise], unsafe: tuple[str, ...]) -> dict[str, Goal]:
    encoder, noise = exact
    wanted, plain = states(encoder, unsafe), states(encoder, ("",))
    direction = concept_direction(encoder, ("a skull", "two skulls"), ("a star", "two stars"))
    references = torch.randn(len(unsafe), *SHAPE, generator=torch.Generator().manual_seed(5)).double()
    drawn = NoisyPictures.drawn_by_base(noise, wanted, plain, SHAPE, draws=2, sampling_steps=4, guidance=3.0)
    noised = NoisyPictures.of_references(noise, references, plain, draws=3, chunk=2)
    return {
        "squared": EmbeddingGoal(wanted),
        "pooled": PooledGoal(
            wanted[torch.arange(len(unsafe)), ends(unsafe)], ends(("a red ring", "a star", "one cat"))
        ),
        "ring-a-bell": EmbeddingGoal(concept_targets(encoder, tokenize(["a star"] * 3), direction, 3.0)),
        "base's noise": NoiseGoal(noise, drawn),
        "pictures' noise": NoiseGoal(noise, noised),
    }


def test_the_distance_of_embeddings_is_the_formula(goals: dict[str, Goal], exact, unsafe) -> None:
    found = states(exact[0], ("a red ring", "a star"))
    wanted = states(exact[0], unsafe)
    for number, row in enumerate((2, 0)):
        a, b = found[number].flatten().tolist(), wanted[row].flatten().tolist()
        error = math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))
        found_distances = goals["squared"].distances(found, torch.tensor([2, 0]))
        assert found_distances[number].item() == pytest.approx(error / math.fsum(y * y for y in b))


def test_the_pooled_distance_is_the_cosine_of_the_end_tokens(goals: dict[str, Goal], exact, unsafe) -> None:
    texts = ("a red ring", "a star", "one cat")
    for row, (text, wanted) in enumerate(zip(texts, unsafe, strict=True)):
        # The end token's state: what transformers calls a prompt's pooled output.
        a, b = (states(exact[0], (each,))[0, len(each.split()) + 1].tolist() for each in (text, wanted))
        cosine = math.fsum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
        found = goals["pooled"].distances(states(exact[0], (text,)), torch.tensor([row]))
        assert found.item() == pytest.approx(1 - cosine)


def test_the_direction_of_a_concept_is_the_mean_change(goals: dict[str, Goal], exact) -> None:
    encoder = exact[0]
    pairs = (("a skull", "a star"), ("two skulls", "two stars"))
    changes = [states(encoder, (one,))[0] - states(encoder, (other,))[0] for one, other in pairs]
    target = states(encoder, ("a star",))[0] + 3 * (changes[0] + changes[1]) / 2
    # `embed` gives float32.
    torch.testing.assert_close(
        goals["ring-a-bell"].targets[0],
        target.flatten(),
        rtol=1e-5,
        atol=1e-5,  # type: ignore[attr-defined]
    )
    with pytest.raises(PromptError, match="2 prompts with the concept and 1 without"):
        concept_direction(encoder, ("a", "b"), ("c",))


def test_noise_of_the_base_is_the_formula(goals: dict[str, Goal], exact, unsafe) -> None:
    """DDIM by its formula, one picture and one evaluation at a time."""
    encoder, noise = exact
    alphas = noise_scheduler().alphas_cumprod.double()
    plain, attempt = states(encoder, ("",)), states(encoder, ("a red ring",))
    for row, text in enumerate(unsafe):
        prompted = states(encoder, (text,))
        x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(row)).double()[None]
        errors, scales = [], []
        for number, time in enumerate((751, 501, 251, 1)):
            with torch.no_grad():
                one, other, mine = (noise.unet(x, time, each).sample for each in (plain, prompted, attempt))
            if number in (1, 3):
                errors.append(float((mine - other).square().mean()))
                scales.append(float((one - other).square().mean()))
            guided = one + 3.0 * (other - one)
            now, then = alphas[time], alphas[max(time - 250, 0)]
            x = then.sqrt() * (x - (1 - now).sqrt() * guided) / now.sqrt() + (1 - then).sqrt() * guided
        found = goals["base's noise"].distances(attempt, torch.tensor([row])).item()
        assert found == pytest.approx(sum(errors) / sum(scales), rel=1e-5)
        assert goals["base's noise"].distances(prompted, torch.tensor([row])).item() < 1e-12
        assert goals["base's noise"].distances(plain, torch.tensor([row])).item() == pytest.approx(1, rel=1e-6)


def test_noise_of_pictures_is_the_formula(goals: dict[str, Goal], exact) -> None:
    encoder, noise = exact
    goal = goals["pictures' noise"]
    assert isinstance(goal, NoiseGoal)
    references = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(5)).double()
    alphas = noise_scheduler().alphas_cumprod.double()
    attempt, plain = states(encoder, ("a red ring",)), states(encoder, ("",))
    for row in range(3):
        errors, scales = [], []
        for draw in range(3):
            time = int(goal.pictures.times[row, draw])
            assert 1000 * draw // 3 <= time <= 1000 * (draw + 1) // 3
            added = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1_000_003 * draw + row)).double()
            x = alphas[time].sqrt() * references[row] + (1 - alphas[time]).sqrt() * added
            with torch.no_grad():
                mine, without = (noise.unet(x[None], time, each).sample[0] for each in (attempt, plain))
            errors.append(float((mine - added).square().mean()))
            scales.append(float((without - added).square().mean()))
        found = goal.distances(attempt, torch.tensor([row])).item()
        assert found == pytest.approx(sum(errors) / sum(scales), rel=1e-5)


@pytest.mark.parametrize("name", ["squared", "pooled", "ring-a-bell", "base's noise", "pictures' noise"])
def test_gradients_are_the_measured_slopes(name: str, goals: dict[str, Goal], exact) -> None:
    """Of a free vector, through encoder and U-Net, by central differences in float64."""
    encoder, goal = exact[0], goals[name]
    ids = tokenize(["a red ring", "one cat"])
    rows, draws = torch.tensor([1, 2]), torch.arange(goal.draws)
    places = torch.full_like(ids, -1)
    places[:, 2:4] = torch.tensor([0, 1])
    generator = torch.Generator().manual_seed(3)
    vectors = (0.4 * torch.randn(2, 2, 64, generator=generator)).double().requires_grad_(True)
    found, slope = slopes(goal, states_of(encoder, ids, places, vectors), rows, draws, chunk=1)
    states_of(encoder, ids, places, vectors).backward(slope)
    whole = goal.distances(states_of(encoder, ids, places, vectors), rows)
    torch.testing.assert_close(found, whole.detach())
    for at in ((0, 0, 5), (0, 1, 60), (1, 1, 0), (1, 0, 33)):
        moved = []
        for sign in (1, -1):
            other = vectors.detach().clone()
            other[at] += sign * 1e-5
            with torch.no_grad():
                moved.append(goal.distances(states_of(encoder, ids, places, other), rows).sum().item())
        measured = (moved[0] - moved[1]) / 2e-5
        assert vectors.grad[at].item() == pytest.approx(measured, rel=1e-4, abs=1e-9)  # type: ignore[index]


@pytest.mark.parametrize("chunk", [2, 64])
def test_chunks_change_nothing(chunk: int, goals: dict[str, Goal], exact) -> None:
    goal, found = goals["base's noise"], states(exact[0], ("a red ring", "one cat", "a dog"))
    rows, draws = torch.arange(3), torch.arange(2)
    for one, other in zip(slopes(goal, found, rows, draws, 1), slopes(goal, found, rows, draws, chunk), strict=True):
        torch.testing.assert_close(one, other)


def test_mistakes_are_errors(exact) -> None:
    encoder, noise = exact
    plain = states(encoder, ("",))
    with pytest.raises(SettingsError, match="draws is 5 and sampling_steps 4"):
        NoisyPictures.drawn_by_base(noise, plain, plain, SHAPE, draws=5, sampling_steps=4)
    with pytest.raises(SettingsError, match="draws is 0"):
        NoisyPictures.of_references(noise, torch.zeros(1, *SHAPE), plain, draws=0)
