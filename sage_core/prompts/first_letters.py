"""Sorts the alternatives of a regular expression by the letters that they begin with, which makes long lists fast."""

from __future__ import annotations

import re
from string import ascii_lowercase, digits

_CHARACTERS = ascii_lowercase + digits
# What makes the part before it optional.
_OPTIONAL = ("?", "*", "{0")
# Alternatives with more first characters than this stand once for all characters.
_FEW = 12
# How many characters share a look.
_RUN = 5


def by_first_letter(pattern: str, within: str) -> str:
    """The alternatives of a pattern that may begin with characters of `within`, tried only where they may match.

    Python tries alternatives one after the other at each place; here most of them are passed over with a few looks at
    the next character. The order of alternatives changes, so this is for a search that asks only whether there is a
    match.
    """
    behind: dict[str, list[str]] = {character: [] for character in within}
    anywhere = []
    for alternative in _split(pattern):
        first = _first(alternative)
        if first is None or len(first) > _FEW:
            anywhere += [alternative] * (first is None or bool(first & set(within)))
            continue
        for character in sorted(first & set(within)):
            behind[character].append(alternative)
    runs = [within[start : start + _RUN] for start in range(0, len(within), _RUN)]
    for run in runs:
        branches = [_behind(character, behind[character]) for character in run if behind[character]]
        anywhere += [f"(?=[{run}])(?:{'|'.join(branches)})"] * bool(branches)
    return "|".join(anywhere)


def _behind(character: str, alternatives: list[str]) -> str:
    """Alternatives that may begin with a character, behind that character where they begin with it as it is."""
    plain = [each[1:] for each in alternatives if each[0] == character]
    other = [each for each in alternatives if each[0] != character]
    parts = [f"{character}(?:{'|'.join(plain)})"] * bool(plain) + [f"(?={character})(?:{'|'.join(other)})"] * bool(
        other
    )
    return "|".join(parts)


def _split(pattern: str) -> list[str]:
    """The alternatives of a pattern, split at each `|` that is in no brackets."""
    depth, start, parts, place = 0, 0, [], 0
    while place < len(pattern):
        character = pattern[place]
        if character == "\\":
            place += 1
        elif character == "[":
            place = _end_of_class(pattern, place)
        elif character == "|" and not depth:
            parts.append(pattern[start:place])
            start = place + 1
        depth += (character == "(") - (character == ")")
        place += 1
    return [*parts, pattern[start:]]


def _end_of_class(pattern: str, start: int) -> int:
    """Where the character class that begins at `start` has its closing bracket."""
    closing = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL).match(pattern, start)
    assert closing, pattern[start:]
    return closing.end() - 1


def _end_of_group(pattern: str) -> int:
    """Where the group that a pattern begins with has its closing bracket."""
    depth, place = 0, 0
    while True:
        character = pattern[place]
        depth += (character == "(") - (character == ")")
        if not depth:
            return place
        if character == "[":
            place = _end_of_class(pattern, place)
        place += 2 if character == "\\" else 1


def _first(pattern: str) -> frozenset[str] | None:
    """The characters that a match may begin with, or None where that is not plain to see."""
    if pattern.startswith(("(?<!", "(?!")):
        return _first(pattern[_end_of_group(pattern) + 1 :])
    if pattern.startswith(("(?:", "(?=")):
        end = _end_of_group(pattern)
        firsts = [_first(alternative) for alternative in _split(pattern[3:end])]
        return _unless_optional(
            frozenset().union(*(first or () for first in firsts)), pattern[end + 1 :], None in firsts
        )
    if pattern.startswith("[") and not pattern.startswith("[^"):
        end = _end_of_class(pattern, 0)
        return _unless_optional(_matching(pattern[: end + 1]), pattern[end + 1 :])
    if pattern.startswith("\\d"):
        return _unless_optional(frozenset(digits), pattern[2:])
    return _unless_optional(frozenset(pattern[0]), pattern[1:]) if pattern[:1].isalnum() else None


def _unless_optional(first: frozenset[str], rest: str, unknown: bool = False) -> frozenset[str] | None:
    return None if unknown or not first or rest.startswith(_OPTIONAL) else first


def _matching(character_class: str) -> frozenset[str]:
    return frozenset(filter(re.compile(character_class).match, _CHARACTERS))
