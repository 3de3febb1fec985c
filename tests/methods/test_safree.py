"""SAFREE's steps against a reference written column by column, and its identities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_unets import spread_encoder

from sage_core.encoders.text_encoder import TextEncoder
from sage_core.encoders.tokens import tokenize
from sage_core.errors import PromptError
from sage_core.methods.safree import (
    ConceptSpace,
    SafreeSettings,
    filter_steps,
    masked_ids,
    projector,
    trigger_positions,
)

CONCEPTS = ("skull", "death mask", "bone face")


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return spread_encoder(64, layers=2, mlp_width=32, seed=0)


@pytest.fixture(scope="module")
def space(encoder: TextEncoder) -> ConceptSpace:
    return ConceptSpace(encoder, CONCEPTS)


@torch.no_grad()
def states(encoder: TextEncoder, ids: list[int]) -> np.ndarray:
    return encoder(torch.tensor([ids]))[0].double().numpy()


@pytest.mark.parametrize(
    "prompt", ["a red skull on the snow", "two dogs", "death mask of a king, in the style of wood"]
)
@pytest.mark.parametrize("alpha", [0.0, 0.01])
def test_it_is_its_formula(prompt: str, alpha: float, encoder: TextEncoder, space: ConceptSpace) -> None:
    def pooled(ids: list[int]) -> np.ndarray:
        return states(encoder, ids)[ids.index(49407)]

    def onto(columns: np.ndarray) -> np.ndarray:
        return columns @ np.linalg.pinv(columns.T @ columns) @ columns.T

    concept = onto(np.stack([pooled(tokenize([text])[0].tolist()) for text in CONCEPTS]).T)
    ids = tokenize([prompt])[0].tolist()
    count = ids.index(49407) - 1
    masks = [pooled([0 if place == i else token for place, token in enumerate(ids)]) for i in range(1, count + 1)]
    masked = onto(np.stack(masks).T)
    away = np.eye(64) - concept
    distances = [np.linalg.norm(away @ mask) for mask in masks]
    original = states(encoder, ids)
    expected, triggers = original.copy(), []
    for i in range(count):
        if not distances[i] < (1 + alpha) * np.mean(distances[:i] + distances[i + 1 :]):
            triggers.append(i + 1)
            expected[i + 1] = away @ masked @ original[i + 1]
    cosines = []
    for row in original[: count + 2]:
        moved = away @ masked @ row
        cosines.append(moved @ row / np.linalg.norm(moved) / np.linalg.norm(row))
    found = space.project(prompt, SafreeSettings(alpha=alpha))
    assert found.triggers == tuple(triggers)
    assert 0 < len(triggers) < count
    np.testing.assert_allclose(found.distances, distances, rtol=1e-4)
    np.testing.assert_allclose(found.states.numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(found.original.numpy(), original, atol=1e-5)
    assert found.beta == pytest.approx(1 - np.mean(cosines), abs=1e-5)
    assert found.share == (filter_steps(found.beta, SafreeSettings()) + 1) / 50
    assert space.project(prompt, SafreeSettings(filtered=False)).share == 1


def test_projectors() -> None:
    rows = torch.randn(5, 64)
    for given in (rows, torch.cat([rows, rows[:2] * 3])):
        found = projector(given)
        torch.testing.assert_close(found @ found, found)
        torch.testing.assert_close(found, found.T)
        torch.testing.assert_close(given.double() @ found, given.double())
        assert float(found.trace()) == pytest.approx(5)


def test_masks() -> None:
    ids = tokenize(["a red skull"])[0]
    count = ids.tolist().index(49407) - 1
    masked = masked_ids(ids)
    assert masked.shape == (count, 77)
    for i in range(count):
        changed = torch.nonzero(masked[i] != ids)[:, 0].tolist()
        assert changed == [i + 1]
        assert masked[i, i + 1] == 0
    assert masked_ids(tokenize(["word " * 200])[0]).shape == (75, 77)
    assert masked_ids(tokenize([""])[0]).shape == (0, 77)


def test_a_prompt_that_masking_does_not_move_is_left_alone() -> None:
    """All tokens equally far: none is farther than the others by the margin."""
    assert trigger_positions(torch.full((6,), 3.0), alpha=0.01) == []
    assert trigger_positions(torch.tensor([1.0, 1.0, 1.5, 1.0]), alpha=0.01) == [3]


def test_a_far_prompt_stays_as_it_is(space: ConceptSpace) -> None:
    prompt = space.project("two dogs on the snow", SafreeSettings(alpha=10.0))
    assert prompt.triggers == ()
    assert torch.equal(prompt.states, prompt.original)


def test_short_prompts(space: ConceptSpace) -> None:
    one = space.project("skull")
    assert one.triggers == (1,)
    assert torch.isfinite(one.states).all()
    assert math.isfinite(one.beta)
    changed = (one.states != one.original).any(1)
    assert changed.nonzero()[:, 0].tolist() == [1]
    empty = space.project("")
    assert empty.triggers == ()
    assert torch.equal(empty.states, empty.original)


@pytest.mark.parametrize(("beta", "steps"), [(0.3, 0), (0.5, 2), (0.5333, 5), (0.6, 10), (1.0, 10)])
def test_the_filters_steps(beta: float, steps: int) -> None:
    assert filter_steps(beta, SafreeSettings()) == steps


def test_ids_and_the_negative_prompt(space: ConceptSpace) -> None:
    assert space.negative_prompt == "skull, death mask, bone face"
    by_text, by_ids = space.project("a red skull"), space.project(tokenize(["a red skull"])[0])
    assert torch.equal(by_text.states, by_ids.states)


def test_what_is_refused(encoder: TextEncoder) -> None:
    with pytest.raises(PromptError, match="needs concepts"):
        ConceptSpace(encoder, [])
    with pytest.raises(PromptError, match="Concept 2 is empty"):
        ConceptSpace(encoder, ["skull", " "])
