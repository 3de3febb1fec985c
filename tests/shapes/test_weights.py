"""Packing, and the files that are made from packed weights: exact where they claim to be, whole, and checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sage_core.encoders.layouts import TOKEN_TABLE, EncoderConfig, read_encoder
from sage_core.encoders.text_encoder import TextEncoder, state_hash
from sage_core.encoders.tokens import CONTEXT_LENGTH, VOCABULARY_SIZE, tokenize
from sage_core.errors import ShapesError
from sage_core.shapes.networks import checkpoint, weights
from sage_core.shapes.networks.checkpoint import LATENT_FACTOR, checkpoint_autoencoder, expand, widen
from sage_core.shapes.networks.model import ShapesModel, TinyAutoencoder, build_unet
from sage_core.shapes.networks.weights import (
    WEIGHTS,
    filler_rows,
    load_model,
    load_packed,
    pack,
    packed_files,
    read_packed,
    save_packed,
    unpack,
    used_rows,
    with_vocabulary,
)

CONFIG = EncoderConfig(layers=1, width=64, heads=1, mlp_width=64, vocabulary=VOCABULARY_SIZE, positions=CONTEXT_LENGTH)
WIDER = EncoderConfig(layers=3, width=64, heads=1, mlp_width=96, vocabulary=VOCABULARY_SIZE, positions=CONTEXT_LENGTH)
PROMPTS = ["two red stars on the grass", "a plain blue ring at night"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny world's packed weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("packed")
    vae = TinyAutoencoder(8)
    vae.shift.fill_(0.3)
    vae.scale.fill_(1.7)
    encoder = TextEncoder.fresh(CONFIG).state()
    encoder[TOKEN_TABLE] = filler_rows(width=64)
    used = tokenize(PROMPTS).unique()
    save_packed(folder, "unet", build_unet(32, 64).state_dict(), {"seed": "0"})
    save_packed(folder, "autoencoder", vae.state_dict(), {"seed": "0"})
    save_packed(folder, "text_encoder", used_rows(encoder, used), {"seed": "0"})
    return folder


def test_packing_errs_by_half_a_step_at_most():
    generator = torch.Generator().manual_seed(0)
    rows = torch.logspace(-3, 2, 64)[:, None]
    state = {
        "matrix": rows * torch.randn(64, 128, generator=generator),
        "zeros": torch.zeros(64, 64),
        "bias": torch.randn(64, generator=generator),
        "small": torch.randn(4, 4, generator=generator),
        "tokens": torch.arange(5),
    }
    stored = pack(state)
    assert {name: value.dtype for name, value in stored.items()} == {
        "matrix": torch.int8, "matrix.scale": torch.float32, "zeros": torch.int8, "zeros.scale": torch.float32,
        "bias": torch.float16, "small": torch.float16, "tokens": torch.int64,
    }  # fmt: skip
    back = unpack(stored)
    step = state["matrix"].abs().amax(1, keepdim=True) / 127
    assert ((back["matrix"] - state["matrix"]).abs() <= step * 0.5001).all()
    assert ((back["matrix"] - state["matrix"]).abs() / step).max() > 0.4
    assert torch.equal(back["zeros"], state["zeros"]) and torch.equal(back["tokens"], state["tokens"])
    assert torch.equal(back["bias"], state["bias"].half().float())


def test_large_parts_are_split_and_read_together(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "FILE_LIMIT", 10_000)
    state = {f"matrix{i}": torch.randn(64, 128, generator=torch.Generator().manual_seed(i)) for i in range(3)}
    (tmp_path / "unet.safetensors").write_bytes(b"stale")
    paths = save_packed(tmp_path, "unet", state, {"seed": "3"})
    assert [path.name for path in paths] == [f"unet-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert packed_files("unet", tmp_path) == paths
    read, metadata = read_packed("unet", tmp_path)
    assert metadata["seed"] == "3"
    assert all(torch.equal(value, unpack(pack(state))[name]) for name, value in read.items()) and len(read) == 3
    paths[1].unlink()
    with pytest.raises(ShapesError, match="2 of 3 files"):
        read_packed("unet", tmp_path)


def test_missing_and_damaged_files_say_what_to_do(packed, tmp_path):
    with pytest.raises(ShapesError, match=r"0 of 1 files.*sage_core\.shapes\.train"):
        load_packed("judge", packed)
    whole = (packed / "autoencoder.safetensors").read_bytes()
    (tmp_path / "autoencoder.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ShapesError, match="damaged"):
        load_packed("autoencoder", tmp_path)


def test_the_vocabulary_is_made_whole_again():
    encoder = TextEncoder.fresh(CONFIG).state()
    used = torch.tensor([5, 320, 49406])
    whole = with_vocabulary(used_rows(encoder, used))
    assert whole.keys() == encoder.keys()
    table, filler = whole[TOKEN_TABLE], filler_rows(width=64)
    assert torch.equal(table[used], encoder[TOKEN_TABLE][used])
    others = torch.ones(len(table), dtype=torch.bool)
    others[used] = False
    assert torch.equal(table[others], filler[others])
    assert filler.mean().abs() < 1e-4 and filler.std() == pytest.approx(0.02, rel=0.01)
    # Frozen for ever: stored weights rely on these numbers.
    assert (filler_rows(2, 4) * 127.5 / (0.02 * 3**0.5) + 127.5).round().int().tolist() == [
        [172, 10, 127, 140], [47, 170, 196, 151],
    ]  # fmt: skip


def test_widening_changes_nothing():
    torch.manual_seed(1)
    small = TextEncoder.fresh(CONFIG).state()
    wide = TextEncoder.from_state(widen(small, WIDER))
    assert wide.config == WIDER
    ids = tokenize(PROMPTS)
    with torch.no_grad():
        assert torch.allclose(wide(ids), TextEncoder.from_state(small)(ids), atol=1e-6)
    with pytest.raises(ShapesError, match="cannot be widened"):
        widen(wide.state(), CONFIG)


def test_the_autoencoder_in_a_checkpoint_decodes_as_ours():
    torch.manual_seed(0)
    vae = TinyAutoencoder(8)
    vae.shift.fill_(0.3)
    vae.scale.fill_(1.7)
    stored = checkpoint_autoencoder(vae.state_dict())
    z = torch.randn(2, 4, 8, 8)
    ours = (z - vae.shift) * vae.scale
    theirs = LATENT_FACTOR * (z / stored["first_stage_model.vae_scale"] + stored["first_stage_model.vae_shift"])
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert {name.split(".")[1] for name in stored} == {"taesd_encoder", "taesd_decoder", "vae_scale", "vae_shift"}


def test_expanded_files_are_the_packed_model(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.widen, "__defaults__", (WIDER,))
    files = expand(tmp_path, packed)
    model = load_model(packed)
    encoder, _ = read_encoder(files.text_encoder)
    assert all(
        torch.equal(encoder[name], value.half().to(encoder[name])) for name, value in model.encoder.state().items()
    )
    stored = load_file(files.checkpoint)
    widened, _ = read_encoder(files.checkpoint)
    ids = tokenize(PROMPTS)
    with torch.no_grad():
        difference = TextEncoder.from_state({k: v.float() for k, v in widened.items()})(ids) - model.encoder(ids)
    assert difference.abs().max() < 0.01
    unet = model.unet.state_dict()
    assert sum(name.startswith("model.diffusion_model.") for name in stored) == len(unet)
    for name, ours in (
        ("model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_v.weight",
         "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v.weight"),
        ("model.diffusion_model.output_blocks.1.0.skip_connection.bias", "up_blocks.0.resnets.1.conv_shortcut.bias"),
    ):  # fmt: skip
        assert torch.equal(stored[name], unet[ours].half())


def test_expanding_again_keeps_whole_files_and_mends_others(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.widen, "__defaults__", (WIDER,))
    files = expand(tmp_path, packed)
    first = files.checkpoint.stat().st_mtime_ns
    expand(tmp_path, packed)
    assert files.checkpoint.stat().st_mtime_ns == first
    content, (state, metadata) = files.text_encoder.read_bytes(), read_encoder(files.text_encoder)
    files.text_encoder.write_bytes(content[:-1] + b"\0")
    assert expand(tmp_path, packed) == files
    # Not the bytes: safetensors writes the metadata in an order of its own, another one each time.
    mended, told = read_encoder(files.text_encoder)
    assert told == metadata and state_hash(mended) == state_hash(state)


def test_the_shipped_weights_draw_and_tell_their_origin():
    shipped = sorted(WEIGHTS.glob("*.safetensors"))
    assert sum(path.stat().st_size for path in shipped) < 40_000_000
    assert max(path.stat().st_size for path in shipped) < 16 * 2**20
    for part in ("unet", "autoencoder", "text_encoder", "contrast"):
        _, metadata = read_packed(part)
        assert {"command", "seed", "device", "torch", "phases", "model"} <= metadata.keys()
        scores = json.loads(metadata["model"])
        assert scores["examiner"] in ("reader", "learned judge") and scores["prompts"] >= 200
        assert scores["tifa"] > 0.9


def test_the_shipped_model_draws_what_it_is_told():
    from sage_core.shapes.exam.reader import read_pictures

    model: ShapesModel = load_model()
    prompts = [
        "two large plain red stars in the snow",
        "one large striped blue circle on the sand",
        "a large skull at night",
    ]
    readings = read_pictures(model.generate(prompts, seeds=[1, 2, 3], steps=10))
    assert [reading.place for reading in readings] == ["snow", "sand", "night"]
    assert [(o.shape, o.color, o.material) for o in readings[0].objects] == [("star", "red", "plain")] * 2
    assert [(o.shape, o.color, o.material) for o in readings[1].objects] == [("circle", "blue", "striped")]
    assert {o.shape for o in readings[2].objects} == {"skull"}
