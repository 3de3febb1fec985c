"""Changes add up, are put in and taken out again, and say what they are."""

from __future__ import annotations

import pytest
import torch

from sage_core.drawing import Change, ChangedModel, Model, draw
from sage_core.drawing.change import Moved, Reading, Safety, states_of
from sage_core.drawing.denoising import Step
from sage_core.drawing.guidance import PRESETS
from sage_core.drawing.noise import noise_of, noised
from sage_core.drawing.pictures import Begin
from sage_core.encoders.layouts import EncoderConfig
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.encoders.tokens import CONTEXT_LENGTH, VOCABULARY_SIZE, detokenize, tokenize
from sage_core.errors import SettingsError
from sage_core.shapes.networks.model import ShapesModel, TinyAutoencoder, build_unet

TINY = EncoderConfig(layers=1, width=64, heads=1, mlp_width=64, vocabulary=VOCABULARY_SIZE, positions=CONTEXT_LENGTH)
NAME = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight"
PROMPTS, SEEDS = ["two red stars", "a ring", "a skull"], [4, 5, 6]
HOW = {"steps": 2, "guidance": 2.0, "size": (64, 64)}
SAFETY = Change(safety=Safety(PRESETS["max"], "a skull"))


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return ShapesModel(build_unet(32, 64), TinyAutoencoder(8), TextEncoder.fresh(TINY)).eval()


@pytest.fixture
def edit(model: Model) -> Change:
    return Change(deltas={NAME: model.unet.state_dict()[NAME].clone()})


class Backwards:
    """Reads prompts from their end, and half way as they are."""

    def reading(self, base: TextEncoder, changed: TextEncoder) -> Reading:
        def prompts(ids) -> Moved:
            texts = detokenize(ids)
            until = torch.full((len(texts),), 0.5)
            return Moved(states_of(changed, [text[::-1] for text in texts]), states_of(base, texts), until)

        return Reading(changed, prompts, "nothing")

    def summary(self) -> str:
        return "prompts read backwards"


@pytest.mark.parametrize("change", [Change(), Change(reads=Backwards())], ids=["plain", "read"])
def test_readers_compute_as_their_thresholds_were_set(model: Model, change: Change) -> None:
    """In fp32, also where all else is drawn in autocast; a plain prompt goes through autocast like all else."""
    model.autocast, seen = torch.bfloat16, []
    changed = ChangedModel(model, change)
    hook = model.encoder.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    changed.draw(PROMPTS, SEEDS, **HOW)
    hook.remove()
    assert seen and all(each == (change.reads is None) for each in seen)


def test_changes_add_up_and_say_what_they_are(edit: Change) -> None:
    other = Change(deltas={NAME: torch.ones_like(edit.deltas[NAME]), "other": torch.ones(1)})
    whole = edit + other + SAFETY + Change(encoder={"name": torch.ones(1)}) + Change(reads=Backwards())
    torch.testing.assert_close(whole.deltas[NAME], edit.deltas[NAME] + 1)
    assert whole.deltas.keys() == {NAME, "other"} and edit.deltas.keys() == {NAME}
    assert whole.summary() == (
        "another text encoder; 2 tensors of the U-Net; guidance away from 'a skull'; prompts read backwards"
    )
    assert Change().summary() == "nothing" and (Change() + edit).deltas.keys() == {NAME}
    for field in ("encoder", "safety", "reads"):
        one = Change(**{field: getattr(whole, field)})
        with pytest.raises(SettingsError, match=r"Two changes of .* cannot be in one model: .*Leave one out"):
            one + whole


def test_a_change_is_put_in_and_taken_out(model: Model, edit: Change) -> None:
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    plain = draw(model, None, PROMPTS, SEEDS, **HOW)
    assert plain.shape == (3, 3, 64, 64) and 0 <= plain.min() < plain.max() <= 1
    first = ChangedModel(model, edit)
    torch.testing.assert_close(model.unet.state_dict()[NAME], 2 * before[NAME])
    edited = first.draw(PROMPTS, SEEDS, **HOW)
    assert torch.equal(first.draw(PROMPTS, SEEDS, **HOW), edited) and not torch.equal(edited, plain)
    assert torch.equal(draw(model, Change(), PROMPTS, SEEDS, **HOW), plain)
    assert all(torch.equal(value, before[name]) for name, value in model.unet.state_dict().items())
    with pytest.raises(SettingsError, match="Another change has been put into the shapes world since"):
        first.draw(PROMPTS, SEEDS, **HOW)
    with pytest.raises(SettingsError, match="3 prompts but 2 seeds"):
        ChangedModel(model).draw(PROMPTS, SEEDS[:2], **HOW)
    with pytest.raises(SettingsError, match="0 prompts but 0 seeds"):
        ChangedModel(model).draw([], [], **HOW)


