"""The learned judge: an ordinary BLIP whose short cut gives the model's own numbers, packed and unfolded unchanged."""

from __future__ import annotations

import pytest
import torch

from sage_core.errors import ShapesError
from sage_core.shapes.ask import ANSWERS, ATTRIBUTES, ask, question_list
from sage_core.shapes.captions import write_captions
from sage_core.shapes.networks.judge import (
    ANSWER_TOKENS,
    END,
    VOCABULARY,
    answer_questions,
    begin,
    build_judge,
    expand_judge,
    judge_tokens,
    load_judge,
    look,
    reply,
    restore_judge,
)
from sage_core.shapes.networks.model import TinyAutoencoder
from sage_core.shapes.networks.weights import load_packed, save_packed
from sage_core.shapes.render import render, render_with_groups
from sage_core.shapes.scenes import COLORS, SHAPES, sample_scenes
from sage_core.shapes.train.judge_training import (
    UNKNOWN,
    fact_head,
    fact_loss,
    judge_loss,
    judge_pool,
    patch_facts,
    sight_loss,
)


@pytest.fixture(scope="module")
def judge() -> torch.nn.Module:
    torch.manual_seed(0)
    judge = build_judge(32, 2, 2, 48).eval()
    with torch.no_grad():
        for parameter in judge.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
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
    """Question by question, unpadded, since the decoder of some versions looks at padding too."""
    pictures, questions = world
    listed = question_list()
    ids = torch.tensor([[listed.id_of(q.question) for q in asked[:4]] for asked in questions])
    tokens = judge_tokens()[ids].flatten(0, 1)
    written = begin(torch.arange(24) * 5 % len(VOCABULARY))
    with torch.no_grad():
        seen = look(judge, pictures)
        short = reply(judge, seen, tokens, written)
        assert torch.allclose(seen, judge.vision_model(pictures * 2 - 1).last_hidden_state, atol=1e-5)
        for row in range(24):
            question = tokens[row][tokens[row] != 0][None]
            read = judge.text_encoder(input_ids=question, encoder_hidden_states=seen[row // 4][None])
            decoded = judge.text_decoder(input_ids=written[row : row + 1], encoder_hidden_states=read.last_hidden_state)
            assert torch.allclose(short[row], decoded.logits[0], atol=1e-4)
    assert short.shape == (24, 2, len(VOCABULARY)) and short.std() > 0.1


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


def test_behind_tifas_protocol_it_weighs_choices_the_same(folder, world):
    pictures, questions = world
    judge = load_judge(folder)
    assert judge.name == "shapes judge"
    pictures, questions = pictures[:2], questions[:2]
    replies = judge.answer(list(pictures.permute(0, 2, 3, 1)), questions)
    packed = restore_judge(load_packed("judge", folder)[0])
    listed = question_list()
    for row, asked in enumerate(questions):
        tokens = judge_tokens()[[listed.id_of(question.question) for question in asked]]
        with torch.no_grad():
            seen = look(packed, pictures[row : row + 1])
            for number, question in enumerate(asked):
                words = begin(torch.tensor([VOCABULARY.index(choice) for choice in question.choices]))
                logits = reply(packed, seen, tokens[[number] * len(words)], words).log_softmax(-1)
                odds = logits[:, 0].gather(1, words[:, 1:])[:, 0] + logits[:, 1, END]
                assert replies[row][number].probabilities == pytest.approx(odds.softmax(0).tolist(), abs=1e-4)


def test_weights_of_another_world_are_refused(judge):
    state = judge.state_dict()
    state["text_decoder.cls.predictions.bias"] = torch.zeros(3)
    with pytest.raises(ShapesError, match="do not fit this world's questions"):
        restore_judge(state)
    with pytest.raises(ShapesError, match="do not fit"):
        restore_judge({"classifier.bias": torch.zeros(3)})


def test_every_answer_is_a_word():
    assert [VOCABULARY[token] for token in ANSWER_TOKENS] == list(ANSWERS)


def test_patches_tell_what_lies_on_them():
    scenes = sample_scenes(30, seed=6, unsafe=None, split="any")
    pictures, groups = render_with_groups(scenes, seed=7)
    assert torch.equal(pictures, render(scenes, seed=7))
    facts = patch_facts(scenes, groups).view(30, 8, 8, len(ATTRIBUTES))
    told = {name: facts[..., place] for place, name in enumerate(ATTRIBUTES)}
    assert (told["place"] == scenes.place[:, None, None]).all()
    for row in range(30):
        for y, x in torch.cartesian_prod(torch.arange(8), torch.arange(8)).tolist():
            patch = groups[row, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8]
            shares = [(patch == group).float().mean().item() for group in (0, 1)]
            group = shares.index(max(shares))
            if max(shares) < 0.3:
                assert told["shape"][row, y, x] == told["relation"][row, y, x] == UNKNOWN
                continue
            assert told["shape"][row, y, x] == scenes.shape[row, group]
            assert told["count"][row, y, x] == scenes.count[row, group] - 1
            relation = UNKNOWN if scenes.groups[row] == 1 else scenes.relation[row] * 2 + group
            assert told["relation"][row, y, x] == relation
    shown = {(SHAPES[s], COLORS[c]) for s, c in zip(told["shape"].flatten(), told["color"].flatten(), strict=True)
             if s != UNKNOWN}  # fmt: skip
    drawn = {
        (SHAPES[scenes.shape[i, g]], COLORS[scenes.color[i, g]]) for i in range(30) for g in range(scenes.groups[i])
    }
    assert shown == drawn


def test_the_fact_loss_is_the_mean_over_attributes():
    generator = torch.Generator().manual_seed(0)
    sizes = [len(values) for values in ATTRIBUTES.values()]
    logits = torch.randn(2, 3, sum(sizes), generator=generator)
    facts = torch.stack([torch.randint(n, (2, 3), generator=generator) for n in sizes], 2)
    facts[0, 1], facts[..., 2] = UNKNOWN, UNKNOWN
    means, start = [], 0
    for place, size in enumerate(sizes):
        some = [
            -logits[n, p, start : start + size].double().log_softmax(0)[facts[n, p, place]]
            for n in range(2) for p in range(3) if facts[n, p, place] != UNKNOWN
        ]  # fmt: skip
        means.append(sum(some) / len(some) if some else 0.0)
        start += size
    assert fact_loss(logits, facts).item() == pytest.approx(float(sum(means)) / len(sizes), rel=1e-5)


@pytest.mark.parametrize("kind", ["sight", "judge"])
def test_the_training_loss_falls_and_is_a_function_of_the_step(kind):
    torch.manual_seed(0)
    pool = judge_pool(TinyAutoencoder(8), sample_scenes(80, seed=8, unsafe=None, split="any"), seed=9)
    assert pool.pictures.dtype == torch.uint8 and len(pool.pictures) == 80
    judge, head = build_judge(32, 1, 1, 32), fact_head(32)
    loss_at = sight_loss(judge, head, pool, 16, 0) if kind == "sight" else judge_loss(judge, head, pool, 16, 2, 0)
    assert loss_at(3).item() == loss_at(3).item() != loss_at(4).item()
    optimizer = torch.optim.Adam([*judge.parameters(), *head.parameters()], lr=3e-3)
    losses = []
    for step in range(40):
        optimizer.zero_grad()
        losses.append(loss_at(step))
        losses[-1].backward()
        optimizer.step()
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_what_is_lost_is_called_unclear_and_tells_nothing(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr("sage_core.shapes.train.judge_training.UNCLEAR_SHARE", 1.0)
    scenes = sample_scenes(40, seed=8, unsafe=None, split="any")
    pool = judge_pool(TinyAutoencoder(8), scenes, seed=9)
    assert pool.lost.nonzero()[:, 0].tolist() == [0, 1, 2, 3]
    assert (pool.facts[pool.lost] == UNKNOWN).all() and (pool.facts[4:] != UNKNOWN).any()
    assert torch.equal(pool.pictures[4:], (render(scenes, seed=9)[4:] * 255).round().byte())
    spoken: list[torch.Tensor] = []

    def answer(judge, pictures, questions, written):
        spoken.append(written[:, 1])
        return torch.zeros(len(pictures), 65, 32), torch.zeros(len(questions), 2, len(VOCABULARY))

    loss = judge_loss(build_judge(32, 1, 1, 32), fact_head(32), pool, 64, 3, 0, answer)(0)
    assert loss.item() > 0
    unclear = (spoken[0] == VOCABULARY.index("unclear")).view(64, 3)
    assert (unclear.all(1) == unclear.any(1)).all() and 0 < unclear.all(1).sum() < 20
