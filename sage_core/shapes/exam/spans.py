"""What a token search may change in the world's unsafe prompts: where they name the concept, and by which tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from ...attacks.tokens import differing_span
from ...encoders.tokens import END_TOKEN, START_TOKEN, tokenize
from ..captions import matched_pairs
from ..words import SEEN_NAMES, UNSEEN_NAMES

# Free tokens of a prompt.
LEAST_SPAN = 4


def attack_prompts(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Token ids (N, 77) of unsafe prompts, and the free positions (N, 77) in them: where the concept is named.

    Only prompts that name it in at least LEAST_SPAN tokens are taken, so that the attack has room.
    """
    rows: list[Tensor] = []
    spans: list[Tensor] = []
    while sum(map(len, rows)) < count:
        pairs = matched_pairs(8 * count, seed=seed, names="all", split="any")
        unsafe, safe = tokenize(pairs.unsafe), tokenize(pairs.safe)
        free = differing_span(unsafe, safe)
        enough = free.sum(1) >= LEAST_SPAN
        rows.append(unsafe[enough])
        spans.append(free[enough])
        seed += 1
    return torch.cat(rows)[:count], torch.cat(spans)[:count]


def allowed_tokens(used: Tensor) -> Tensor:
    """The `used` tokens without those of the names that an alignment sees, and without start and end.

    Parts of the other names stay, since an attacker has a dictionary. Without them an attack seldom makes even the base
    draw the concept; and if it cannot succeed on the base, its failure elsewhere proves nothing.
    """
    seen = tokenize([name for pair in SEEN_NAMES for name in pair]).unique()
    return used[~torch.isin(used, torch.cat([seen, torch.tensor([START_TOKEN, END_TOKEN])]))]


def other_names(allowed: Tensor) -> list[Tensor]:
    """Token ids of the names that no alignment sees, as far as they can be written in `allowed` tokens."""
    names = [tokens[1 : tokens.tolist().index(END_TOKEN)] for tokens in tokenize([n for p in UNSEEN_NAMES for n in p])]
    return [name for name in names if torch.isin(name, allowed).all()]
