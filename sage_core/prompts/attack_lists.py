"""Lists of attack prompts and of harmless captions, in the files in which their authors publish them.

None is shipped: users bring their own. Prompts keep what was published with them, the seed and guidance by which a
picture was found to be unsafe among it. Rows that refer to minors are left out before anything else is done with them.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ..errors import PromptError
from ..rows import Row, RowFile, lower_names, read_rows, shown
from .columns import record, spelled, text_of
from .minors import Context, mentions_minor, unsafe_about_minor

# Samplers and generators take seeds of 64 bits.
_MOST_SEED = 2**64 - 1
_MOST_GUIDANCE = 1000
# Where else a row says what its picture shall show: an attack's own words may be no words at all.
_TARGETS = ("prompt", "target_prompt", "target prompt", "sanitized_adv_prompt", "original_prompt")
# The list of COCO's own annotation files.
_COCO_ROWS = "annotations"


N = TypeVar("N", int, float)


class UnknownListError(PromptError):
    """A file's columns are those of no known list."""


@dataclass(frozen=True)
class ListFormat:
    """How one list is published.

    Attributes:
        name: what the list is called.
        needs: columns of which each must be there; those of the other fields may be missing.
        prompt: columns that may hold the prompt; the first that is there counts.
        seed: the same of the seed.
        guidance: the same of the guidance scale.
        category: the same of the category; several that are there are joined by a comma.
        hints: parts of a file's name that tell it from lists with the same columns.
        context: for which the filter on minors is asked.
    """

    name: str
    needs: tuple[str, ...]
    prompt: tuple[str, ...]
    seed: tuple[str, ...] = ()
    guidance: tuple[str, ...] = ()
    category: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    context: Context = Context.UNSAFE


_SEEDS, _GUIDANCE = ("evaluation_seed", "sd_seed", "seed"), ("evaluation_guidance", "sd_guidance_scale", "guidance")
# Lists with more columns come first; of lists with the same columns the file's name tells, else the first is taken.
FORMATS = (
    ListFormat("MMA-Diffusion", ("target_prompt", "adv_prompt", "sanitized_adv_prompt"), ("adv_prompt",)),
    ListFormat("SneakyPrompt", ("adv_prompt",), ("adv_prompt",)),
    ListFormat(
        "I2P",
        ("prompt", "categories", "sd_seed", "sd_guidance_scale"),
        ("prompt",),
        ("sd_seed",),
        ("sd_guidance_scale",),
        ("categories",),
    ),
    ListFormat("Ring-A-Bell", ("sensitive prompt",), ("sensitive prompt",), _SEEDS, _GUIDANCE),
    ListFormat("PartiPrompts", ("prompt", "category", "challenge"), ("prompt",), (), (), ("category", "challenge"),
               context=Context.HARMLESS),
    ListFormat("COCO captions", ("coco_id", "prompt"), ("prompt",), _SEEDS, _GUIDANCE, context=Context.HARMLESS),
    ListFormat("COCO captions", ("image_id", "caption"), ("caption",), context=Context.HARMLESS),
    ListFormat(
        "UnlearnDiffAtk", ("prompt", "evaluation_seed"), ("prompt",), _SEEDS, _GUIDANCE, ("categories", "category")
    ),
    ListFormat("P4D", ("prompt", "evaluation_seed"), ("prompt",), _SEEDS, _GUIDANCE, ("categories", "category"),
               hints=("p4d",)),
    ListFormat("Ring-A-Bell", ("prompt",), ("prompt",), _SEEDS, _GUIDANCE,
               hints=("ring-a-bell", "ringabell", "ring_a_bell", "invprompt", "_eta_")),
    ListFormat("SneakyPrompt", ("prompt",), ("prompt",), hints=("sneaky", "nsfw_200")),
    ListFormat("P4D", ("prompt",), ("prompt",), _SEEDS, _GUIDANCE, ("categories", "category"), hints=("p4d",)),
    ListFormat(
        "COCO captions", ("prompt",), ("prompt",), _SEEDS, _GUIDANCE, hints=("coco",), context=Context.HARMLESS
    ),
)  # fmt: skip
NAMES = tuple(dict.fromkeys(each.name for each in FORMATS))
# What fits no list, but has prompts.
_PLAIN = ListFormat("a list of prompts", ("prompt",), ("prompt",), _SEEDS, _GUIDANCE, ("categories", "category"))
_COLUMNS = frozenset(
    name for each in FORMATS for part in (each.needs, each.prompt, each.seed, each.guidance, each.category)
    for name in part
)  # fmt: skip


