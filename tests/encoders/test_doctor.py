"""Whether a file is SD 1.4's text encoder: sizes, layouts, NaN, and agreement with the known cosines."""

from __future__ import annotations

import json
import math
import time

import pytest
import torch
from command_line import run
from tiny_encoders import random_state

from sage_core.encoders import doctor
from sage_core.encoders.doctor import (
    LARGEST_DEVIATION,
    MEAN_DEVIATION,
    check_cosines,
    examine,
    known_cosines,
    quick_line,
)
from sage_core.encoders.layouts import VIT_L_14, EncoderConfig
from sage_core.encoders.names import layout_of
from sage_core.encoders.text_encoder import TextEncoder, save_encoder, state_hash
from sage_core.encoders.tokens import count_tokens, tokenize
from sage_core.errors import SettingsError

SMALL = EncoderConfig(layers=2, width=768, heads=12, mlp_width=64, vocabulary=49408, positions=77)
RIGHT = "text_model.final_layer_norm.bias"


@pytest.fixture(scope="module")
def small():
    return TextEncoder.from_state(random_state(SMALL), copy=False)


@pytest.fixture(scope="module")
def large():
    """An encoder of ViT-L/14's size with random weights."""
    return TextEncoder.from_state(random_state(VIT_L_14), copy=False)


def rows_of(cosines):
    """A row for each word, such that each pair has its cosine: the pairs form trees, so each word is placed once."""
    links: dict[str, list[tuple[str, float]]] = {}
    for first, second, cosine in cosines:
        links.setdefault(first, []).append((second, cosine))
        links.setdefault(second, []).append((first, cosine))
    rows: dict[str, torch.Tensor] = {}

    def axis():
        return torch.eye(len(links), dtype=torch.float64)[len(rows)]

    for start in links:
        waiting = [] if start in rows else [start]
        if waiting:
            rows[start] = axis()
        while waiting:
            word = waiting.pop()
            for other, cosine in links[word]:
                if other not in rows:
                    rows[other] = cosine * rows[word] + math.sqrt(1 - cosine**2) * axis()
                    waiting.append(other)
    return rows


@pytest.fixture
def embeds(monkeypatch):
    """Makes every encoder embed words at these cosines."""

    def install(cosines):
        rows = rows_of(cosines)
        monkeypatch.setattr(
            doctor, "embed", lambda encoder, words, **_: 240 * torch.stack([rows[word] for word in words]).float()
        )

    return install


def test_the_table_is_of_prompts_of_one_token_and_names_its_source():
    assert "clip-similarwords 0.0.4.1 (MIT" in doctor._FACTS["source"]
    assert doctor._FACTS["tolerance"] == LARGEST_DEVIATION
    assert len(known_cosines()) == 240
    assert set(count_tokens([word for pair in known_cosines() for word in pair[:2]])) == {1}
    assert known_cosines()[0][2] == 0.8501 and known_cosines()[-1][2] == 0.9644


def test_an_encoder_with_the_known_cosines_agrees(embeds, small):
    embeds(known_cosines())
    found = check_cosines(small)
    assert found.agrees and found.worst.deviation < 1e-6 and found.correlation > 0.999999
    assert found.sentence("a.pt").startswith("a.pt is SD 1.4's text encoder: 240 known cosines deviate by 0.0000")


@pytest.mark.parametrize(
    ("shift", "every", "agrees"),
    [
        (0.0008, 1, True),
        # As far as rounding may go, but all of them.
        (0.0015, 1, False),
        # A single one beyond rounding.
        (0.0031, 240, False),
        (0.0029, 240, True),
    ],
)
def test_both_thresholds_count(embeds, small, shift, every, agrees):
    known = known_cosines()
    embeds([(a, b, c + shift * (place % every == 0)) for place, (a, b, c) in enumerate(known)])
    found = check_cosines(small)
    assert found.agrees == agrees
    assert found.mean == pytest.approx(shift / every, rel=1e-3)
    assert found.worst.deviation == pytest.approx(shift, rel=1e-3)
    assert ("is SD 1.4's" in found.sentence("a")) == agrees
    assert f"({MEAN_DEVIATION:g} and {LARGEST_DEVIATION:g})" in found.sentence("a")


def test_a_fine_tune_is_told_from_a_stranger(embeds, small):
    draw = torch.Generator().manual_seed(0)
    noise = 0.01 * torch.randn(240, generator=draw, dtype=torch.float64)
    embeds([(a, b, c + n) for (a, b, c), n in zip(known_cosines(), noise.tolist(), strict=True)])
    sentence = check_cosines(small).sentence("a")
    assert "; its cosines go with it, as those of a fine-tune or an aligned version do (r = 0." in sentence
    shuffled = torch.randperm(240, generator=draw).tolist()
    embeds([(a, b, known_cosines()[s][2]) for (a, b, _), s in zip(known_cosines(), shuffled, strict=True)])
    assert "its cosines do not go with it (r = " in check_cosines(small).sentence("a")


