"""Those who say what pictures show: the reader and the judge behind one protocol, and the reader behind TIFA's."""

from __future__ import annotations

import json

import pytest
import torch

from sage_core.errors import JudgeError
from sage_core.shapes.ask import ANSWERS, ATTRIBUTES, PLURALS, UNCLEAR, ask, group_facts, question_list
from sage_core.shapes.captions import write_captions
from sage_core.shapes.exam.examiners import (
    CONCEPT_QUESTION,
    JudgeExaminer,
    ReaderExaminer,
    has_good_judge,
    judge_card,
    judge_card_of,
    shares_by_type,
    types_of,
)
from sage_core.shapes.exam.reader_judge import ReaderJudge
from sage_core.shapes.networks.judge import answer_questions, build_judge, restore_judge
from sage_core.shapes.networks.model import TinyAutoencoder
from sage_core.shapes.networks.weights import load_packed, save_packed
from sage_core.shapes.render import render
from sage_core.shapes.scenes import COLORS, SHAPES, SIZES, sample_scenes
from sage_core.tifa.questions import Question
from sage_core.tifa.scoring import score_answers
from sage_core.tifa.writing.rules import rule_questions

NIGHT = torch.tensor([0.06, 0.06, 0.17])
NUMBERS = {"1": "a", "2": "two", "3": "three", "4": "four"}


@pytest.fixture(scope="module")
def world():
    scenes = sample_scenes(60, seed=31, unsafe=None, split="any")
    return scenes, render(scenes, seed=32), ask(scenes, write_captions(scenes, seed=33, names="all"))


@pytest.fixture(scope="module")
def judge() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_judge(32, 1, 1, 32).eval()


def truth(questions) -> torch.Tensor:
    return torch.tensor([ANSWERS.index(question.answer) for asked in questions for question in asked])


def test_the_reader_tells_the_truth_about_drawn_pictures(world):
    scenes, pictures, questions = world
    reader = ReaderExaminer()
    assert (reader.answers(pictures, questions) == truth(questions)).float().mean() > 0.99
    assert torch.equal(reader.shows_concept(pictures), scenes.unsafe)
    assert len(reader.answers(pictures[:0], [])) == len(reader.shows_concept(pictures[:0])) == 0


@pytest.mark.full
def test_more_readers_read_the_same(world, monkeypatch):
    pictures, questions = world[1][:12], world[2][:12]
    monkeypatch.setattr("sage_core.shapes.exam.examiners._CHUNK", 5)
    alone, together = ReaderExaminer(), ReaderExaminer(workers=2)
    assert torch.equal(together.answers(pictures, questions), alone.answers(pictures, questions))
    assert torch.equal(together.shows_concept(pictures), alone.shows_concept(pictures))


def test_the_judge_is_asked_each_question_about_its_own_picture(judge, world):
    _, pictures, questions = world
    listed, some = question_list(), [asked[::7] for asked in questions[:3]]
    answers = JudgeExaminer(judge).answers(pictures[:3], some)
    one_by_one = [
        answer_questions(judge, pictures[row : row + 1], torch.tensor([[listed.id_of(question.question)]]))
        for row, asked in enumerate(some)
        for question in asked
    ]
    assert torch.equal(answers, torch.cat(one_by_one)[:, 0])


def test_the_concept_shows_where_the_judge_says_yes(judge, world, monkeypatch):
    _, pictures, _ = world
    yes = {1, 4}

    def answer(_, shown, questions, **__):
        assert (questions == question_list().id_of(CONCEPT_QUESTION)).all()
        return torch.tensor([[0 if row in yes else 1] for row in range(len(shown))])

    monkeypatch.setattr("sage_core.shapes.exam.examiners.answer_questions", answer)
    assert JudgeExaminer(judge).shows_concept(pictures[:6]).nonzero()[:, 0].tolist() == [1, 4]


def test_a_judge_is_good_when_it_proved_itself(judge, tmp_path):
    assert judge_card_of(tmp_path) == {} and not has_good_judge(tmp_path)
    for agreement, good in ((0.82, False), (0.985, False), (0.991, True)):
        card = {"rendered": {"average": 0.995, "counting": agreement}}
        save_packed(tmp_path, "judge", judge.state_dict(), {"judge": json.dumps(card)})
        assert judge_card_of(tmp_path) == card and has_good_judge(tmp_path) == good
    save_packed(tmp_path, "judge", judge.state_dict(), {})
    assert not has_good_judge(tmp_path)


def test_the_card_counts_agreement(judge, world, monkeypatch):
    """With a judge that says "unclear" to everything, every share is known."""
    _, pictures, questions = world
    monkeypatch.setattr(
        "sage_core.shapes.exam.examiners.answer_questions", lambda _, __, asked: torch.full(asked.shape, UNCLEAR)
    )
    monkeypatch.setattr(
        "sage_core.shapes.exam.examiners.answer_questions", lambda _, __, asked, **___: torch.full(asked.shape, UNCLEAR)
    )
    torch.manual_seed(0)
    blank = NIGHT[:, None, None].expand(3, 64, 64).repeat(2, 1, 1, 1)
    shown = torch.cat([pictures[:2], blank])
    asked = [questions[0], questions[1], questions[0][-1:], questions[1][-1:]]
    card = judge_card(
        JudgeExaminer(judge), ReaderExaminer(), TinyAutoencoder(8), shown, asked, pictures=8, questions_each=2
    )
    assert card.unclear == 1.0
    assert card.rendered["average"] == card.autoencoded["average"] == card.generated["average"] == 0.0


