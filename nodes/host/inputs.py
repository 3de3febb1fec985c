"""Inputs that several nodes have, and the checks that are the same everywhere."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ...sage_core.errors import SageError, SettingsError
from ...sage_core.rows import shown
from .files import NONE
from .sockets import Concepts

# NumPy's and many samplers' generators take no more than 32 bits.
_MOST_SEED = 2**32 - 1


# Widgets, the types of their values, and these in words.
_TYPES: tuple[tuple[type, tuple[type, ...], str], ...] = (
    (io.String.Input, (str,), "a text"),
    (io.Combo.Input, (str,), "one of the choices"),
    (io.Boolean.Input, (bool,), "true or false"),
    (io.Int.Input, (int,), "a whole number"),
    (io.Float.Input, (int, float), "a number"),
)
# What JSON can hold and no socket of this pack carries.
_PLAIN = (str, int, float, dict, list)

# For inputs that few need: ComfyUI from 0.10 on folds them away until they are asked for. To an older version's classes
# the keyword is unknown, and would cost the whole pack.
ADVANCED = {"advanced": True} if "advanced" in inspect.signature(io.Float.Input).parameters else {}
# As above, in ComfyUI from 0.11 on.
_HAS_ALIASES = "search_aliases" in inspect.signature(io.Schema).parameters


def found_by(*words: str) -> dict[str, list[str]]:
    """For a schema: words by which a search finds the node, beside those of its name."""
    return {"search_aliases": [*words]} if _HAS_ALIASES else {}


def seed_input(tooltip: str) -> io.Input:
    """The widget "seed", which stays the same from run to run, so that the result does too."""
    return io.Int.Input("seed", default=0, min=0, max=_MOST_SEED, control_after_generate=False, tooltip=tooltip)


def concepts_input(instead: str) -> io.Input:
    """The socket for a list of concepts, which counts instead of what `instead` names."""
    return Concepts.Input(
        "concept_list", optional=True, tooltip=f"From SAGE Load Concepts: several concepts, instead of {instead}."
    )


def encoder_inputs() -> list[io.Input]:
    """The two CLIPs of a comparison."""
    return [
        io.Clip.Input("base", tooltip="The CLIP before alignment, for example the checkpoint's own."),
        io.Clip.Input("aligned", tooltip="The CLIP after it: from SAGE, DES, another loader or a LoRA."),
    ]


def exactly_one(first: object, second: object, what: str, error: type[SageError]) -> None:
    """Raise `error` unless exactly one of two inputs is given; `what` says where the value comes from."""
    if bool(first) == bool(second):
        raise error(f"{what}; {'both are' if first else 'neither is'} given.")


def guarded(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node, which refuses numbers and choices that no widget gives, and names an input of the wrong type.

    ComfyUI converts numbers, and hands anything else in a graph sent over HTTP to the node as it is: a number where
    a CLIP belongs, a list as a file's name. Its check against an input's limits passes NaN, whose comparisons are all
    false, and does not see values from connections; nor does it ask whether a combo box offers a text.
    """
    execute = node.execute.__func__  # type: ignore[attr-defined]
    # Once: a schema lists folders.
    schema = functools.cache(node.define_schema)

    @functools.wraps(execute)
    def named(cls: type[io.ComfyNode], *arguments: Any, **values: Any) -> io.NodeOutput:
        try:
            _require_sound(schema(), values)
            return execute(cls, *arguments, **values)
        except (TypeError, AttributeError, ValueError, IndexError) as error:
            if problem := wrong_type(schema(), values):
                raise SettingsError(problem) from error
            raise

    node.execute = classmethod(named)  # type: ignore[assignment, method-assign]
    return node


def _require_sound(schema: io.Schema, values: Mapping[str, Any]) -> None:
    """Raise SettingsError for a number that is none, or a choice that is not offered; nodes that take lists pass lists.

    Names of files are looked up where they are opened: their boxes offer what was there when ComfyUI listed it, and
    begin at none of it.
    """
    numbers = [each for each in schema.inputs if isinstance(each, io.Int.Input | io.Float.Input)]
    boxes = [each for each in schema.inputs if isinstance(each, io.Combo.Input) and each.default not in (None, NONE)]
    for each in (each for each in (*numbers, *boxes) if each.id in values):
        given = values[each.id]
        for value in given if schema.is_input_list and isinstance(given, list) else [given]:
            if isinstance(each, io.Combo.Input) and value not in each.options:
                raise SettingsError(f"{each.id} is {value!r}; expected one of {', '.join(each.options)}.")
            if isinstance(each, io.Float.Input) and not math.isfinite(value):
                raise SettingsError(f"{each.id} is {value}; expected a finite number.")
            if isinstance(each, io.Int.Input) and isinstance(value, float) and not value.is_integer():
                raise SettingsError(f"{each.id} is {value}; expected a whole number.")


def wrong_type(schema: io.Schema, values: Mapping[str, Any]) -> str | None:
    """What is wrong with the first input that has another type than `schema` says, as a sentence; else None."""
    for each in schema.inputs:
        given = values.get(each.id)
        for value in given if schema.is_input_list and isinstance(given, list) else [given]:
            if value is None and each.optional:
                continue
            for kind, types, name in _TYPES:
                if isinstance(each, kind):
                    if not isinstance(value, types):
                        return f"{each.id} is {shown(value)}; expected {name}."
                    break
            else:
                if value is None or isinstance(value, _PLAIN):
                    return f"{each.id} is {shown(value)}; expected a connection of type {each.get_io_type()}."
    return None