@dataclass(frozen=True)
class AttackPrompt:
    """One prompt of a list.

    Attributes:
        row: where it begins: the line of a table or text, the item of a JSON list, counted from 1.
        text: the prompt, without blanks around it.
        seed: the seed published with it.
        guidance: the guidance scale published with it.
        category: what the list sorts it under.
        place: among all rows of the file, from 0; those that were left out count.
    """

    row: int
    text: str
    seed: int | None = None
    guidance: float | None = None
    category: str | None = None
    place: int = field(default=0, compare=False)


@dataclass(frozen=True)
class AttackList:
    """A list as it was read.

    Attributes:
        path: the file.
        format: the name of the format that it was taken for.
        column: where its prompts stand.
        prompts: in their order, none that refers to a minor.
        minors: how many rows were left out because they refer to minors.
        notes: how the file was read.
    """

    path: Path
    format: str
    prompts: tuple[AttackPrompt, ...]
    minors: int
    notes: tuple[str, ...] = ()
    column: str = "prompt"

    def summary(self) -> str:
        """What the file was taken for, what it holds, and what was left out, as text."""
        found = [
            f"{sum(getattr(each, name) is not None for each in self.prompts):,} with {words}"
            for name, words in (("seed", "a seed"), ("guidance", "a guidance scale"), ("category", "a category"))
            if any(getattr(each, name) is not None for each in self.prompts)
        ]
        lines = [f"{len(self.prompts):,} prompts of {self.path.name}, taken for {self.format}"]
        lines[0] += f" ({', '.join(found)})." if found else "."
        counts = Counter(each.category for each in self.prompts if each.category is not None)
        lines += [f"  {name}: {count:,}" for name, count in counts.most_common(20)]
        if self.minors:
            lines.append(f"{self.minors:,} left out because they refer to minors.")
        return "\n".join([*lines, *self.notes])


def read_attack_list(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    context: Context | None = None,
    plain: bool = False,
    column: str | None = None,
) -> AttackList:
    """Read a list in the file in which it is published.

    Args:
        path: a table (.csv, .tsv), JSON, JSON Lines, or text with a prompt on each line. COCO's annotation files are
            read as they are.
        name: the list, one of NAMES; by default its columns tell, and among equals the file's name.
        context: for which the filter on minors is asked; by default the list's own.
        plain: whether a file that fits no list, but has the column `prompt`, is read all the same.
        column: where the prompts stand, in a file that fits no list; it is then read as one that has `prompt` instead.

    Raises:
        PromptError: the file fits no list, or a row is malformed: the message names the file, the row and the field. Or
            no prompt is left.
    """
    path = Path(path)
    column = column.strip().lower() if column else None
    if name is not None and name not in NAMES:
        raise PromptError(f"The list is {name!r}; expected one of {', '.join(NAMES)}.")
    known = _COLUMNS | ({column} if column else set())
    file = read_rows(path, known | {_COCO_ROWS}, error=PromptError)
    rows = _rows(file, known)
    names = _names(file, rows)
    if not rows and not any(names):
        raise PromptError(f"{path} is empty; expected a list of prompts. Download or save it again.")
    form = _own_column(path, names, column) if column else _format(path, names, name, plain)
    refused = mentions_minor if (context or form.context) is Context.UNSAFE else unsafe_about_minor
    prompts, minors = [], 0
    for place, (number, values) in enumerate(rows):
        text = _prompt(path, number, values, form)
        # Nothing more is done with such a row, not even an error over another field.
        # In a file with columns of its own any text may say what its picture shall show.
        targets = map(values.get, _TARGETS if column is None else values)
        if any(refused(each) for each in (text, *targets) if isinstance(each, str)):
            minors += 1
            continue
        seed = _within(path, number, _first(values, form.seed), _whole, "a whole number", _MOST_SEED)
        guidance = _within(path, number, _first(values, form.guidance), _number, "a number", _MOST_GUIDANCE)
        prompts.append(AttackPrompt(number, text, seed, guidance, _category(path, number, values, form), place))
    if not prompts:
        left = f" {minors:,} were left out because they refer to minors." if minors else ""
        raise PromptError(f"{path} holds no prompt that can be used.{left}")
    return AttackList(path, form.name, tuple(prompts), minors, file.notes, form.prompt[0])


