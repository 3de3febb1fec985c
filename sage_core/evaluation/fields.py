"""A TOML file read field by field: all problems are collected, each with its file, its line and its field."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import SettingsError
from ..rows import parse_toml, read_text, shown, text_problem

Where: TypeAlias = tuple[str | int, ...]

# Of a line without the blanks around it, so that nothing in the patterns can begin in two places.
_HEADER = re.compile(r"(\[\[?)([^\[\]#]+)\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"([\w\-.\"' ]+)=")


@dataclass
class Source:
    """A file that is being read: where its fields stand, and what was wrong so far."""

    file: Path
    lines: Mapping[Where, int]
    problems: list[str] = field(default_factory=list)

    def problem(self, where: Where, text: str) -> None:
        """Note what is wrong with a field; `text` goes on after the field's name."""
        line = next((self.lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in self.lines), None)
        place = f"{self.file}, line {line}" if line else str(self.file)
        self.problems.append(f"{place}, {_spelled(where)}: {text}")

    def require_none(self) -> None:
        """Raise SettingsError with every problem, if there is one."""
        if len(self.problems) == 1:
            raise SettingsError(self.problems[0])
        if self.problems:
            numbered = " ".join(f"({number}) {text}" for number, text in enumerate(self.problems, 1))
            raise SettingsError(f"{self.file} has {len(self.problems)} problems: {numbered}")


def read_toml(file: Path) -> Section:
    """The whole file as a section.

    Raises:
        SettingsError: it cannot be read, or is not TOML; the message names the line.
    """
    text, _ = read_text(file, SettingsError)
    try:
        values = parse_toml(text)
    except ValueError as error:
        # Not TOMLDecodeError alone: Python refuses numbers of more than 4,300 digits.
        raise SettingsError(
            f'{file} is not valid TOML: {error}. Texts stand in quotes, as in name = "SAGE".'
        ) from error
    return Section(values, (), Source(file, lines_of(text)))


def lines_of(text: str) -> dict[Where, int]:
    """The line of each field that stands on a line of its own, by its path; lists of tables are counted from 0."""
    found: dict[Where, int] = {}
    counts: dict[Where, int] = {}
    here: Where = ()
    in_text = False
    for number, line in enumerate(text.split("\n"), 1):
        inside, quotes = in_text, line.count('"""') + line.count("'''")
        in_text ^= bool(quotes % 2)
        if inside:
            continue
        line = line.strip()
        if header := _HEADER.fullmatch(line):
            here = ()
            *above, last = _names(header[2])
            for name in above:
                here = _within((*here, name), counts)
            here = (*here, last)
            if header[1] == "[[":
                counts[here] = counts.get(here, -1) + 1
            here = _within(here, counts)
            found.setdefault(here, number)
        elif key := _KEY.match(line):
            found.setdefault((*here, *_names(key[1])), number)
    return found


def _within(where: Where, counts: Mapping[Where, int]) -> Where:
    return (*where, counts[where]) if where in counts else where


def _names(dotted: str) -> list[str]:
    return [name.strip().strip("\"'") for name in dotted.split(".")]


def _spelled(where: Where) -> str:
    """A path for people: lists are counted from 1."""
    text = ""
    for part in where:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".") or "the file"


