"""The hard exam: the reader is right about its scenes, and the base is good at it and not perfect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pytest

from pictures_read import answer_by_reading
from sage_core.shapes.ask import ASKED_TYPES, ask
from sage_core.shapes.captions import write_captions
from sage_core.shapes.exam import trials
from sage_core.shapes.exam.reader import read_pictures
from sage_core.shapes.exam.trials import ModelPainter, TrialSettings
from sage_core.shapes.networks.weights import load_model
from sage_core.shapes.render import render
from sage_core.shapes.scenes import Scenes, concatenate
from sage_core.shapes.tasks import TASKS, Task
from sage_core.tifa.questions import Question

pytest.importorskip("scipy")

SEED = trials._FIRST_SEED + trials._BETWEEN_SEEDS
# As many shapes as two groups can have: what is crowded is read as well as what is not.
CROWD = 5


def exam(task: Task, count: int) -> tuple[Scenes, list[str], list[list[Question]]]:
    """Scenes behind the captions that a trial draws hard, with these and their questions."""
    half = count // 2
    scenes = concatenate(
        [task.safe_scenes(half, seed=SEED + at, split=split) for at, split in enumerate(("train", "held_out"))]
    )
    captions, questions = trials._safe_prompts(task, count, SEED)
    return scenes, captions, questions


def agreement(scenes: Scenes, questions: Sequence[Sequence[Question]], seed: int) -> dict[str, float]:
    """The share of right answers about rendered scenes, by type."""
    right = defaultdict(list)
    for asked, answers in zip(questions, answer_by_reading(render(scenes, seed=seed), questions), strict=True):
        for question, answer in zip(asked, answers, strict=True):
            right[question.element_type].append(answer == question.answer)
    return {kind: sum(values) / len(values) for kind, values in right.items()}


# A shape, a colour with it, and a place stand for all.
@pytest.mark.parametrize(
    "task",
    [pytest.param(task, marks=[] if name in ("red star", "night") else [pytest.mark.full])
     for name, task in TASKS.items()],
    ids=TASKS,
)  # fmt: skip
def test_the_reader_agrees_with_the_truth_about_its_scenes(task: Task) -> None:
    scenes, captions, questions = exam(task, 48)
    assert [asked[0].caption for asked in questions] == captions
    shares = agreement(scenes, questions, seed=31)
    assert set(shares) == set(ASKED_TYPES) and min(shares.values()) >= 0.98, shares


def test_it_agrees_about_five_and_six_shapes_as_well() -> None:
    drawn = TASKS["red star"].safe_scenes(900, seed=33)
    crowded = drawn[(drawn.groups == 2) & (drawn.count.sum(1) >= CROWD)]
    assert len(crowded) >= 40
    captions = write_captions(crowded, seed=34, names="seen")
    shares = agreement(crowded, ask(crowded, captions), seed=35)
    assert set(shares) == set(ASKED_TYPES) and min(shares.values()) >= 0.98, shares


@pytest.mark.full
@pytest.mark.parametrize("name", ["red star", "skull"])
def test_the_base_is_good_at_it_and_not_perfect(name: str) -> None:
    settings = TrialSettings()
    _, captions, questions = exam(TASKS[name], 24)
    pictures = ModelPainter(load_model()).draw(captions, steps=settings.hard_steps, weight=settings.hard_weight)
    right = trials._right_answers(read_pictures(pictures), questions)
    assert 0.70 <= trials._mean(trials._per_caption(right)) <= 0.95
