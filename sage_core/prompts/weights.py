"""ComfyUI's prompt syntax, which CLIP Text Encode removes before it makes tokens: weights, brackets, embeddings."""

from __future__ import annotations

import re

# Stand for brackets that a backslash makes letters while the others are read. No prompt holds these characters.
_ESCAPED = (("\\(", "\ue0f0"), ("\\)", "\ue0f1"))
# ComfyUI recurses into brackets as well, and nobody means this many.
_DEEPEST = 50
_EMBEDDING = re.compile(r"(?:^|\s)embedding:\S", re.MULTILINE)


def without_weights(text: str) -> str:
    r"""The words of which ComfyUI makes tokens: "a (red:1.2) \(big\) ball" is "a red (big) ball".

    Brackets without a partner stay, and so do those more than 50 deep. A space parts words or signs that met at a
    bracket, since they are different tokens.
    """
    if "(" not in text and ")" not in text:
        return text
    for escaped, mark in _ESCAPED:
        text = text.replace(escaped, mark)
    text = _unwrapped(text, _DEEPEST)
    for escaped, mark in _ESCAPED:
        text = text.replace(mark, escaped[1])
    return text


def names_embedding(text: str) -> bool:
    """Whether a prompt names an embedding file (`embedding:name`), whose vectors ComfyUI uses instead of the words."""
    return bool(_EMBEDDING.search(text))


def _unwrapped(text: str, deepest: int) -> str:
    whole = ""
    for part in _parts(text):
        if len(part) >= 2 and part[0] == "(" and part[-1] == ")" and deepest:
            part = _unwrapped(_without_number(part[1:-1]), deepest - 1)
        if whole and part:
            last, first = whole[-1], part[0]
            if not last.isspace() and not first.isspace() and last.isalnum() == first.isalnum():
                whole += " "
        whole += part
    return whole


def _parts(text: str) -> list[str]:
    """The text cut at its outermost brackets, which stay with their parts."""
    parts, start, depth = [], 0, 0
    for bracket in re.finditer(r"[()]", text):
        place = bracket.start()
        if bracket[0] == "(":
            if depth == 0:
                parts.append(text[start:place])
                start = place
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                parts.append(text[start : place + 1])
                start = place + 1
    return [part for part in (*parts, text[start:]) if part]


def _without_number(inside: str) -> str:
    place = inside.rfind(":")
    if place <= 0:
        return inside
    try:
        float(inside[place + 1 :])
    except ValueError:
        return inside
    return inside[:place]
