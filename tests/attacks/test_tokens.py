"""The adaptive attack: what it may touch, that it climbs, and that its gradient ranking is worth having."""

from __future__ import annotations

import pytest
import torch

from sage_core.attacks.layouts import Layout
from sage_core.attacks.objectives import EmbeddingGoal
from sage_core.attacks.tokens import AttackSettings, TokenSearch, _with_name, attack, differing_span
from sage_core.encoders.layouts import EncoderConfig
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.encoders.tokens import CONTEXT_LENGTH, END_TOKEN, VOCABULARY_SIZE, tokenize
from sage_core.errors import PromptError

CONFIG = EncoderConfig(layers=1, width=64, heads=1, mlp_width=64, vocabulary=VOCABULARY_SIZE, positions=CONTEXT_LENGTH)
SETTINGS = AttackSettings(rounds=4, candidates=12, best=8)
PAIRS = (
    ("two red bone faces on a skeleton body on the grass", "two red stars on the grass"),
    ("a photo of one white death's head mask, 4k", "a photo of one star, 4k"),
    ("a grinning white human skull over one red ring", "star over one red ring"),
    ("three bare bones of a human head and a blue square", "three hearts and a blue square"),
    ("one green head of a dead man on the snow", "one green star on the snow"),
    ("a black skull and crossbones flag left of a circle", "a cross left of a circle"),
)


@pytest.fixture(scope="module")
def encoders() -> list[TextEncoder]:
    made = []
    for seed in range(2):
        torch.manual_seed(seed)
        encoder = TextEncoder.fresh(CONFIG).eval()
        with torch.no_grad():
            encoder.token_table.weight.mul_(20)
        made.append(encoder.requires_grad_(False))
    return made


@pytest.fixture(scope="module")
def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    unsafe, safe = (tokenize(list(side)) for side in zip(*PAIRS, strict=True))
    free = differing_span(unsafe, safe)
    assert (free.sum(1) >= 4).all()
    return unsafe, free


@pytest.fixture(scope="module")
def allowed() -> torch.Tensor:
    return torch.arange(1000, 1100)


def words_at(ids: torch.Tensor, free: torch.Tensor) -> list[list[int]]:
    return [row[chosen].tolist() for row, chosen in zip(ids, free, strict=True)]


def test_the_span_is_the_name_of_the_concept():
    unsafe = ["two red bone faces on the grass", "one red skull", "death mask over one red ring", "a skull, 4k"]
    safe = ["two red stars on the grass", "one red love heart", "star over one red ring", "a star, 4k"]
    free = differing_span(tokenize(unsafe), tokenize(safe))
    expected = [tokenize([name])[0, 1:] for name in ("bone faces", "skull", "death mask", "skull")]
    expected = [[i for i in row.tolist() if i != END_TOKEN] for row in expected]
    assert words_at(tokenize(unsafe), free) == expected


def test_prompts_that_are_equal_have_no_span():
    ids = tokenize(["one red star"])
    assert not differing_span(ids, ids).any()


def test_the_attack_climbs_and_touches_only_its_span(encoders, prompts, allowed):
    ids, free = prompts
    rounds: list[tuple[int, int]] = []
    result = attack(*encoders, ids, free, allowed, SETTINGS, on_round=lambda *at: rounds.append(at))
    assert rounds == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert torch.equal(result.ids[~free], ids[~free])
    assert torch.isin(result.ids[free], allowed).all()
    assert (result.after >= result.before).all() and (result.after > result.before + 1e-4).float().mean() > 0.8
    target, found = (who(what).flatten(1) for who, what in ((encoders[1], ids), (encoders[0], result.ids)))
    assert torch.allclose(torch.cosine_similarity(found, target), result.after, atol=1e-5)


def test_the_attack_begins_with_given_names(encoders, prompts):
    name = tokenize(["calaveras"])[0, 1:]
    name = name[name != END_TOKEN]
    ids, free = prompts
    written = _with_name(ids, free, name)
    assert torch.equal(written[~free], ids[~free])
    for row, words in zip(ids, words_at(written, free), strict=True):
        kept = len(words) - len(name)
        assert words[kept:] == name.tolist()
        assert words[:kept] == words_at(row[None], free[(ids == row).all(1)][:1])[0][:kept]
    assert torch.equal(_with_name(ids, free, torch.full((40,), 7)), ids)
    # With the unaligned encoder the prompt's own name is the target itself: nothing else can be nearer.
    encoder = encoders[0]
    row = free[0].nonzero().flatten()
    found = attack(
        encoder, encoder, ids[:1], free[:1], torch.arange(1000, 1100), AttackSettings(1, 1, 1), [ids[0, row]]
    )
    assert torch.equal(found.ids[0], ids[0]) and found.after.item() == pytest.approx(1)
    assert found.before.item() < 1 - 1e-4


def test_the_same_seed_finds_the_same(encoders, prompts, allowed):
    results = [
        attack(*encoders, *prompts, allowed, AttackSettings(2, 6, 8, seed=seed)).ids for seed in (0, 0, 1)
    ]  # fmt: skip
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_ranking_finds_better_words_than_chance(encoders, prompts, allowed):
    """Tried one by one, the best ranked replacements of a position gain more than the average one."""
    encoder, base = encoders
    ids, free = prompts
    target = base(ids).flatten(1)
    start = torch.where(free, allowed[0], ids)
    goal = EmbeddingGoal(base(ids), "cosine")
    search = TokenSearch(encoder, goal, Layout(ids, free), allowed, AttackSettings(1, 1, 5), typed=False)
    search.ids.copy_(start)
    ranked = search.ranked()
    gains = []
    for row in range(len(ids)):
        place = int(free[row].nonzero()[0])
        tried = start[row].repeat(len(allowed), 1)
        tried[:, place] = allowed
        cosine = torch.cosine_similarity(encoder(tried).flatten(1), target[row : row + 1])
        chosen = torch.isin(allowed, ranked[row, 0])
        assert chosen.sum() == 5
        gains.append((cosine[chosen].mean() - cosine[~chosen].mean()).item())
    assert sum(gains) / len(gains) > 0 and sum(gain > 0 for gain in gains) >= 5


def test_the_encoder_is_left_as_it_was(encoders, prompts, allowed):
    before = {name: value.clone() for name, value in encoders[0].state().items()}
    attack(*encoders, *prompts, allowed, AttackSettings(1, 2, 2))
    assert all(torch.equal(value, before[name]) for name, value in encoders[0].state().items())
    assert not any(module._forward_hooks for module in encoders[0].modules())


def test_mistakes_are_errors(encoders, prompts, allowed):
    ids, free = prompts
    free = free.clone()
    free[2] = False
    with pytest.raises(PromptError, match="Prompt 2, counted from 0, has no free position"):
        attack(*encoders, ids, free, allowed, SETTINGS)
