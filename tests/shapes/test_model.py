"""The shapes world's networks: SD 1.x's layout, one picture a seed, DDIM and guidance as the papers have them."""

from __future__ import annotations

import math

import pytest
import torch
from slow_sampling import ddim

from sage_core.drawing.noise import noise_of
from sage_core.encoders.layouts import EncoderConfig
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.encoders.tokens import CONTEXT_LENGTH, VOCABULARY_SIZE, tokenize
from sage_core.errors import ShapesError
from sage_core.shapes.networks.model import (
    ENCODER_CONFIG,
    LATENT_SHAPE,
    ShapesModel,
    TinyAutoencoder,
    build_unet,
)

TINY = EncoderConfig(layers=1, width=64, heads=1, mlp_width=64, vocabulary=VOCABULARY_SIZE, positions=CONTEXT_LENGTH)
PROMPTS = ["two red stars on the grass", "a plain blue ring at night", "one striped heart"]


@pytest.fixture(scope="module")
def model() -> ShapesModel:
    torch.manual_seed(0)
    return ShapesModel(build_unet(32, 64), TinyAutoencoder(8), TextEncoder.fresh(TINY)).eval()


def test_full_size_networks_have_sd_1x_shapes():
    with torch.device("meta"):
        unet, vae = build_unet(), TinyAutoencoder()
    weights = {name: tuple(value.shape) for name, value in unet.state_dict().items()}
    assert weights["conv_in.weight"] == (320, 4, 3, 3)
    assert weights["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"] == (320, 768)
    assert weights["mid_block.attentions.0.proj_in.weight"] == (320, 320, 1, 1)
    assert sum(map(math.prod, weights.values())) == pytest.approx(25.8e6, rel=0.01)
    assert sum(value.numel() for value in vae.state_dict().values()) == pytest.approx(2.4e6, rel=0.02)
    assert (ENCODER_CONFIG.width, ENCODER_CONFIG.heads, ENCODER_CONFIG.positions) == (768, 12, 77)


def test_a_picture_depends_on_its_own_prompt_and_seed_alone(model):
    together = model.generate(PROMPTS, seeds=[7, 8, 9], steps=3)
    assert together.shape == (3, 3, 64, 64)
    assert together.min() >= 0 and together.max() <= 1 and together.std() > 0
    assert torch.allclose(model.generate(PROMPTS[1:2], seeds=[8], steps=3), together[1:2], atol=1e-4)
    assert torch.allclose(model.generate(PROMPTS, seeds=[7, 8, 9], steps=3, batch_size=2), together, atol=1e-4)
    assert not torch.allclose(model.generate(PROMPTS[1:2], seeds=[9], steps=3), together[1:2], atol=1e-3)


def test_ids_draw_what_their_text_draws(model):
    told = model.generate(PROMPTS, seeds=range(3), steps=2)
    assert torch.equal(model.generate(tokenize(PROMPTS), seeds=range(3), steps=2), told)


def test_another_encoder_draws_instead(model):
    other = TextEncoder.from_state({name: value * 1.5 for name, value in model.encoder.state().items()})
    own, changed = (model.generate(PROMPTS[:1], seeds=[0], steps=2, encoder=who) for who in (None, other))
    assert not torch.allclose(own, changed, atol=1e-4)
    assert torch.equal(model.generate(PROMPTS[:1], seeds=[0], steps=2), own)


def test_sampling_is_ddim_with_classifier_free_guidance(model):
    both = [model.encoder(tokenize([text])) for text in ("", PROMPTS[0])]
    with torch.no_grad():
        latents = ddim(
            lambda x, time: (model.unet(x.float(), time, states).sample.double() for states in both),
            noise_of([5], LATENT_SHAPE), 4, of=4, guidance=3.0,
        )  # fmt: skip
        expected = model.vae.decode(latents.float()).clamp(0, 1)
    assert torch.allclose(model.generate(PROMPTS[:1], seeds=[5], steps=4, guidance=3.0), expected, atol=2e-3)


def test_latents_are_shifted_and_scaled():
    torch.manual_seed(0)
    vae = TinyAutoencoder(8)
    vae.shift.fill_(0.5)
    vae.scale.fill_(2.0)
    pictures = torch.rand(2, 3, 64, 64)
    latents = vae.encode(pictures)
    assert torch.allclose(latents, (vae.encoder(pictures) - 0.5) * 2)
    assert torch.allclose(vae.decode(latents), vae.decoder(vae.encoder(pictures)), atol=1e-6)


def test_progress_is_told_and_a_stop_stops(model):
    told = []
    model.generate(PROMPTS, seeds=range(3), steps=1, batch_size=2, on_batch=lambda done, of: told.append((done, of)))
    assert told == [(2, 3), (3, 3)]

    def stop(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.generate(PROMPTS, seeds=range(3), steps=1, batch_size=2, on_batch=stop)


def test_prompts_need_a_seed_each(model):
    with pytest.raises(ShapesError, match="3 prompts but 2 seeds"):
        model.generate(PROMPTS, seeds=[1, 2])
