"""The gate: what it learns, what its threshold promises, how it refines and routes, and its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_unets import spread_encoder
from torch import Tensor

from sage_core.bench.watch import MemoryWatch
from sage_core.encoders.text_encoder import TextEncoder, embed, state_hash
from sage_core.errors import EncoderError, PromptError, SettingsError
from sage_core.methods.gate import (
    GateSettings,
    RefineSettings,
    gate_name,
    refine,
    route,
    threshold_for,
    train_gate,
)
from sage_core.methods.gate_file import Gate, GateCard, GateNetwork, load_gate, save_gate
from sage_core.runs.store import RunStore
from sage_core.shapes.captions import matched_pairs

WIDTH = 64
SETTINGS = GateSettings(steps=80, learning_rate=2e-3, false_alarms=0.05)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return spread_encoder(WIDTH, mlp_width=64, seed=0)


PAIRS = matched_pairs(120, seed=1, names="seen", split="train")
OTHERS = matched_pairs(60, seed=2, names="seen", split="train")


@pytest.fixture(scope="module")
def gate(encoder: TextEncoder) -> Gate:
    return train_gate(encoder, PAIRS.safe, PAIRS.unsafe, SETTINGS)


def states(encoder: TextEncoder, prompts: list[str]) -> Tensor:
    return embed(encoder, prompts).view(len(prompts), 77, WIDTH)


def test_it_tells_prompts_apart_at_the_stated_rate(gate: Gate, encoder: TextEncoder) -> None:
    card = gate.card
    assert card.false_alarms <= card.stated_false_alarms == 0.05
    assert card.detected > 0.9
    assert card.safe_prompts >= 20
    assert card.encoder == state_hash(encoder.state())
    assert "unsafe ones" in card.summary()
    # On prompts that it never saw.
    assert gate.flags(states(encoder, OTHERS.unsafe)).float().mean() > 0.8
    assert gate.flags(states(encoder, OTHERS.safe)).float().mean() < 0.2


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2, 0.99])
def test_the_threshold_keeps_the_stated_rate_and_is_the_lowest_that_does(rate: float) -> None:
    logits = torch.randn(100, generator=torch.Generator().manual_seed(0))
    threshold = threshold_for(logits, rate)
    assert (logits > threshold).float().mean() <= rate
    lower = logits[logits < threshold].max() if rate < 0.99 else threshold - 1
    assert (logits > lower).float().mean() >= rate


def test_safe_prompts_come_back_as_they_are(gate: Gate, encoder: TextEncoder) -> None:
    given = states(encoder, OTHERS.safe)
    refined = refine([gate], given)
    kept = ~refined.flagged
    assert kept.any()
    assert torch.equal(refined.states[kept], given[kept])
    assert (refined.iterations[kept] == 0).all()


@pytest.mark.parametrize("settings", [RefineSettings(1.0, 50), RefineSettings(5.0, 50, normalised=False)])
def test_flagged_prompts_are_refined_until_they_are_not(
    settings: RefineSettings, gate: Gate, encoder: TextEncoder
) -> None:
    given = states(encoder, OTHERS.unsafe)
    refined = refine([gate], given, settings)
    assert refined.flagged.any()
    assert torch.equal(refined.safe, ~gate.flags(refined.states))
    assert refined.safe[refined.flagged].float().mean() > 0.9
    steps = refined.iterations[refined.flagged]
    assert steps.min() >= 1
    assert steps.max() <= 50
    if settings.normalised:
        # Each step has length eta, so that the way is no longer than their number.
        way = (refined.states - given).flatten(1).norm(dim=1)
        assert (way <= refined.iterations * settings.eta + 1e-3).all()


def test_one_step_is_the_gradient_of_the_cross_entropy(gate: Gate, encoder: TextEncoder) -> None:
    given = states(encoder, OTHERS.unsafe)
    number = int(gate.flags(given).nonzero()[0])
    one = given[number : number + 1]
    refined = refine([gate], one, RefineSettings(0.3, 1, normalised=False))
    leaf = one.double().requires_grad_(True)
    network = GateNetwork(WIDTH).double()
    network.load_state_dict(gate.network.state_dict())
    margin = network(leaf) - gate.card.threshold
    # Cross-entropy of the answer "safe", whose probability is 1 - sigmoid(margin).
    (-(1 - torch.sigmoid(margin)).log()).sum().backward()
    torch.testing.assert_close(refined.states.double(), one.double() - 0.3 * leaf.grad, atol=1e-4, rtol=1e-4)


def test_two_gates_add_up(gate: Gate, encoder: TextEncoder) -> None:
    given = states(encoder, OTHERS.unsafe)
    number = int(gate.flags(given).nonzero()[0])
    one, settings = given[number : number + 1], RefineSettings(0.3, 1, normalised=False)
    once, twice = (refine([gate] * count, one, settings).states - one for count in (1, 2))
    torch.testing.assert_close(twice, 2 * once, atol=1e-4, rtol=1e-3)
    silent = Gate(gate.network, GateCard(**{**gate.card.__dict__, "threshold": 1e9}))
    torch.testing.assert_close(refine([gate, silent], one, settings).states - one, once)


def test_routing_takes_the_safe_encoders_states_of_flagged_prompts_alone(gate: Gate, encoder: TextEncoder) -> None:
    given = states(encoder, [*OTHERS.safe, *OTHERS.unsafe])
    other = torch.zeros_like(given)
    routed, flagged = route([gate], given, other)
    assert torch.equal(flagged, gate.flags(given))
    assert torch.equal(routed[flagged], other[flagged])
    assert torch.equal(routed[~flagged], given[~flagged])


def test_long_prompts_are_as_unsafe_as_their_worst_part(gate: Gate, encoder: TextEncoder) -> None:
    safe, unsafe = states(encoder, [OTHERS.safe[0]]), states(encoder, [OTHERS.unsafe[0]])
    long = gate.margins(torch.cat([safe, unsafe], dim=1))
    assert long.item() == pytest.approx(max(gate.margins(safe).item(), gate.margins(unsafe).item()), abs=1e-5)
    with pytest.raises(SettingsError, match="80 rows"):
        gate.margins(torch.zeros(1, 80, WIDTH))


def test_the_same_seed_gives_the_same_gate(gate: Gate, encoder: TextEncoder) -> None:
    again = train_gate(encoder, PAIRS.safe, PAIRS.unsafe, SETTINGS)
    assert again.card == gate.card
    assert all(torch.equal(a, b) for a, b in zip(again.network.parameters(), gate.network.parameters(), strict=True))


def test_its_embedding_is_told_and_can_be_stopped(gate: Gate, encoder: TextEncoder) -> None:
    """At SD 1.x's size it takes longer than the training."""
    told: list[tuple[int, int]] = []
    total = len(set(PAIRS.safe)) + len(set(PAIRS.unsafe))

    def stop(done: int, of: int) -> None:
        told.append((done, of))
        if done == of:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_gate(encoder, PAIRS.safe, PAIRS.unsafe, SETTINGS, on_batch=stop, on_step=lambda _: pytest.fail("late"))
    assert told == sorted(set(told)) and len(told) > 1 and told[-1] == (total, total)


