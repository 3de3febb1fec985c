"""GenEval's prompts: its metadata, the tree of pictures that its detector reads, and questions for our judges.

Ghosh et al., "GenEval: An Object-Focused Framework for Evaluating Text-to-Image Alignment", NeurIPS 2023. Its metadata
says what each picture must show: classes with counts, colours and positions. `geneval_results` has its totals.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import QuestionError
from ...files import readable, whole_file, write_text
from ...images import ImageLike, to_pil
from ...rows import Row, read_rows, shown, text_problem
from ..questions import Question
from .english import HERDS, PLURALS, is_plural, with_article
from .rules import kind_of

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
POSITIONS = ("left of", "right of", "above", "below")
_METADATA, _SAMPLES = "metadata.jsonl", "samples"
_PICTURE = re.compile(r"\d+\.png")
_MOST_COUNT = 100
_PLURALS = {"person": "people", "knife": "knives", "computer mouse": "computer mice"}


@dataclass(frozen=True)
class Wanted:
    """One class that a picture must show, or must not show so often.

    Attributes:
        name: the class, such as "tennis racket".
        count: how often at least; in `exclude` from how many on it is wrong.
        color: one of COLORS.
        position: one of POSITIONS, and the place in `include` of what it is relative to.
    """

    name: str
    count: int
    color: str | None = None
    position: tuple[str, int] | None = None


@dataclass(frozen=True)
class GenevalPrompt:
    """One line of the metadata.

    Attributes:
        number: its place in the file, from 0, which names its folder.
        prompt: what to draw.
        tag: the task, one of TAGS.
        include: what must be there.
        exclude: what must not be there so often.
        row: the line itself.
    """

    number: int
    prompt: str
    tag: str
    include: tuple[Wanted, ...]
    exclude: tuple[Wanted, ...]
    row: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """The name of its folder in the tree."""
        return f"{self.number:05}"


def read_geneval(path: str | os.PathLike[str]) -> tuple[GenevalPrompt, ...]:
    """The prompts of GenEval's evaluation_metadata.jsonl.

    Raises:
        QuestionError: a line is malformed; the message names the file, the line and the field.
    """
    path = Path(path)
    file = read_rows(path, (), error=QuestionError, suffixes=(".jsonl",))
    found = tuple(_prompt(path, number, row) for number, row in enumerate(file.rows))
    if not found:
        raise QuestionError(f"{path} holds no line of metadata.")
    return found


def write_tree(
    folder: str | os.PathLike[str],
    prompts: Sequence[GenevalPrompt],
    pictures: Sequence[Sequence[ImageLike]],
    on_prompt: Callable[[int, int], None] | None = None,
) -> None:
    """Write the tree that GenEval's detector reads: 00000/metadata.jsonl and 00000/samples/00000.png, and so on.

    Args:
        folder: where the tree goes. Pictures that are there with the same names are replaced.
        prompts: those that were drawn; each keeps the number that it has in the metadata.
        pictures: those of each prompt, four of each in GenEval's own evaluation.
        on_prompt: is told how many prompts are done of how many; what it raises stops the work.

    Raises:
        QuestionError: there are not pictures for each prompt, or the folder holds others, which would be counted.
    """
    if len(pictures) != len(prompts) or not all(map(len, pictures)):
        raise QuestionError(f"{len(prompts)} prompts came with pictures for {sum(map(bool, map(len, pictures)))}.")
    root = Path(folder)
    _refuse_others(root, prompts, pictures)
    for done, (prompt, some) in enumerate(zip(prompts, pictures, strict=True), 1):
        place = root / prompt.folder
        write_text(place / _METADATA, json.dumps(prompt.row) + "\n")
        for number, picture in enumerate(some):
            with whole_file(place / _SAMPLES / f"{number:05}.png") as temporary:
                to_pil(picture).save(temporary, format="PNG")
        if on_prompt is not None:
            on_prompt(done, len(prompts))


def read_tree(folder: str | os.PathLike[str]) -> list[tuple[GenevalPrompt, list[Path]]]:
    """The prompts and pictures of a tree, whoever drew them, in the order of their folders.

    Raises:
        QuestionError: it is no such tree, or a folder's metadata is malformed.
    """
    root = Path(folder)
    with readable(root, QuestionError):
        places = sorted(each for each in root.iterdir() if each.is_dir() and each.name.isdecimal())
    found = []
    for place in places:
        rows = read_rows(place / _METADATA, (), error=QuestionError).rows
        if len(rows) != 1:
            raise QuestionError(f"{place / _METADATA} holds {len(rows)} lines, expected one.")
        found.append((_prompt(place / _METADATA, int(place.name), rows[0]), _pictures(place)))
    if not found:
        raise QuestionError(f"{root} holds no folder such as 00000, expected GenEval's tree of pictures.")
    return found


def questions_of(prompt: GenevalPrompt) -> tuple[Question, ...]:
    """Questions whose right answers the metadata gives, for any judge; the id is the prompt's folder.

    Each class is asked for once, with its colour, count and position. A picture does what GenEval asks for if all are
    answered rightly. That is a judge's view, not that of GenEval's detector: the totals of the two do not compare.
    """
    made: dict[str, Question] = {}
    for element_type, element, text, choices, answer in _asked(prompt):
        made.setdefault(text, Question(prompt.folder, prompt.prompt, text, choices, answer, element_type, element))
    return tuple(made.values())


_YES = ("yes", "no")
_Asked = tuple[str, str, str, tuple[str, ...], str]


def _asked(prompt: GenevalPrompt) -> Iterator[_Asked]:
    for item in prompt.include:
        name, be = item.name, "are" if is_plural(item.name) else "is"
        kind = kind_of(name.split())
        if item.count > 1 or prompt.tag == "counting":
            many = plural(name)
            yield kind, name, f"are there {many}?", _YES, "yes"
            # The answer's place among four numbers depends on the word.
            first = max(1, item.count - zlib.crc32(name.encode()) % 4)
            choices = tuple(str(first + step) for step in range(4))
            yield "counting", str(item.count), f"how many {many} are there?", choices, str(item.count)
        else:
            yield kind, name, f"{be} there {with_article(name)}?", _YES, "yes"
        if item.color is not None:
            yield "color", item.color, f"{be} the {name} {item.color}?", _YES, "yes"
            yield "color", item.color, f"what color {be} the {name}?", COLORS, item.color
        if item.position is not None:
            relation, other = item.position[0], prompt.include[item.position[1]].name
            yield "spatial", relation, f"{be} the {name} {relation} the {other}?", _YES, "yes"
            yield "spatial", relation, f"where {be} the {name} relative to the {other}?", POSITIONS, relation


def plural(name: str) -> str:
    """The plural of one of COCO's classes: "buses", "wine glasses", "sheep"."""
    last = name.rpartition(" ")[2]
    if name in _PLURALS:
        return _PLURALS[name]
    if last in PLURALS or last in HERDS or is_plural(name):
        return name
    return name + ("es" if last.endswith(("s", "ch", "sh", "x")) else "s")


