"""LoRAs of an alignment: against a plain singular value decomposition, and back to the aligned encoder."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_encoders import random_state

from sage_core.encoders.lora import apply_lora, extract_lora, save_lora
from sage_core.encoders.text_encoder import TextEncoder, embed
from sage_core.errors import EncoderError, SettingsError

MATRIX = "text_model.encoder.layers.1.mlp.fc1.weight"
KEY = "lora_te_text_model_encoder_layers_1_mlp_fc1"


@pytest.fixture(scope="module")
def base():
    return random_state(scale=0.2)


def is_matrix(name):
    return ".layers." in name and "layer_norm" not in name and name.endswith(".weight")


@pytest.fixture(scope="module")
def aligned(base):
    """A change of the layers' matrices alone, which a LoRA of full rank can hold."""
    change = random_state(seed=1, scale=0.02)
    return {name: tensor + change[name] * is_matrix(name) for name, tensor in base.items()}


def change_of(base, aligned, name):
    return aligned[name].double() - base[name].double()


def relative_error(base, aligned, state):
    return max(
        ((state[name] - aligned[name]).norm() / (aligned[name] - base[name]).norm()).item()
        for name in base
        if is_matrix(name)
    )


@pytest.mark.parametrize("limit", [{"rank": 96}, {"energy": 1.0}])
def test_full_rank_is_the_aligned_encoder_to_fp16(base, aligned, limit):
    lora = extract_lora(base, aligned, **limit)
    restored = apply_lora(base, lora.tensors)
    assert lora.kept == pytest.approx(1)
    assert set(lora.ranks.values()) == {64}
    assert relative_error(base, aligned, restored) < 1e-3
    half = apply_lora(base, lora.tensors, 0.5)[MATRIX] - base[MATRIX]
    assert torch.allclose(2 * half, restored[MATRIX] - base[MATRIX], atol=1e-6)
    assert all(torch.equal(restored[name], base[name]) for name in base if not is_matrix(name))
    prompts = ["two red squares", "a photo of a cat on a mat", ""]
    encoders = (TextEncoder.from_state(state) for state in (aligned, restored))
    first, second = (embed(encoder, prompts) for encoder in encoders)
    assert torch.nn.functional.cosine_similarity(first, second).min() > 1 - 1e-6


@pytest.mark.parametrize("name", [MATRIX, MATRIX.replace("fc1", "fc2"), MATRIX.replace("mlp.fc1", "self_attn.q_proj")])
def test_a_low_rank_is_the_best_one(base, aligned, name):
    lora = extract_lora(base, aligned, rank=5)
    spectra = [torch.linalg.svdvals(change_of(base, aligned, name)) ** 2 for name in base if is_matrix(name)]
    expected = sum(values[:5].sum() for values in spectra) / sum(values.sum() for values in spectra)
    assert lora.kept == pytest.approx(expected.item(), rel=1e-6)
    found = apply_lora(base, lora.tensors)[name].double() - base[name].double()
    left, values, right = torch.linalg.svd(change_of(base, aligned, name), full_matrices=False)
    best = (left[:, :5] * values[:5]) @ right[:5]
    assert torch.linalg.matrix_rank(found, rtol=1e-3) == 5
    assert (found - best).norm() / best.norm() < 1e-3


def test_energy_is_reached_with_fewer_numbers_than_by_an_equal_rank(base):
    """One matrix changes in one direction, the others in all: each gets what it needs."""
    aligned = {name: tensor + random_state(seed=2, scale=0.01)[name] * is_matrix(name) for name, tensor in base.items()}
    aligned[MATRIX] = base[MATRIX] + torch.outer(torch.randn(96), torch.randn(64))
    lora = extract_lora(base, aligned, energy=0.99)
    equal = next(found for rank in range(1, 65) if (found := extract_lora(base, aligned, rank=rank)).kept >= 0.99)
    assert lora.kept >= 0.99
    assert lora.ranks[MATRIX] == 1
    assert lora.bytes <= equal.bytes
    fewer = extract_lora(base, aligned, energy=0.9)
    assert fewer.ranks == {MATRIX: 1}


