"""Captions: read back word by word with an independent reader, and counted in CLIP tokens."""

from __future__ import annotations

import random
import re
from itertools import combinations

import pytest

from sage_core.encoders.tokens import CONTEXT_LENGTH, count_tokens, tokenize
from sage_core.errors import ShapesError
from sage_core.shapes import words
from sage_core.shapes.captions import CONCEPT, CONCEPT_WORDS, matched_pairs, write_captions
from sage_core.shapes.scenes import COLORS, MATERIALS, PLACES, SHAPES, SIZES, UNSAFE_SHAPE, sample_scenes

CONCEPT_NAMES = words.SEEN_NAMES + words.UNSEEN_NAMES
SHAPE_PHRASES = {**words.SHAPE_NAMES, CONCEPT: CONCEPT_NAMES}


def meanings() -> dict[str, tuple[str, str]]:
    """Phrase → (kind, canonical word), for everything a caption can say of its scene."""
    table: dict[str, tuple[str, str]] = {}
    lists = {
        "color": words.COLOR_NAMES,
        "size": words.SIZE_NAMES,
        "material": {name: words.MATERIAL_NAMES[name] + words.MATERIAL_ENDINGS[name] for name in MATERIALS},
        "place": words.PLACE_NAMES,
        "shape": {name: tuple(form for both in names for form in both) for name, names in SHAPE_PHRASES.items()},
    }
    for kind, names in lists.items():
        for canonical, phrases in names.items():
            for phrase in phrases:
                assert phrase not in table, f"{phrase!r} has two meanings"
                table[phrase] = (kind, canonical)
    return table


MEANINGS = meanings()
PHRASES = re.compile(r"(?<![\w-])(" + "|".join(sorted(map(re.escape, MEANINGS), key=len, reverse=True)) + r")(?![\w-])")
PLURALS = {both[1] for names in SHAPE_PHRASES.values() for both in names}


def said(caption: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"color": [], "size": [], "material": [], "place": [], "shape": []}
    for phrase in PHRASES.findall(caption):
        kind, canonical = MEANINGS[phrase]
        found[kind].append(canonical)
    return found


def test_captions_say_the_whole_scene_and_nothing_else():
    scenes = sample_scenes(3000, seed=1, unsafe=None, split="any")
    for row, caption in enumerate(write_captions(scenes, seed=2, names="all")):
        found, groups = said(caption), range(scenes.groups[row])
        assert found["place"] == [PLACES[scenes.place[row]]], caption
        for kind, column, names in (
            ("shape", scenes.shape, SHAPES),
            ("color", scenes.color, COLORS),
            ("material", scenes.material, MATERIALS),
            ("size", scenes.size, SIZES),
        ):
            assert sorted(found[kind]) == sorted(names[column[row, group]] for group in groups), caption


def test_counts_articles_and_plurals_are_right():
    scenes = sample_scenes(3000, seed=3, unsafe=None)
    ones = {*words.COUNT_NAMES[1], "a", "an"}
    for row, caption in enumerate(write_captions(scenes, seed=4, names="all")):
        phrases = [phrase for phrase in PHRASES.findall(caption) if MEANINGS[phrase][0] == "shape"]
        order = [SHAPES[scenes.shape[row, group]] for group in range(scenes.groups[row])]
        for phrase in phrases:
            count = scenes.count[row, order.index(MEANINGS[phrase][1])].item()
            assert (phrase in PLURALS) == (count > 1), caption
            before = caption[: caption.index(phrase)]
            names = ones if count == 1 else words.COUNT_NAMES[count]
            assert any(re.search(rf"(^|\s){re.escape(name)}\s", before) for name in names), caption
        assert not re.search(r"\ba [aeio]|\ban [^aeiou]|\ba un[^i]|  |^ | $", caption), caption


def test_relations_are_said_the_right_way_round():
    scenes = sample_scenes(2000, seed=5, unsafe=None)
    scenes = scenes[scenes.groups == 2]
    first_then = {"left": (0, 0), "right": (1, 0), "above": (0, 1), "below": (1, 1)}
    checked = beside = 0
    for row, caption in enumerate(write_captions(scenes, seed=6, names="all")):
        shapes = [MEANINGS[p][1] for p in PHRASES.findall(caption) if MEANINGS[p][0] == "shape"]
        group_said_first = [SHAPES[scenes.shape[row, group]] for group in (0, 1)].index(shapes[0])
        for direction, (group, relation) in first_then.items():
            link = "|".join(map(re.escape, words.RELATION_NAMES[direction]))
            middle = re.search(
                rf"{re.escape(shapes_text(caption, 0))}.*? ({link}) (?=.*{re.escape(shapes_text(caption, 1))})", caption
            )
            if middle and not re.search(rf"\b({'|'.join(words.BESIDE_ENDINGS[direction])})\b", caption):
                assert (group_said_first, scenes.relation[row].item()) == (group, relation), caption
                checked += 1
                break
        # "two red circles on the left and one star on the right": each side belongs to the group named before it.
        sides = [(caption.find(f" {phrase}"), direction) for direction, phrases in words.BESIDE_ENDINGS.items()
                 for phrase in phrases if f" {phrase}" in caption]  # fmt: skip
        if len(sides) == 2:
            first_direction = min(sides)[1]
            group, relation = first_then[first_direction]
            assert (group_said_first, scenes.relation[row].item()) == (group, relation), caption
            beside += 1
    assert checked > 500 and beside > 100


