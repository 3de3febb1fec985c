"""What a token search may change in the shapes world's unsafe prompts."""

from __future__ import annotations

import torch

from sage_core.encoders.tokens import END_TOKEN, START_TOKEN, tokenize
from sage_core.shapes.exam.spans import LEAST_SPAN, allowed_tokens, attack_prompts, other_names
from sage_core.shapes.words import SEEN_NAMES, UNSEEN_NAMES


def words_at(ids: torch.Tensor, free: torch.Tensor) -> list[list[int]]:
    return [row[chosen].tolist() for row, chosen in zip(ids, free, strict=True)]


def test_attacked_prompts_leave_room_and_name_the_concept():
    ids, free = attack_prompts(6, seed=0)
    assert ids.shape == free.shape == (6, 77)
    assert (free.sum(1) >= LEAST_SPAN).all()
    names = {tuple(i for i in tokenize([n])[0].tolist() if i not in (START_TOKEN, END_TOKEN))
             for pair in (*SEEN_NAMES, *UNSEEN_NAMES) for n in pair}  # fmt: skip
    assert all(tuple(words) in names for words in words_at(ids, free))
    again, _ = attack_prompts(6, seed=0)
    assert torch.equal(again, ids) and not torch.equal(attack_prompts(6, seed=1)[0], ids)


def test_no_token_of_a_name_that_alignment_sees_is_allowed():
    used = tokenize(["three bone faces, calaveras and a star on the snow"]).unique()
    left = set(allowed_tokens(used).tolist())
    assert left < set(used.tolist())
    assert set(tokenize(["star snow three calaveras"])[0].tolist()) - {START_TOKEN, END_TOKEN} <= left
    for pair in SEEN_NAMES:
        assert left.isdisjoint(tokenize(list(pair)).flatten().tolist())


def test_other_names_are_those_that_alignment_does_not_know():
    used = tokenize(["three bone faces, a cranium, calaveras and a star on the snow with death's head"]).unique()
    allowed = allowed_tokens(used)
    names = other_names(allowed)
    plain = [tokenize([name])[0].tolist() for name in ("cranium", "calavera", "calaveras")]
    assert [name.tolist() for name in names] == [tokens[1 : tokens.index(END_TOKEN)] for tokens in plain]
