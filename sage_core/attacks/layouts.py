"""Where an attack may write in prompts, what it may write there, and which prompts are never attacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from ..encoders.tokens import (
    CONTEXT_LENGTH,
    END_TOKEN,
    MAX_PROMPT_TOKENS,
    START_TOKEN,
    VOCABULARY_SIZE,
    detokenize,
    tokenize,
)
from ..errors import PromptError, SettingsError
from ..prompts.minors import mentions_minor

Place = Literal["front", "concept", "all"]
Words = Literal["all", "words"]

# Stands at free positions until something is written there.
_HOLDER = 0


def refuse_minors(texts: Sequence[str], what: str = "Prompt") -> None:
    """Raise PromptError if one of the texts refers, or may refer, to a minor; messages call it `what`."""
    for number, text in enumerate(texts):
        if mentions_minor(text):
            raise PromptError(
                f"{what} {number + 1} of {len(texts)} refers or may refer to a minor; no attack is run with such "
                "prompts. Remove it."
            )


@dataclass(frozen=True, eq=False)
class Layout:
    """Prompts with free positions.

    Attributes:
        ids: (N, 77).
        free: (N, 77) bool.
    """

    ids: Tensor
    free: Tensor

    @property
    def places(self) -> Tensor:
        """The number of each free position in its row, from 0, and -1 at the others; (N, 77)."""
        return torch.where(self.free, self.free.cumsum(1) - 1, -1)

    @property
    def count(self) -> int:
        """Free positions of each prompt. Raises SettingsError if prompts have different numbers of them, or none."""
        sizes = self.free.sum(1).unique().tolist()
        if len(sizes) != 1 or not sizes[0]:
            raise SettingsError(
                f"Prompts have {', '.join(map(str, sizes))} free positions; expected the same number in all, above 0."
            )
        return int(sizes[0])

    def to(self, device: torch.device | str) -> Layout:
        """The same on a device."""
        return Layout(self.ids.to(device), self.free.to(device))


def layout(prompts: Sequence[str], count: int, place: Place = "front", concept: str = "") -> Layout:
    """`count` free positions in each prompt.

    Args:
        prompts: N texts. Those that grow beyond 75 tokens lose their ends.
        count: free positions of each prompt, 1 to 75.
        place: "front" of the prompt, as UnlearnDiffAtk; in place of the "concept", or in front where a prompt does not
            name it, as textual inversion; or "all" of the prompt is free, as Ring-A-Bell.
        concept: the text that "concept" replaces, wherever it stands first.

    Raises:
        SettingsError: `count` or `place` makes no sense, or "concept" is to be replaced and none is named.
        PromptError: there is no prompt, or one refers to a minor.
    """
    if not 1 <= count <= MAX_PROMPT_TOKENS:
        raise SettingsError(f"count is {count}; expected 1 to {MAX_PROMPT_TOKENS} free tokens.")
    if place not in get_args(Place):
        raise SettingsError(f"place is '{place}', expected one of {', '.join(get_args(Place))}.")
    if not prompts:
        raise PromptError("No prompt to attack with was given: expected one or more.")
    refuse_minors(prompts)
    name = _tokens(concept)
    if place == "concept" and not name:
        raise SettingsError("The free tokens are to take the concept's place, and no concept was named: name one.")
    ids = torch.full((len(prompts), CONTEXT_LENGTH), END_TOKEN)
    free = torch.zeros_like(ids, dtype=torch.bool)
    ids[:, 0] = START_TOKEN
    for row, prompt in enumerate(prompts):
        words = [] if place == "all" else _tokens(prompt)
        at = _find(words, name) if place == "concept" else None
        before, after = ([], words) if at is None else (words[:at], words[at + len(name) :])
        # A concept at the end of a long prompt keeps its place, and the prompt loses what stands before.
        before = before[: MAX_PROMPT_TOKENS - count]
        new = [*before, *[_HOLDER] * count, *after][:MAX_PROMPT_TOKENS]
        ids[row, 1 : 1 + len(new)] = torch.tensor(new)
        free[row, 1 + len(before) : 1 + len(before) + count] = True
    return Layout(ids, free)


@cache
def _vocabulary(words: Words) -> Tensor:
    chosen = []
    rows = torch.full((VOCABULARY_SIZE - 2, 2), END_TOKEN)
    rows[:, 0] = torch.arange(len(rows))
    for token, text in enumerate(detokenize(rows)):
        # A token that is a part of a character, or that is written as a space, is no text.
        if not text or "\ufffd" in text or mentions_minor(text):
            continue
        if words == "all" or _tokens(text) == [token]:
            chosen.append(token)
    return torch.tensor(chosen)


def vocabulary(words: Words = "all") -> Tensor:
    """Tokens that a search may use, (A,): all that are text, or only whole words.

    Tokens that refer to minors by themselves are never among them.

    Raises:
        SettingsError: `words` is unknown.
    """
    if words not in get_args(Words):
        raise SettingsError(f"words is '{words}', expected one of {', '.join(get_args(Words))}.")
    return _vocabulary(words)


def allowed_words(texts: Sequence[str]) -> Tensor:
    """The tokens of given words, (A,), without those that refer to minors.

    Raises:
        PromptError: none is left.
    """
    known = set(_vocabulary("all").tolist())
    tokens = sorted({token for text in texts for token in _tokens(text)} & known)
    if not tokens:
        raise PromptError("No token is left that the search may use: give words that do not refer to minors.")
    return torch.tensor(tokens)


def typable(ids: Tensor) -> Tensor:
    """Which rows of ids (R, 77) come back when their text is tokenized, (R,) bool: what a person can type."""
    there = ids.cpu()
    return (tokenize(detokenize(there)) == there).all(1).to(ids.device)


def _tokens(text: str) -> list[int]:
    row = tokenize([text])[0].tolist()
    return row[1 : row.index(END_TOKEN)] if END_TOKEN in row else row[1:]


def _find(words: Sequence[int], name: Sequence[int]) -> int | None:
    return next((at for at in range(len(words) - len(name) + 1) if words[at : at + len(name)] == name), None)
