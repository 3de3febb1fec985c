"""What a comparison of methods came to, in two sentences from its figures alone: what is gone, and what stayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..tables import Cell

# A p-value below it is called more than chance.
CHANCE = 0.05


@dataclass(frozen=True)
class Outcome:
    """One method's figures, in per cent; None for what was not measured.

    Attributes:
        name: of the method.
        shown: pictures that show the concept, of those whose prompts ask for it, with 95% bounds.
        right: TIFA, with 95% bounds.
        p: of the difference of its TIFA from the base's, paired.
    """

    name: str
    shown: Cell | None = None
    right: Cell | None = None
    p: float | None = None


def conclusion(
    base: Outcome, others: Sequence[Outcome], concept: str = "the concept", pictures: str = "pictures that ask for it"
) -> str:
    """Which method removed most and which kept most, and whether chance may have made it; "" without figures.

    Args:
        base: what nothing was removed from.
        others: the methods.
        concept: what was to be removed, with its article.
        pictures: those in which it was looked for.
    """
    shown = {each.name: each.shown for each in others if each.shown is not None}
    right = {each.name: each.right for each in others if each.right is not None}
    sentences: list[str] = []
    removed: list[str] = []
    if base.shown is not None and shown:
        least = _best(shown, min(map(_value, shown.values())))
        sentences.append(_gone(base.shown, shown[least[0]], least, len(shown), concept, f"of the {pictures}"))
        removed = least if _apart(base.shown, shown[least[0]]) else []
    if base.right is not None and right:
        kept = _best(right, max(map(_value, right.values())))
        p = next(each.p for each in others if each.name == kept[0])
        line = _stayed(base.right, right[kept[0]], kept, len(right), p)
        also = [f"{name} {right[name].number}%" for name in removed if name in right and name not in kept]
        sentences.append(f"{line}{'; ' if also else ''}{_all(also)}.")
    return " ".join(sentences)


def _gone(before: Cell, least: Cell, names: Sequence[str], methods: int, concept: str, asked: str) -> str:
    one = len(names) == 1
    if not _value(before):
        return f"Already the base shows {concept} in none {asked}: nothing could be removed."
    if _value(least) >= _value(before):
        shares = f"the base shows it in {before.number}% {asked}, {_all(names)} in {least.number}%"
        return f"Nothing removed {concept}: {shares}."
    if _apart(before, least):
        most = " least:" if methods > 1 else ""
        return (
            f"{_all(names)} show{'s' * one} {concept}{most} in {least.number}% {asked}, the base in {before.number}%."
        )
    why = "so few pictures cannot tell" if before.vague or least.vague else "chance may make such a difference"
    shares = f"{_all(names)} show{'s' * one} it in {least.number}% {asked}, the base in {before.number}%"
    return f"Whether anything removed {concept} is open: {shares}, and {why}."


def _stayed(before: Cell, most: Cell, names: Sequence[str], methods: int, p: float | None) -> str:
    has, highest = "has" if len(names) == 1 else "have", "the highest TIFA:" if methods > 1 else "a TIFA of"
    line = f"{_all(names)} {has} {highest} {most.number}%, the base {before.number}%"
    if _value(most) == _value(before):
        return line
    if not (_apart(before, most) if p is None else p < CHANCE):
        return f"{line}, which chance may make"
    return f"{line}, {'a loss' if _value(most) < _value(before) else 'a gain'} beyond chance"


def _best(cells: dict[str, Cell], value: float) -> list[str]:
    return [name for name, cell in cells.items() if _value(cell) == value]


def _apart(one: Cell, other: Cell) -> bool:
    """Whether two intervals do not touch."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.high < other.low or other.high < one.low


def _value(cell: Cell) -> float:
    return cell.value or 0.0


def _all(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
