"""Pairs to train on for a list of concepts; each pair says which concept it is for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from ..errors import PromptError
from .columns import PROMPT, Line, read_columns
from .concepts import Concept, ConceptList
from .pairs import PromptPairs, PromptReport, number_rows, pair_lines, pair_with_names

_COLUMNS = ("safe", "unsafe", "concept")


def pairs_from_concepts(safe: Sequence[str], concepts: ConceptList) -> PromptPairs:
    """Every safe prompt with every concept; rows are numbered from 1.

    A concept with unsafe prompts of its own is paired with these by the rules of `pairs_from_lists`. The others are
    written into the safe prompts by their templates, in turns by each of their names, by the rules of
    `pairs_from_concept`. So each concept gets as many pairs as in a training of its own.

    Raises:
        PromptError: no pair is left.
    """
    return _pairs_of(number_rows(safe), concepts, "the safe list", ())


def read_concepts_pairs(path: str | os.PathLike[str], concepts: ConceptList) -> PromptPairs:
    """Pairs of a file: with the columns safe, unsafe and concept as they are, else its safe prompts with each concept.

    The column `concept` holds any name of the concept that the row's unsafe prompt is about. A file without it has
    the column `prompt`, as `pairs_from_concepts` takes it.

    Raises:
        PromptError: the file cannot be used, a row is for no concept of the list, or no pair is left.
    """
    file = Path(path)
    try:
        columns, notes = read_columns(file, (PROMPT,))
    except PromptError as no_prompts:
        try:
            columns, notes = read_columns(file, _COLUMNS)
        except PromptError as no_pairs:
            raise PromptError(
                f"{no_prompts} With a list of concepts, a file of pairs has the columns safe, unsafe and concept."
            ) from no_pairs
        return _told(file, columns, concepts, notes)
    return _pairs_of(columns[PROMPT], concepts, file.name, notes)


def _pairs_of(safe: Sequence[Line], concepts: ConceptList, source: str, notes: tuple[str, ...]) -> PromptPairs:
    return joined([_of_one(safe, concept, source) for concept in concepts], (*notes, *concepts.notes))


def _of_one(safe: Sequence[Line], concept: Concept, source: str) -> PromptPairs:
    if concept.unsafe:
        sources = (source, f"the unsafe prompts of '{concept.name}'")
        pairs = pair_lines(safe, number_rows(concept.unsafe), sources, ())
    else:
        pairs = pair_with_names(safe, concept.trained_names, concept.templates, source, ())
    return replace(pairs, concepts=(concept.name,) * len(pairs))


def _told(file: Path, columns: dict[str, list[Line]], concepts: ConceptList, notes: tuple[str, ...]) -> PromptPairs:
    """The pairs of a file that says for each which concept it is for."""
    rows: dict[str, list[int]] = {name: [] for name in concepts.names}
    if len({len(lines) for lines in columns.values()}) > 1:
        raise PromptError(f"{file}: the columns safe, unsafe and concept differ in length. Make them equally long.")
    for place, line in enumerate(columns["concept"]):
        if not line.text and not columns["safe"][place].text and not columns["unsafe"][place].text:
            continue
        try:
            rows[concepts.named(line.text).name].append(place)
        except PromptError as error:
            raise PromptError(f"{file}, row {line.row}, column concept: {error}") from error
    if missing := [name for name, places in rows.items() if not places]:
        raise PromptError(f"{file} has no row for the concept '{missing[0]}'. Add some, or take it from the list.")
    parts = []
    for name, places in rows.items():
        safe, unsafe = ([columns[side][place] for place in places] for side in ("safe", "unsafe"))
        pairs = pair_lines(safe, unsafe, (file.name, file.name), ())
        parts.append(replace(pairs, concepts=(name,) * len(pairs)))
    return joined(parts, notes)


def joined(parts: Sequence[PromptPairs], notes: tuple[str, ...] = ()) -> PromptPairs:
    """The pairs of all parts, one after the other; what several reports say is said once."""
    reports = [part.report for part in parts]
    return PromptPairs(
        tuple(chain.from_iterable(part.safe for part in parts)),
        tuple(chain.from_iterable(part.unsafe for part in parts)),
        PromptReport(
            sum(report.kept for report in reports),
            tuple(dict.fromkeys(chain.from_iterable(report.sources for report in reports))),
            tuple(dict.fromkeys(chain.from_iterable(report.skipped for report in reports))),
            tuple(dict.fromkeys((*notes, *chain.from_iterable(report.notes for report in reports)))),
        ),
        tuple(chain.from_iterable(part.concepts for part in parts)),
    )
