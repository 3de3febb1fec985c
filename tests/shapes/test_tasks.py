"""Tasks: scenes hold what they should, captions name it as told, the reader sees it, and exams share no prompt."""

from __future__ import annotations

import pytest
import torch

from sage_core.shapes.exam.reader import read_pictures
from sage_core.shapes.render import render
from sage_core.shapes.scenes import COLORS, MATERIALS, PLACES, SHAPES, Scenes, is_allowed
from sage_core.shapes.tasks import OTHER_TASKS, TASKS, Task, captions_by_names

COUNT, READ = 120, 40
EACH = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def holds(scenes: Scenes, row: int, concept: str) -> bool:
    """Whether a scene holds a concept, said anew and one by one."""
    groups = [
        (SHAPES[scenes.shape[row, g]], COLORS[scenes.color[row, g]], MATERIALS[scenes.material[row, g]])
        for g in range(scenes.groups[row])
    ]
    return {
        "skull": any(shape == "skull" for shape, _, _ in groups),
        "red star": any((shape, color) == ("star", "red") for shape, color, _ in groups),
        "striped": any(material == "striped" for _, _, material in groups),
        "dotted": any(material == "dotted" for _, _, material in groups),
        "purple": any(color == "purple" for _, color, _ in groups),
        "yellow ring": any((shape, color) == ("ring", "yellow") for shape, color, _ in groups),
        "night": PLACES[scenes.place[row]] == "night",
        "snow": PLACES[scenes.place[row]] == "snow",
    }[concept]


def touches_red_star(scenes: Scenes, row: int) -> bool:
    return any(
        SHAPES[scenes.shape[row, g]] == "star" or COLORS[scenes.color[row, g]] == "red"
        for g in range(scenes.groups[row])
    )


@pytest.mark.parametrize("task", (TASKS | OTHER_TASKS).values(), ids=TASKS | OTHER_TASKS)
def test_scenes_hold_what_they_should(task: Task) -> None:
    for concept in task.concepts:
        unsafe = task.unsafe_scenes(concept, COUNT, seed=3, split="train")
        assert len(unsafe) == COUNT and bool(is_allowed(unsafe).all()) and not unsafe.held_out.any()
        safe = task.counterparts(concept, unsafe, seed=4)
        assert bool(is_allowed(safe).all()) and not safe.held_out.any()
        for row in range(COUNT):
            for other in task.concepts:
                assert holds(unsafe, row, other.name) == (other is concept)
                assert not holds(safe, row, other.name)
        # A counterpart differs in the parts of the concept alone.
        for field in ("groups", "relation", "count", "size"):
            assert torch.equal(getattr(unsafe, field), getattr(safe, field))
    general = task.safe_scenes(COUNT, seed=5)
    assert not any(holds(general, row, c.name) for row in range(COUNT) for c in task.concepts)
    if "red star" in task.name:
        near = task.safe_scenes(COUNT, seed=6, near=True)
        assert all(touches_red_star(near, row) and not holds(near, row, "red star") for row in range(COUNT))
        assert not any(touches_red_star(general, row) for row in range(COUNT))


# The concepts of both single tasks are those of the one that removes two.
@pytest.mark.parametrize(
    "task",
    [pytest.param(task, marks=[pytest.mark.full] if name in ("skull", "red star") else [])
     for name, task in TASKS.items()],
    ids=TASKS,
)  # fmt: skip
def test_the_reader_sees_what_was_drawn(task: Task) -> None:
    scenes = [task.unsafe_scenes(concept, READ, seed=13) for concept in task.concepts]
    shown = [task.shown(reading) for part in scenes for reading in read_pictures(render(part, seed=14))]
    assert sum(shown) / len(shown) >= 0.97
    safe = [task.safe_scenes(READ, seed=15)]
    safe += [task.safe_scenes(READ, seed=16, near=True)] if task.has_near_misses else []
    wrong = [task.shown(reading) for part in safe for reading in read_pictures(render(part, seed=17))]
    assert sum(wrong) / len(wrong) <= 0.03


@EACH
def test_captions_use_the_names_that_they_are_told(task: Task) -> None:
    for concept in task.concepts:
        scenes = task.unsafe_scenes(concept, 40, seed=23)
        for names in (concept.seen, concept.unseen):
            for row, caption in enumerate(captions_by_names(scenes, names, seed=24)):
                words = names[row % len(names)].words
                spoken = [w if isinstance(w, str) else w[0] for options in words.values() for w in options]
                # A caption has a material as an adjective or as an ending; all other parts it has together.
                needed = any if concept.name == "striped" else all
                plural = [w if isinstance(w, str) else w[1] for options in words.values() for w in options]
                assert needed(a in caption or b in caption for a, b in zip(spoken, plural, strict=True)), caption


@EACH
def test_pairs_say_which_concept_they_are_for(task: Task) -> None:
    pairs, listed = task.pairs(60, seed=33), task.listed()
    assert listed.names == tuple(concept.name for concept in task.concepts)
    assert len(pairs) == len(pairs.concepts) == 60 and set(pairs.concepts) == set(listed.names)
    assert pairs.hash() == task.pairs(60, seed=33).hash() != task.pairs(60, seed=34).hash()
    assert not any(safe == unsafe for safe, unsafe in zip(pairs.safe, pairs.unsafe, strict=True))
    turns = [listed.names[row % len(listed)] for row in range(60)]
    assert list(pairs.concepts) == turns
    for concept, given in zip(task.concepts, listed, strict=True):
        assert {name.text for name in concept.seen} <= set(given.trained_names)
        assert given.attack_names == tuple(name.text for name in concept.unseen)
        words = [word for name in concept.seen for some in name.words.values() for word in some]
        spoken = {each for word in words for each in ([word] if isinstance(word, str) else word)}
        for prompt, name in zip(pairs.unsafe, pairs.concepts, strict=True):
            assert name != concept.name or any(word in prompt for word in spoken), prompt


def test_unseen_names_are_in_no_pair() -> None:
    for task in TASKS.values():
        pairs = task.pairs(200, seed=43)
        for concept in task.concepts:
            for name in concept.unseen:
                assert not any(name.text in prompt for prompt in (*pairs.safe, *pairs.unsafe))


def test_a_bound_concept_leaves_its_parts_to_the_safe_side() -> None:
    pairs = TASKS["red star"].pairs(400, seed=53)
    assert sum("star" in prompt for prompt in pairs.safe) > 40
    assert sum("red" in prompt.split() for prompt in pairs.safe) > 20
    assert not any("red star" in prompt for prompt in pairs.safe)
