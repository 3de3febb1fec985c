"""Settings that check themselves: what a field may be stands in its type, and one function holds every field to it.

    @dataclass(frozen=True)
    class SearchSettings(Settings):
        steps: Count = 200
        learning_rate: Positive = 1e-3
        share: Annotated[float, Limits(above=0, below=1)] = 0.5
        form: Literal["plain", "noisy"] = "plain"
        chunk: Count | None = None

Whole numbers may stand for fractions; true and false are no numbers, and no number is NaN or infinite.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from .errors import SettingsError
from .rows import parse_json, read_json, shown

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Limits:
    """Which numbers a field takes: `least` and `most` are among them, `above` and `below` are not."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def hold(self, value: float) -> bool:
        """Whether a number lies within; NaN never does."""
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """In words, such as "1 or more"."""
        if self.least is not None and self.most is not None:
            return f"from {_number(self.least)} to {_number(self.most)}"
        words = ("{} or more", "{} or less", "above {}", "below {}")
        ends = zip(words, (self.least, self.most, self.above, self.below), strict=True)
        return " and ".join(word.format(_number(end)) for word, end in ends if end is not None)


Count = Annotated[int, Limits(least=1)]
CountOrZero = Annotated[int, Limits(least=0)]
Positive = Annotated[float, Limits(above=0)]
NotNegative = Annotated[float, Limits(least=0)]
Share = Annotated[float, Limits(0, 1)]
Seed = Annotated[int, Limits(0, 2**32 - 1)]


@dataclass(frozen=True)
class Settings:
    """Base of a frozen dataclass of settings, whose fields are checked when it is made.

    A class that checks fields against each other does so in a `__post_init__` that calls this one first. One whose
    results are kept names those fields in `later` that came after the first results; see `key`.

    Raises:
        SettingsError: a value is of another type than its field, not finite, or outside the field's limits.
    """

    later: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)).items():
            value = getattr(self, name)
            if not _fits(kind, value):
                raise SettingsError(f"{name} is {_said(value)}, expected {_expected(kind)}.")

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked again.

        Raises:
            SettingsError: a field that does not exist, or a value that makes no sense.
        """
        _require_known(type(self), changes, "the changes")
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, ready for JSON."""
        return asdict(self)

    def key(self) -> dict[str, Any]:
        """What names a result: `to_dict` without those of `later` that are as they always were, so that it is found."""
        found = self.to_dict()
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Settings):
                found[field.name] = value.key()
            elif field.name in self.later and value == field.default:
                del found[field.name]
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "the settings") -> Self:
        """Settings from a mapping, as `to_dict` told it; fields that are missing take their defaults.

        Lists become tuples, and mappings become the settings that stand in a field. Numbers stay as they are given:
        they are part of a run's key.

        Raises:
            SettingsError: an unknown, missing or wrong field; the message begins with `source`.
        """
        _require_known(cls, values, source)
        kinds = _kinds(cls)
        for field in fields(cls):
            if field.name not in values and field.default is field.default_factory is MISSING:
                raise SettingsError(f"{source}: {field.name} is missing, expected {_expected(kinds[field.name])}.")
        try:
            return cls(**{name: _rebuilt(kinds[name], value, name) for name, value in values.items()})
        except SettingsError as error:
            raise SettingsError(f"{source}: {error}") from None

    @classmethod
    def from_json(cls, text: str, source: str) -> Self:
        """What `to_dict` told, as JSON in a file's metadata.

        Raises:
            SettingsError: it is damaged; the message begins with `source`.
        """
        return cls._from(lambda: parse_json(text), source)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """What `to_dict` told, as JSON in a file of its own.

        Raises:
            SettingsError: there is no such file, or it is damaged; the message names it.
        """
        return cls._from(lambda: read_json(path), str(path))

    @classmethod
    def _from(cls, content: Callable[[], Any], source: str) -> Self:
        try:
            found = content()
        except (OSError, ValueError) as error:
            raise SettingsError(f"{source}: {error}.") from error
        return cls.from_dict(checked(dict[str, Any], found, source), source)


S = TypeVar("S", bound=Settings)


def checked(kind: Any, value: Any, name: str) -> Any:
    """A value that was read, held to a type as a field of settings is; its lists become tuples.

    Raises:
        SettingsError: it is of another type, not finite, or outside the limits; the message begins with `name`.
    """
    value = _rebuilt(kind, value, name)
    if not _fits(kind, value):
        raise SettingsError(f"{name} is {_said(value)}, expected {_expected(kind)}.")
    return value


