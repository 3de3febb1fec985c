"""Keep what a language model writes inside a grammar, and stop it when it repeats itself.

The grammars are those of llguidance (MIT, Microsoft), an optional package. It is the library chosen because it needs
nothing besides itself, has one binary for all versions of Python from 3.9 on, reads the tokenizer of transformers 4
and 5 alike, and takes a grammar of its own for every prompt at no cost to start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch

from ...errors import JudgeError
from ..questions import ELEMENT_TYPES

PACKAGE = "llguidance"
# A text is stopped that says these many tokens again word for word. A question is about twice as long, and what all
# questions share about half as long.
_REPEATED = 32
_LONGEST_ELEMENT = 4
_MOST_LINES = 12
# A question's line is spelled as the examples of the instruction are.
_GRAMMAR = r"""
start: line ("\n" line){{0,{more}}}
line: "{{\"element\": \"" ELEMENT "\", \"element_type\": \"" TYPE asked
asked: "\", \"question\": \"" QUESTION "\", \"choices\": [" rest "\"}}"
rest: "\"yes\", \"no\"], \"answer\": \"" YES_NO | "\"" CHOICE more more more "\"], \"answer\": \"" CHOICE
more: "\", \"" CHOICE
ELEMENT: {elements}
TYPE: {types}
YES_NO: "yes" | "no"
QUESTION: /[a-z][^"\\\x00-\x1f\x7f?]{{5,90}}\?/
CHOICE: /[a-z0-9][^"\\\x00-\x1f\x7f]{{0,30}}/
"""


def grammar_is_available() -> bool:
    """Whether the optional package is installed."""
    return find_spec(PACKAGE) is not None


def question_grammar(caption: str) -> str:
    """Lark grammar of up to twelve lines, one question each, whose element is a piece of the caption.

    It bounds the length of everything, so that no question takes more than some 120 tokens.
    """
    spans = set()
    # A comma parts elements, and a quotation mark or backslash would have to be escaped in JSON.
    for piece in re.split(r"[.,;:!?\"()\\]+", caption):
        words = piece.split()
        for start in range(len(words)):
            spans |= {" ".join(words[start:end]) for end in range(start + 1, start + 1 + _LONGEST_ELEMENT)}
    elements = sorted(span for span in spans if span in caption)
    if not elements:
        raise JudgeError(f"Caption {caption!r} holds no word that can be asked about.")

    parts = {"elements": _either(elements), "types": _either(ELEMENT_TYPES), "more": str(_MOST_LINES - 1)}
    return _GRAMMAR.format_map(parts)


def _either(texts: Sequence[str]) -> str:
    return " | ".join(json.dumps(text, ensure_ascii=False) for text in texts)


def repeats(tokens: torch.Tensor) -> torch.Tensor:
    """Of each row (N, T) whether its last 32 tokens stand in it before, without overlap: (N,), bool."""
    length = tokens.shape[1]
    if length < 2 * _REPEATED:
        return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    earlier = tokens[:, : length - _REPEATED].unfold(1, _REPEATED, 1)
    return (earlier == tokens[:, None, length - _REPEATED :]).all(2).any(1)


class Stop:
    """For `generate`: ends rows that repeat themselves, and tells of progress."""

    def __init__(self, start: int, tokens: int, on_token: Callable[[int, int], None] | None) -> None:
        self._start = start
        self._tokens = tokens
        self._on_token = on_token

    def __call__(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """For each row of token ids (B, T) whether it is to stop, (B,)."""
        if self._on_token is not None:
            self._on_token(ids.shape[1] - self._start, self._tokens)
        return repeats(ids[:, self._start :])


def grammar_tokenizer(tokenizer: Any, vocabulary: int) -> Any:
    """A tokenizer as llguidance sees it, which takes a second to make. Raises JudgeError without the package."""
    if not grammar_is_available():
        raise JudgeError(f"The package {PACKAGE!r} is missing; install it with: pip install {PACKAGE}.")
    from llguidance.hf import from_tokenizer

    try:
        return from_tokenizer(tokenizer, n_vocab=max(vocabulary, len(tokenizer)))
    except (ValueError, AttributeError) as error:
        raise JudgeError(
            f"{PACKAGE} cannot read this model's tokenizer ({error}). Let it judge, or use another."
        ) from error


class GrammarMask:
    """For `generate`: forbids every token that would leave its row's grammar."""

    def __init__(self, tokenizer: Any, grammars: Sequence[str], start: int) -> None:
        from llguidance import LLMatcher

        self._matchers = [LLMatcher(tokenizer, LLMatcher.grammar_from_lark(grammar)) for grammar in grammars]
        for matcher, grammar in zip(self._matchers, grammars, strict=True):
            if matcher.is_error():
                raise JudgeError(f"A grammar cannot be used ({matcher.get_error()}): {grammar}")
        self._end = tokenizer.eos_token
        self._read = start

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores (B, V) with −∞ for what no grammar allows next."""
        for row, matcher in enumerate(self._matchers):
            for token in ids[row, self._read :].tolist():
                if not matcher.is_stopped():
                    matcher.consume_token(token)
            if matcher.is_stopped() or matcher.is_error():
                allowed = torch.zeros(scores.shape[1], dtype=torch.bool)
                allowed[self._end] = True
            else:
                bits = torch.frombuffer(bytearray(matcher.compute_bitmask()), dtype=torch.uint8)
                allowed = (bits[:, None] >> torch.arange(8, dtype=torch.uint8) & 1).flatten().bool()
                allowed = torch.nn.functional.pad(
                    allowed[: scores.shape[1]], (0, max(0, scores.shape[1] - len(allowed)))
                )
            scores[row, ~allowed.to(scores.device)] = -torch.inf
        self._read = ids.shape[1]
        return scores
