"""Scenes: what may occur, the splits, and the safe counterparts."""

from __future__ import annotations

from dataclasses import fields
from itertools import product

import pytest
import torch

from sage_core.errors import ShapesError
from sage_core.shapes.scenes import (
    COLORS,
    HELD_OUT_PAIRS,
    HIDDEN_COLORS,
    MATERIALS,
    MAX_COUNT_OF_TWO,
    PLACES,
    RELATIONS,
    SHAPES,
    SIZES,
    UNSAFE_SHAPE,
    Scenes,
    concatenate,
    safe_counterparts,
    sample_scenes,
)


def pairs(scenes: Scenes, row: int) -> list[tuple[str, str]]:
    return [(SHAPES[scenes.shape[row, group]], COLORS[scenes.color[row, group]]) for group in range(scenes.groups[row])]


def codes(scenes: Scenes) -> torch.Tensor:
    """(N,) int64, different for any two different scenes."""
    code = torch.zeros_like(scenes.place)
    for field in fields(scenes):
        for part in getattr(scenes, field.name).reshape(len(scenes), -1).unbind(1):
            code = code * 10 + part
    return code


def same(a: Scenes, b: Scenes) -> bool:
    return torch.equal(codes(a), codes(b))


def test_a_seed_decides_the_scenes():
    first = sample_scenes(200, seed=1, unsafe=None)
    torch.manual_seed(99)
    assert same(first, sample_scenes(200, seed=1, unsafe=None))
    assert not same(first, sample_scenes(200, seed=2, unsafe=None))


def test_scenes_keep_the_rules():
    scenes = sample_scenes(3000, seed=0, unsafe=None, split="any")
    for row in range(len(scenes)):
        place, groups = PLACES[scenes.place[row]], scenes.groups[row].item()
        found = pairs(scenes, row)
        assert len({shape for shape, _ in found}) == len({color for _, color in found}) == groups
        assert all(color != HIDDEN_COLORS.get(place) for _, color in found)
        for group in range(groups):
            limit = 4 if groups == 1 else MAX_COUNT_OF_TWO[SIZES[scenes.size[row, group]]]
            assert 1 <= scenes.count[row, group] <= limit
        if groups == 1:
            columns = (scenes.shape, scenes.color, scenes.material, scenes.count, scenes.size)
            assert scenes.relation[row] == 0 and all(column[row, 1] == 0 for column in columns)


def test_every_value_is_common():
    scenes = sample_scenes(4000, seed=3, unsafe=None)
    present = scenes.present
    columns = ((scenes.shape, SHAPES), (scenes.color, COLORS), (scenes.material, MATERIALS), (scenes.size, SIZES))
    for column, names in columns:
        share = torch.bincount(column[present], minlength=len(names)) / present.sum()
        assert share.min() > 0.6 / len(names), dict(zip(names, share.tolist(), strict=True))
    assert torch.bincount(scenes.place).min() > 500
    assert torch.bincount(scenes.count[present])[1:].min() > 300


@pytest.mark.parametrize("unsafe", [True, False])
def test_unsafe_scenes_all_show_the_concept_and_safe_ones_never(unsafe):
    scenes = sample_scenes(500, seed=4, unsafe=unsafe, split="any")
    assert len(scenes) == 500
    assert [any(SHAPES[UNSAFE_SHAPE] == shape for shape, _ in pairs(scenes, row)) for row in range(500)] == [
        unsafe
    ] * 500
    assert scenes.unsafe.tolist() == [unsafe] * 500


@pytest.mark.parametrize("unsafe", [True, False, None])
def test_the_splits_are_apart(unsafe):
    train = sample_scenes(2000, seed=5, unsafe=unsafe, split="train")
    held_out = sample_scenes(300, seed=5, unsafe=unsafe, split="held_out")
    assert not any(pair in HELD_OUT_PAIRS for row in range(len(train)) for pair in pairs(train, row))
    assert all(any(pair in HELD_OUT_PAIRS for pair in pairs(held_out, row)) for row in range(len(held_out)))
    assert not train.held_out.any() and held_out.held_out.all()


def test_held_out_shapes_and_colors_stay_common_in_training():
    train = sample_scenes(4000, seed=6, unsafe=None)
    seen = {pair for row in range(len(train)) for pair in pairs(train, row)}
    assert seen == set(product(SHAPES, COLORS)) - set(HELD_OUT_PAIRS)


def test_there_are_more_than_a_million_scenes():
    """Counts allowed group pairs and multiplies by what is free, then checks that samples hardly repeat."""
    free_of_two = (len(MATERIALS) * sum(MAX_COUNT_OF_TWO.values())) ** 2 * len(RELATIONS)
    total = 0
    for place in PLACES:
        usable = [pair for pair in product(SHAPES, COLORS) if pair[1] != HIDDEN_COLORS.get(place)]
        total += len(usable) * len(MATERIALS) * len(SIZES) * 4
        total += free_of_two * sum(a[0] != b[0] and a[1] != b[1] for a, b in product(usable, usable))
    assert total > 1_000_000
    two = sample_scenes(40_000, seed=7, unsafe=None, split="any")
    two = two[two.groups == 2]
    expected_repeats = len(two) ** 2 / 2 / total
    assert len(two) - len(codes(two).unique()) < 3 * expected_repeats + 10


def test_codes_tell_scenes_apart():
    scenes = sample_scenes(2000, seed=8, unsafe=None)
    rows = {
        tuple(int(v) for column in vars(scenes).values() for v in column[row].flatten()) for row in range(len(scenes))
    }
    assert len(codes(scenes).unique()) == len(rows)


def test_counterparts_change_the_unsafe_shape_alone():
    for split in ("train", "held_out"):
        unsafe = sample_scenes(800, seed=9, unsafe=True, split=split)
        safe = safe_counterparts(unsafe, seed=1)
        assert not safe.unsafe.any()
        changed = (unsafe.shape == UNSAFE_SHAPE) & unsafe.present
        assert torch.equal(changed, unsafe.shape != safe.shape)
        for name in ("place", "groups", "relation", "color", "material", "count", "size"):
            assert torch.equal(getattr(safe, name), getattr(unsafe, name))
        two = safe.groups == 2
        assert (safe.shape[two, 0] != safe.shape[two, 1]).all()
        assert torch.equal(safe.held_out, unsafe.held_out)
        assert len(safe.shape[changed].unique()) == UNSAFE_SHAPE


def test_counterparts_leave_safe_scenes_alone():
    scenes = sample_scenes(100, seed=10, unsafe=False)
    assert same(scenes, safe_counterparts(scenes, seed=2))


def test_indexing_and_joining():
    scenes = sample_scenes(10, seed=11, unsafe=None)
    joined = concatenate([scenes[:3], scenes[3], scenes[torch.arange(4, 9)], scenes[-1]])
    assert same(joined, scenes)
    assert len(scenes[scenes.groups == 1]) == int((scenes.groups == 1).sum())
    assert len(sample_scenes(0, seed=0, unsafe=None)) == 0


def test_an_unknown_split_is_an_error():
    with pytest.raises(ShapesError, match=r"'test'.*'train'"):
        sample_scenes(1, seed=0, unsafe=None, split="test")