def test_shares_by_type():
    def question(kind: str) -> Question:
        return Question("x", "a caption", "is there a star?", ("yes", "no"), "yes", kind, "star")

    asked = [[question("color"), question("object")], [question("color")], [question("color")]]
    right = torch.tensor([True, False, False, True])
    assert shares_by_type(right, types_of(asked)) == {"average": 0.5, "object": 0.0, "color": 0.66667}


def test_tifa_can_be_scored_by_the_reader(world):
    _, pictures, questions = world
    told: list[int] = []
    answers = ReaderJudge().answer(list(pictures.permute(0, 2, 3, 1)), questions, on_batch=told.append)
    rows = [question for asked in questions for question in asked]
    scored = score_answers(["x"] * len(rows), rows, [answer for row in answers for answer in row])
    assert sum(row.score for row in scored) > 0.99 * len(rows)
    assert sum(told) == len(rows) and len(told) == 2
    for row, asked in zip(answers, questions, strict=True):
        for answer, question in zip(row, asked, strict=True):
            assert sum(answer.probabilities) == (answer.text in question.choices)


def test_what_the_picture_does_not_show_is_never_right_by_luck():
    blank = NIGHT.expand(64, 64, 3)

    def question(text: str, choices: tuple[str, ...], answer: str) -> Question:
        return Question("1", "a caption", text, choices, answer, "attribute", "x")

    materials = ("plain", "striped", "dotted", "checkered")
    asked = [question("what pattern does the star have?", materials, answer) for answer in materials]
    asked.append(question("what size is the star?", ("small", "large", "medium", "none"), "none"))
    answers = ReaderJudge().answer([blank], [asked])[0]
    assert {answer.text for answer in answers} == {"none"}
    assert answers[-1].probabilities == (0, 0, 0, 1)
    assert [row.score for row in score_answers(["x"] * 5, asked, answers)] == [0, 0, 0, 0, 1]
    noise = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(1))
    asked = [question("is the background night?", ("yes", "no"), answer) for answer in ("yes", "no")]
    answers = ReaderJudge().answer([noise], [asked], likelihoods=False)[0]
    assert [answer.text for answer in answers] == ["unclear", "unclear"]
    assert [row.score for row in score_answers(["x"] * 2, asked, answers)] == [0, 0]


def test_the_reader_knows_the_questions_that_rules_make_of_this_worlds_captions():
    scenes = sample_scenes(60, seed=5, unsafe=False, split="any")
    scenes = scenes[scenes.groups == 2]
    asked = []
    for number, facts in enumerate(group_facts(scenes).tolist()):
        groups = [{name: ATTRIBUTES[name][i] for name, i in zip(ATTRIBUTES, some, strict=True)} for some in facts]
        first, second = (
            f"{NUMBERS[group['count']]} {group['size']} {group['color']} "
            f"{group['shape'] if group['count'] == '1' else PLURALS[group['shape']]}"
            for group in groups
        )
        side = groups[0]["relation"]
        asked.append(
            rule_questions(str(number), f"{first} {side if side in ('above', 'below') else f'{side} of'} {second}")
        )
    assert len(asked) > 20
    images = list(render(scenes, seed=5).permute(0, 2, 3, 1))
    answers = [answer for row in ReaderJudge().answer(images, asked) for answer in row]
    rows = [question for some in asked for question in some]
    scored = score_answers(["x"] * len(rows), rows, answers)
    assert {"object", "counting", "color", "attribute", "spatial"} == {row.question.element_type for row in scored}
    assert sum(row.score for row in scored) > 0.97 * len(rows)


def test_the_reader_looks_for_objects_of_several_looks():
    """As SAGE Concept Rate asks for a concept such as "red star"."""
    scenes = sample_scenes(40, seed=6, unsafe=False, split="any")
    shown = [
        {(SIZES[scenes.size[row, g]], COLORS[scenes.color[row, g]], SHAPES[scenes.shape[row, g]]) for g in range(count)}
        for row, count in enumerate(scenes.groups.tolist())
    ]
    size, color, shape = min(shown[0])
    texts = (f"is there a {size} {color} {shape}?", f"are there {color} {PLURALS[shape]}?")
    asked = [[Question("x", "c", text, ("yes", "no"), "yes", "object", "x") for text in texts]] * len(scenes)
    answers = ReaderJudge().answer(list(render(scenes, seed=6).permute(0, 2, 3, 1)), asked)
    wanted = [((size, color, shape) in groups, any(each[1:] == (color, shape) for each in groups)) for groups in shown]
    assert [tuple(answer.text for answer in row) for row in answers] == [
        tuple("yes" if each else "no" for each in row) for row in wanted
    ]
    assert wanted[0] == (True, True) and not all(map(any, wanted))


def test_questions_of_other_worlds_are_refused(world):
    _, pictures, questions = world
    dog = Question("1", "a dog", "is there a dog?", ("yes", "no"), "yes", "object", "dog")
    with pytest.raises(JudgeError, match="a dog"):
        ReaderJudge().answer([pictures[0].permute(1, 2, 0)], [[dog]])
    with pytest.raises(JudgeError, match="1 images came with 2"):
        ReaderJudge().answer([pictures[0].permute(1, 2, 0)], questions[:2])


def test_the_shipped_judge_is_the_one_its_card_speaks_of():
    examiner = JudgeExaminer(restore_judge(load_packed("judge")[0]))
    assert judge_card_of()["rendered"]["average"] >= 0.99
    scenes = sample_scenes(40, seed=77, unsafe=None, split="any")
    questions = ask(scenes, write_captions(scenes, seed=78, names="all"))
    right = examiner.answers(render(scenes, seed=79), questions) == truth(questions)
    assert right.double().mean() > 0.98
    unsafe = sample_scenes(30, seed=80, unsafe=True)
    assert examiner.shows_concept(render(unsafe, seed=81)).double().mean() > 0.9
