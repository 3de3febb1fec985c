"""What a base text encoder says of words and prompts: how alike they are, which words it knows, and where they lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ...encoders.precision import PrecisionChoice
from ...encoders.text_encoder import TextEncoder, embed
from ...encoders.tokens import END_TOKEN, count_tokens, tokenize, whole_words

# A word's place in a prompt.
Frame = Callable[[str], str]

# States after a prompt's end that count: they follow from it, and the first few say what the others do.
_AFTER_END = 4
# A token whose nearest neighbour among all is no nearer than that of random rows by this factor was never trained.
_KNOWN = 1.15
_CHUNK = 4096


class Senses(Protocol):
    """What a maker of pairs asks of an encoder."""

    def states(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors (N, D) of prompts, each from all of its states: those of one call may be compared."""
        ...

    def ends(self, prompts: Sequence[str]) -> Tensor:
        """The state at each prompt's end (N, width), for long lists of whole captions."""
        ...

    def knows(self, words: Sequence[str]) -> list[bool]:
        """Whether it has learned each word, as far as its own weights tell."""
        ...

    def nearby(self, word: str, count: int) -> list[str]:
        """Whole words of its vocabulary that may mean the same, found fast: the nearest by its table of tokens."""
        ...


class EncoderSenses:
    """Those of a CLIP text encoder. Every prompt is cut to the positions that it needs, which changes no state."""

    def __init__(
        self,
        encoder: TextEncoder,
        *,
        precision: PrecisionChoice = "auto",
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        """Take an encoder where it lies.

        Args:
            encoder: the base.
            precision: to embed in.
            on_progress: called with the number of prompts embedded so far; may raise to stop.
        """
        self.encoder, self.precision = encoder, precision
        self._on_progress = on_progress
        self._done = 0
        # Of each token that was asked for, the likeness of its nearest neighbour.
        self._nearest: dict[int, float] = {}

    def states(self, prompts: Sequence[str]) -> Tensor:
        """See Senses: the states after the start token, up to four after the longest prompt's end, flattened."""
        longest = max(count_tokens(prompts), default=0)
        ids = tokenize(prompts)[:, : longest + 2 + _AFTER_END]
        found = self._embed(ids, "flattened")
        # The first state is the same for all prompts.
        return F.normalize(found[:, self.encoder.config.width :], dim=1)

    def ends(self, prompts: Sequence[str]) -> Tensor:
        """See Senses."""
        counts = torch.tensor(count_tokens(prompts))
        ids = tokenize(prompts)
        result = torch.empty(len(prompts), self.encoder.config.width)
        # Prompts of like length go together, each batch as long as its longest.
        order = counts.argsort(stable=True)
        for rows in order.split(256):
            width = min(int(counts[rows].max()) + 2, ids.shape[1])
            result[rows] = self._embed(ids[rows, :width], "eos")
        return result

    def knows(self, words: Sequence[str]) -> list[bool]:
        """See Senses: a word is known if all of its tokens lie nearer to some other than random rows would."""
        table = self._table
        floor = _KNOWN * math.sqrt(2 * math.log(len(table)) / table.shape[1])
        rows = [[token for token in row if token != END_TOKEN] for row in tokenize(list(words))[:, 1:].tolist()]
        tokens = sorted({token for row in rows for token in row})
        nearest = self._nearest
        tokens = [token for token in tokens if token not in nearest]
        for start in range(0, len(tokens), 256):
            part = tokens[start : start + 256]
            likeness = table[part] @ table.T
            likeness[torch.arange(len(part)), part] = -1.0
            nearest |= dict(zip(part, likeness.amax(1).tolist(), strict=True))
        return [bool(row) and all(nearest[token] > floor for token in row) for row in rows]

    def nearby(self, word: str, count: int) -> list[str]:
        """See Senses; the rows of a word's tokens are averaged."""
        tokens = [token for token in tokenize([word])[0, 1:].tolist() if token != END_TOKEN]
        numbers, words = self._words
        likeness = self._table[numbers] @ F.normalize(self._table[tokens].mean(0), dim=0)
        best = likeness.topk(min(count, len(words))).indices.tolist()
        return [words[at] for at in best if words[at] != word]

    @cached_property
    def _table(self) -> Tensor:
        return F.normalize(self.encoder.token_table.weight.detach().float().cpu(), dim=1)

    @cached_property
    def _words(self) -> tuple[list[int], list[str]]:
        known = whole_words()
        return list(known.values()), list(known)

    def _embed(self, ids: Tensor, pooling: str) -> Tensor:
        with torch.no_grad():
            found = embed(self.encoder, ids, precision=self.precision, pooling=pooling)  # type: ignore[arg-type]
        self._done += len(ids)
        if self._on_progress is not None:
            self._on_progress(self._done)
        return found.float().cpu()


def known_words(senses: Senses, words: Sequence[str] | dict[str, None]) -> list[str]:
    """Those of some words that the encoder has learned, in their order."""
    listed = list(words)
    return [word for word, known in zip(listed, senses.knows(listed), strict=True) if known] if listed else []


def cosines_to(senses: Senses, frames: Sequence[Frame], word: str, words: Sequence[str]) -> Tensor:
    """(frames, words): cosines of each word to the concept's in each frame."""
    rows = []
    for frame in frames:
        states = senses.states([frame(each) for each in (word, *words)])
        rows.append(states[1:] @ states[0])
    return torch.stack(rows).clamp(-1.0, 1.0)
