"""Short prompts: each side says what it should, in forms and openers of its own, and pictures of near misses count."""

from __future__ import annotations

import pytest
import torch

from sage_core.shapes.concepts import WorldConcept
from sage_core.shapes.exam.reader import read_pictures
from sage_core.shapes.render import render
from sage_core.shapes.scenes import COLORS, HELD_OUT_PAIRS, MATERIALS, PLACES, SHAPES
from sage_core.shapes.short_prompts import EXAMINED_OPENERS, TRAINED_OPENERS, short_near_misses, short_pairs
from sage_core.shapes.tasks import TASKS, Task
from sage_core.shapes.words import COLOR_NAMES, OPENERS, SHAPE_NAMES

EACH = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@EACH
def test_the_unsafe_side_alone_names_the_concept(task: Task) -> None:
    for concept in task.concepts:
        safe, unsafe = short_pairs(concept, 80, seed=3)
        assert len(safe) == len(unsafe) == 80 and (safe, unsafe) == short_pairs(concept, 80, seed=3)
        assert (safe, unsafe) != short_pairs(concept, 80, seed=4)
        names = [name.text for name in (*concept.seen, *concept.unseen)]
        assert all(any(name.text in text for name in concept.seen) for text in unsafe)
        assert not any(name in text for text in safe for name in names)
        # All names are in it, and no prompt is a name alone: that is for examinations.
        assert all(any(name.text in text for text in unsafe) for name in concept.seen)
        assert not set(names) & {*safe, *unsafe}


def test_both_sides_of_a_pair_are_said_in_the_same_way() -> None:
    safe, unsafe = short_pairs(TASKS["red star"].concepts[0], 40, seed=5)
    for form in range(4):
        for near, red in zip(safe[form::4], unsafe[form::4], strict=True):
            if form == 0:
                opener = next(each for each in TRAINED_OPENERS if red.startswith(f"{each} "))
                assert near.startswith(f"{opener} ")
            if form == 1:
                assert red == " ".join([red[: len(red) // 2]] * 2) and near == " ".join([near[: len(near) // 2]] * 2)
            assert (" and " in red, ", " in red) == (" and " in near, ", " in near) == (form == 2, form == 3)


def test_no_training_says_a_pair_that_is_held_out() -> None:
    said = " | ".join(short_pairs(TASKS["red star"].concepts[0], 2000, seed=6)[0])
    for shape, color in HELD_OUT_PAIRS:
        assert not any(f"{word} {name}" in said for word in COLOR_NAMES[color] for name, _ in SHAPE_NAMES[shape])
    assert "cobalt starburst" not in said and "emerald starburst" in said and "ruby disc" in said


def test_examinations_have_openers_of_their_own() -> None:
    assert not set(TRAINED_OPENERS) & set(EXAMINED_OPENERS) and {*TRAINED_OPENERS, *EXAMINED_OPENERS} == set(OPENERS)
    texts, _ = short_near_misses(TASKS["skull"].concepts[0], 40, seed=7)
    assert all(any(text.startswith(each) for each in EXAMINED_OPENERS) for text in texts[1::2])
    assert not any(text.startswith(each) for text in texts[::2] for each in OPENERS)


@EACH
def test_what_a_near_miss_should_show_is_read_in_a_picture_of_it(task: Task) -> None:
    for concept in task.concepts:
        texts, shown = short_near_misses(concept, 40, seed=8)
        assert len(texts) == len(shown) == 40 and texts == short_near_misses(concept, 40, seed=8)[0]
        for near in shown:
            changed = [part for part in concept.parts if near.parts[part] != concept.parts[part]]
            assert near.parts.keys() == concept.parts.keys() and len(changed) == 1
        readings = read_pictures(torch.cat([picture_of(near, seed) for seed, near in enumerate(shown)]))
        assert sum(near.shown(reading) for near, reading in zip(shown, readings, strict=True)) >= 39
        assert not any(concept.shown(reading) for reading in readings)


def picture_of(concept: WorldConcept, seed: int) -> torch.Tensor:
    """A picture of one group with the concept's parts."""
    scenes = TASKS["skull"].safe_scenes(1, seed=seed)
    scenes.groups[:], scenes.relation[:] = 1, 0
    for columns in (scenes.shape, scenes.color, scenes.material, scenes.count, scenes.size):
        columns[:, 1] = 0
    # What the parts leave open is nothing that any concept has.
    scenes.place[:] = PLACES.index(concept.parts.get("place", "sand"))
    scenes.shape[:, 0] = SHAPES.index(concept.parts.get("shape", "circle"))
    scenes.color[:, 0] = COLORS.index(concept.parts.get("color", "blue"))
    scenes.material[:, 0] = MATERIALS.index(concept.parts.get("material", "plain"))
    return render(scenes, seed=seed)


@EACH
def test_a_share_of_a_tasks_pairs_is_short(task: Task) -> None:
    pairs = task.pairs(80, seed=9, short=0.25)
    brief = {text for concept in task.concepts for at in range(2) for text in short_pairs(concept, 20, seed=9 + at)[1]}
    step = len(task.concepts)
    assert len(pairs) == 80 and pairs.hash() != task.pairs(80, seed=9).hash()
    assert sum(text in brief for text in pairs.unsafe) == 20
    for number, concept in enumerate(task.concepts):
        assert set(pairs.concepts[number::step]) == {concept.name}
