"""AdvUnlearn against slow references in float64 on a small U-Net, its attack, and retain prompts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from slow_sampling import ddim
from tiny_unets import WIDTH, spread_encoder
from torch import Tensor, nn

from sage_core.encoders.text_encoder import TextEncoder
from sage_core.encoders.tokens import tokenize
from sage_core.errors import PromptError, SettingsError, TrainingError
from sage_core.methods.adv_unlearn import AdvUnlearnObjective, AdvUnlearnSettings, retain_prompts
from sage_core.methods.concepts import Concepts
from sage_core.prompts.everyday import REFERENCE_PROMPTS
from sage_core.runs.loop import Budget, Loop
from sage_core.unet.differences import DiffusersNoise

LATENTS = (4, 4, 4)
SMALL = AdvUnlearnSettings(
    steps=4, learning_rate=1e-3, sampling_steps=4, batch_size=2, retain_batch=3, retain_weight=0.7, strength=1.5
)
CONCEPTS = Concepts(("a skull", "death mask"), ("a ball", ""))
RETAIN = ("a red star on sand", "two cats", "an old man in snow", "a wooden chair")


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return spread_encoder(layers=2)


def objective(unet: nn.Module, encoder: TextEncoder, settings: AdvUnlearnSettings) -> AdvUnlearnObjective:
    noise, base = DiffusersNoise(copy.deepcopy(unet)), copy.deepcopy(encoder)
    return AdvUnlearnObjective(noise, base, CONCEPTS, RETAIN, settings, LATENTS)


def moved_a_little(it: AdvUnlearnObjective) -> AdvUnlearnObjective:
    """As after some training: at the start the retain loss and its gradient are 0."""
    with torch.no_grad():
        for number, weight in enumerate(it.trained.values()):
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
    return it


class Reference:
    """One step by the formulas, in float64, one picture and one evaluation at a time."""

    def __init__(self, it: AdvUnlearnObjective, unet: nn.Module, encoder: TextEncoder, step: int) -> None:
        settings = it.settings
        self.settings, self.unet = settings, copy.deepcopy(unet).double().requires_grad_(False)
        self.base, self.encoder = (copy.deepcopy(each).double() for each in (encoder, it.encoder))
        # The step's random numbers, in the order in which they are drawn.
        generator = torch.Generator().manual_seed(1_000_003 * settings.seed + step)
        self.chosen = torch.randint(2, (settings.batch_size,), generator=generator).tolist()
        self.retained = torch.randint(4, (settings.retain_batch,), generator=generator).tolist()
        done = int(torch.randint(4, (), generator=generator))
        self.time = int(torch.randint(250 * (3 - done), 250 * (4 - done), (), generator=generator))
        count = settings.batch_size + settings.retain_batch
        start = torch.randn(count, *LATENTS, generator=generator).double()
        shift = (torch.rand(settings.batch_size, 77, WIDTH, generator=generator) * 2 - 1).double()
        self.latents = []
        for number in range(count):
            own = number < settings.batch_size and settings.drawn_by == "trained"
            drawing = self.encoder if own else self.base
            self.latents.append(self.sampled(drawing, self.text(number), start[number], done))
        # Start of the attack: within the box on the concept's own tokens, nothing elsewhere.
        self.box = torch.zeros_like(shift)
        for number, at in enumerate(self.chosen):
            ids = tokenize([CONCEPTS.erase[at]])[0]
            own = [place for place, token in enumerate(ids.tolist()) if token not in (49406, 49407)]
            mean_square = self.base.token_table.weight[ids[own]].square().mean()
            self.box[number, own] = settings.radius * mean_square.sqrt().detach()
        self.start = shift * self.box

    def text(self, number: int) -> str:
        """Of a picture: a concept's or a retain prompt's."""
        count = self.settings.batch_size
        return CONCEPTS.erase[self.chosen[number]] if number < count else RETAIN[self.retained[number - count]]

    def states(self, encoder: TextEncoder, text: str, moved: Tensor | None = None) -> Tensor:
        """Moving a position's embedding is moving the embedding of the token that stands there."""
        if moved is None:
            return encoder(tokenize([text]))
        name = next(each for each, _ in encoder.named_parameters() if each.endswith("position_embedding.weight"))
        table = dict(encoder.named_parameters())[name].detach() + moved
        return torch.func.functional_call(encoder, {name: table}, (tokenize([text]),))

    def noise(self, number: int, states: Tensor) -> Tensor:
        return self.unet(self.latents[number][None], self.time, states).sample

    @torch.no_grad()
    def sampled(self, encoder: TextEncoder, text: str, x: Tensor, steps: int) -> Tensor:
        both = [self.states(encoder, each) for each in ("", text)]
        return ddim(
            lambda x, time: (self.unet(x[None], time, states).sample[0] for states in both),
            x, steps, of=4, guidance=self.settings.guidance,
        )  # fmt: skip

    def attack_error(self, number: int, moved: Tensor) -> Tensor:
        """How far the attacked concept's noise is from the base's of the concept."""
        with torch.no_grad():
            wanted = self.noise(number, self.states(self.base, self.text(number)))
        return (self.noise(number, self.states(self.encoder, self.text(number), moved)) - wanted).square().mean()

    def attacked(self, number: int) -> Tensor:
        moved, box = self.start[number], self.box[number]
        stride = {0: 0, 1: 1.25}.get(self.settings.attack_steps, 2.5 / self.settings.attack_steps)
        for _ in range(self.settings.attack_steps):
            moved = moved.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(self.attack_error(number, moved), moved)
            moved = torch.minimum(torch.maximum(moved.detach() - stride * box * slope.sign(), -box), box)
        return moved

    def losses(self, moved: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Erasing and retain, with the gradients of their weighted sum left in the encoder."""
        settings, erasing, retain = self.settings, torch.zeros((), dtype=torch.double), torch.zeros(())
        for number, at in enumerate(self.chosen):
            with torch.no_grad():
                concept, guide = (
                    self.noise(number, self.states(self.base, text))
                    for text in (CONCEPTS.erase[at], CONCEPTS.guides[at])
                )
                target = guide - settings.strength * (concept - guide)
            found = self.noise(number, self.states(self.encoder, self.text(number), moved[number]))
            erasing = erasing + (found - target).square().mean() / settings.batch_size
        for number in range(settings.batch_size, settings.batch_size + settings.retain_batch):
            states = [self.states(each, self.text(number)) for each in (self.base, self.encoder)]
            kept, found = (self.noise(number, each) for each in states)
            retain = retain + (found - kept.detach()).square().mean() / settings.retain_batch
        (erasing + settings.retain_weight * retain).backward()
        return erasing, retain


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"attack_steps": 3, "radius": 0.3, "layers": 1},
        {"radius": 0.0, "retain_batch": 1, "seed": 5},
        {"retain_batch": 0, "batch_size": 1},
        {"drawn_by": "base", "plain_steps": 3},
    ],
)
def test_the_loss_and_its_gradient_are_the_formula(changed: Any, unet: nn.Module, encoder: TextEncoder) -> None:
    it = moved_a_little(objective(unet, encoder, SMALL.replace(**changed)))
    expected = Reference(it, unet, encoder, step=2)
    # The attack's own, since the sign of a slope of nearly 0 is rounding; it has a test of its own.
    draw, seen = it._draw(2), []
    attack = it._attack
    it._attack = lambda *inputs: seen.append(attack(*inputs)) or seen[-1]  # type: ignore[method-assign]
    found = it.gradients(2)
    assert draw.time == expected.time
    assert bool(seen[0].any()) == (it.settings.radius > 0 and it.settings.plain_steps <= 2)
    erasing, retain = expected.losses(list(seen[0].double()))
    total = erasing + it.settings.retain_weight * retain
    assert found[:3].tolist() == pytest.approx([each.item() for each in (total, erasing, retain)], rel=1e-4)
    errors = [float(expected.attack_error(number, moved)) for number, moved in enumerate(seen[0].double())]
    assert found[3].item() == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    slopes = {name: weight.grad for name, weight in expected.encoder.named_parameters()}
    assert {name for name, slope in slopes.items() if slope is not None} == it.trained.keys()
    for name, weight in it.trained.items():
        wanted = slopes[name]
        torch.testing.assert_close(
            weight.grad.double(), wanted, rtol=1e-2, atol=1e-3 * float(wanted.abs().max()) + 1e-9
        )


def attacked(it: Any, unet: nn.Module, encoder: TextEncoder, step: int) -> tuple[Reference, Tensor]:
    """The reference of a step, and what the attack of that step finds for its two pictures; (2, 77, width)."""
    draw = it._draw(step)
    expected = Reference(it, unet, encoder, step=step)
    latents = torch.stack(expected.latents[:2]).float()
    times = torch.full((2,), draw.time)
    with torch.no_grad():
        wanted = it.noise(latents, times, it.concept_states[draw.chosen])
    return expected, it._attack(latents, times, wanted, draw).double()


@pytest.mark.parametrize("steps", [1, 3])
def test_the_attack_is_the_formula(steps: int, unet: nn.Module, encoder: TextEncoder) -> None:
    it = moved_a_little(objective(unet, encoder, SMALL.replace(attack_steps=steps)))
    expected, found = attacked(it, unet, encoder, step=1)
    by_formula = torch.stack([expected.attacked(number) for number in range(2)])
    own = expected.box > 0
    assert torch.equal(found[~own], torch.zeros_like(found[~own]))
    # A slope of nearly 0 may have either sign.
    assert torch.isclose(found[own], by_formula[own], atol=1e-5).double().mean() > 0.97
    assert (found.abs() <= expected.box + 1e-6).all()
    for number in range(2):
        errors = [float(expected.attack_error(number, each[number])) for each in (expected.start, found)]
        assert errors[1] < errors[0]
    # It leaves nothing behind in what is trained.
    assert all(weight.grad is None for weight in it.trained.values())


def test_the_attack_goes_down_the_measured_slope(unet: nn.Module, encoder: TextEncoder) -> None:
    """By central differences of the loss itself, without any automatic gradient."""
    it = moved_a_little(objective(unet, encoder, SMALL))
    expected, found = attacked(it, unet, encoder, step=3)
    places = (expected.box[0] > 0).nonzero()
    slopes = []
    for place, column in places.tolist():
        step = torch.zeros(77, WIDTH, dtype=torch.double)
        step[place, column] = 1e-5
        with torch.no_grad():
            errors = [float(expected.attack_error(0, expected.start[0] + sign * step)) for sign in (1, -1)]
        slopes.append((errors[0] - errors[1]) / 2e-5)
    largest = max(map(abs, slopes))
    for slope, (place, column) in zip(slopes, places.tolist(), strict=True):
        if abs(slope) > 1e-3 * largest:
            box, start = expected.box[0, place, column], expected.start[0, place, column]
            target = (start - 1.25 * box * (1 if slope > 0 else -1)).clamp(-box, box)
            assert found[0, place, column].item() == pytest.approx(target.item(), abs=1e-5)


def test_an_attack_that_never_begins_is_refused() -> None:
    """And what came later takes no part in the name of a run that does without."""
    with pytest.raises(SettingsError, match="plain_steps is 4, expected fewer than the training's 4 steps"):
        SMALL.replace(plain_steps=4)
    assert SMALL.key().keys() == SMALL.to_dict().keys() - {"drawn_by", "plain_steps"}
    assert SMALL.replace(drawn_by="base").key()["drawn_by"] == "base"


def test_without_a_radius_nothing_moves(unet: nn.Module, encoder: TextEncoder) -> None:
    """The same loss and gradients, to the bit, as with no attack at all."""
    it, plain = (moved_a_little(objective(unet, encoder, SMALL.replace(radius=0.0))) for _ in range(2))
    plain._attack = lambda latents, *_: torch.zeros(len(latents), 77, WIDTH)  # type: ignore[method-assign]
    plain._states = lambda ids, shift: plain.encoder(ids)  # type: ignore[method-assign]
    assert torch.equal(it.gradients(2), plain.gradients(2))
    for one, other in zip(it.trained.values(), plain.trained.values(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-9)


def test_only_what_is_trained_changes(unet: nn.Module, encoder: TextEncoder) -> None:
    it = objective(unet, encoder, SMALL)
    unet_before = {name: value.clone() for name, value in it.noise.state_dict().items()}
    base_before = {name: value.clone() for name, value in it.base.state().items()}
    Loop(it, Budget(steps=2), lambda step, used: 1e-3).run()
    assert all(torch.equal(it.noise.state_dict()[name], value) for name, value in unet_before.items())
    assert all(torch.equal(it.base.state()[name], value) for name, value in base_before.items())
    assert all(weight.grad is None for weight in it.noise.parameters())
    result = it.result()
    assert result.keys() == base_before.keys()
    for name, value in result.items():
        # A key's bias adds the same to all of a query's scores, which softmax does not see: its gradient is rounding.
        if "k_proj.bias" not in name:
            assert torch.equal(value, base_before[name]) == ("embeddings." in name), name


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_which_layers_are_trained(layers: int, unet: nn.Module, encoder: TextEncoder) -> None:
    names = objective(unet, encoder, SMALL.replace(layers=layers)).trained
    found = {name.split(".layers.")[1][0] for name in names if ".layers." in name}
    assert found == ({"0"} if layers == 1 else {"0", "1"})
    assert any("final_layer_norm" in name for name in names) == (layers == 0)
    with pytest.raises(SettingsError, match="layers is 3, and the text encoder has 2"):
        objective(unet, encoder, SMALL.replace(layers=3))


def test_chunks_give_the_same_gradients(unet: nn.Module, encoder: TextEncoder) -> None:
    whole, parts = (moved_a_little(objective(unet, encoder, SMALL.replace(radius=0.1))) for _ in range(2))
    attacked = whole._attack(torch.zeros(2, *LATENTS), torch.tensor([9, 9]), torch.zeros(2, *LATENTS), whole._draw(1))
    for it in (whole, parts):
        it._attack = lambda *_: attacked  # type: ignore[method-assign]
    assert whole.chunk == 5
    parts.shrink()
    parts.shrink()
    assert parts.chunk == 2
    torch.testing.assert_close(whole.gradients(1), parts.gradients(1))
    for name, weight in whole.trained.items():
        torch.testing.assert_close(weight.grad, parts.trained[name].grad, rtol=1e-3, atol=1e-7)
    parts.shrink()
    with pytest.raises(TrainingError, match="Out of memory on cpu with one picture at a time"):
        parts.shrink()


def test_retain_prompts_do_not_name_the_concepts() -> None:
    concepts = Concepts(("a dog", "death mask", "snow"))
    kept = retain_prompts((), concepts)
    assert 0 < len(kept) < len(REFERENCE_PROMPTS) and set(kept) < set(REFERENCE_PROMPTS)
    assert not any("snow" in text for text in kept) and any("brown dog" in text for text in kept)
    assert retain_prompts(["a mask", "a Death", "a mask"], concepts) == ("a mask", "a Death")
    words = "Retain prompt 2 of 3, 'A DEATH  MASK on sand', names the concept 'death mask' .2 do in all.: .* Remove it"
    with pytest.raises(PromptError, match=words):
        retain_prompts(["a mask", "A DEATH  MASK on sand", "snow"], concepts)
    with pytest.raises(PromptError, match="Retain prompt 2 of 2 is empty"):
        retain_prompts(["a mask", " "], concepts)
    with pytest.raises(PromptError, match="No retain prompt is left of 1: all refer or may refer to minors"):
        retain_prompts(["a child with a kite"], concepts)