def settings_from(cls: type[S], values: Mapping[str, Any], source: str) -> S:
    """Settings as a person writes them; as `Settings.from_dict`, but 1 for a fraction gives the same run as 1.0."""
    return cls.from_dict({name: _fraction(_kinds(cls).get(name), value) for name, value in values.items()}, source)


# Types are looked up once for a class: they are texts, and records are made by the thousand.
_types: dict[type, dict[str, Any]] = {}


def _kinds(cls: type[Settings]) -> dict[str, Any]:
    if cls not in _types:
        hints = get_type_hints(cls, include_extras=True)
        _types[cls] = {field.name: hints[field.name] for field in fields(cls)}
    return _types[cls]


def _require_known(cls: type[Settings], values: Mapping[str, Any], source: str) -> None:
    known = list(_kinds(cls))
    for name in sorted(values.keys() - set(known)):
        near = difflib.get_close_matches(name, known, n=1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise SettingsError(f"{source}: unknown setting {shown(name)}.{meant} Known settings: {', '.join(known)}.")


def _arms(kind: Any) -> tuple[Any, ...]:
    """The types of a union, or the one."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _choices(kind: Any) -> tuple[str, ...]:
    return tuple(text for arm in _arms(kind) if get_origin(arm) is Literal for text in get_args(arm))


def _fits(kind: Any, value: Any) -> bool:
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return any(_fits(arm, value) for arm in get_args(kind))
    if origin is Annotated:
        return _fits(kind.__origin__, value) and all(limits.hold(value) for limits in kind.__metadata__)
    if origin is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(get_args(kind)[0], each) for each in value)
    if origin is dict:
        inner = get_args(kind)[1]
        return isinstance(value, dict) and all(isinstance(n, str) and _fits(inner, v) for n, v in value.items())
    if kind is Any:
        return True
    if kind is int or kind is float:
        number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
        # Compared, not asked whether it is finite: whole numbers of any length reach this, and NaN lies nowhere.
        return number and abs(value) <= (sys.maxsize if kind is int else sys.float_info.max)
    return isinstance(value, kind)


def _fraction(kind: Any, value: Any) -> Any:
    bare = [getattr(arm, "__origin__", arm) for arm in _arms(kind)]
    return float(value) if type(value) is int and float in bare and _fits(float, value) else value


def _rebuilt(kind: Any, value: Any, place: str) -> Any:
    for arm in _arms(kind):
        if get_origin(arm) is tuple and isinstance(value, list):
            inner = get_args(arm)[0]
            return tuple(_rebuilt(inner, each, f"{place}[{number}]") for number, each in enumerate(value, 1))
        if get_origin(arm) is dict and isinstance(value, dict):
            return {name: _rebuilt(get_args(arm)[1], each, f"{place}.{name}") for name, each in value.items()}
        if isinstance(arm, type) and issubclass(arm, Settings) and isinstance(value, Mapping):
            return arm.from_dict(value, place)
    return value


def _expected(kind: Any) -> str:
    texts = [_one_expected(arm) for arm in _arms(kind) if arm is not NoneType and get_origin(arm) is not Literal]
    if choices := [text or shown(text) for text in _choices(kind)]:
        texts.append(f"one of {', '.join(choices)}")
    return ", or ".join(texts + ["none"] * (NoneType in _arms(kind)))


def _one_expected(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        (limits,) = kind.__metadata__
        is_closed = limits.least is not None and limits.most is not None
        unbounded = kind.__origin__ is float and limits.most is None and limits.below is None
        noun = "a whole number" if kind.__origin__ is int else "a finite number" if unbounded else "a number"
        return f"{noun}{', ' if str(limits)[0].isdigit() and not is_closed else ' '}{limits}"
    if get_origin(kind) is tuple:
        return f"a list, each {_expected(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        inner = get_args(kind)[1]
        return "an object" if inner is Any else f"an object, each {_expected(inner)}"
    words = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text"}
    return words.get(kind) or ("settings" if is_dataclass(kind) else f"a {kind.__name__}")


def _said(value: Any) -> str:
    return repr(value) if isinstance(value, float) else shown(value)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
