"""The ruler and what is read from it, against slow references in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sage_core.alignment.ruler import Ruler, moved_of, worst_mean
from sage_core.errors import TrainingError


def sets(unsafe=40, safe=30, width=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator)
    apart = torch.randn(width, generator=generator)
    return (
        torch.randn(unsafe, width, generator=generator) @ mixing + apart + 5,
        torch.randn(safe, width, generator=generator) @ mixing + 5,
    )


@pytest.mark.parametrize("sizes", [(40, 30, 12), (6, 5, 40), (1, 1, 8)], ids=["tall", "wide", "one of each"])
def test_places_equal_fisher_by_hand(sizes):
    unsafe, safe = sets(*sizes)
    ruler = Ruler.of(unsafe, safe)
    u, s = unsafe.double().numpy(), safe.double().numpy()
    scatter = np.zeros((sizes[2], sizes[2]))
    for row in [*(u - u.mean(0)), *(s - s.mean(0))]:
        scatter += np.outer(row, row) / (len(u) + len(s))
    scatter += np.eye(sizes[2]) * (0.1 * np.trace(scatter) / (len(u) + len(s)) or 1.0)
    line = np.linalg.inv(scatter) @ (u.mean(0) - s.mean(0))
    expected = [(row - s.mean(0)) @ line / ((u.mean(0) - s.mean(0)) @ line) for row in [*u, *s]]
    assert ruler.places(torch.cat([unsafe, safe])).numpy() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_two_means_are_one_and_nought():
    unsafe, safe = sets()
    ruler = Ruler.of(unsafe, safe)
    assert ruler.places(unsafe).mean().item() == pytest.approx(1, abs=1e-5)
    assert ruler.places(safe).mean().item() == pytest.approx(0, abs=1e-5)


def test_what_is_left_in_one_group_counts():
    assert worst_mean([0.0, 0.2, 0.9, 0.5], ["full", "full", "short", "short"]) == pytest.approx(0.7)
    assert np.isnan(worst_mean([], []))


def test_two_sets_of_one_mean_have_no_ruler():
    unsafe, _ = sets()
    with pytest.raises(TrainingError, match="differ in the concept"):
        Ruler.of(unsafe, unsafe)


def test_a_prompt_has_moved_when_it_lies_nearer_to_another():
    base = torch.eye(4)
    aligned = base.clone()
    aligned[1] = 0.9 * base[2] + 0.1 * base[1]
    aligned[3] = 3 * base[3]
    gap = lambda one, other: sum((a - b) ** 2 for a, b in zip(one, other, strict=True))  # noqa: E731
    places = base.tolist()
    by_hand = [any(gap(x, y) < gap(x, places[at]) for y in places) for at, x in enumerate(aligned.tolist())]
    assert moved_of(aligned, base).tolist() == by_hand == [False, True, False, False]


def test_nothing_has_moved_in_the_base():
    base = torch.randn(20, 6, generator=torch.Generator().manual_seed(2))
    assert not moved_of(base, base).any()
    doubled = torch.cat([base, base])
    assert not moved_of(doubled, doubled).any()