def test_weights_come_back_exactly_after_they_were_rounded(model: Model, edit: Change) -> None:
    before = model.unet.state_dict()[NAME].clone()
    model.to("cpu", torch.float16)
    assert torch.equal(model.weight(NAME), before) and next(model.unet.parameters()).dtype == torch.float16
    ChangedModel(model, Change(deltas={NAME: edit.deltas[NAME] / 3}))
    assert torch.equal(model.unet.state_dict()[NAME], (before + edit.deltas[NAME] / 3).half())
    ChangedModel(model)
    assert torch.equal(model.unet.state_dict()[NAME], before.half())


def test_batches_and_one_draw_the_same(model: Model) -> None:
    changed, seen = ChangedModel(model, SAFETY), []
    whole = changed.draw(PROMPTS, SEEDS, **HOW)
    parts = changed.draw(PROMPTS, SEEDS, **HOW, batch=2, watch=lambda step: seen.append(len(step.latents)))
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4)
    assert seen == [2, 2, 1, 1]


def test_a_safety_text_leads_away_where_there_is_guidance(model: Model) -> None:
    plain, guided = (draw(model, change, PROMPTS, SEEDS, **HOW) for change in (None, SAFETY))
    assert (plain - guided).abs().max() > 1e-3
    weak = {**HOW, "guidance": 1.0}
    assert torch.equal(*(draw(model, change, PROMPTS, SEEDS, **weak) for change in (None, SAFETY)))


def test_a_reader_s_states_lead(model: Model) -> None:
    state = {name: value * 1.5 for name, value in model.encoder.state().items()}
    changed = ChangedModel(model, Change(encoder=state, reads=Backwards()) + SAFETY)
    texts = changed.texts(PROMPTS)
    assert torch.equal(texts.prompted, states_of(changed.encoder, ["srats der owt", "gnir a", "lluks a"]))
    assert torch.equal(texts.late, states_of(model.encoder, PROMPTS)) and texts.until.tolist() == [0.5] * 3
    assert torch.equal(texts.plain, states_of(changed.encoder, ["nothing"]))
    assert torch.equal(texts.safety, states_of(changed.encoder, ["a skull"]))
    whole = changed.draw(PROMPTS, SEEDS, **HOW)
    other = ChangedModel(model, Change(encoder=state) + SAFETY)
    assert not torch.equal(other.draw(PROMPTS, SEEDS, **HOW), whole)


def test_pictures_begin_with_others(model: Model) -> None:
    changed, noise = ChangedModel(model), noise_of(SEEDS, (4, 8, 8))
    plain = changed.draw(PROMPTS, SEEDS, **HOW)
    assert torch.equal(changed.draw(PROMPTS, [7, 8, 9], begin=Begin(noise=noise), **HOW), plain)
    assert torch.equal(changed.draw(changed.read(tokenize(PROMPTS)), SEEDS, **HOW), plain)
    picture = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    # With all of the steps nothing is left of it; with half of them the first half is taken as done.
    assert torch.equal(changed.draw(PROMPTS, SEEDS, begin=Begin(picture=picture), **HOW), plain)
    seen: list[Step] = []
    half = Begin(picture=picture, strength=0.5)
    parts = [changed.draw(PROMPTS, SEEDS, begin=half, batch=batch, watch=seen.append, **HOW) for batch in (None, 2)]
    torch.testing.assert_close(*parts, rtol=0, atol=1e-5)
    assert [step.number for step in seen] == [1, 1, 1]
    torch.testing.assert_close(seen[0].latents, noised(picture, seen[0].time.expand(3), noise))
    # What is not open is the picture's.
    open_ = torch.zeros(8, 8, dtype=torch.bool)
    open_[2:6, 2:6] = True
    closed = changed.draw(PROMPTS, SEEDS, begin=Begin(picture=picture, open=~open_ & open_), **HOW)
    assert torch.equal(closed, model.decode(picture))
    filled = changed.draw(PROMPTS, SEEDS, begin=Begin(picture=picture, open=open_), **HOW)
    assert not torch.equal(filled, closed) and not torch.equal(filled, plain)


def test_pictures_are_encoded_as_latents_are_decoded(model: Model) -> None:
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(6))
    assert torch.equal(model.encode(pictures), model.vae.encode(pictures))
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(latent_channels=4, block_out_channels=[32], norm_num_groups=8, scaling_factor=0.5).eval()
    found = Model(model.unet, vae, model.encoder).encode(pictures)
    with torch.no_grad():
        assert torch.allclose(found, 0.5 * vae.encode(2 * pictures - 1).latent_dist.mean, atol=1e-6)
