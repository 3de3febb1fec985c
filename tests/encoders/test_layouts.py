"""Every layout of text encoder file reads back to the same canonical state, and every wrong file says what is wrong."""

from __future__ import annotations

import argparse
import collections
import pathlib
import pickle

import numpy as np
import pytest
import torch
from malformed import Hostile
from safetensors.torch import save_file
from tiny_encoders import TINY, assert_same, random_state

from sage_core.encoders.layouts import EncoderConfig, canonical_state, read_encoder, require_positions, require_sd1
from sage_core.errors import EncoderError

OPENAI_PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def prefixed(state, prefix, keep_root=True):
    return {prefix + (name if keep_root else name.removeprefix("text_model.")): value for name, value in state.items()}


def openai(state, prefix=""):
    """The same weights under OpenAI's names, written down independently of the reader."""
    out = {
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "ln_final.weight": state["text_model.final_layer_norm.weight"],
        "ln_final.bias": state["text_model.final_layer_norm.bias"],
        "text_projection": torch.zeros(16, 16),
    }
    for number in range(TINY.layers):
        old, new = f"text_model.encoder.layers.{number}.", f"transformer.resblocks.{number}."
        for kind in ("weight", "bias"):
            for ours, theirs in OPENAI_PARTS.items():
                out[f"{new}{theirs}.{kind}"] = state[f"{old}{ours}.{kind}"]
            fused = [state[f"{old}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            out[f"{new}attn.in_proj_{kind}"] = torch.cat(fused)
    return prefixed(out, prefix)


UNWANTED = {
    "text_model.embeddings.position_ids": torch.arange(77)[None],
    "logit_scale": torch.tensor(float("nan")),
    "text_projection.weight": torch.full((16, 16), float("nan")),
    "vision_model.embeddings.class_embedding": torch.zeros(4),
    "visual.transformer.resblocks.0.ln_1.weight": torch.zeros(4),
    "visual_projection.weight": torch.zeros(4, 4),
}
CHECKPOINT_REST = {
    "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4),
    "first_stage_model.decoder.conv_in.weight": torch.zeros(4, 4),
    "embedding_manager.embedder.transformer.text_model.embeddings.token_embedding.weight": torch.zeros(50, 16),
}
STATE = random_state(TINY)
DICTS = {
    "canonical": STATE,
    "clip model": STATE | UNWANTED,
    "transformers 5": prefixed(STATE, "", keep_root=False),
    "data parallel": prefixed(STATE, "module."),
    "sd checkpoint": prefixed(STATE, "cond_stage_model.transformer.") | CHECKPOINT_REST,
    "older sd checkpoint": prefixed(STATE, "cond_stage_model.transformer.", keep_root=False) | CHECKPOINT_REST,
    "openai": openai(STATE) | UNWANTED,
    "open_clip text tower": openai(STATE, "text."),
    "open_clip data parallel": openai(STATE, "module."),
}


@pytest.mark.parametrize("name", DICTS)
def test_layout_as_safetensors_and_pickle(tmp_path, name):
    save_file(DICTS[name], tmp_path / "a.safetensors")
    torch.save(DICTS[name], tmp_path / "b.pt")
    for file in ("a.safetensors", "b.pt"):
        assert_same(read_encoder(tmp_path / file)[0], random_state(TINY))


@pytest.mark.parametrize("name", ["a.sft", "a.pt", "a.ckpt", "a"])
def test_safetensors_under_another_suffix(tmp_path, name):
    save_file(random_state(TINY), tmp_path / name, metadata={"method": "SAGE"})
    state, metadata = read_encoder(tmp_path / name)
    assert_same(state, random_state(TINY))
    assert metadata == {"method": "SAGE"}
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(EncoderError, match=f"{name} is not a whole safetensors file; it may be cut short"):
        read_encoder(tmp_path / name)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("inside", ["model_state_dict", "model state_dict"])
def test_nested_pickle_with_training_leftovers(tmp_path, new_format, inside):
    state = collections.OrderedDict(random_state(TINY))
    first, *second = inside.split()
    content = {
        "epoch": 2,
        first: dict.fromkeys(second, state) or state,
        "optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-5}]},
        "args": {"lr": 1e-5, "out": pathlib.PurePosixPath("x").name, "none": None},
        "namespace": argparse.Namespace(lr=1e-5),
        "path": pathlib.Path("x"),
        "loss": np.float64(0.25),
        "history": np.array([[0.5, 0.25]], np.float32),
    }
    content["args"]["itself"] = content
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=new_format)
    state, metadata = read_encoder(tmp_path / "a.pt")
    assert_same(state, random_state(TINY))
    assert metadata == {"epoch": "2"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_stored_precision_is_kept(tmp_path, dtype):
    stored = {name: value.to(dtype) for name, value in random_state(TINY).items()}
    save_file(stored, tmp_path / "a.safetensors")
    assert_same(read_encoder(tmp_path / "a.safetensors")[0], stored)


@pytest.mark.parametrize("folder", ["", "text_encoder"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_folders(tmp_path, folder, name):
    target = tmp_path / folder / name
    target.parent.mkdir(exist_ok=True)
    (save_file if name.endswith("safetensors") else torch.save)(random_state(TINY), target)
    assert_same(read_encoder(tmp_path)[0], random_state(TINY))


def test_folder_written_by_transformers(tmp_path):
    from transformers import CLIPTextConfig, CLIPTextModel

    settings = CLIPTextConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=1
    )
    model = CLIPTextModel(settings)
    model.save_pretrained(tmp_path)
    assert_same(read_encoder(tmp_path)[0], canonical_state(model.state_dict()))


def test_file_may_be_replaced_after_reading(tmp_path):
    for name, save in (("a.safetensors", save_file), ("a.pt", torch.save)):
        save(random_state(TINY), tmp_path / name)
        state, _ = read_encoder(tmp_path / name)
        # In place, so that a tensor still mapped from the file would change with it.
        with open(tmp_path / name, "r+b") as file:
            file.write(b"\xff" * (tmp_path / name).stat().st_size)
        assert_same(state, random_state(TINY))


def test_config_is_inferred():
    assert EncoderConfig.of(random_state(TINY)) == TINY
    big = EncoderConfig(layers=1, width=192, heads=3, mlp_width=8, vocabulary=9, positions=5)
    assert EncoderConfig.of(random_state(big)) == big


@pytest.mark.parametrize(("width", "seems"), [(1024, "SD 2.x"), (1280, "SDXL"), (512, "width 512")])
def test_only_width_768_is_sd1(width, seems):
    with pytest.raises(EncoderError, match=f"a.pt.*{seems}.*768"):
        require_sd1(EncoderConfig(1, width, width // 64, 4, 49408, 77), "a.pt")
    require_sd1(EncoderConfig(1, 768, 12, 4, 49408, 77), "a.pt")


@pytest.mark.parametrize("positions", [64, 248])
def test_only_77_positions_are_sd1(positions):
    with pytest.raises(EncoderError, match=rf"a\.pt holds a text encoder of {positions} positions.*needs 77"):
        require_sd1(EncoderConfig(1, 768, 12, 4, 5, positions), "a.pt")


@pytest.mark.parametrize("form", ["torch.save", "old torch.save", "plain pickle", "plain pickle, protocol 0"])
def test_malicious_pickle_is_refused_and_not_run(tmp_path, form):
    file, trace = tmp_path / "a.pt", tmp_path / "it_ran"
    content = {"model_state_dict": random_state(TINY), "x": Hostile(trace)}
    if form == "torch.save":
        torch.save(content, file)
    elif form == "old torch.save":
        torch.save(content, file, _use_new_zipfile_serialization=False)
    else:
        file.write_bytes(pickle.dumps(Hostile(trace), protocol=0 if form.endswith("0") else None))
    with pytest.raises(EncoderError, match=r"a\.pt is a pickle that asks to run or build.*nothing of it was run"):
        read_encoder(file)
    assert not trace.exists()


@pytest.mark.parametrize("kept", [0, 1, 8, 100, 0.5, -1])
@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "old.pt"])
def test_cut_files(tmp_path, name, kept):
    file = tmp_path / name
    if name == "a.safetensors":
        save_file(random_state(TINY), file)
    else:
        torch.save(random_state(TINY), file, _use_new_zipfile_serialization=name == "a.pt")
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(EncoderError, match=f"{name}.*(cut short|damaged)"):
        read_encoder(file)


@pytest.mark.parametrize(
    ("names", "seems"),
    [
        (["shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"], "T5"),
        (["lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight"], "LoRA"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "diffusion model without"),
        (["model.layers.0.self_attn.q_proj.weight"], "language model"),
        (["vision_model.embeddings.class_embedding"], "image encoder"),
        (["decoder.up.0.block.0.norm1.weight"], "VAE"),
        (["foo", "bar"], "bar, foo"),
    ],
)
def test_other_models_are_named(tmp_path, names, seems):
    save_file({name: torch.zeros(2, 2) for name in names}, tmp_path / "a.safetensors")
    with pytest.raises(EncoderError, match=f"not a CLIP text encoder; .*{seems}.*Expected"):
        read_encoder(tmp_path / "a.safetensors")


def test_two_encoders_are_refused(tmp_path):
    sdxl = prefixed(random_state(TINY), "conditioner.embedders.0.transformer.")
    sdxl |= openai(random_state(TINY), "conditioner.embedders.1.model.")
    with pytest.raises(EncoderError, match=r"2 text encoders.*SDXL"):
        canonical_state(sdxl)
    (tmp_path / "text_encoder_2").mkdir()
    with pytest.raises(EncoderError, match=r"two text encoders.*SDXL"):
        read_encoder(tmp_path)


def broken(name, change):
    state = random_state(TINY)
    value = change(state.pop("text_model." + name))
    return state if value is None else state | {"text_model." + name: value}


def with_value(value):
    def change(tensor):
        tensor.flatten()[3] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (broken("encoder.layers.1.mlp.fc2.bias", lambda _: None), r"incomplete.*layers\.1\.mlp\.fc2\.bias missing"),
        (broken("encoder.layers.0.mlp.fc1.weight", lambda _: None), r"incomplete.*layers\.0\.mlp\.fc1\.weight"),
        (broken("embeddings.token_embedding.weight", lambda x: x[0]), r"incomplete.*token_embedding"),
        (broken("final_layer_norm.bias", lambda x: x[:-1]), r"final_layer_norm\.bias has shape \(15,\).*\(16,\)"),
        (broken("final_layer_norm.bias", lambda x: x.to(torch.int8)), r"final_layer_norm\.bias.*int8.*expected"),
        (broken("final_layer_norm.bias", with_value(float("nan"))), r"final_layer_norm\.bias holds 1 .*NaN"),
        (broken("encoder.layers.1.mlp.fc1.weight", with_value(float("-inf"))), r"fc1\.weight holds 1 .*infinite"),
    ],
)
def test_unusable_weights_are_named(state, message):
    with pytest.raises(EncoderError, match="my file.*" + message):
        canonical_state(state, "my file")


def test_large_but_finite_weights_pass():
    state = broken("encoder.layers.1.mlp.fc1.weight", lambda x: torch.full_like(x, 3e38))
    assert canonical_state(state)


def test_missing_files(tmp_path):
    with pytest.raises(EncoderError, match="nowhere does not exist"):
        read_encoder(tmp_path / "nowhere")
    with pytest.raises(EncoderError, match=r"holds no weights: expected model\.safetensors"):
        read_encoder(tmp_path)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(EncoderError, match="holds a list, expected a dict"):
        read_encoder(tmp_path / "list.pt")


def test_torchscript_archive_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "a.pt")
    with pytest.raises(EncoderError, match=r"TorchScript.*none of it was run"):
        read_encoder(tmp_path / "a.pt")


FUSED = "transformer.resblocks.0.attn.in_proj_weight"


@pytest.mark.parametrize("shape", [(), (0,), (47, 16)])
def test_queries_keys_and_values_that_cannot_be_parted(shape):
    with pytest.raises(EncoderError, match=r"in_proj_weight has shape|fc1\.weight|in_proj|q_proj"):
        canonical_state(openai(random_state(TINY)) | {FUSED: torch.zeros(shape)}, "my file")


def test_a_vocabulary_without_all_tokens_is_refused():
    with pytest.raises(EncoderError, match=r"a\.pt holds a text encoder of 49,407 tokens; .* 49,408"):
        require_sd1(EncoderConfig(1, 768, 12, 4, 49407, 77), "a.pt")
    with pytest.raises(EncoderError, match=r"a\.pt holds a text encoder of 50 tokens"):
        require_positions(EncoderConfig(1, 64, 1, 4, 50, 77), "a.pt")