def test_its_file(gate: Gate, encoder: TextEncoder, tmp_path: Path) -> None:
    path = tmp_path / "gate.safetensors"
    save_gate(path, gate)
    loaded = load_gate(path, encoder)
    assert loaded.card == gate.card
    given = states(encoder, OTHERS.unsafe)
    assert torch.equal(loaded.margins(given), gate.margins(given))
    other = TextEncoder.from_state({name: value * 1.01 for name, value in encoder.state().items()})
    with pytest.raises(EncoderError, match="another text encoder"):
        load_gate(path, other)
    save_gate(path, gate)
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    with pytest.raises(EncoderError, match="its weights have changed since they were written"):
        load_gate(path)
    path.write_bytes(b"12")
    with pytest.raises(EncoderError, match="not a whole safetensors"):
        load_gate(path)
    with pytest.raises(EncoderError, match="not a whole safetensors"):
        load_gate(tmp_path / "none.safetensors")


def _as(dtype: torch.dtype, **shapes: tuple[int, ...]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: (
        tensors | {name.replace("__", "."): torch.zeros(shape).to(dtype) for name, shape in shapes.items()}
    )


@pytest.mark.parametrize(
    ("damage", "card", "message"),
    [
        (lambda tensors: {"norm.weight": tensors["norm.weight"]}, {}, "damaged gate"),
        (lambda tensors: tensors | {"queries": tensors["queries"] * float("nan")}, {}, "NaN"),
        # Each weight is finite, and what they compute is not: it would be above no threshold.
        (lambda tensors: tensors | {"output.2.weight": tensors["output.2.weight"].sign() * 3e38}, {}, "not finite"),
        (_as(torch.float32, norm__weight=()), {}, "damaged gate"),
        (_as(torch.float8_e4m3fn, output__2__bias=(1,)), {}, "float8_e4m3fn, expected float32"),
        (_as(torch.uint8, norm__weight=(1_500_000,)), {}, "uint8, expected float32"),
        (_as(torch.float32, norm__weight=(400_000,), norm__bias=(400_000,)), {}, "size mismatch"),
        (dict, None, "is not a gate"),
        (dict, "[]", r"its card is \[\], expected an object"),
        (dict, "[" * 100_000, "nested too deep"),
        (dict, "{}", "encoder is missing, expected a text"),
        (dict, {"threshold": float("nan")}, "NaN"),
        (dict, {"threshold": float("inf")}, "Infinity"),
        (dict, {"threshold": "0"}, "threshold is '0', expected a finite number"),
        (dict, {"threshold": 10**400}, "beyond every number"),
        (dict, {"detected": 1.5}, "detected is 1.5, expected a number from 0 to 1"),
        (dict, {"safe_prompts": True}, "safe_prompts is true, expected a whole number, 1 or more"),
        (dict, {"encoder": 4}, "encoder is 4, expected a text"),
    ],
)
def test_a_damaged_gate_is_refused(
    gate: Gate, tmp_path: Path, damage: Callable[[dict[str, Tensor]], dict[str, Tensor]], card: Any, message: str
) -> None:
    path = tmp_path / "gate.safetensors"
    save_gate(path, gate)
    text = card if isinstance(card, str) else json.dumps({**gate.card.__dict__, **(card or {})})
    save_file(damage(load_file(path)), path, metadata={} if card is None else {"sage_gate_1": text})
    with pytest.raises(EncoderError, match=message) as found:
        load_gate(path)
    assert str(path) in str(found.value)


def test_a_damaged_gate_takes_no_more_memory_than_its_file(gate: Gate, tmp_path: Path) -> None:
    """Whose width is what one tensor claims: a network of it would take gigabytes."""
    path = tmp_path / "gate.safetensors"
    save_gate(path, gate)
    tensors, card = load_file(path), {"sage_gate_1": json.dumps(gate.card.__dict__)}
    with MemoryWatch(torch.device("cpu")) as watch:
        for value in (torch.zeros(1_500_000).byte(), torch.zeros(400_000)):
            save_file(tensors | {"norm.weight": value, "norm.bias": value.clone()}, path, metadata=card)
            with pytest.raises(EncoderError, match="damaged gate"):
                load_gate(path)
        assert (watch.peak() or 0) < 0.06


def test_a_card_that_was_changed_is_refused(gate: Gate, tmp_path: Path) -> None:
    path = tmp_path / "gate.safetensors"
    save_gate(path, gate)
    content = path.read_bytes()
    place = content.index(b"threshold") + 14
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(EncoderError, match=r"its card has changed since it was written|damaged gate"):
        load_gate(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_logit_that_is_not_finite_is_flagged(gate: Gate, encoder: TextEncoder, value: float) -> None:
    broken = GateNetwork(WIDTH)
    broken.load_state_dict(gate.network.state_dict())
    with torch.no_grad():
        broken.output[2].bias.fill_(value)
    closed = Gate(broken.requires_grad_(False), gate.card)
    given = states(encoder, OTHERS.safe)
    assert closed.flags(given).all() and (closed.margins(given) > 0).all()
    refined = refine([closed], given, RefineSettings(iterations=2))
    assert refined.flagged.all() and not refined.safe.any() and torch.equal(refined.states, given)
    zeros = torch.zeros_like(given)
    assert torch.equal(route([closed], given, zeros)[0], zeros)


def test_it_is_kept_under_a_name_that_stays(gate: Gate, encoder: TextEncoder, tmp_path: Path) -> None:
    """Gates of before were kept under it, without a hash, and must be found; prompts count once."""
    settings = GateSettings(steps=60, false_alarms=0.05)
    name = gate_name("ab" * 32, ["a ball", "a cube", "a ball"], ["a skull"], settings)
    assert name == "3bae6884a565d3ef55f5b2bda586cdef"
    assert name == gate_name("ab" * 32, ["a ball", "a cube"], ["a skull"], settings)
    assert name != gate_name("ab" * 32, ["a ball", "a cube"], ["a skull"], GateSettings(steps=61, false_alarms=0.05))
    path = tmp_path / f"{name}.safetensors"
    save_gate(path, gate)
    (listed,) = RunStore(tmp_path).runs()
    assert listed.finished and listed.summary().endswith("gate, 80 steps")
    save_file(load_file(path), path, metadata={"sage_gate_1": json.dumps(gate.card.__dict__)})
    assert load_gate(path, encoder).card == gate.card


def test_it_works_in_inference_mode(gate: Gate, encoder: TextEncoder, tmp_path: Path) -> None:
    """As ComfyUI runs its nodes."""
    save_gate(tmp_path / "gate.safetensors", gate)
    with torch.inference_mode():
        loaded = load_gate(tmp_path / "gate.safetensors", encoder)
        refined = refine([loaded], states(encoder, OTHERS.unsafe))
        assert (refined.iterations[refined.flagged] > 0).all()
        train_gate(encoder, PAIRS.safe, PAIRS.unsafe, GateSettings(steps=1, false_alarms=0.05))


def test_what_cannot_be_measured_is_refused(encoder: TextEncoder) -> None:
    with pytest.raises(PromptError, match=r"100 safe prompts must be held out, a share of 0\.25\. Give 400 different"):
        train_gate(encoder, PAIRS.safe, PAIRS.unsafe, GateSettings(false_alarms=0.01))
    with pytest.raises(PromptError, match="among the safe and among the unsafe"):
        train_gate(encoder, PAIRS.safe, [*PAIRS.unsafe, PAIRS.safe[0]], SETTINGS)
