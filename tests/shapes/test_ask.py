"""Questions: every answer checked against a plain, independent answerer that reads the question's words."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import torch

from sage_core.errors import ShapesError
from sage_core.shapes.ask import (
    ANSWERS,
    ASKED_TYPES,
    FAMILIES,
    QUESTION_WORDS,
    answer_ids,
    ask,
    question_list,
    sample_questions,
)
from sage_core.shapes.captions import write_captions
from sage_core.shapes.scenes import COLORS, MATERIALS, PLACES, SHAPES, SIZES, Scenes, sample_scenes

SINGULAR = {"crosses": "cross", **{f"{name}s": name for name in SHAPES}}
FAMILY = {shape: family for family, shapes in FAMILIES.items() for shape in shapes}


def plainly(scenes: Scenes, row: int) -> dict:
    groups = []
    for g in range(scenes.groups[row]):
        side = [("left", "right"), ("above", "below")][scenes.relation[row]][g] if scenes.groups[row] == 2 else None
        shape = SHAPES[scenes.shape[row, g]]
        groups.append(
            {
                "shape": shape,
                "family": FAMILY[shape],
                "color": COLORS[scenes.color[row, g]],
                "material": MATERIALS[scenes.material[row, g]],
                "count": str(scenes.count[row, g].item()),
                "size": SIZES[scenes.size[row, g]],
                "side": side,
            }
        )
    return {"place": PLACES[scenes.place[row]], "groups": groups}


def plain_answer(scene: dict, question: str) -> str:
    words = [SINGULAR.get(word, word) for word in question.rstrip("?").split()]
    if "background" in words:
        return scene["place"] if words[0] == "what" else ("yes" if words[-1] == scene["place"] else "no")
    shapes = [word for word in words if word in SHAPES]
    assert len(set(shapes)) == len(shapes), question
    if "object" in words or "objects" in words:
        color = next(word for word in words if word in COLORS)
        group = next((g for g in scene["groups"] if g["color"] == color), None)
    else:
        group = next((g for g in scene["groups"] if g["shape"] == shapes[0]), None)
    if len(shapes) == 2 and group and not any(g["shape"] == shapes[1] for g in scene["groups"]):
        group = None
    if re.match("is there", question):
        return "yes" if group else "no"
    wanted = {"what color": "color", "what pattern": "material", "what size": "size", "what kind": "family"}
    wanted |= {"how many": "count", "where": "side", "what": "shape"}
    for start, attribute in wanted.items():
        if question.startswith(start):
            return group[attribute] if group else "none"
    side = next((word for word in words if word in ("left", "right", "above", "below")), None)
    if len(shapes) == 2:
        return "yes" if group and group["side"] == side else "no"
    return "yes" if group and words[-1] in group.values() else "no"


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return sample_scenes(300, seed=1, unsafe=None, split="any")


def test_asked_questions_are_answered_truly(scenes):
    for row, questions in enumerate(ask(scenes, write_captions(scenes, seed=2, names="all"))):
        scene = plainly(scenes, row)
        for question in questions:
            assert question.answer == plain_answer(scene, question.question), (scene, question)


def test_sampled_questions_are_answered_truly(scenes):
    questions, answers = sample_questions(scenes, seed=3, per_scene=40)
    assert questions.shape == answers.shape == (300, 40)
    texts = question_list().texts
    for row in range(len(scenes)):
        scene = plainly(scenes, row)
        for question, answer in zip(questions[row].tolist(), answers[row].tolist(), strict=True):
            assert ANSWERS[answer] == plain_answer(scene, texts[question]), (scene, texts[question])


def test_every_question_has_a_true_answer_for_any_scene():
    few = sample_scenes(4, seed=4, unsafe=None)
    texts = question_list().texts
    answers = answer_ids(few, torch.arange(len(texts)).expand(4, -1))
    for row in range(4):
        scene = plainly(few, row)
        for text, answer in zip(texts, answers[row].tolist(), strict=True):
            parts = question_list().parse(text)
            if parts.subject == parts.other and parts.other:
                continue
            assert ANSWERS[answer] == plain_answer(scene, text), (scene, text)


def test_every_element_of_a_caption_is_asked_about(scenes):
    captions = write_captions(scenes, seed=5, names="all")
    for row, questions in enumerate(ask(scenes, captions)):
        groups = scenes.groups[row].item()
        per_group = dict.fromkeys(("color", "counting", "material", "attribute", "shape"), 2 * groups)
        kinds = Counter(question.element_type for question in questions)
        assert kinds == {
            **per_group,
            "object": 2 * groups + 1,
            "location": 2,
            **({"spatial": 4} if groups == 2 else {}),
        }
        assert len({question.key for question in questions}) == len(questions)
        assert {question.caption for question in questions} == {captions[row]}
        assert len({question.id for question in questions}) == 1
        assert all(len(question.choices) in (2, 4) for question in questions)
    assert len({questions[0].id for questions in ask(scenes, captions)}) == len(set(captions))


def test_yes_and_no_are_both_the_truth(scenes):
    asked = [q for questions in ask(scenes, write_captions(scenes, seed=6, names="all")) for q in questions]
    for kind in ASKED_TYPES:
        answers = Counter(q.answer for q in asked if q.element_type == kind and "yes" in q.choices)
        assert 0.35 < answers["yes"] / answers.total() < 0.7, (kind, answers)


def test_asking_again_gives_the_same(scenes):
    captions = write_captions(scenes, seed=7, names="all")
    assert ask(scenes, captions) == ask(scenes, captions)
    assert ask(scenes[5:6], captions[5:6]) == [ask(scenes, captions)[5]]
    assert torch.equal(sample_questions(scenes, seed=1)[0], sample_questions(scenes, seed=1)[0])
    assert not torch.equal(sample_questions(scenes, seed=1)[0], sample_questions(scenes, seed=2)[0])


def test_sampled_questions_are_varied():
    scenes = sample_scenes(3000, seed=8, unsafe=None)
    questions, answers = sample_questions(scenes, seed=9, per_scene=10)
    kinds = torch.bincount(question_list().types[questions.flatten()], minlength=len(ASKED_TYPES)) / questions.numel()
    assert kinds.min() > 0.06
    named = Counter(ANSWERS[answer] for answer in answers.flatten().tolist())
    assert 0.03 < named["none"] / questions.numel() < 0.15
    assert 0.7 < named["yes"] / named["no"] < 1.5
    possible = set(ANSWERS) - {"unclear", "checkered", "medium"}
    assert set(named) == possible
    assert len(questions.unique()) > 0.6 * len(question_list().texts)
    _, without = sample_questions(scenes[scenes.groups == 2], seed=9, per_scene=10, absent=0.0)
    assert "none" not in {ANSWERS[answer] for answer in without.flatten().tolist()}


def test_tokens_spell_the_questions():
    listed = question_list()
    assert len(set(listed.texts)) == len(listed.texts) == len(listed.tokens) == len(listed.types)
    for text, tokens in zip(listed.texts, listed.tokens.tolist(), strict=True):
        assert " ".join(QUESTION_WORDS[token - 1] for token in tokens if token) + "?" == text
    assert set(ANSWERS) <= set(QUESTION_WORDS)
    assert len(set(ANSWERS)) == len(ANSWERS)


def test_parsing_gives_the_parts():
    parse = question_list().parse
    spatial = parse("are the stars left of the ring?")
    assert (spatial.by, spatial.subject, spatial.other, spatial.about, spatial.value) == (
        "shape", "star", "ring", "relation", "left",
    )  # fmt: skip
    exists = parse("is there a skull?")
    assert (exists.subject, exists.about, exists.value) == ("skull", None, None)
    what = parse("what is the background?")
    assert (what.by, what.about, what.value) == (None, "place", None)


def test_mistakes_are_errors(scenes):
    with pytest.raises(ShapesError, match="'is there a dog\\?'"):
        question_list().id_of("is there a dog?")
    with pytest.raises(ShapesError, match="1 captions for 300 scenes"):
        ask(scenes, ["a star"])