def test_cosines_are_those_of_the_flattened_embeddings_of_this_encoder(small):
    found = check_cosines(small, pairs=3)
    assert [fact.known for fact in found.facts] == [known_cosines()[place][2] for place in (0, 120, 239)]
    for fact in found.facts:
        with torch.no_grad():
            x, y = small(tokenize([fact.first, fact.second])).flatten(1).double()
        assert fact.found == pytest.approx(sum(a * b for a, b in zip(x.tolist(), y.tolist(), strict=True)) / (
            math.sqrt(sum(a * a for a in x.tolist())) * math.sqrt(sum(b * b for b in y.tolist()))
        ), abs=1e-9)  # fmt: skip
    assert not found.agrees


def test_the_short_check_refuses_random_weights_within_a_few_seconds(large, small):
    start = time.monotonic()
    line = quick_line("random.pt", large.state())
    # About one second where nothing else runs.
    assert time.monotonic() - start < 20
    assert line.startswith("random.pt is not SD 1.4's text encoder: 2 of 240 known cosines deviate by 0.")
    assert quick_line("small.pt", small.state()) == (
        "small.pt is not SD 1.4's text encoder: layers 2 (SD 1.4: 12), mlp width 64 (SD 1.4: 3072); "
        "its embeddings were not compared."
    )


def test_the_command_says_what_a_file_holds(capsys, tmp_path, large, embeds):
    path = tmp_path / "large.safetensors"
    save_encoder(path, {name: tensor.half() for name, tensor in large.state().items()}, {"method": "sage"})
    embeds(known_cosines())
    code, out, _ = run(capsys, "doctor", path, "--json", "--device", "cpu", "--report", tmp_path / "r.json")
    found = json.loads(out)
    assert code == 0 and found["is_sd14"] and found == json.loads((tmp_path / "r.json").read_text())
    assert (found["layers"], found["width"], found["heads"], found["vocabulary"]) == (12, 768, 12, 49408)
    assert found["dtypes"] == {"float16": 196} and found["parameters"] == 123_060_480
    assert found["layout"] == "transformers' names after `text_model.`" and found["not_finite"] == {}
    assert found["agreement"]["pairs"] == 240 and found["metadata"]["method"] == "sage"
    assert found["verdict"].startswith("large.safetensors is SD 1.4's")
    assert found["verdict"].endswith("within fp16 rounding (0.001 and 0.003).")


def test_another_size_is_told_without_embedding(capsys, tmp_path, small):
    save_encoder(tmp_path / "small.safetensors", small.state(), {})
    code, out, _ = run(capsys, "doctor", tmp_path / "small.safetensors", "--device", "cpu")
    assert code == 3
    assert "| size | not that of ViT-L/14; " in out and "| width, heads, MLP | 768, 12 (from the width), 64 |" in out
    assert out.endswith("layers 2 (SD 1.4: 12), mlp width 64 (SD 1.4: 3072); its embeddings were not compared.\n")
    found = examine(tmp_path / "small.safetensors")
    assert found.agreement is None and found.sha256 == state_hash(small.state())


def test_nan_is_told_and_not_an_error(capsys, tmp_path, small):
    state = small.state() | {name: small.state()[name].clone() for name in (RIGHT, RIGHT.replace("bias", "weight"))}
    state[RIGHT][3], state["text_model.final_layer_norm.weight"][:2] = math.nan, math.inf
    torch.save({"model_state_dict": state, "epoch": 2}, tmp_path / "nan.pt")
    code, out, _ = run(capsys, "doctor", tmp_path / "nan.pt", "--json", "--device", "cpu")
    found = json.loads(out)
    assert code == 3 and not found["is_sd14"] and found["agreement"] is None and found["sha256"] is None
    assert found["not_finite"] == {"text_model.final_layer_norm.weight": 2, RIGHT: 1}
    assert found["verdict"] == (
        "nan.pt is damaged: 3 values in text_model.final_layer_norm.weight and 1 more tensors are NaN or infinite; "
        "nothing was compared."
    )
    assert found["metadata"] == {"epoch": "2"}


CHECKPOINT = "cond_stage_model.transformer.text_model."


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("", "transformers' names, without a prefix"),
        ("module.text_model.", "transformers' names after `module.text_model.`"),
        (CHECKPOINT, f"an SD 1.x checkpoint, transformers' names after `{CHECKPOINT}`"),
    ],
)
def test_layouts_in_words(prefix, words):
    names = [prefix + name.removeprefix("text_model.") for name in SMALL.shapes()]
    assert layout_of(names, "a file") == words
    openai = ["text.token_embedding.weight", "text.ln_final.weight"]
    assert layout_of(openai, "a file") == "OpenAI's names after `text.`"


def test_one_pair_is_too_few(small):
    with pytest.raises(SettingsError, match="pairs is 1; expected 2 or more"):
        check_cosines(small, pairs=1)
