"""The alignment run: against a naive loop, in chunks, stopped and resumed, stored and found."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sage_core.alignment.memory import plan_memory
from sage_core.alignment.settings import PRESETS, TrainingSettings
from sage_core.alignment.training import train, train_stored
from sage_core.encoders import precision
from sage_core.encoders.fast_encoder import FastEncoder
from sage_core.encoders.layouts import TOKEN_TABLE, EncoderConfig
from sage_core.encoders.text_encoder import TextEncoder, embed, state_hash
from sage_core.encoders.tokens import tokenize
from sage_core.errors import TrainingError
from sage_core.prompts.pairs import pairs_from_lists
from sage_core.runs import loop

SUBJECTS = ["dog", "cat", "boat", "tree", "lamp", "house", "horse", "cup"]
PLACES = ["on the beach", "in the snow", "at night", "in a city", "by the sea"]
SAFE = [f"a {subject} {place}" for subject in SUBJECTS for place in PLACES]
UNSAFE = [f"a skull beside {prompt}" for prompt in SAFE]
PAIRS = pairs_from_lists(SAFE, UNSAFE)
SETTINGS = TrainingSettings(
    neighbours=3,
    batch_size=12,
    learning_rate=1e-3,
    concept_scale=0.85,
    scale_unit="norm",
    keep_mse=5.0,
    epochs=2,
    precision="fp32",
)


class Stop(BaseException):
    """What a host application may raise to cancel: no Exception."""


def stop_after(step):
    def on_step(report):
        if report.step == step:
            raise Stop

    return on_step


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0, msg=name)


def test_tokens_that_no_prompt_uses_are_only_decayed(small_base):
    result = train(small_base, PAIRS, "skull", SETTINGS.replace(steps=3))
    used = torch.unique(tokenize([*SAFE, *UNSAFE, "skull", ""]))
    unused = torch.ones(49408, dtype=torch.bool).index_fill_(0, used, False)
    table, before = result.state[TOKEN_TABLE], small_base[TOKEN_TABLE]
    torch.testing.assert_close(table[unused], before[unused] * (1 - 1e-3 * 0.01) ** 3, rtol=1e-6, atol=0)
    assert (table[used] - before[used]).abs().max() > 1e-4


@pytest.mark.parametrize("chunk_size", [7])
def test_chunks_change_the_memory_and_not_the_result(small_base, chunk_size):
    whole = train(small_base, PAIRS, "skull", SETTINGS.replace(steps=3))
    chunked = train(small_base, PAIRS, "skull", SETTINGS.replace(steps=3, chunk_size=chunk_size))
    for a, b in zip(whole.history, chunked.history, strict=True):
        assert b.losses == pytest.approx(a.losses, rel=1e-3, abs=1e-6)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(small_base):
    first, again = (train(small_base, PAIRS, "skull", SETTINGS.replace(steps=3)) for _ in range(2))
    assert_same_weights(first.state, again.state)
    other = train(small_base, PAIRS, "skull", SETTINGS.replace(steps=3, seed=1))
    assert state_hash(other.state) != state_hash(first.state)


@pytest.mark.parametrize("stopped_at", [4])
def test_a_stopped_run_resumes_to_the_weights_of_one_that_was_not(small_base, tmp_path, stopped_at):
    straight = train(small_base, PAIRS, "skull", SETTINGS)
    checkpoint = tmp_path / "run.checkpoint"
    with pytest.raises(Stop):
        train(small_base, PAIRS, "skull", SETTINGS, checkpoint=checkpoint, on_step=stop_after(stopped_at))
    assert checkpoint.exists()
    told = []
    steps = len(straight.history)
    resumed = train(
        small_base, PAIRS, "skull", SETTINGS, checkpoint=checkpoint, on_plan=told.append,
        on_prepare=lambda done, total: told.append("prepared") if done == total else None,
        on_begin=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    plan = plan_memory(EncoderConfig.of(small_base), SETTINGS, len(PAIRS), None)
    assert told == [plan, "prepared", (stopped_at + 1, steps)]
    assert_same_weights(straight.state, resumed.state)
    assert [r.losses for r in resumed.history] == [r.losses for r in straight.history]
    assert list(tmp_path.iterdir()) == [checkpoint]
    measured = [report for report in straight.history if report.geometry]
    assert measured[-1] is straight.history[-1] and len(measured) >= 5 and 0 < measured[-1].geometry.jaccard <= 1


@pytest.mark.parametrize("call", [1, 4, 6], ids=["forwards", "backwards", "measuring"])
def test_a_cancel_is_heard_before_every_layer(small_base, tmp_path, call):
    """A step takes minutes on a CPU."""
    settings, calls = SETTINGS.replace(steps=3), []
    straight = train(small_base, PAIRS, "skull", settings)

    def on_layer():
        calls.append(1)
        if len(calls) == call:
            raise Stop

    with pytest.raises(Stop):
        train(small_base, PAIRS, "skull", settings, checkpoint=tmp_path / "c", on_layer=on_layer)
    assert len(calls) == call
    resumed = train(small_base, PAIRS, "skull", settings, checkpoint=tmp_path / "c", on_layer=lambda: None)
    assert_same_weights(straight.state, resumed.state)
    assert [(r.losses, r.geometry) for r in resumed.history] == [(r.losses, r.geometry) for r in straight.history]


def test_held_out_prompts_are_not_trained_on(small_base):
    many = [f"a {colour} {prompt[2:]}" for colour in ("red", "blue", "old", "new", "big", "tiny", "soft", "hard", "odd")
            for prompt in SAFE]  # fmt: skip
    pairs = pairs_from_lists(many, [f"a skull and {p}" for p in many])
    result = train(small_base, pairs, "skull", SETTINGS.replace(steps=1, held_out=500))
    geometry = result.history[-1].geometry
    assert geometry.held_out
    assert geometry.prompts == len(many) // 10
    few = train(small_base, PAIRS, "skull", SETTINGS.replace(steps=1))
    assert not few.history[-1].geometry.held_out


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(small_base, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(TrainingError, match="Lower learning_rate"):
        train(small_base, PAIRS, "skull", SETTINGS.replace(learning_rate=1.0, steps=60, weight_decay=200.0),
              checkpoint=tmp_path / "c")  # fmt: skip
    kept = torch.load(tmp_path / "c", weights_only=True)
    assert kept["step"] >= 1
    assert all(torch.isfinite(tensor).all() for tensor in kept["model"].values())


def test_out_of_memory_halves_the_chunk_and_gives_the_same_result(small_base, monkeypatch):
    whole = train(small_base, PAIRS, "skull", SETTINGS.replace(steps=2))
    forward = FastEncoder.forward

    def small_card(self, ids):
        if torch.is_grad_enabled() and len(ids) > 7:
            raise torch.OutOfMemoryError("pretended")
        return forward(self, ids)

    monkeypatch.setattr(FastEncoder, "forward", small_card)
    backed_off = train(small_base, PAIRS, "skull", SETTINGS.replace(steps=2))
    for a, b in zip(whole.history, backed_off.history, strict=True):
        assert b.losses == pytest.approx(a.losses, rel=1e-3, abs=1e-6)


def test_memory_that_never_suffices_is_said_with_batch_and_device(small_base, monkeypatch):
    def no_card(self, ids):
        if torch.is_grad_enabled():
            raise torch.OutOfMemoryError("pretended")
        return torch.zeros(len(ids), 77, 64)

    monkeypatch.setattr(FastEncoder, "forward", no_card)
    with pytest.raises(TrainingError, match=r"chunk_size 1 at batch_size 12"):
        train(small_base, PAIRS, "skull", SETTINGS)


def test_too_few_pairs_are_refused_before_any_work(small_base):
    few = pairs_from_lists(SAFE[:4], UNSAFE[:4])
    with pytest.raises(TrainingError, match=r"4 prompt pairs.*at least 5"):
        train(small_base, few, "skull", SETTINGS)
    with pytest.raises(TrainingError, match="concept is empty"):
        train(small_base, PAIRS, "  ", SETTINGS)


def test_alignment_moves_the_unsafe_prompts_and_keeps_the_safe_ones(small_base):
    result = train(small_base, PAIRS, "skull", SETTINGS.replace(epochs=8))
    before, after = TextEncoder.from_state(small_base), TextEncoder.from_state(result.state)

    def moved(prompts):
        return 1 - F.cosine_similarity(embed(before, prompts), embed(after, prompts)).mean()

    assert moved(UNSAFE) > 4 * moved(SAFE)
    assert result.history[-1].losses["total"] < 0.7 * result.history[0].losses["total"]


def test_pooled_supervision_compares_end_of_text_states_with_those_of_the_targets(small_base):
    settings = PRESETS["safeclip"].replace(batch_size=len(SAFE), steps=1, precision="fp32")
    first = {
        target: train(small_base, PAIRS, "skull", settings.replace(target=target)).history[0].losses
        for target in ("paired", "nearest")
    }
    encoder = TextEncoder.from_state(small_base)

    def pooled(prompts):
        ids = tokenize(prompts)
        ends = [row.tolist().index(49407) for row in ids]
        with torch.no_grad():
            return torch.stack([states[end] for states, end in zip(encoder(ids), ends, strict=True)])

    cosines = F.cosine_similarity(pooled(UNSAFE)[:, None], pooled(SAFE)[None], dim=2)
    expected = {"paired": cosines.diagonal(), "nearest": cosines.amax(1)}
    for target, cosine in expected.items():
        assert first[target]["redirect"] == pytest.approx(float((1 - cosine).mean()), rel=1e-5)
        assert first[target]["keep"] == pytest.approx(0, abs=1e-6)
        assert first[target]["total"] == pytest.approx(0.5 * first[target]["redirect"], rel=1e-5)
    assert float((cosines.diagonal() < cosines.amax(1) - 1e-4).float().mean()) > 0.2


def test_pooled_supervision_moves_the_pooled_state_of_unsafe_prompts(small_base):
    settings = PRESETS["safer_clip"].replace(batch_size=12, learning_rate=1e-3, epochs=8, precision="fp32")
    history = train(small_base, PAIRS, "skull", settings).history
    assert history[-1].losses["redirect"] < 0.5 * history[0].losses["redirect"]


def test_a_precision_left_open_takes_a_run_that_is_finished_or_begun(small_base, tmp_path, monkeypatch):
    auto = SETTINGS.replace(steps=2, precision="auto")
    monkeypatch.setattr(precision, "_cpu_is_faster", lambda: True)
    trained, found = train_stored(small_base, PAIRS, "skull", auto, tmp_path / "new")
    assert (trained.settings.precision, found) == ("bf16", False)
    exact, _ = train_stored(small_base, PAIRS, "skull", auto.replace(precision="fp32"), tmp_path / "old")
    again, found = train_stored(small_base, PAIRS, "skull", auto, tmp_path / "old")
    assert (again.settings.precision, found) == ("fp32", True)
    assert_same_weights(again.state, exact.state)
    with pytest.raises(Stop):
        train_stored(
            small_base, PAIRS, "skull", auto.replace(precision="fp32"), tmp_path / "begun", on_step=stop_after(1)
        )
    resumed, _ = train_stored(small_base, PAIRS, "skull", auto, tmp_path / "begun")
    assert_same_weights(resumed.state, exact.state)
