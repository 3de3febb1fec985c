"""What a plan draws: lists of prompts with their seeds, in fixed batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

from ..errors import PromptError, SettingsError
from ..prompts.attack_lists import AttackList, AttackPrompt, read_attack_list
from ..prompts.columns import PROMPT
from ..prompts.minors import Context, unsafe_about_minor
from ..prompts.pairs import read_prompts
from ..tifa.questions import Question, group_by_caption, read_questions
from ..tifa.writing.geneval import GenevalPrompt, questions_of, read_geneval
from .near_misses import near_misses
from .plan import CAPTIONS, GENEVAL, MethodAttack, MethodPlan, Plan, PromptFile, slug


@dataclass(frozen=True)
class Item:
    """One picture to draw.

    Attributes:
        place: in its list, from 0; it names the picture's file.
        source: id of the caption or prompt.
        id: of the picture: the prompt's, with #2, #3, … for its further pictures.
        prompt: what is drawn.
        seed: of its noise.
        guidance: of its denoising, where its list gives one; None for the plan's.
    """

    place: int
    source: str
    id: str
    prompt: str
    seed: int
    guidance: float | None = None

    @property
    def drawn(self) -> list[int | float | str]:
        """What tells a picture from others of its method."""
        return [self.place, self.prompt, self.seed, *([] if self.guidance is None else [self.guidance])]

    @property
    def file(self) -> str:
        """The picture's path in its list's folder; a thousand pictures share a folder."""
        return f"{self.place // 1000:03}/{self.place:06}.png"


@dataclass(frozen=True)
class Items(Sequence[Item]):
    """The pictures of a list: `copies` of each row's, made when they are looked at, since there may be millions."""

    rows: tuple[Item, ...]
    copies: int

    def __len__(self) -> int:
        return len(self.rows) * self.copies

    @overload
    def __getitem__(self, number: int) -> Item: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, number: int | slice) -> Item | tuple[Item, ...]:
        if isinstance(number, slice):
            return tuple(self[each] for each in range(len(self))[number])
        place, copy = divmod(range(len(self))[number], self.copies)
        first = self.rows[place]
        if not copy:
            return first
        return replace(first, place=first.place + copy, id=f"{first.id}#{copy + 1}", seed=(first.seed + copy) % 2**64)


