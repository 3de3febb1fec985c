"""Whether a prompt holds a concept by one of its names, in any form and with other qualities between its words."""

from __future__ import annotations

from collections.abc import Sequence

from ..everyday_captions import names_pattern
from . import lexicon
from .reading import Caption
from .settings import Kind
from .targets import Name, Target

_ARTICLES = ("a", "an", "the")
_BEFORE = ("a ", "an ", "the ", "his ", "her ", "their ")


class Holder:
    """Finds the names of some concepts in prompts."""

    def __init__(self, targets: Sequence[Target]) -> None:
        """Take the names of all targets, given and mined, and those that no training may see."""
        plain, self._bound = [], []
        for target in targets:
            plain += [*(name.text for name in target.names), *target.concept.unseen]
            plain += [said for name in target.names if target.kind == Kind.ACT and name.tail for said in _said(name)]
            if target.modifiers:
                heads = {form for head in target.heads for form in lexicon.forms(head)}
                self._bound.append((set(target.modifiers), heads))
            else:
                plain += [name.head for name in target.names if not name.tail]
        self._pattern = names_pattern(list(dict.fromkeys(plain)))

    def holds(self, text: str) -> bool:
        """Whether a prompt names any of the concepts."""
        if self._pattern is not None and self._pattern.search(text):
            return True
        if not self._bound:
            return False
        words = text.lower()
        return any(
            any(head in words for head in heads) and _in_one_phrase(text, modifiers, heads)
            for modifiers, heads in self._bound
        )


def _said(name: Name) -> list[str]:
    """An act with what it is done to, in all forms of its verb and with any article: "plays the guitar"."""
    words = name.tail.split()
    tail = " ".join(words[1:] if words[0] in _ARTICLES and len(words) > 1 else words)
    return [f"{verb} {before}{tail}" for verb in lexicon.forms(name.head) for before in ("", *_BEFORE)]


def _in_one_phrase(text: str, modifiers: set[str], heads: set[str]) -> bool:
    """Whether a modifier stands before a head with no more than four words between that end no phrase."""
    caption = Caption(text)
    for at, word in enumerate(caption.words):
        if word not in heads:
            continue
        for before in range(at - 1, max(at - 6, -1), -1):
            if caption.words[before] in modifiers:
                return True
            if caption.ends(before) or lexicon.is_plural(caption.words[before]):
                break
    return False
