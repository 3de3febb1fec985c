"""Whole methods under attack: their noise is their sampler's step, and free embeddings reach all readers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from sage_core.attacks.search import states_of
from sage_core.attacks.victims import MethodEncoder, MethodNoise, packed, unpacked, victim_of
from sage_core.drawing import Change, ChangedModel, Model
from sage_core.drawing.change import Moved, Safety
from sage_core.drawing.denoising import denoise
from sage_core.drawing.guidance import PRESETS, SafeGuidance, SafeGuidanceSettings, guided
from sage_core.encoders.layouts import EncoderConfig
from sage_core.encoders.text_encoder import TextEncoder, state_hash
from sage_core.encoders.tokens import CONTEXT_LENGTH, VOCABULARY_SIZE, tokenize
from sage_core.methods.gate import GatedPrompts, RefineSettings
from sage_core.methods.gate_file import Gate, GateCard, GateNetwork
from sage_core.methods.safree import MovedPrompts
from sage_core.shapes.networks.model import ShapesModel, TinyAutoencoder, build_unet

TINY = EncoderConfig(layers=1, width=64, heads=1, mlp_width=64, vocabulary=VOCABULARY_SIZE, positions=CONTEXT_LENGTH)
PROMPTS = ["a skull on the grass", "two red skulls"]
STEPS, WEIGHT = 5, 3.0
# Without a step at a threshold, at which numbers that differ in their last bits would part.
SOFT = SafeGuidanceSettings(0, 1.5, 5.0, 0.3, 0.7)


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return ShapesModel(build_unet(32, 64), TinyAutoencoder(8), TextEncoder.fresh(TINY)).eval()


def gate(model: Model, threshold: float) -> Gate:
    torch.manual_seed(1)
    card = GateCard(state_hash(model.encoder.state()), threshold, 0.1, 0.0, 1.0, 10, 10, {"steps": 1})
    return Gate(GateNetwork(64), card)


def changes(model: Model) -> dict[str, Change]:
    torch.manual_seed(2)
    encoder = TextEncoder.fresh(TINY).state()
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    return {
        "encoder": Change(encoder),
        "edit": Change(deltas={name: model.weight(name).clone()}),
        "SLD": Change(safety=Safety(SOFT, "a skull")),
        "SAFREE": Change(reads=MovedPrompts(("skull",))),
        "routing gate": Change(encoder, reads=GatedPrompts(gate(model, -100.0))),
        "open gate": Change(encoder, reads=GatedPrompts(gate(model, 100.0))),
        "refining gate": Change(reads=GatedPrompts(gate(model, -100.0), RefineSettings(iterations=2))),
        "both": Change(deltas={name: model.weight(name).clone()}, safety=Safety(SOFT, "a skull")),
    }


class Spy:
    """A sampler that takes no step, and keeps the noise that it is given."""

    def __init__(self, time: int) -> None:
        self.timesteps, self.init_noise_sigma, self.given = torch.tensor([time] * STEPS), 1.0, []

    def scale_model_input(self, latents: Tensor, time: Tensor) -> Tensor:
        return latents

    def step(self, noise: Tensor, time: Tensor, latents: Tensor) -> SimpleNamespace:
        self.given.append(noise)
        return SimpleNamespace(prev_sample=latents)


@pytest.mark.parametrize("name", ["encoder", "edit", "SLD", "SAFREE", "routing gate", "refining gate", "both"])
def test_the_noise_of_a_method_is_what_its_sampler_takes(model: Model, name: str) -> None:
    change = changes(model)[name]
    changed, latents = ChangedModel(model, change), torch.randn(2, 4, 8, 8)
    texts, spy = changed.texts(PROMPTS), Spy(801)
    safe = SafeGuidance(change.safety.settings, STEPS) if change.safety else None
    denoise(model.noise, spy, latents, texts, WEIGHT, safe=safe, steps=1)
    victim = victim_of(changed, STEPS, WEIGHT)
    times = torch.full((2,), 801)
    found = victim.noise(latents, times, victim.encoder(tokenize(PROMPTS)))
    plain = model.noise(latents, times, victim.encoder.encoders[1](tokenize(["", ""])))
    assert torch.allclose(guided(found, plain, WEIGHT), spy.given[0], atol=1e-5)
    ordinary = model.noise(latents, times, model.encoder(tokenize(PROMPTS)))
    assert name == "edit" or not torch.allclose(found, ordinary, atol=1e-4)


def test_safe_guidance_begins_after_its_warmup(model: Model) -> None:
    weak, none = (
        MethodNoise(ChangedModel(model, Change(safety=safety)), 10, WEIGHT)
        for safety in (Safety(PRESETS["weak"], "a skull"), None)
    )
    latents, states = torch.randn(2, 4, 8, 8), model.encoder(tokenize(PROMPTS))
    # The weak preset leaves 3 of 10 steps alone: those from 901, 801 and 701.
    same = [
        torch.equal(*(each(latents, torch.tensor([time] * 2), states) for each in (weak, none))) for time in (701, 601)
    ]
    assert same == [True, False]


@pytest.mark.parametrize("name", ["encoder", "SAFREE", "routing gate", "open gate", "refining gate"])
def test_free_embeddings_of_words_read_as_the_words(model: Model, name: str) -> None:
    changed, ids = ChangedModel(model, changes(model)[name]), tokenize(PROMPTS)
    encoder = MethodEncoder(changed)
    places = torch.full_like(ids, -1)
    places[:, 2:4] = torch.arange(2)
    words = model.encoder.token_table.weight.detach()[ids[:, 2:4]].requires_grad_()
    if name == "encoder":
        # It looks words up in its own table.
        words = encoder.token_table.weight.detach()[ids[:, 2:4]].requires_grad_()
    found = states_of(encoder, ids, places, words)
    if name != "routing gate":
        assert torch.allclose(found, packed(changed.read(ids)), atol=1e-5)
    (slope,) = torch.autograd.grad(found.square().sum(), words)
    assert slope.isfinite().all() and (slope.flatten(2).norm(dim=2) > 0).all()
    assert torch.equal(encoder(ids), packed(changed.read(ids))) and encoder.further == 0


@pytest.mark.parametrize("name", ["SLD", "edit"])
def test_the_gradient_is_that_of_the_noise(model: Model, name: str) -> None:
    victim = victim_of(ChangedModel(model, changes(model)[name]), STEPS, WEIGHT)
    generator = torch.Generator().manual_seed(3)
    latents, times = torch.randn(1, 4, 8, 8, generator=generator), torch.tensor([401])
    states = victim.encoder(tokenize(PROMPTS[:1])).detach().requires_grad_()
    way, wanted = (torch.randn(shape, generator=generator) for shape in (states.shape, latents.shape))
    (slope,) = torch.autograd.grad((victim.noise(latents, times, states) * wanted).sum(), states)
    with torch.no_grad():
        step = 1e-2
        ahead, behind = ((victim.noise(latents, times, states + sign * step * way) * wanted).sum() for sign in (1, -1))
    assert float((slope * way).sum()) == pytest.approx(float(ahead - behind) / (2 * step), rel=0.05, abs=1e-3)


def test_states_are_packed_and_unpacked() -> None:
    moved = Moved(torch.randn(2, 77, 8), torch.randn(2, 77, 8), torch.tensor([0.5, 0.1]))
    found = unpacked(packed(moved))
    assert all(torch.equal(getattr(found, name), getattr(moved, name)) for name in ("prompted", "late", "until"))
    assert unpacked(packed(Moved(moved.prompted))).late is None