@dataclass(frozen=True)
class PromptList:
    """A list of prompts of a plan.

    Attributes:
        name: in tables.
        kind: CAPTIONS, GENEVAL, "attack", "safe", or "attacked" for the pictures of an attack on methods.
        items: what is drawn of it.
        key: of its whole file; pictures of another file go into another folder.
        questions: by caption, of CAPTIONS and GENEVAL alone.
        geneval: the lines of GENEVAL that are drawn.
        file: what the plan says of it.
        shows: by prompt, what its picture must show, of a list of near misses alone.
        notes: how the file was read, and what was left out.
        own: which settings are the file's own, in words; "" for none.
        together: pictures of a batch, where the plan's number does not say it.
        attack: whose pictures they are, of "attacked".
    """

    name: str
    kind: str
    items: Items
    key: str
    questions: Mapping[str, tuple[Question, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    own: str = ""
    geneval: tuple[GenevalPrompt, ...] = ()
    file: PromptFile | None = None
    shows: Mapping[str, str] = field(default_factory=dict)
    together: int = 0
    attack: MethodAttack | None = None

    def is_of(self, method: MethodPlan) -> bool:
        """Whether a method draws it."""
        return self.attack is None or self.attack.is_on(method)

    @property
    def work(self) -> str:
        """What its batches cost alike with: the attack's name, "" for prompts as they are."""
        return self.attack.name if self.attack else ""

    @property
    def folder(self) -> str:
        """The name of its folders."""
        return f"{slug(self.name)}-{self.key[:8]}"

    def batches(self, size: int) -> Iterator[tuple[Item, ...]]:
        """The items in groups of one guidance scale each, which depend on nothing but the list."""
        groups: dict[float | None, list[Item]] = {}
        for row in self.items.rows:
            groups.setdefault(row.guidance, []).append(row)
        for rows in groups.values():
            group, step = Items(tuple(rows), self.items.copies), self.together or size
            for start in range(0, len(group), step):
                yield group[start : start + step]


def read_lists(plan: Plan) -> tuple[PromptList, ...]:
    """All prompts of a plan: the captions, then GenEval's, then the attacks, then the safe lists.

    Raises:
        SettingsError: a file cannot be used, or too few of its prompts are left.
    """
    found = [_captions(plan, plan.questions)] if plan.questions else []
    found += [_geneval(plan, plan.geneval)] if plan.geneval else []
    for kind, files in (("attack", plan.attacks), ("safe", plan.safe)):
        found += [replace(_prompts(plan, file, kind), file=file) for file in files]
    measured = "geometry" in plan.score.what and any(method.changes_encoder for method in plan.methods)
    if measured and len(found[0].items) <= plan.score.neighbours:
        raise SettingsError(
            f"{plan.file}, score.neighbours: {plan.score.neighbours} neighbours need more captions than that; there "
            f"are {len(found[0].items)}. Lower score.neighbours, draw more captions, or leave geometry out of "
            "score.what."
        )
    return tuple(found)


def harmless_lists(lists: Sequence[PromptList]) -> list[PromptList]:
    """The lists that CLIPScore and distances are measured on: the safe ones, or the captions if there are none."""
    return [each for each in lists if each.kind == "safe"] or [each for each in lists if each.kind == CAPTIONS]


def _captions(plan: Plan, file: PromptFile) -> PromptList:
    questions, report = read_questions(file.file)
    groups = group_by_caption(questions)
    texts = [asked[0].caption for asked in groups.values()]
    refused = {place for place, text in enumerate(texts) if unsafe_about_minor(text)}
    notes = [f"{file.file.name}: {len(report.skipped)} rows skipped."] if report.skipped else []
    made = _items(plan, file, list(groups), texts, refused, notes, CAPTIONS)
    kept = {row.source for row in made.items.rows}
    asked = {caption: found for caption, found in groups.items() if caption in kept}
    return replace(made, questions=asked)


def _geneval(plan: Plan, file: PromptFile) -> PromptList:
    listed = {prompt.folder: prompt for prompt in read_geneval(file.file)}
    texts = [prompt.prompt for prompt in listed.values()]
    refused = {place for place, text in enumerate(texts) if unsafe_about_minor(text)}
    made = _items(plan, file, list(listed), texts, refused, [], GENEVAL)
    asked = {item.source: questions_of(listed[item.source]) for item in made.items}
    return replace(made, questions=asked, geneval=tuple(listed[source] for source in asked))


def _prompts(plan: Plan, file: PromptFile, kind: str) -> PromptList:
    """A list in the file of its authors, or any other. Which filter is asked is the plan's to say, not the file's."""
    if file.make:
        return _near_misses(plan, file, kind)
    context = Context.UNSAFE if kind == "attack" else Context.HARMLESS
    listed = read_attack_list(file.file, context=context, plain=True, column=file.column or None)
    notes = [f"{file.file.name} was taken for {listed.format}, {_counted(len(listed.prompts), 'row')}.", *listed.notes]
    own = _own_settings(file, listed)
    if own or listed.column != PROMPT:
        return _listed(plan, file, listed, kind, notes, own)
    # A list that says nothing of its pictures: a prompt that stands there twice is drawn once.
    texts = read_prompts(file.file)[0]
    usable = {each.text for each in listed.prompts}
    refused = {place for place, text in enumerate(texts) if text not in usable}
    ids = [f"{slug(file.name)}-{place}" for place in range(len(texts))]
    return _items(plan, file, ids, texts, refused, notes, kind)


def _near_misses(plan: Plan, file: PromptFile, kind: str) -> PromptList:
    found = near_misses(plan, file)
    refused = {place for place, each in enumerate(found) if unsafe_about_minor(each.prompt)}
    ids = [f"{slug(file.name)}-{place}" for place in range(len(found))]
    notes = [f"{file.name}: {_counted(len(found), 'near miss', 'near misses')} of {file.make!r}, kept in {file.file}."]
    made = _items(plan, replace(file, count=0), ids, [each.prompt for each in found], refused, notes, kind)
    return replace(made, shows={name: each.shows for name, each in zip(ids, found, strict=True)})


def _own_settings(file: PromptFile, listed: AttackList) -> str:
    """Which settings of its own a list is drawn with, in words."""
    if not file.own_settings:
        return ""
    counts = {
        words: sum(getattr(each, name) is not None for each in listed.prompts)
        for name, words in (("seed", "seeds"), ("guidance", "guidance scales"))
    }
    return " and ".join(f"{words} ({count:,} of {len(listed.prompts):,})" for words, count in counts.items() if count)


def _listed(plan: Plan, file: PromptFile, listed: AttackList, kind: str, notes: list[str], own: str) -> PromptList:
    """A list whose every row is a picture of its own, with the seed and guidance that the row gives, if it may."""
    copies, used = plan.draw.pictures, bool(own)
    if listed.minors:
        notes.append(_left_out(file.file, listed.minors))
    if own:
        notes.append(f"{file.name} is drawn with the file's own {own}.")

    def first(row: AttackPrompt) -> Item:
        name, place = f"{slug(file.name)}-{row.place}", row.place * copies
        seed = plan.draw.seed + place if row.seed is None or not used else row.seed % 2**64
        return Item(place, name, name, row.text, seed, row.guidance if used else None)

    items = Items(tuple(first(row) for row in listed.prompts[: file.count or None]), copies)
    rows = [[each.place, each.text, each.seed, each.guidance] for each in listed.prompts]
    content = json.dumps([rows, used, plan.draw.seed, copies, plan.draw.batch])
    key = hashlib.sha256(content.encode()).hexdigest()
    return PromptList(file.name, kind, items, key, notes=tuple(notes), own=own)


def _counted(count: int, word: str, words: str = "") -> str:
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def _left_out(file: Path, count: int) -> str:
    return f"{file.name}: {_counted(count, 'prompt')} that may refer to minors left out."


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
        notes = [*notes, _left_out(file.file, len(refused))]
    first = (Item(place * copies, ids[place], ids[place], texts[place], draw.seed + place * copies) for place in chosen)
    items = Items(tuple(first), copies)
    content = json.dumps([list(texts), draw.seed, copies, draw.batch])
    return PromptList(file.name, kind, items, hashlib.sha256(content.encode()).hexdigest(), notes=tuple(notes))
