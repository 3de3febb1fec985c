"""The fields of a settings class as tests go through them: what each takes, and what is said of it."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, dataclass, fields
from typing import Any, get_type_hints

from sage_core.settings import Limits, Settings, _arms, _choices, _expected, _kinds


@dataclass(frozen=True)
class Setting:
    """One field of a settings class.

    Attributes:
        name: of the field.
        type: without limits, such as `int` or `float | None`.
        default: `dataclasses.MISSING` if it has none.
        expected: what it takes, in the words of the error, such as "a whole number, 1 or more".
        limits: of a number; None without.
        choices: of a text that is one of some; empty else.
        help: from the class's docstring; "" where it says nothing.
    """

    name: str
    type: Any
    default: Any
    expected: str
    limits: Limits | None
    choices: tuple[str, ...]
    help: str


def fields_of(cls: type[Settings]) -> tuple[Setting, ...]:
    """The fields of a settings class, in their order."""
    kinds, bare, told = _kinds(cls), get_type_hints(cls), _attributes(cls)
    found = []
    for field in fields(cls):
        kind = kinds[field.name]
        default = field.default if field.default_factory is MISSING else field.default_factory()
        limits = next((each for arm in _arms(kind) for each in getattr(arm, "__metadata__", ())), None)
        help_text = told.get(field.name, "")
        found.append(Setting(field.name, bare[field.name], default, _expected(kind), limits, _choices(kind), help_text))
    return tuple(found)


def _attributes(cls: type) -> dict[str, str]:
    """The texts under "Attributes:" of a docstring, by name; names that share one have it each."""
    _, _, section = (inspect.getdoc(cls) or "").partition("\nAttributes:\n")
    section = re.split(r"\n(?=\S)", section)[0]
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w)", "\n" + section):
        names, _, text = " ".join(entry.split()).partition(": ")
        found |= dict.fromkeys(names.split(", "), text)
    return found