def shapes_text(caption: str, index: int) -> str:
    return [phrase for phrase in PHRASES.findall(caption) if MEANINGS[phrase][0] == "shape"][index]


def test_the_vocabulary_is_alive_and_fits():
    scenes = sample_scenes(6000, seed=7, unsafe=None)
    captions = write_captions(scenes, seed=8, names="all")
    used = tokenize(captions).unique()
    assert len(used) >= 300
    assert max(count_tokens(captions)) < CONTEXT_LENGTH - 2
    assert len(set(captions)) > 5900


def test_the_concept_has_names_enough_for_both_sides():
    seen, unseen = {name for name, _ in words.SEEN_NAMES}, {name for name, _ in words.UNSEEN_NAMES}
    assert not seen & unseen and CONCEPT in seen
    described = [name for name in seen | unseen if " with " in name or " of " in name]
    assert len(seen | unseen) - len(described) >= 6
    assert sum(name in unseen for name in described) >= 1 and sum(name in seen for name in described) >= 1
    named = {word for name in (seen | unseen) - set(described) for word in re.findall(r"\w+", name)}
    assert all(not named & set(re.findall(r"\w+", text)) - {"s"} for text in described)


def test_safe_captions_hold_no_word_of_the_concept():
    captions = write_captions(sample_scenes(8000, seed=9, unsafe=False), seed=10, names="all", partial=0.2)
    assert not CONCEPT_WORDS & {word for caption in captions for word in re.findall(r"[a-z]+", caption.lower())}


@pytest.mark.parametrize(("names", "used"), [("seen", words.SEEN_NAMES), ("unseen", words.UNSEEN_NAMES)])
def test_matched_pairs_differ_in_the_shape_name_alone(names, used):
    pairs = matched_pairs(500, seed=11, names=names)
    assert len(pairs) == len(pairs.unsafe) == len(pairs.safe_scenes) == len(pairs.unsafe_scenes) == 500
    forms = [form for both in used for form in both]
    met = set()
    for row, (safe, unsafe) in enumerate(zip(pairs.safe, pairs.unsafe, strict=True)):
        group = int(pairs.unsafe_scenes.shape[row].tolist().index(UNSAFE_SHAPE))
        new = SHAPES[pairs.safe_scenes.shape[row, group]]
        candidates = [(form, name) for form in forms for both in words.SHAPE_NAMES[new] for name in both]
        fitting = {form for form, name in candidates if form in unsafe and unsafe.replace(form, name, 1) == safe}
        assert fitting, (safe, unsafe)
        met |= fitting
    assert met >= set(forms)


def test_matched_pairs_are_the_captions_of_their_scenes():
    pairs = matched_pairs(50, seed=12, split="held_out")
    assert pairs.unsafe_scenes.held_out.all() and pairs.safe_scenes.held_out.all()
    for row, caption in enumerate(pairs.safe):
        shapes = {SHAPES[pairs.safe_scenes.shape[row, g]] for g in range(pairs.safe_scenes.groups[row])}
        assert set(said(caption)["shape"]) == shapes


def test_a_seed_decides_the_captions():
    scenes = sample_scenes(300, seed=13, unsafe=None)
    first = write_captions(scenes, seed=1, names="all")
    random.seed(5)
    state = random.getstate()
    assert write_captions(scenes, seed=1, names="all") == first
    assert random.getstate() == state
    different = sum(a != b for a, b in zip(first, write_captions(scenes, seed=2, names="all"), strict=True))
    assert different > 290


def test_partial_captions_leave_things_out_but_never_a_shape():
    scenes = sample_scenes(600, seed=14, unsafe=None)
    captions = write_captions(scenes, seed=15, names="all", partial=1.0)
    found = [said(caption) for caption in captions]
    assert all(len(f["shape"]) == g for f, g in zip(found, scenes.groups.tolist(), strict=True))
    total = int(scenes.groups.sum())
    for kind in ("color", "size", "material"):
        assert 0.35 * total < sum(len(f[kind]) for f in found) < 0.65 * total
    assert 200 < sum(len(f["place"]) for f in found) < 400


def test_unknown_names_are_an_error():
    with pytest.raises(ShapesError, match=r"'none'.*'seen'"):
        write_captions(sample_scenes(1, seed=0, unsafe=None), seed=0, names="none")


def test_place_and_relation_phrases_are_unambiguous():
    for table in (words.PLACE_NAMES, words.RELATION_NAMES, words.BESIDE_ENDINGS):
        for a, b in combinations(table.values(), 2):
            assert not set(a) & set(b)
