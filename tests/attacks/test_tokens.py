"""Token search: its gradient ranking is worth having, and what it cannot do is said."""

from __future__ import annotations

import pytest
import torch

from sage_core.attacks.layouts import Layout, layout
from sage_core.attacks.objectives import EmbeddingGoal
from sage_core.attacks.tokens import AttackSettings, TokenSearch
from sage_core.encoders.layouts import EncoderConfig
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.encoders.tokens import CONTEXT_LENGTH, VOCABULARY_SIZE, tokenize
from sage_core.errors import PromptError

CONFIG = EncoderConfig(layers=1, width=64, heads=1, mlp_width=64, vocabulary=VOCABULARY_SIZE, positions=CONTEXT_LENGTH)
PROMPTS = (
    "two red bone faces on a skeleton body on the grass",
    "a photo of one white death's head mask, 4k",
    "a grinning white human skull over one red ring",
    "three bare bones of a human head and a blue square",
    "one green head of a dead man on the snow",
    "a black skull and crossbones flag left of a circle",
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


def test_ranking_finds_better_words_than_chance(encoders: list[TextEncoder]) -> None:
    """Tried one by one, the best ranked replacements of a position gain more than the average one."""
    encoder, base = encoders
    where, allowed = layout(PROMPTS, 4), torch.arange(1000, 1100)
    goal = EmbeddingGoal(base(tokenize(list(PROMPTS))))
    target = goal.targets
    start = torch.where(where.free, allowed[0], where.ids)
    search = TokenSearch(encoder, goal, where, allowed, AttackSettings(1, 5))
    search.ids.copy_(start)
    ranked = search.ranked()
    gains = []
    for row in range(len(PROMPTS)):
        place = int(where.free[row].nonzero()[0])
        tried = start[row].repeat(len(allowed), 1)
        tried[:, place] = allowed
        cosine = torch.cosine_similarity(encoder(tried).flatten(1), target[row : row + 1])
        chosen = torch.isin(allowed, ranked[row, 0])
        assert chosen.sum() == 5
        gains.append((cosine[chosen].mean() - cosine[~chosen].mean()).item())
    assert sum(gains) / len(gains) > 0 and sum(gain > 0 for gain in gains) >= 5


def test_a_prompt_without_a_free_position_is_named(encoders: list[TextEncoder]) -> None:
    where = layout(PROMPTS, 2)
    free = where.free.clone()
    free[2] = False
    with pytest.raises(PromptError, match="Prompt 2, counted from 0, has no free position"):
        TokenSearch(encoders[0], EmbeddingGoal(encoders[1](where.ids)), Layout(where.ids, free), torch.arange(9))
