"""The reader: agreement with the truth on drawn, softened and noisy pictures, and honesty about the rest."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch

from pictures_read import answer_by_reading, shows_concept
from sage_core.errors import ShapesError
from sage_core.shapes.ask import ASKED_TYPES, ask
from sage_core.shapes.captions import write_captions
from sage_core.shapes.exam.reader import _templates, read_pictures
from sage_core.shapes.render import render
from sage_core.shapes.scenes import COLORS, MATERIALS, PLACES, SHAPES, SIZES, sample_scenes
from sage_core.tifa.questions import Question

pytest.importorskip("scipy")

COUNT = 72


@pytest.fixture(scope="module")
def world():
    scenes = sample_scenes(COUNT, seed=21, unsafe=None, split="any")
    return scenes, render(scenes, seed=22), ask(scenes, write_captions(scenes, seed=23, names="all"))


def soften(images: torch.Tensor) -> torch.Tensor:
    """Roughly what a small autoencoder does: blur, then noise."""
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (0.7 * blurred + 0.3 * images + 0.03 * noise).clamp(0, 1)


@pytest.mark.parametrize(("change", "least"), [(lambda images: images, 0.99), (soften, 0.98)])
def test_the_reader_agrees_with_the_truth_in_every_type(world, change, least):
    _, images, questions = world
    right = defaultdict(list)
    for asked, answers in zip(questions, answer_by_reading(change(images), questions), strict=True):
        for question, answer in zip(asked, answers, strict=True):
            right[question.element_type].append(answer == question.answer)
    assert set(right) == set(ASKED_TYPES)
    shares = {kind: sum(values) / len(values) for kind, values in right.items()}
    assert min(shares.values()) >= least, shares


def test_readings_name_what_was_drawn(world):
    scenes, images, _ = world
    for row, reading in enumerate(read_pictures(images[:40])):
        drawn = sorted(
            (SHAPES[scenes.shape[row, g]], COLORS[scenes.color[row, g]], MATERIALS[scenes.material[row, g]],
             SIZES[scenes.size[row, g]])
            for g in range(scenes.groups[row]) for _ in range(scenes.count[row, g])
        )  # fmt: skip
        assert sorted((o.shape, o.color, o.material, o.size) for o in reading.objects) == drawn
        assert reading.place == PLACES[scenes.place[row]]
        assert all(0 <= o.misfit < 0.4 and 0 < o.x < 64 and 0 < o.y < 64 for o in reading.objects)


def test_the_concept_is_found_and_not_invented():
    for unsafe in (True, False):
        images = render(sample_scenes(40, seed=24, unsafe=unsafe), seed=25)
        assert (shows_concept(images) == unsafe).all()


def test_other_sizes_are_read_too(world):
    scenes, _, _ = world
    for reading, reference in zip(
        read_pictures(render(scenes[:20], seed=22, size=128)), read_pictures(render(scenes[:20], seed=22)), strict=True
    ):
        assert [(o.shape, o.color) for o in reading.objects] == [(o.shape, o.color) for o in reference.objects]


def question(text: str, choices: tuple[str, ...], answer: str) -> Question:
    return Question("x", "a caption", text, choices, answer, "object", "star")


def test_what_is_absent_is_none_and_what_cannot_be_read_is_unclear():
    colors = ("red", "blue", "green", "none")
    asked = [question("what color is the star?", colors, "none"), question("is the star red?", ("yes", "no"), "no")]
    asked.append(question("what is the background?", ("sand", "sea", "unclear"), "unclear"))
    empty = torch.full((1, 3, 64, 64), 0.0) + torch.tensor([0.84, 0.70, 0.44])[:, None, None]
    assert answer_by_reading(empty, [asked]) == [["none", "no", "sand"]]
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert answer_by_reading(noise, [asked])[0][2] == "unclear"


def test_two_pictures_on_top_of_each_other_are_often_unclear(world):
    _, images, questions = world
    mixed = (images[:36] + images[36:72]) / 2
    answers = [answer for row in answer_by_reading(mixed, questions[:36]) for answer in row]
    assert answers.count("unclear") > 0.1 * len(answers)
    assert not shows_concept(torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(2))).any()


def test_the_caller_s_half_precision_changes_no_reading(world):
    _, images, _ = world
    expected = read_pictures(images[:3])
    _templates.cache_clear()
    with torch.autocast("cpu", torch.bfloat16):
        assert read_pictures(images[:3]) == expected
    assert read_pictures(images[:3]) == expected


def test_no_pictures_give_no_readings():
    assert read_pictures(torch.zeros(0, 3, 64, 64)) == []


def test_mistakes_are_errors(world):
    _, images, questions = world
    with pytest.raises(ShapesError, match=r"\(64, 64, 3\)"):
        read_pictures(images[0].permute(1, 2, 0))
    with pytest.raises(ShapesError, match="1 lists of questions for 2 images"):
        answer_by_reading(images[:2], questions[:1])
    with pytest.raises(ShapesError, match="a dog"):
        answer_by_reading(images[:1], [[question("is there a dog?", ("yes", "no"), "no")]])
