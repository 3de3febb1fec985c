"""What is to be erased from a U-Net, in words, and the text encoder's states that stand for it.

A state is one row of the last hidden state after the final layer norm, which the U-Net's cross-attention reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..encoders.text_encoder import TextEncoder, embed
from ..encoders.tokens import CONTEXT_LENGTH, END_TOKEN, require_short, tokenize
from ..errors import PromptError, SettingsError
from ..prompts.minors import mentions_minor

Rows = Literal["last_subject", "words", "non_pad", "all", "eos", "mean"]

# Texts whose states are computed, and summed up where there are many, at a time.
_BATCH = 64


@dataclass(frozen=True)
class Concepts:
    """What an edit erases, what it puts there, and what it keeps; the same for every method.

    Attributes:
        erase: texts to erase, at least one.
        guides: what each becomes: one text for all, or as many as `erase`; "" is the empty prompt.
        preserve: texts that keep their meaning.
        captions: everyday prompts that say what states look like in general, for methods with a prior over them.
            Those that refer to minors are left out.

    Raises:
        PromptError: nothing to erase, an empty concept, a concept that is its own guide, a wrong number of guides, a
            concept or guide longer than an encoder reads, or a text that refers to a minor.
    """

    erase: tuple[str, ...]
    guides: tuple[str, ...] = ("",)
    preserve: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.erase:
            raise PromptError("No concept to erase was given: expected at least one, such as 'nudity'.")
        guides = self.guides * len(self.erase) if len(self.guides) == 1 else self.guides
        if len(guides) != len(self.erase):
            raise PromptError(
                f"{len(self.erase)} concepts but {len(guides)} guides were given: give one guide for all, or one each."
            )
        object.__setattr__(self, "guides", guides)
        kept = tuple(text for text in self.captions if not mentions_minor(text))
        object.__setattr__(self, "captions", kept)
        for text in (*self.erase, *guides, *self.preserve):
            if mentions_minor(text):
                raise PromptError(f"The text '{text}' refers or may refer to a minor: such texts are not worked on.")
        for number, (concept, guide) in enumerate(zip(self.erase, guides, strict=True), start=1):
            require_short(f"Concept {number}", concept)
            require_short(f"The guide of concept {number}", guide)
        tokens = tokenize([*self.erase, *guides])
        for number, (concept, guide) in enumerate(zip(self.erase, guides, strict=True)):
            if int(tokens[number, 1]) == END_TOKEN:
                raise PromptError(f"Concept {number + 1} is empty ('{concept}'): an empty text cannot be erased.")
            if torch.equal(tokens[number], tokens[len(self.erase) + number]):
                raise PromptError(
                    f"The concept '{concept}' is its own guide ('{guide}'): nothing would change. Choose another guide."
                )


def split_texts(text: str) -> tuple[str, ...]:
    """Texts separated by semicolons or line ends, without the blanks around them; empty ones are left out."""
    return tuple(part.strip() for line in text.splitlines() for part in line.split(";") if part.strip())


class TokenStates:
    """The states of texts under one text encoder, float64 on the CPU; those of a text are computed once.

    A state depends on the tokens up to its own alone, so that of short texts no more positions are computed than asked.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder
        # The first positions' states of each text, as many as were asked for so far.
        self._known: dict[str, Tensor] = {}

    @property
    def width(self) -> int:
        """Numbers in a state."""
        return self.encoder.config.width

    def states(self, texts: Sequence[str]) -> Tensor:
        """All rows of each text, (N, 77, width)."""
        found = self._first(texts, [CONTEXT_LENGTH] * len(texts))
        return torch.stack(found) if found else torch.zeros(0, CONTEXT_LENGTH, self.width, dtype=torch.float64)

    def rows(self, texts: Sequence[str], which: Rows) -> list[Tensor]:
        """The chosen rows of each text, (n, width) each.

        Args:
            texts: any number.
            which: "last_subject" is the last token's row; "words" those of all tokens; "non_pad" these with the start
                and the first end token; "all" the 77; "eos" the first end token's; "mean" the mean of "words".
                A text without tokens stands for its start token's row in "last_subject", "words" and "mean".
        """
        if which not in get_args(Rows):
            raise SettingsError(f"Rows are '{which}', expected one of {', '.join(get_args(Rows))}.")
        places = last_subject(tokenize(texts))
        found = self._first(texts, [_reach(last, which) for last in places])
        return [_choose(states, last, which) for states, last in zip(found, places, strict=True)]

    def second_moment(self, texts: Sequence[str], which: Rows) -> Tensor:
        """Mean of c cᵀ over the chosen rows of all texts, (width, width); the states of the texts are not kept."""
        total = torch.zeros(self.width, self.width, dtype=torch.float64)
        count = 0
        places = last_subject(tokenize(texts))
        for part, states in self._embed(texts, [_reach(last, which) for last in places]):
            rows = torch.cat([_choose(each, places[i], which) for i, each in zip(part, states, strict=True)])
            total += rows.T @ rows
            count += len(rows)
        return total / max(count, 1)

    def _first(self, texts: Sequence[str], lengths: Sequence[int]) -> list[Tensor]:
        """The states of at least the first `lengths` positions of each text."""
        known = self._known
        new = {text: n for text, n in zip(texts, lengths, strict=True) if text not in known or len(known[text]) < n}
        names = list(new)
        for part, states in self._embed(names, list(new.values())):
            known |= zip((names[i] for i in part), states, strict=True)
        return [known[text] for text in texts]

    def _embed(self, texts: Sequence[str], lengths: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
        """Texts of about one length at a time: their numbers, and the states of as many positions as they need."""
        order = sorted(range(len(texts)), key=lengths.__getitem__)
        for start in range(0, len(order), _BATCH):
            part = order[start : start + _BATCH]
            longest = max(lengths[i] for i in part)
            ids = tokenize([texts[i] for i in part])[:, :longest]
            yield part, embed(self.encoder, ids).cpu().double().view(len(part), longest, self.width)


def last_subject(ids: Tensor) -> list[int]:
    """Position of the last token of each row of ids (N, 77); 0, the start token's, of a text without tokens."""
    return ((ids == END_TOKEN).int().argmax(1) - 1).tolist()


def _reach(last: int, which: Rows) -> int:
    """How many positions, from the first, hold the chosen rows of a text whose last token is at `last`."""
    return CONTEXT_LENGTH if which == "all" else last + 2


def _choose(states: Tensor, last: int, which: Rows) -> Tensor:
    words = slice(1, last + 1) if last else slice(0, 1)
    if which == "mean":
        return states[words].mean(0, keepdim=True)
    chosen = {
        "last_subject": slice(last, last + 1),
        "words": words,
        "non_pad": slice(0, last + 2),
        "all": slice(None),
        "eos": slice(last + 1, last + 2),
    }
    return states[chosen[which]]