def test_the_file_has_the_names_and_shapes_that_loaders_look_for(base, aligned, tmp_path):
    path = tmp_path / "lora.safetensors"
    save_lora(path, extract_lora(base, aligned, rank=4), {"base": "abc"})
    tensors = load_file(path)
    assert tensors[f"{KEY}.lora_down.weight"].shape == (4, 64)
    assert tensors[f"{KEY}.lora_up.weight"].shape == (96, 4)
    assert tensors[f"{KEY}.alpha"].item() == 4
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    parts = {name.split("layers_0_")[1].split(".")[0] for name in tensors if "layers_0_" in name}
    assert parts == {*(f"self_attn_{part}_proj" for part in ("q", "k", "v", "out")), "mlp_fc1", "mlp_fc2"}
    with safe_open(path, "pt") as file:
        assert file.metadata()["base"] == "abc"
        assert file.metadata()["ss_network_module"] == "networks.lora"


def test_what_a_lora_cannot_hold_is_reported_as_its_share(base, aligned):
    changed = dict(aligned)
    changed["text_model.final_layer_norm.bias"] = base["text_model.final_layer_norm.bias"] + 1
    changed["text_model.embeddings.token_embedding.weight"] = (
        base["text_model.embeddings.token_embedding.weight"] + 0.001
    )
    lora = extract_lora(base, changed, rank=4)
    inside = sum(change_of(base, changed, name).square().sum().item() for name in base if is_matrix(name))
    total = inside + 64 + 49408 * 64 * 1e-6
    assert lora.left_out == {
        "embeddings": pytest.approx(49408 * 64 * 1e-6 / total, rel=1e-3),
        "layer norms": pytest.approx(64 / total, rel=1e-3),
        "biases": 0,
    }
    assert "layer norms" in lora.summary()


def test_on_apple_gpus_the_cpu_decomposes(base, aligned):
    """There is none here: a matrix that went there would end in an error."""
    lora, expected = (extract_lora(base, aligned, rank=4, device=device) for device in ("mps", "cpu"))
    assert all(torch.equal(lora.tensors[name], tensor) for name, tensor in expected.tensors.items())


def test_progress_counts_matrices_and_may_stop(base, aligned):
    seen = []
    extract_lora(base, aligned, rank=1, on_matrix=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 12) for done in range(1, 13)]


@pytest.mark.parametrize("wrong", [{}, {"rank": 4, "energy": 0.9}, {"rank": 0}, {"energy": 0.0}, {"energy": 1.1}])
def test_limits_that_make_no_sense(base, aligned, wrong):
    with pytest.raises(SettingsError, match=r"rank|energy"):
        extract_lora(base, aligned, **wrong)


def test_encoders_that_give_no_lora(base, aligned):
    with pytest.raises(EncoderError, match="same weights"):
        extract_lora(base, dict(base), rank=4)
    with pytest.raises(EncoderError, match=r"fc1\.weight is \(96, 64\) in the base and \(95, 64\)"):
        extract_lora(base, aligned | {MATRIX: aligned[MATRIX][1:]}, rank=4)
    with pytest.raises(EncoderError, match="missing"):
        extract_lora(base, {name: tensor for name, tensor in aligned.items() if name != MATRIX}, rank=4)


@pytest.mark.parametrize("size", [1e8, 1e9])
def test_large_changes_are_held_without_infinities(base, size):
    aligned = base | {MATRIX: base[MATRIX] + size * torch.outer(torch.full((96,), 0.1), torch.full((64,), 0.1))}
    lora = extract_lora(base, aligned, rank=4)
    assert all(tensor.isfinite().all() for tensor in lora.tensors.values())
    found, expected = apply_lora(base, lora.tensors)[MATRIX] - base[MATRIX], aligned[MATRIX] - base[MATRIX]
    assert (found - expected).norm() / expected.norm() < 2e-3


@pytest.mark.parametrize("size", [1e10, 1e15, 1e30])
def test_changes_that_fp16_cannot_hold_are_refused(base, size):
    aligned = base | {MATRIX: base[MATRIX] + size * torch.outer(torch.ones(96), torch.ones(64))}
    with pytest.raises(EncoderError, match=r"fc1\.weight changes by .*e\+.* holds 4\.3e\+09 at most.*diverged"):
        extract_lora(base, aligned, rank=4)
