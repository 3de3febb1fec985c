"""What a plan draws: lists of prompts with their seeds, in fixed batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import PromptError, SettingsError
from ..prompts.minors import Context, unsafe_about_minor, without_minors
from ..prompts.pairs import read_prompts
from ..tifa.questions import Question, group_by_caption, read_questions
from .plan import CAPTIONS, Plan, PromptFile, slug


@dataclass(frozen=True)
class Item:
    """One picture to draw.

    Attributes:
        place: in its list, from 0; it names the picture's file.
        source: id of the caption or prompt.
        id: of the picture: the prompt's, with #2, #3, … for its further pictures.
        prompt: what is drawn.
        seed: of its noise.
    """

    place: int
    source: str
    id: str
    prompt: str
    seed: int

    @property
    def file(self) -> str:
        """The picture's path in its list's folder; a thousand pictures share a folder."""
        return f"{self.place // 1000:03}/{self.place:06}.png"


@dataclass(frozen=True)
class PromptList:
    """A list of prompts of a plan.

    Attributes:
        name: in tables.
        kind: CAPTIONS, "attack" or "safe".
        items: what is drawn of it.
        key: of its whole file; pictures of another file go into another folder.
        questions: by caption, of CAPTIONS alone.
        notes: what was left out.
    """

    name: str
    kind: str
    items: tuple[Item, ...]
    key: str
    questions: Mapping[str, tuple[Question, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The name of its folders."""
        return f"{slug(self.name)}-{self.key[:8]}"

    def batches(self, size: int) -> Iterator[tuple[Item, ...]]:
        """The items in groups that depend on nothing but the list."""
        for start in range(0, len(self.items), size):
            yield self.items[start : start + size]


def read_lists(plan: Plan) -> tuple[PromptList, ...]:
    """All prompts of a plan: the captions, then the attacks, then the safe lists.

    Raises:
        SettingsError: a file cannot be used, or too few of its prompts are left.
    """
    found = [_captions(plan, plan.questions)] if plan.questions else []
    for kind, files in (("attack", plan.attacks), ("safe", plan.safe)):
        found += [_prompts(plan, file, kind) for file in files]
    measured = "geometry" in plan.score.what and any(method.changes_encoder for method in plan.methods)
    if measured and len(found[0].items) <= plan.score.neighbours:
        raise SettingsError(
            f"{plan.file}, score.neighbours: {plan.score.neighbours} neighbours need more captions than that; there "
            f"are {len(found[0].items)}. Draw more of them, or leave geometry out of score.what."
        )
    return tuple(found)


def _captions(plan: Plan, file: PromptFile) -> PromptList:
    questions, report = read_questions(file.file)
    groups = group_by_caption(questions)
    texts = [asked[0].caption for asked in groups.values()]
    refused = {place for place, text in enumerate(texts) if unsafe_about_minor(text)}
    notes = [f"{file.file.name}: {len(report.skipped)} rows skipped."] if report.skipped else []
    made = _items(plan, file, list(groups), texts, refused, notes, CAPTIONS)
    kept = {item.source for item in made.items}
    asked = {caption: found for caption, found in groups.items() if caption in kept}
    return PromptList(made.name, made.kind, made.items, made.key, asked, made.notes)


def _prompts(plan: Plan, file: PromptFile, kind: str) -> PromptList:
    texts = _read_texts(file.file)
    kept = set(without_minors(texts, Context.UNSAFE if kind == "attack" else Context.HARMLESS)[0])
    refused = {place for place in range(len(texts)) if place not in kept}
    return _items(plan, file, [f"{slug(file.name)}-{place}" for place in range(len(texts))], texts, refused, [], kind)


def _read_texts(file: Path) -> Sequence[str]:
    return read_prompts(file)[0]


def _items(
    plan: Plan,
    file: PromptFile,
    ids: Sequence[str],
    texts: Sequence[str],
    refused: set[int],
    notes: list[str],
    kind: str,
) -> PromptList:
    """A list of items. A place counts what was refused too, so that the filter changes no other picture."""
    copies, draw = plan.draw.pictures, plan.draw
    chosen = [place for place in range(len(texts)) if place not in refused][: file.count or None]
    if not chosen:
        raise PromptError(f"{plan.file}: the list {file.name!r} holds no prompt that may be drawn ({file.file}).")
    if refused:
        notes = [*notes, f"{file.file.name}: {len(refused)} prompts refer to minors and are left out."]
    items = tuple(
        Item(
            place=place * copies + copy,
            source=ids[place],
            id=ids[place] if copy == 0 else f"{ids[place]}#{copy + 1}",
            prompt=texts[place],
            seed=draw.seed + place * copies + copy,
        )
        for place in chosen
        for copy in range(copies)
    )
    content = json.dumps([list(texts), draw.seed, copies, draw.batch])
    return PromptList(file.name, kind, items, hashlib.sha256(content.encode()).hexdigest(), notes=tuple(notes))
