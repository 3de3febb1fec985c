"""The learned judge: an ordinary ViLT whose short cut gives the model's own numbers, packed and unfolded unchanged."""

import pytest
import torch

from sage_core.errors import ShapesError
from sage_core.shapes.ask import ANSWERS, ask, question_list
from sage_core.shapes.captions import write_captions
from sage_core.shapes.judge import (
    VOCABULARY,
    answer_questions,
    build_judge,
    expand_judge,
    judge_logits,
    judge_tokens,
    load_judge,
    restore_judge,
)
from sage_core.shapes.render import render
from sage_core.shapes.scenes import sample_scenes
from sage_core.shapes.weights import load_packed, save_packed


@pytest.fixture(scope="module")
def judge() -> torch.nn.Module:
    torch.manual_seed(0)
    judge = build_judge(32, 2, 48).eval()
    with torch.no_grad():
        for parameter in judge.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return judge


@pytest.fixture(scope="module")
def folder(judge, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_packed(folder, "judge", judge.state_dict(), {"seed": "0"})
    return folder


@pytest.fixture(scope="module")
def world():
    scenes = sample_scenes(6, seed=3, unsafe=None, split="any")
    return (render(scenes, seed=4) * 255).floor() / 255, ask(scenes, write_captions(scenes, seed=5, names="all"))


def test_short_cut_equals_the_models_own_forward(judge, world):
    pictures, questions = world
    listed = question_list()
    ids = torch.tensor([[listed.id_of(q.question) for q in asked[:4]] for asked in questions])
    tokens = judge_tokens()[ids].flatten(0, 1)
    with torch.no_grad():
        short = judge_logits(judge, pictures, tokens)
        long = judge(
            input_ids=tokens,
            attention_mask=(tokens != 0).long(),
            pixel_values=(pictures * 2 - 1).repeat_interleave(4, 0),
            pixel_mask=torch.ones(len(tokens), 64, 64, dtype=torch.long),
        ).logits
    assert short.shape == (24, len(ANSWERS)) and short.std() > 0.1
    assert torch.allclose(short, long, atol=1e-4)


def test_batches_do_not_matter(judge, world):
    pictures, _ = world
    questions = torch.arange(24).view(6, 4) * 31 % len(question_list().texts)
    answers = answer_questions(judge, pictures, questions)
    assert answers.shape == (6, 4) and len(answers.unique()) > 1
    assert torch.equal(answer_questions(judge, pictures, questions, batch_size=4), answers)
    assert answer_questions(judge, pictures[:0], questions[:0]).shape == (0, 4)


def test_tokens_are_those_of_the_tokenizer_in_the_folder(folder, tmp_path):
    from transformers import BertTokenizer

    tokenizer = BertTokenizer.from_pretrained(expand_judge(tmp_path, folder))
    some = torch.arange(0, len(question_list().texts), 97)
    texts = [question_list().texts[i] for i in some]
    length = judge_tokens().shape[1]
    encoded = tokenizer(texts, padding="max_length", max_length=length, return_tensors="pt").input_ids
    assert torch.equal(encoded, judge_tokens()[some])
    assert len(tokenizer) == len(VOCABULARY)


def test_behind_tifas_protocol_it_answers_the_same(folder, world):
    pictures, questions = world
    judge = load_judge(folder)
    assert judge.name == "shapes judge"
    replies = judge.answer(list(pictures.permute(0, 2, 3, 1)), questions)
    packed = restore_judge(load_packed("judge", folder)[0])
    listed = question_list()
    for row, asked in enumerate(questions):
        ids = torch.tensor([[listed.id_of(question.question) for question in asked]])
        expected = [ANSWERS[i] for i in answer_questions(packed, pictures[row : row + 1], ids)[0]]
        assert [reply.text for reply in replies[row]] == expected
        assert all(
            len(reply.probabilities) == len(q.choices) and sum(reply.probabilities) == pytest.approx(1)
            for reply, q in zip(replies[row], asked, strict=True)
        )


def test_weights_of_another_world_are_refused(judge):
    state = judge.state_dict()
    state["classifier.3.bias"] = torch.zeros(3)
    with pytest.raises(ShapesError, match="do not fit this world's questions"):
        restore_judge(state)
