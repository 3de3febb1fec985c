"""The alignment run: against a naive loop, in chunks, stopped and resumed, stored and found."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from sage_core.alignment.memory import plan_memory
from sage_core.alignment.schedule import batch_sizes
from sage_core.alignment.settings import PRESETS, TrainingSettings
from sage_core.alignment.training import run_key, train, train_stored
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


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    encoder = TextEncoder(EncoderConfig(layers=2, width=64, heads=1, mlp_width=96, vocabulary=49408, positions=77))
    encoder.to_empty(device="cpu")
    for name, parameter in encoder.named_parameters():
        torch.nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return {name: tensor.clone() for name, tensor in encoder.state().items()}


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


def naive_run(base, settings, steps):
    """METHOD as a plain loop: whole token table, base recomputed every step, three forwards, exhaustive pairing."""
    frozen, model = TextEncoder.from_state(base), TextEncoder.from_state(base)
    phi = lambda encoder, prompts: encoder(tokenize(prompts)).flatten(1)  # noqa: E731
    with torch.no_grad():
        safe_base, unsafe_base = phi(frozen, SAFE), phi(frozen, UNSAFE)
        u = F.normalize(phi(frozen, ["skull"]), dim=1)
        s = settings.concept_scale * safe_base.norm(dim=1).mean()
    far = [min(range(len(SAFE)), key=lambda j, i=i: float(F.cosine_similarity(x, safe_base[j], dim=0)))
           for i, x in enumerate(unsafe_base)]  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    d = lambda a, b: (1 - F.cosine_similarity(a, b, dim=1)).mean()  # noqa: E731
    order = [torch.randperm(len(SAFE), generator=torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch))
             for epoch in range(9)]  # fmt: skip
    rows = torch.cat(order)
    sizes = batch_sizes(len(SAFE), settings)
    totals, start = [], 0
    for step in range(steps):
        batch = rows[start : start + sizes[step % len(sizes)]].tolist()
        start += len(batch)
        safe, unsafe = [SAFE[i] for i in batch], [UNSAFE[i] for i in batch]
        with torch.no_grad():
            z0, empty = phi(frozen, safe), phi(frozen, [""])
            targets = safe_base[[far[i] for i in batch]] - s * u
        z, zu, zc = phi(model, safe), phi(model, unsafe), phi(model, ["skull"])
        keep = d(z, z0) + d(z + s * u, z0) + settings.keep_mse * ((z - z0).norm(dim=1) / z0.norm(dim=1)).square().mean()
        loss = settings.keep_weight * keep + (1 - settings.keep_weight) * (d(zu, targets) + d(zc, empty))

        def variance(x):
            return F.normalize(x, dim=1).var(dim=0).sum()

        loss = loss + settings.spread_weight * torch.relu(variance(z0) - variance(z))
        cos0, cos1 = (F.cosine_similarity(x[:, None], x[None], dim=2) for x in (z0, z + settings.perturbation * u))
        near = (cos0 - 9 * torch.eye(len(batch))).topk(settings.neighbours, dim=1).indices
        pairs = torch.stack([cos1.gather(1, near).flatten(), cos0.gather(1, near).flatten()])
        loss = loss + settings.local_weight * (1 - torch.corrcoef(pairs)[0, 1])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        totals.append(loss.item())
    return totals, model.state()


def test_a_run_equals_the_naive_loop(base):
    # Without the spread term: the untouched encoder is on the kink of max(0, ·), and rounding decides its side.
    settings = SETTINGS.replace(held_out=0, steps=5, spread_weight=0.0)
    totals, state = naive_run(base, settings, 5)
    result = train(base, PAIRS, "skull", settings)
    assert [report.losses["total"] for report in result.history] == pytest.approx(totals, rel=2e-4)
    for name, expected in state.items():
        if name.endswith("k_proj.bias"):
            continue  # Adds the same to all of a query's scores: no gradient but rounding, which Adam makes large.
        moved = (expected - base[name]).norm()
        gap = (result.state[name] - expected).norm()
        # Adam divides by the root of tiny squared gradients, so that rounding shows a little.
        assert gap <= 0.02 * moved + 1e-6, name


def test_tokens_that_no_prompt_uses_are_only_decayed(base):
    result = train(base, PAIRS, "skull", SETTINGS.replace(steps=3))
    used = torch.unique(tokenize([*SAFE, *UNSAFE, "skull", ""]))
    unused = torch.ones(49408, dtype=torch.bool).index_fill_(0, used, False)
    table, before = result.state[TOKEN_TABLE], base[TOKEN_TABLE]
    torch.testing.assert_close(table[unused], before[unused] * (1 - 1e-3 * 0.01) ** 3, rtol=1e-6, atol=0)
    assert (table[used] - before[used]).abs().max() > 1e-4


@pytest.mark.parametrize("chunk_size", [7])
def test_chunks_change_the_memory_and_not_the_result(base, chunk_size):
    whole = train(base, PAIRS, "skull", SETTINGS.replace(steps=3))
    chunked = train(base, PAIRS, "skull", SETTINGS.replace(steps=3, chunk_size=chunk_size))
    for a, b in zip(whole.history, chunked.history, strict=True):
        assert b.losses == pytest.approx(a.losses, rel=1e-3, abs=1e-6)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(base):
    first, again = (train(base, PAIRS, "skull", SETTINGS.replace(steps=3)) for _ in range(2))
    assert_same_weights(first.state, again.state)
    other = train(base, PAIRS, "skull", SETTINGS.replace(steps=3, seed=1))
    assert state_hash(other.state) != state_hash(first.state)


@pytest.mark.parametrize("stopped_at", [4])
def test_a_stopped_run_resumes_to_the_weights_of_one_that_was_not(base, tmp_path, stopped_at):
    straight = train(base, PAIRS, "skull", SETTINGS)
    checkpoint = tmp_path / "run.checkpoint"
    with pytest.raises(Stop):
        train(base, PAIRS, "skull", SETTINGS, checkpoint=checkpoint, on_step=stop_after(stopped_at))
    assert checkpoint.exists()
    told = []
    steps = len(straight.history)
    resumed = train(
        base, PAIRS, "skull", SETTINGS, checkpoint=checkpoint, on_plan=told.append,
        on_prepare=lambda done, total: told.append("prepared") if done == total else None,
        on_begin=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    plan = plan_memory(EncoderConfig.of(base), SETTINGS, len(PAIRS), None)
    assert told == [plan, "prepared", (stopped_at + 1, steps)]
    assert_same_weights(straight.state, resumed.state)
    assert [r.losses for r in resumed.history] == [r.losses for r in straight.history]
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_an_interrupt_in_the_middle_of_a_step_leaves_the_step_before_it(base, tmp_path, monkeypatch):
    straight = train(base, PAIRS, "skull", SETTINGS)
    forward, calls = FastEncoder.forward, []

    def interrupted(self, ids):
        calls.extend([1] if torch.is_grad_enabled() else [])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(self, ids)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FastEncoder, "forward", interrupted)
        train(base, PAIRS, "skull", SETTINGS, checkpoint=tmp_path / "c")
    reports = []
    resumed = train(base, PAIRS, "skull", SETTINGS, checkpoint=tmp_path / "c", on_step=reports.append)
    assert reports[0].step == 4
    assert_same_weights(straight.state, resumed.state)


@pytest.mark.parametrize("call", [1, 4, 6], ids=["forwards", "backwards", "measuring"])
def test_a_cancel_is_heard_before_every_layer(base, tmp_path, call):
    """A step takes minutes on a CPU."""
    settings, calls = SETTINGS.replace(steps=3), []
    straight = train(base, PAIRS, "skull", settings)

    def on_layer():
        calls.append(1)
        if len(calls) == call:
            raise Stop

    with pytest.raises(Stop):
        train(base, PAIRS, "skull", settings, checkpoint=tmp_path / "c", on_layer=on_layer)
    assert len(calls) == call
    resumed = train(base, PAIRS, "skull", settings, checkpoint=tmp_path / "c", on_layer=lambda: None)
    assert_same_weights(straight.state, resumed.state)
    assert [(r.losses, r.geometry) for r in resumed.history] == [(r.losses, r.geometry) for r in straight.history]


def test_weights_that_the_newest_update_broke_are_never_saved(base, tmp_path, monkeypatch):
    update = torch.optim.AdamW.step
    calls = []

    def breaks(self, *args):
        update(self, *args)
        calls.append(1)
        if len(calls) == 3:
            next(p for group in self.param_groups for p in group["params"]).data.fill_(torch.nan)

    monkeypatch.setattr(torch.optim.AdamW, "step", breaks)
    with pytest.raises(Stop):
        train(base, PAIRS, "skull", SETTINGS.replace(steps=40), checkpoint=tmp_path / "c", on_step=stop_after(2))
    assert not (tmp_path / "c").exists()


def test_every_step_is_reported_once_and_in_order(base):
    reports = []
    result = train(base, PAIRS, "skull", SETTINGS, on_step=reports.append)
    assert [r.step for r in reports] == list(range(1, reports[-1].steps + 1))
    assert tuple(reports) == result.history
    measured = [r.geometry for r in reports if r.geometry]
    assert measured[-1] == reports[-1].geometry
    assert len(measured) >= 5
    assert 0 < measured[-1].jaccard <= 1
    json.dumps(result.to_dict())


def test_held_out_prompts_are_not_trained_on(base):
    many = [f"a {colour} {prompt[2:]}" for colour in ("red", "blue", "old", "new", "big", "tiny", "soft", "hard", "odd")
            for prompt in SAFE]  # fmt: skip
    pairs = pairs_from_lists(many, [f"a skull and {p}" for p in many])
    result = train(base, pairs, "skull", SETTINGS.replace(steps=1, held_out=500))
    geometry = result.history[-1].geometry
    assert geometry.held_out
    assert geometry.prompts == len(many) // 10
    few = train(base, PAIRS, "skull", SETTINGS.replace(steps=1))
    assert not few.history[-1].geometry.held_out


def test_a_finished_run_is_found_instead_of_trained_again(base, tmp_path):
    first, found = train_stored(base, PAIRS, "skull", SETTINGS.replace(steps=2), tmp_path)
    assert not found
    reports = []
    again, found = train_stored(base, PAIRS, "skull", SETTINGS.replace(steps=2, chunk_size=5), tmp_path,
                                on_step=reports.append)  # fmt: skip
    assert found
    assert reports == []
    assert_same_weights(first.state, again.state)
    assert again.history == first.history
    assert again.metadata["concept"] == "skull"
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    _, found = train_stored(base, PAIRS, "skull", SETTINGS.replace(steps=2, seed=3), tmp_path)
    assert not found


def test_the_key_of_a_run_knows_everything_that_the_result_depends_on(base):
    other_pairs = pairs_from_lists(SAFE, list(reversed(UNSAFE)))
    keys = [
        run_key("a", PAIRS, "skull", SETTINGS),
        run_key("b", PAIRS, "skull", SETTINGS),
        run_key("a", other_pairs, "skull", SETTINGS),
        run_key("a", PAIRS, "bone", SETTINGS),
        *(run_key("a", PAIRS, "skull", SETTINGS.replace(**{k: v}))
          for k, v in {"seed": 1, "keep_mse": 0.0, "precision": "bf16", "held_out": 3}.items()),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)


def test_a_checkpoint_of_another_run_is_refused(base, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"
    with pytest.raises(Stop):
        train(base, PAIRS, "skull", SETTINGS, checkpoint=checkpoint, on_step=stop_after(2))
    with pytest.raises(TrainingError, match="belongs to a run with another"):
        train(base, PAIRS, "bone", SETTINGS, checkpoint=checkpoint)
    checkpoint.write_bytes(b"PK not a checkpoint")
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        train(base, PAIRS, "skull", SETTINGS, checkpoint=checkpoint)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(base, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(TrainingError, match="Lower learning_rate"):
        train(base, PAIRS, "skull", SETTINGS.replace(learning_rate=1.0, steps=60, weight_decay=200.0),
              checkpoint=tmp_path / "c")  # fmt: skip
    kept = torch.load(tmp_path / "c", weights_only=True)
    assert kept["step"] >= 1
    assert all(torch.isfinite(tensor).all() for tensor in kept["model"].values())


def test_out_of_memory_halves_the_chunk_and_gives_the_same_result(base, monkeypatch):
    whole = train(base, PAIRS, "skull", SETTINGS.replace(steps=2))
    forward = FastEncoder.forward

    def small_card(self, ids):
        if torch.is_grad_enabled() and len(ids) > 7:
            raise torch.OutOfMemoryError("pretended")
        return forward(self, ids)

    monkeypatch.setattr(FastEncoder, "forward", small_card)
    backed_off = train(base, PAIRS, "skull", SETTINGS.replace(steps=2))
    for a, b in zip(whole.history, backed_off.history, strict=True):
        assert b.losses == pytest.approx(a.losses, rel=1e-3, abs=1e-6)


def test_memory_that_never_suffices_is_said_with_batch_and_device(base, monkeypatch):
    def no_card(self, ids):
        if torch.is_grad_enabled():
            raise torch.OutOfMemoryError("pretended")
        return torch.zeros(len(ids), 77, 64)

    monkeypatch.setattr(FastEncoder, "forward", no_card)
    with pytest.raises(TrainingError, match=r"chunk_size 1 at batch_size 12"):
        train(base, PAIRS, "skull", SETTINGS)


def test_too_few_pairs_are_refused_before_any_work(base):
    few = pairs_from_lists(SAFE[:4], UNSAFE[:4])
    with pytest.raises(TrainingError, match=r"4 prompt pairs.*at least 5"):
        train(base, few, "skull", SETTINGS)
    with pytest.raises(TrainingError, match="concept is empty"):
        train(base, PAIRS, "  ", SETTINGS)


def test_alignment_moves_the_unsafe_prompts_and_keeps_the_safe_ones(base):
    result = train(base, PAIRS, "skull", SETTINGS.replace(epochs=8))
    before, after = TextEncoder.from_state(base), TextEncoder.from_state(result.state)

    def moved(prompts):
        return 1 - F.cosine_similarity(embed(before, prompts), embed(after, prompts)).mean()

    assert moved(UNSAFE) > 4 * moved(SAFE)
    assert result.history[-1].losses["total"] < 0.7 * result.history[0].losses["total"]


@pytest.mark.parametrize("seconds", ["x", None])
def test_a_damaged_report_of_a_finished_run_is_named(base, tmp_path, seconds):
    settings = SETTINGS.replace(steps=2)
    train_stored(base, PAIRS, "skull", settings, tmp_path)
    (report,) = tmp_path.glob("*.json")
    report.write_text(json.dumps(json.loads(report.read_text()) | {"seconds": seconds}))
    with pytest.raises(TrainingError, match=r"finished run .* cannot be read"):
        train_stored(base, PAIRS, "skull", settings, tmp_path)


def test_pooled_supervision_compares_end_of_text_states_with_those_of_the_targets(base):
    settings = PRESETS["safeclip"].replace(batch_size=len(SAFE), steps=1, precision="fp32")
    first = {
        target: train(base, PAIRS, "skull", settings.replace(target=target)).history[0].losses
        for target in ("paired", "nearest")
    }
    encoder = TextEncoder.from_state(base)

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


def test_pooled_supervision_moves_the_pooled_state_of_unsafe_prompts(base):
    settings = PRESETS["safer_clip"].replace(batch_size=12, learning_rate=1e-3, epochs=8, precision="fp32")
    history = train(base, PAIRS, "skull", settings).history
    assert history[-1].losses["redirect"] < 0.5 * history[0].losses["redirect"]


def test_a_precision_left_open_takes_a_run_that_is_finished_or_begun(base, tmp_path, monkeypatch):
    auto = SETTINGS.replace(steps=2, precision="auto")
    monkeypatch.setattr(precision, "_cpu_gains", lambda: 5.0)
    trained, found = train_stored(base, PAIRS, "skull", auto, tmp_path / "new")
    assert (trained.settings.precision, found) == ("bf16", False)
    exact, _ = train_stored(base, PAIRS, "skull", auto.replace(precision="fp32"), tmp_path / "old")
    again, found = train_stored(base, PAIRS, "skull", auto, tmp_path / "old")
    assert (again.settings.precision, found) == ("fp32", True)
    assert_same_weights(again.state, exact.state)
    with pytest.raises(Stop):
        train_stored(base, PAIRS, "skull", auto.replace(precision="fp32"), tmp_path / "begun", on_step=stop_after(1))
    resumed, _ = train_stored(base, PAIRS, "skull", auto, tmp_path / "begun")
    assert_same_weights(resumed.state, exact.state)