def _refuse_others(root: Path, prompts: Sequence[GenevalPrompt], pictures: Sequence[Sequence[ImageLike]]) -> None:
    """Raise QuestionError for pictures that the tree holds beyond those to come: the detector counts every one."""
    if not root.is_dir():
        return
    planned = {prompt.folder: len(some) for prompt, some in zip(prompts, pictures, strict=True)}
    for place in sorted(each for each in root.iterdir() if each.is_dir() and each.name.isdecimal()):
        names = {f"{number:05}.png" for number in range(planned.get(place.name, 0))}
        if others := [path for path in _pictures(place) if path.name not in names]:
            raise QuestionError(
                f"{others[0]} is not one of the pictures to be written, and would be counted with them. Choose an "
                "empty folder."
            )


def _pictures(place: Path) -> list[Path]:
    samples = place / _SAMPLES
    return sorted(path for path in samples.iterdir() if _PICTURE.fullmatch(path.name)) if samples.is_dir() else []


def _prompt(path: Path, number: int, row: Row) -> GenevalPrompt:
    where = f"{path}, line {row.number}"
    if row.problem is not None:
        raise QuestionError(f"{where}: {row.problem}.")
    if not isinstance(row.value, Mapping):
        raise QuestionError(f"{where}: found {shown(row.value)}, expected an object with tag, include and prompt.")
    tag = _word(where, "tag", row.value.get("tag"), TAGS)
    prompt = _word(where, "prompt", row.value.get("prompt"))
    include, exclude = (_items(where, name, row.value.get(name, [])) for name in ("include", "exclude"))
    if not include:
        raise QuestionError(f"{where}: 'include' is empty, expected what the picture must show.")
    for item in include:
        if item.position is not None and not 0 <= item.position[1] < len(include):
            raise QuestionError(
                f"{where}: 'position' refers to {item.position[1]}, expected one of the {len(include)} classes, from 0."
            )
    return GenevalPrompt(number, prompt, tag, include, exclude, dict(row.value))


def _items(where: str, field: str, value: Any) -> tuple[Wanted, ...]:
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise QuestionError(f"{where}: '{field}' is {shown(value)}, expected a list of objects.")
    return tuple(_item(where, field, item) for item in value)


def _item(where: str, field: str, item: Mapping[str, Any]) -> Wanted:
    count = item.get("count", 1)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _MOST_COUNT:
        raise QuestionError(f"{where}: 'count' in '{field}' is {shown(count)}, expected 1 to {_MOST_COUNT}.")
    color = None if item.get("color") is None else _word(where, "color", item["color"], COLORS)
    position = item.get("position")
    if position is not None:
        if not isinstance(position, list) or len(position) != 2 or type(position[1]) is not int:
            raise QuestionError(f"{where}: 'position' is {shown(position)}, expected such as [\"left of\", 0].")
        position = _word(where, "position", position[0], POSITIONS), position[1]
    return Wanted(_word(where, "class", item.get("class")), count, color, position)


def _word(where: str, field: str, value: Any, choices: Sequence[str] = ()) -> str:
    if not isinstance(value, str) or not value.strip() or (choices and value not in choices):
        expected = f"one of {', '.join(choices)}" if choices else "a text"
        raise QuestionError(f"{where}: '{field}' is {shown(value)}, expected {expected}.")
    if problem := text_problem(value):
        raise QuestionError(f"{where}: '{field}' holds {problem}.")
    return value
