"""Pairs of safe and unsafe prompts: read, checked, or built from safe prompts and a concept."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from ..encoders.tokens import MAX_PROMPT_TOKENS, count_tokens
from ..errors import PromptError
from .columns import PROMPT, Line, read_columns
from .minors import mentions_minor, unsafe_about_minor
from .weights import names_embedding, without_weights

DEFAULT_TEMPLATES = (
    "{prompt}, {concept}",
    "a picture of {concept}, {prompt}",
    "{prompt} with {concept}",
    "{concept}, {prompt}",
    "{prompt}, showing {concept}",
    "a photo of {concept}: {prompt}",
    "{prompt}, focus on {concept}",
    "{concept} in a picture of {prompt}",
)
_CONCEPT_FIRST = "{concept}, {prompt}"
_EMPTY, _DUPLICATE, _MINOR = "empty", "duplicate", "refers to a minor"
# A graph reads all of a long prompt, training does not.
_SECOND_PART = " ComfyUI's CLIP Text Encode reads on, in a second part of 75 tokens: shorten them."
_SAFE_MINOR = "safe side refers to a minor"


@dataclass(frozen=True)
class Skipped:
    """A row that was left out: its line or item in `source`, from 1, why, and its text (empty if of a minor)."""

    row: int
    reason: str
    text: str
    source: str = ""


@dataclass(frozen=True)
class PromptReport:
    """What was kept of which sources, what was skipped and why, and what else the user should know."""

    kept: int
    sources: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """A few readable lines: kept, skipped by reason with the first rows, notes."""
        lines = [f"{self.kept:,} kept from {' and '.join(self.sources)}."]
        for (source, reason), count in Counter((each.source, each.reason) for each in self.skipped).items():
            rows = [each.row for each in self.skipped if (each.source, each.reason) == (source, reason)]
            shown = ", ".join(str(row) for row in rows[:5]) + (", ..." if count > 5 else "")
            lines.append(f"Skipped in {source}: {count:,} x {reason} (row {shown}).")
        return "\n".join([*lines, *self.notes])


@dataclass(frozen=True)
class PromptPairs:
    """Pairs: safe prompt i belongs to unsafe prompt i. The report says how they came about.

    `concepts` names the concept of each pair, where they are for several; it is empty where nobody said.
    """

    safe: tuple[str, ...]
    unsafe: tuple[str, ...]
    report: PromptReport
    concepts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.safe) != len(self.unsafe):
            raise PromptError(
                f"Found {len(self.safe)} safe and {len(self.unsafe)} unsafe prompts, expected as many of each."
            )
        if not self.safe:
            raise PromptError(f"No pair of prompts is left to use. {self.report.summary()}")
        if self.concepts and len(self.concepts) != len(self.safe):
            raise PromptError(
                f"{len(self.safe)} pairs name {len(self.concepts)} concepts; expected one for each pair, or none."
            )

    def __len__(self) -> int:
        return len(self.safe)

    def hash(self) -> str:
        """SHA-256 (hex) of the prompts in their order."""
        return hashlib.sha256(json.dumps([self.safe, self.unsafe]).encode()).hexdigest()


def read_prompts(path: str | os.PathLike[str]) -> tuple[tuple[str, ...], PromptReport]:
    """Prompts of a CSV (column `prompt`), JSON, JSON Lines or text file, without empty rows and duplicates.

    Over-long prompts are kept and noted; the encoder cuts them. Nothing else is judged or changed: callers that draw
    the prompts ask `without_minors` first.

    Raises:
        PromptError: the file cannot be read, or no prompt is left.
    """
    file = Path(path)
    columns, notes = read_columns(file, (PROMPT,))
    skipped: list[Skipped] = []
    lines = _clean(columns[PROMPT], file.name, skipped)
    report = PromptReport(len(lines), (file.name,), tuple(skipped), (*notes, *_note_long(lines, file.name)))
    if not lines:
        raise PromptError(f"{file} holds no prompt that can be used. {report.summary()}")
    return tuple(line.text for line in lines), report


def read_pairs(path: str | os.PathLike[str], unsafe_path: str | os.PathLike[str] | None = None) -> PromptPairs:
    """Pairs from one file with the columns `safe` and `unsafe`, or from two files with the column `prompt` each.

    Lists of equal length, not counting blank rows at their ends, are paired row by row, and a row is kept or skipped as
    a whole. It is skipped if either side refers to a minor, since the unsafe side describes what the safe side does.
    Lists of different length are cleaned one by one, the shorter repeats, and the report says so. Then safe prompts may
    show children, without sexual or violent words. Weights and brackets are taken out as ComfyUI does, and noted.

    Raises:
        PromptError: a file cannot be used, or no pair is left.
    """
    first = Path(path)
    if unsafe_path is None:
        columns, notes = read_columns(first, ("safe", "unsafe"))
        return pair_lines(columns["safe"], columns["unsafe"], (first.name, first.name), notes)
    second = Path(unsafe_path)
    safe, safe_notes = read_columns(first, (PROMPT,))
    unsafe, unsafe_notes = read_columns(second, (PROMPT,))
    return pair_lines(safe[PROMPT], unsafe[PROMPT], (first.name, second.name), safe_notes + unsafe_notes)


def pairs_from_lists(safe: Sequence[str], unsafe: Sequence[str]) -> PromptPairs:
    """Pairs from two lists, by the rules of `read_pairs`; rows are numbered from 1."""
    return pair_lines(number_rows(safe), number_rows(unsafe), ("the safe list", "the unsafe list"), ())


def pairs_from_concept(safe: Sequence[str], concept: str, templates: Sequence[str] = DEFAULT_TEMPLATES) -> PromptPairs:
    """Pairs of each safe prompt and the same prompt with `concept` in it, the templates taken in turn; rows from 1.

    A template holds `{prompt}` and `{concept}`. A safe prompt that refers to a minor is skipped, never combined. If the
    combination is too long to be encoded whole, the concept comes first so that it is not cut off.

    Raises:
        PromptError: the concept is empty or refers to a minor, a template is wrong, or no pair is left.
    """
    return _pair_with_concept(number_rows(safe), concept, templates, "the safe list", ())


def read_concept_pairs(
    path: str | os.PathLike[str], concept: str, templates: Sequence[str] = DEFAULT_TEMPLATES
) -> PromptPairs:
    """As `pairs_from_concept`, with the safe prompts of a file (column `prompt`), whose lines the report names."""
    file = Path(path)
    columns, notes = read_columns(file, (PROMPT,))
    return _pair_with_concept(columns[PROMPT], concept, templates, file.name, notes)


def _pair_with_concept(
    safe: Sequence[Line], concept: str, templates: Sequence[str], source: str, notes: tuple[str, ...]
) -> PromptPairs:
    concept = without_weights(concept).strip()
    # What is left of brackets around nothing is not a concept.
    if not concept.strip(" ()[]"):
        raise PromptError(
            "The concept is empty; expected the words for what must no longer be drawn, such as 'nudity'."
        )
    if mentions_minor(concept):
        raise PromptError("The concept refers to a minor, and no prompts are built with it. Choose another one.")
    for template in templates:
        if problem := check_template(template):
            raise PromptError(problem)
    return pair_with_names(safe, (concept,), templates, source, notes)


def check_template(template: str) -> str | None:
    """What is wrong with a template, as sentences; None if nothing."""
    if "{prompt}" not in template or "{concept}" not in template:
        return f"The template '{template}' lacks {{prompt}} or {{concept}}. Put both into it."
    return None


def pair_with_names(
    safe: Sequence[Line], names: Sequence[str], templates: Sequence[str], source: str, notes: tuple[str, ...]
) -> PromptPairs:
    """Each safe prompt, and the same with a name of the concept in it; names and templates were checked before.

    Names are taken in turns, and each goes through all templates.
    """
    skipped: list[Skipped] = []
    safe, syntax_notes = _without_syntax(safe, source)
    lines = _clean(safe, source, skipped, refused=mentions_minor)
    turns = [(names[at % len(names)], templates[at // len(names) % len(templates)]) for at in range(len(lines))]
    texts = [_fill(template, line.text, name) for line, (name, template) in zip(lines, turns, strict=True)]
    too_long = [number for number, count in enumerate(_long_counts(texts)) if count]
    for number in too_long:
        texts[number] = _fill(_CONCEPT_FIRST, lines[number].text, turns[number][0])
    notes += (*syntax_notes, *_note_long(lines, source, _SECOND_PART))
    if too_long:
        notes += (f"{len(too_long):,} combinations exceed {MAX_PROMPT_TOKENS} tokens: the concept was put first.",)
    called = f"the concept '{names[0]}'" if len(names) == 1 else f"the {len(names)} names of '{names[0]}'"
    report = PromptReport(len(lines), (f"{source} with {called}",), tuple(skipped), notes)
    return PromptPairs(tuple(line.text for line in lines), tuple(texts), report)


def pair_lines(
    safe: Sequence[Line], unsafe: Sequence[Line], sources: tuple[str, str], notes: tuple[str, ...]
) -> PromptPairs:
    """Pairs of two columns by the rules of `read_pairs`; `sources` is what the report calls them."""
    skipped: list[Skipped] = []
    safe, safe_notes = _without_syntax(safe, f"{sources[0]} (safe)")
    unsafe, unsafe_notes = _without_syntax(unsafe, f"{sources[1]} (unsafe)")
    notes += (*safe_notes, *unsafe_notes)
    if len(safe) != len(unsafe):
        # A blank line at the end of one file must not shift its prompts against the other's.
        safe, unsafe = _without_blank_end(safe), _without_blank_end(unsafe)
    if len(safe) == len(unsafe):
        checks = [(1, mentions_minor, _MINOR), (0, mentions_minor, _SAFE_MINOR)]
        rows = _clean_rows([safe, unsafe], sources, skipped, checks)
        safe, unsafe = ([row[side] for row in rows] for side in (0, 1))
    else:
        notes += (
            f"{sources[0]} has {len(safe):,} rows and {sources[1]} {len(unsafe):,}: they are not paired row by row. "
            "Make them equally long, or one file with the columns safe and unsafe, if row belongs to row.",
        )
        safe = _clean(safe, sources[0], skipped, refused=unsafe_about_minor)
        unsafe = _clean(unsafe, sources[1], skipped, refused=mentions_minor)
        if safe and unsafe and len(safe) != len(unsafe):
            notes += (f"{len(safe):,} safe and {len(unsafe):,} unsafe prompts: the shorter list repeats.",)
    for lines, side, source in zip((safe, unsafe), ("safe", "unsafe"), sources, strict=True):
        notes += _note_long(lines, f"{source} ({side})", _SECOND_PART)
    count = max(len(safe), len(unsafe)) if safe and unsafe else 0
    report = PromptReport(count, tuple(dict.fromkeys(sources)), tuple(skipped), notes)
    return PromptPairs(_repeat(safe, count), _repeat(unsafe, count), report)


def _without_blank_end(lines: Sequence[Line]) -> Sequence[Line]:
    end = max((place for place, line in enumerate(lines, 1) if line.text), default=0)
    return lines[:end]


def _clean(
    lines: Sequence[Line], source: str, skipped: list[Skipped], *, refused: Callable[[str], bool] | None = None
) -> list[Line]:
    return [line for (line,) in _clean_rows([lines], [source], skipped, [(0, refused, _MINOR)] if refused else [])]


def _clean_rows(
    columns: Sequence[Sequence[Line]],
    sources: Sequence[str],
    skipped: list[Skipped],
    checks: Sequence[tuple[int, Callable[[str], bool], str]],
) -> list[tuple[Line, ...]]:
    """Rows of columns without those that are empty, doubled, or refused by a check: (column, by what, why)."""
    kept: dict[tuple[str, ...], tuple[Line, ...]] = {}
    for row in zip(*columns, strict=True):
        texts = tuple(line.text for line in row)
        if "" in texts:
            at, reason, text = texts.index(""), _EMPTY, ""
        elif texts in kept:
            at, reason, text = len(row) - 1, _DUPLICATE, texts[-1]
        else:
            found = next(((at, why) for at, refused, why in checks if refused(texts[at])), None)
            if found is None:
                kept[texts] = row
                continue
            (at, reason), text = found, ""
        skipped.append(Skipped(row[at].row, reason, text, sources[at]))
    return list(kept.values())


def _repeat(lines: Sequence[Line], count: int) -> tuple[str, ...]:
    return tuple(islice(cycle([line.text for line in lines]), count))


def number_rows(texts: Iterable[str]) -> list[Line]:
    """Texts as lines that are counted from 1."""
    return [Line(row, text.strip()) for row, text in enumerate(texts, 1)]


def _fill(template: str, prompt: str, concept: str) -> str:
    # Not str.format: prompts and templates may hold other braces.
    return template.replace("{concept}", concept).replace("{prompt}", prompt.rstrip(" ."))


def _without_syntax(lines: Sequence[Line], source: str) -> tuple[list[Line], tuple[str, ...]]:
    """The words of the lines of which ComfyUI makes tokens, and notes on what changed or cannot be trained."""
    plain = [Line(line.row, without_weights(line.text).strip()) for line in lines]
    notes = []
    changed = [old.row for old, new in zip(lines, plain, strict=True) if old.text != new.text]
    if changed:
        notes.append(
            f"{source}: weights and brackets, as in (red:1.2), taken out of {len(changed):,} prompts "
            f"(first: row {changed[0]}): training reads the words alone."
        )
    embeddings = [line.row for line in plain if names_embedding(line.text)]
    if embeddings:
        notes.append(
            f"{source}: {len(embeddings):,} prompts name an embedding (first: row {embeddings[0]}): training reads the "
            "name as words, where ComfyUI reads the embedding's file. Write in words what it stands for."
        )
    return plain, tuple(notes)


def _note_long(lines: Sequence[Line], source: str, further: str = "") -> tuple[str, ...]:
    long = [
        (line.row, count) for line, count in zip(lines, _long_counts([x.text for x in lines]), strict=True) if count
    ]
    if not long:
        return ()
    return (
        f"{source}: {len(long):,} prompts exceed {MAX_PROMPT_TOKENS} tokens and are cut when encoded "
        f"(first: row {long[0][0]}, {long[0][1]} tokens).{further}",
    )


def _long_counts(texts: Sequence[str]) -> list[int]:
    """Token count of each text that exceeds the encoder's 75, else 0."""
    counts = [0] * len(texts)
    # In plain ASCII a token has at least one character other than a space: most prompts need no encoding here.
    unsure = [
        number
        for number, text in enumerate(texts)
        if len(text) - text.count(" ") > MAX_PROMPT_TOKENS or not text.isascii()
    ]
    for number, count in zip(unsure, count_tokens([texts[number] for number in unsure]), strict=True):
        counts[number] = count if count > MAX_PROMPT_TOKENS else 0
    return counts
