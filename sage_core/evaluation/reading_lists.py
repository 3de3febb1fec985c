"""The lists of prompts of a plan, read from TOML and checked; see `reading`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .fields import Section
from .plan import CAPTIONS, DOMAINS, GENEVAL, NEAR_MISSES, PromptFile, slug


def read_prompt_lists(section: Section, kept: Path) -> dict[str, Any]:
    """The lists of a plan, by the names of its fields; those that are made are kept in a folder."""
    file = section.path("questions")
    count = section.whole("captions", 0, 0, 10**7)
    questions = PromptFile(CAPTIONS, file, count) if file else None
    metadata = section.path("geneval")
    sections = {kind: section.sections(kind) for kind in ("attack", "safe")}
    lists = {kind: tuple(_list(each, kind, kept) for each in found) for kind, found in sections.items()}
    each = [(own, prompts.name) for kind in lists for own, prompts in zip(sections[kind], lists[kind], strict=True)]
    for place, name, other in repeats([CAPTIONS, GENEVAL, *(name for _, name in each)]):
        each[place - 2][0].problem("name", f"{name!r} is too like {other!r}, another list's name; give each its own.")
    if not any(section.has(name) for name in ("questions", "geneval", "attack", "safe")):
        section.problem("questions", "there is nothing to draw; expected a file of questions, or [[prompts.attack]].")
    section.close()
    geneval = PromptFile(GENEVAL, metadata) if metadata else None
    return {"questions": questions, "geneval": geneval, "attacks": lists["attack"], "safe": lists["safe"]}


def _list(section: Section, kind: str, kept: Path) -> PromptFile:
    if kind == "safe" and section.has("make"):
        return _made_list(section, kept)
    found = PromptFile(
        section.text("name", required=True),
        section.path("file", required=True) or Path(),
        section.whole("count", 0, 0, 10**7),
        section.flag("own_settings", True),
        section.text("column"),
        section.text("concept"),
        section.text("question"),
        section.choice("domain", DOMAINS, DOMAINS[0]) if kind == "safe" else DOMAINS[0],
    )
    for name in ("question", "domain"):
        if section.has(name) and not found.concept:
            section.problem(name, "it has no effect without concept. Name what the pictures show, or leave it out.")
    section.close()
    return found


def _made_list(section: Section, kept: Path) -> PromptFile:
    """A list of near misses."""
    made = section.text("make")
    concept = made.removeprefix(NEAR_MISSES).strip()
    if not made.startswith(NEAR_MISSES) or not concept:
        section.wrong("make", f"{NEAR_MISSES!r} and a concept, such as '{NEAR_MISSES}red star'")
    for name in ("file", "column", "own_settings", "concept", "question"):
        if section.has(name):
            text = "it has no effect on a list that is made, of which each prompt says what must stay; leave it out."
            section.problem(name, text)
    name = section.text("name", required=True)
    found = PromptFile(
        name,
        kept / f"{slug(name)}.json",
        section.whole("count", 0, 0, 10**4),
        domain=section.choice("domain", DOMAINS, DOMAINS[0]),
        make=concept,
        captions=section.path("captions"),
        seed=section.whole("seed", 0, 0, 2**32 - 1),
    )
    section.close()
    return found


def repeats(names: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Place and name of each whose files would be those of an earlier one, and that one's name."""
    first: dict[str, int] = {}
    for place, name in enumerate(names):
        if name and (found := first.setdefault(slug(name), place)) != place:
            yield place, name, names[found]