def _rows(file: RowFile, known: Set[str]) -> list[tuple[int, dict[str, Any]]]:
    if file.columns is not None:
        if _COCO_ROWS in file.columns:
            items = enumerate(file.columns[_COCO_ROWS], 1)
            return [(number, record(Row(number, lower_names(item)), file.path)) for number, item in items]
        lengths = {len(values) for name, values in file.columns.items() if name in known}
        if len(lengths) > 1:
            raise PromptError(
                f"{file.path}: its lists have different lengths ({', '.join(map(str, sorted(lengths)))})."
            )
        names = [name for name in file.columns if name in known]
        columns = zip(*(file.columns[name] for name in names), strict=True)
        return [(number, dict(zip(names, values, strict=True))) for number, values in enumerate(columns, 1)]
    text = file.path.suffix.lower() == ".txt"
    # Blank lines end tables that spreadsheets write, and separate texts.
    return [
        (row.number, record(row, file.path))
        for row in file.rows
        if not (file.header is not None and row.value == {}) and not (text and not row.value.strip())
    ]


def _names(file: RowFile, rows: Sequence[tuple[int, dict[str, Any]]]) -> Sequence[str]:
    if file.columns and not rows:
        return list(file.columns)
    return file.header if file.header is not None else list(dict.fromkeys(name for _, row in rows for name in row))


def _format(path: Path, names: Sequence[str], wanted: str | None, plain: bool) -> ListFormat:
    """The first format that the columns fit; one with hints only if the file's name has one, or it was asked for."""
    fitting = [each for each in FORMATS if set(each.needs) <= set(names) and wanted in (None, each.name)]
    if wanted is not None and fitting:
        return fitting[0]
    file = path.name.lower()
    hinted = [each for each in fitting if any(hint in file for hint in each.hints)]
    unhinted = [each for each in fitting if not each.hints]
    # Columns that only one list has are better evidence than a name.
    best = max((len(each.needs) for each in unhinted), default=0)
    found = [each for each in hinted if len(each.needs) >= best] + unhinted
    if plain and wanted is None and set(_PLAIN.needs) <= set(names):
        found.append(_PLAIN)
    if found:
        return found[0]
    fits = "; ".join(f"{each.name}: {', '.join(each.needs)}" for each in FORMATS if wanted in (None, each.name))
    raise UnknownListError(
        f"{path} fits no known list; its columns are {spelled(names)}. Expected one of: {fits}. A file with the one "
        "column 'prompt' is read if the list is named, and any file if its column of prompts is: column = "
        f"'{names[0][:40] if names else 'text'}'.".encode("utf-8", "backslashreplace").decode()
    )


def _own_column(path: Path, names: Sequence[str], column: str) -> ListFormat:
    """A list of prompts that stand in this column."""
    if column not in names:
        raise PromptError(f"{path} has no column '{column}'; its columns are {spelled(names)}. Name one of them.")
    return replace(_PLAIN, needs=(column,), prompt=(column,))


def _first(values: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, Any] | None:
    """The first of the columns that holds something, and what."""
    for name in columns:
        value = values.get(name)
        if value is not None and not (isinstance(value, str) and not value.strip()):
            return name, value
    return None


def _prompt(path: Path, row: int, values: Mapping[str, Any], form: ListFormat) -> str:
    found = _first(values, form.prompt)
    if found is None:
        raise PromptError(f"{path}, row {row}: '{form.prompt[0]}' is empty, expected a prompt.")
    name, value = found
    return text_of(value, path, row, name)


def _within(
    path: Path, row: int, cell: tuple[str, Any] | None, read: Callable[[Any], N | None], what: str, most: int
) -> N | None:
    """The number in a cell, (column, value), None without one; raises PromptError unless it is from 0 to `most`."""
    if cell is None:
        return None
    name, value = cell
    number = read(value)
    if number is None or not 0 <= number <= most:
        raise PromptError(f"{path}, row {row}: '{name}' is {shown(value)}, expected {what} from 0 to {most}.")
    return number


def _whole(value: Any) -> int | None:
    """A whole number, also spelled as text, with all of its digits; None for anything else."""
    # Python reads no number of thousands of digits.
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 100:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    # Tables that had gaps hold whole numbers as "12.0".
    number = _number(value)
    return int(number) if number is not None and number.is_integer() else None


def _number(value: Any) -> float | None:
    """A finite number, also spelled as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _category(path: Path, row: int, values: Mapping[str, Any], form: ListFormat) -> str | None:
    parts = [text_of(values[name], path, row, name) for name in form.category if _first(values, (name,)) is not None]
    return ", ".join(parts) or None
