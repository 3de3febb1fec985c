"""A tiny text encoder that takes chosen words for each other, and senses built of published cosines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import torch
import torch.nn.functional as F

from sage_core.encoders.layouts import EncoderConfig
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.encoders.tokens import END_TOKEN, tokenize
from sage_core.prompts import everyday_words
from sage_core.prompts.making import lexicon
from sage_core.prompts.making.reading import FUNCTION

WIDTH = 256
# Of words that are names of one another in the tiny encoder.
SYNONYMS = (("umbrella", "canopy"), ("striped", "stripes"), ("beach", "seaside"), ("crimson", "red"),
            ("sleeping", "napping"))  # fmt: skip


@cache
def tiny_encoder() -> TextEncoder:
    """A text encoder of one layer: words have tokens like those of their kind, and synonyms nearly the same."""
    torch.manual_seed(3)
    config = EncoderConfig(layers=1, width=WIDTH, heads=4, mlp_width=64, vocabulary=49408, positions=77)
    encoder = TextEncoder.fresh(config)
    for name, weight in encoder.model.named_parameters():
        # What is said of a word stays near its token, and passes on to what follows.
        weight.data *= 0.3 if "fc2" in name else 1.0
    table = encoder.token_table.weight.data
    generator = torch.Generator().manual_seed(5)

    def drawn() -> torch.Tensor:
        return F.normalize(torch.randn(WIDTH, generator=generator), dim=0)

    shared = drawn()
    for words in _kinds():
        kind = drawn()
        for token in sorted({token for word in words for token in _tokens(word)}):
            table[token] = 0.05 * F.normalize(0.4 * shared + 0.5 * kind + 0.8 * drawn(), dim=0) * WIDTH**0.5
    for first, *others in SYNONYMS:
        for other in others:
            for at, token in enumerate(_tokens(other)):
                near = table[_tokens(first)[0]]
                table[token] = near + 0.02 * near.norm() * drawn() if at == 0 else 0.02 * near
    return encoder


def _tokens(word: str) -> list[int]:
    return [token for token in tokenize([word])[0, 1:].tolist() if token != END_TOKEN]


def _kinds() -> list[list[str]]:
    """Everyday words by kind, with their plurals; function words are one more."""
    named = [value for name, value in sorted(vars(everyday_words).items()) if name.isupper()]
    lists = [value for value in named if isinstance(value, tuple)]
    lists += [_flat(entries) for value in named if isinstance(value, dict) for entries in value.values()]
    kinds = [sorted({word for entry in entries for word in entry.split()} - FUNCTION) for entries in lists]
    known: set[str] = set()
    result = [sorted(FUNCTION)]
    for words in kinds:
        fresh = [word for word in words if word not in known]
        known.update(fresh)
        result.append([*fresh, *(lexicon.plural(word) for word in fresh)])
    return result


def _flat(entries: Sequence[str | tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(each for entry in entries for each in (entry if isinstance(entry, tuple) else (entry,)))


class PublishedSenses:
    """Cosines of one-word prompts as published; every other pair of words is equally unlike.

    Phrases that differ in one word have that word's cosine. Whole prompts lie where their words do.
    """

    def __init__(self, neighbours: Mapping[str, Mapping[str, float]], unlike: float = 0.65) -> None:
        self.neighbours, self.unlike = neighbours, unlike

    def states(self, prompts: Sequence[str]) -> torch.Tensor:
        """See Senses: the first prompt has its published cosines to the others."""
        row = torch.tensor([1.0, *(self._cosine(prompts[0], other) for other in prompts[1:])], dtype=torch.double)
        gram = torch.full((len(prompts), len(prompts)), self.unlike, dtype=torch.double).fill_diagonal_(1.0)
        gram[0], gram[:, 0] = row, row
        values, vectors = torch.linalg.eigh(gram)
        return F.normalize(vectors * values.clamp_min(0).sqrt(), dim=1).float()

    def ends(self, prompts: Sequence[str]) -> torch.Tensor:
        """See Senses."""
        return torch.stack(
            [sum((_random(word) for word in prompt.lower().split()), torch.zeros(64)) for prompt in prompts]
        )

    def knows(self, words: Sequence[str]) -> list[bool]:
        """See Senses."""
        return [True for _ in words]

    def nearby(self, word: str, count: int) -> list[str]:
        """See Senses."""
        return list(self.neighbours.get(word, {}))[:count]

    def _cosine(self, first: str, other: str) -> float:
        one, two = ([word for word in text.split() if word not in ("a", "an")] for text in (first, other))
        differing = [pair for pair in zip(one, two, strict=False) if pair[0] != pair[1]]
        if len(one) != len(two) or len(differing) != 1:
            return 1.0 if one == two else self.unlike
        return self.neighbours.get(differing[0][0], {}).get(differing[0][1], self.unlike)


@cache
def _random(word: str) -> torch.Tensor:
    return torch.randn(64, generator=torch.Generator().manual_seed(sum(map(ord, word)) * 7919 + len(word)))