class Section:
    """A table of the file. Each method reads one field; a wrong one is noted, and its default stands for it."""

    def __init__(self, values: Mapping[str, Any], where: Where, source: Source) -> None:
        self.values, self.where, self.source = values, where, source
        self._read: set[str] = set()

    def has(self, name: str) -> bool:
        """Whether the field is given."""
        self._read.add(name)
        return name in self.values

    def problem(self, name: str, text: str) -> None:
        """Note what is wrong with a field."""
        self.source.problem((*self.where, name), text)

    def wrong(self, name: str, expected: str) -> None:
        """Note that a field's value is not what was expected."""
        self.problem(name, f"found {shown(self.values.get(name))}, expected {expected}.")

    def pass_over(self) -> None:
        """Take all fields as read: what they may be hangs on one that is wrong."""
        self._read.update(self.values)

    def close(self) -> None:
        """Note every field that nothing reads."""
        for name in self.values:
            if name not in self._read:
                known = ", ".join(sorted(self._read))
                self.problem(name, f"there is no such field here; expected one of {known}.")

    def text(self, name: str, default: str = "", *, required: bool = False) -> str:
        """A text that is not blank."""
        if not self.has(name):
            if required:
                self.problem(name, "it is missing; expected a text.")
            return default
        value = self.values[name]
        if not isinstance(value, str) or not value.strip():
            self.wrong(name, "a text in quotes")
            return default
        if problem := text_problem(value):
            self.problem(name, f"it holds {problem}.")
            return default
        return value.strip()

    def choice(self, name: str, known: Iterable[str], default: str) -> str:
        """One of some texts."""
        names = list(known)
        if self.has(name):
            value = self.values[name]
            if isinstance(value, str) and value in names:
                return value
            self.wrong(name, f"one of {', '.join(names)}")
        return default

    def choices(self, name: str, known: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
        """Some of these texts."""
        found = self.texts(name, tuple(default))
        if unknown := [each for each in found if each not in known]:
            self.problem(name, f"found {shown(unknown[0])}, expected some of {', '.join(known)}.")
            return tuple(default)
        return found

    def texts(self, name: str, default: tuple[str, ...] = (), *, blank: bool = False) -> tuple[str, ...]:
        """A list of texts, or one text; `blank` ones only where they mean something."""
        if not self.has(name):
            return default
        value = self.values[name]
        value = [value] if isinstance(value, str) else value
        if (
            not isinstance(value, list)
            or not value
            or not all(isinstance(v, str) and (blank or v.strip()) for v in value)
        ):
            self.wrong(name, "a list of texts")
            return default
        if problem := next((found for each in value if (found := text_problem(each))), None):
            self.problem(name, f"it holds {problem}.")
            return default
        return tuple(each.strip() for each in value)

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number between bounds, both allowed."""
        value = self.values[name] if self.has(name) else default
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not low <= value <= high:
            self.wrong(name, f"a number from {low:g} to {high:g}")
            return default
        return float(value)

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number between bounds, both allowed."""
        value = self.values[name] if self.has(name) else default
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.wrong(name, f"a whole number from {low:,} to {high:,}")
            return default
        return value

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.values[name] if self.has(name) else default
        if not isinstance(value, bool):
            self.wrong(name, "true or false")
            return default
        return value

    def path(self, name: str, *, required: bool = False, folder: bool | None = False) -> Path | None:
        """A file that is there, or a folder; with `folder` None either. Relative paths start at the plan's folder."""
        text = self.text(name, required=required)
        if not text:
            return None
        if (found := self.place(name, text)) is None:
            return None
        fits = found.exists() if folder is None else found.is_dir() if folder else found.is_file()
        if not fits:
            kind = {None: "file or folder", True: "folder", False: "file"}[folder]
            self.problem(name, f"found {shown(text)}, but there is no {kind} {found}. Check the name.")
        return found

    def place(self, name: str, text: str) -> Path | None:
        """Where a path of the file leads, whether or not anything is there; None, and noted, if it leads nowhere."""
        try:
            found = self.source.file.parent / Path(text).expanduser()
            found.exists()
        except RuntimeError:
            self.wrong(name, "a path; no user of this machine has the name after ~")
            return None
        except OSError as error:
            # A name longer than the system takes, or a folder that must not be looked into.
            self.problem(name, f"found {shown(text)}, which cannot be looked up ({error.strerror}). Check the name.")
            return None
        return found

    def section(self, name: str) -> Section:
        """A table; an empty one if it is missing."""
        value = self.values[name] if self.has(name) else {}
        if not isinstance(value, dict):
            self.wrong(name, "a table")
            value = {}
        return Section(value, (*self.where, name), self.source)

    def sections(self, name: str) -> list[Section]:
        """A list of tables."""
        value = self.values[name] if self.has(name) else []
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            self.wrong(name, f"tables, each headed [[{_spelled((*self.where, name))}]]")
            value = []
        return [Section(each, (*self.where, name, place), self.source) for place, each in enumerate(value)]
