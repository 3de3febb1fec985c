"""What is imported when it is first used, so that a command line answers at once: names, and others' parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """A package's `__getattr__`, `__dir__` and `__all__` (PEP 562).

    Args:
        package: its `__name__`.
        homes: each public name, and the module of the package that defines it.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f".{homes[name]}", package), name)

    return get, lambda: sorted(homes), sorted(homes)


@cache
def installed(group: str) -> dict[str, EntryPoint]:
    """What other packages add to a table of this library by an entry point of theirs, by name; none of it is loaded."""
    return {point.name: point for point in entry_points(group=group)}
