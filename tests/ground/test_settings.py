"""Settings: every class of the library refuses what makes no sense, by name, and can be told, changed and read back."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

import sage_core
from sage_core.errors import SettingsError
from sage_core.settings import (
    Count,
    CountOrZero,
    Limits,
    NotNegative,
    Positive,
    Settings,
    Share,
    settings_from,
)
from settings_fields import Setting, fields_of

# What a class cannot be made without.
REQUIRED: dict[str, dict[str, Any]] = {
    "AttackPlan": {"prompts": ("a red skull",)},
    "NearMiss": {"prompt": "two blue stars", "shows": "blue stars"},
    "SageTechniqueConfig": {"model_id": "sd"},
    "Record": {"pictures": (), "bytes": 0, "seconds": 0.0, "device": "cpu", "precision": "fp32"},
    "GateCard": {
        "encoder": "ab",
        "threshold": 0.5,
        "stated_false_alarms": 0.02,
        "false_alarms": 0.0,
        "detected": 1.0,
        "safe_prompts": 50,
        "unsafe_prompts": 50,
        "settings": {},
    },
}
NO_NUMBERS = (math.nan, math.inf, -math.inf, "1", True, [1], 10**400, -(10**400))


@pytest.fixture(scope="module")
def classes() -> list[type[Settings]]:
    """Every settings class of the library; not at import, which every run of any tests would pay for."""
    for module in pkgutil.walk_packages(sage_core.__path__, "sage_core."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return sorted(
        (each for each in Settings.__subclasses__() if each.__module__.startswith("sage_core.")),
        key=lambda each: each.__name__,
    )


def made(cls: type[Settings], **values: Any) -> Settings:
    return cls(**REQUIRED.get(cls.__name__, {}) | values)


def wrong(setting: Setting) -> Iterator[Any]:
    """Values that a field must not take, by its type and limits."""
    kinds = str(setting.type)
    if "int" in kinds or "float" in kinds:
        yield from NO_NUMBERS if "tuple" not in kinds else [(value,) for value in NO_NUMBERS]
        if "float" not in kinds:
            yield 1.5
    elif "bool" in kinds:
        yield from (0, 1, "yes", math.nan)
    else:
        # Texts, choices, and settings inside settings.
        yield from (3, True, math.nan, ["a"])
    if setting.choices:
        yield from ("another", [])
    if "None" not in kinds and "Optional" not in kinds:
        yield None
    if limits := setting.limits:
        step = 1 if "int" in kinds else 1e-3
        yield from (low - step for low in [limits.least] if low is not None)
        yield from (high + step for high in [limits.most] if high is not None)
        yield from (end for end in (limits.above, limits.below) if end is not None)


def test_every_field_refuses_what_makes_no_sense(classes: list[type[Settings]]) -> None:
    for cls, setting in [(each, setting) for each in classes for setting in fields_of(each)]:
        for value in wrong(setting):
            with pytest.raises(SettingsError) as caught:
                made(cls, **{setting.name: value})
                pytest.fail(f"{cls.__name__} takes {setting.name} = {value!r}")
            assert str(caught.value).startswith(f"{setting.name} is "), cls
            assert str(caught.value).endswith(f", expected {setting.expected}."), cls
            assert len(str(caught.value)) < 400


def test_settings_go_through_json_and_refuse_unknown_names(classes: list[type[Settings]]) -> None:
    for cls in classes:
        settings, first = made(cls), fields_of(cls)[0].name
        assert cls.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings == settings.replace()
        with pytest.raises(SettingsError, match=f"^plan.toml: unknown setting '{first}s'. Did you mean {first}.*"):
            settings_from(cls, {f"{first}s": 1}, "plan.toml")
        with pytest.raises(SettingsError, match=f"^plan.toml: {first} is "):
            settings_from(cls, {**REQUIRED.get(cls.__name__, {}), first: math.nan}, "plan.toml")
        with pytest.raises(SettingsError, match="the changes: unknown setting 'xyz'"):
            settings.replace(xyz=1)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(settings, first, 1)


def test_every_field_is_explained(classes: list[type[Settings]]) -> None:
    missing = [f"{cls.__name__}.{each.name}" for cls in classes for each in fields_of(cls) if not each.help]
    assert missing == []


def test_the_library_has_settings_of_its_own(classes: list[type[Settings]]) -> None:
    names = {each.__name__ for each in classes}
    assert {"TrainingSettings", "UceSettings", "SafeGuidanceSettings", "AttackPlan", "GeometrySettings"} <= names


@dataclass(frozen=True)
class Inner(Settings):
    """Inside.

    Attributes:
        radius: of a box.
    """

    radius: Positive = 0.1


@dataclass(frozen=True)
class Example(Settings):
    """One of each.

    Attributes:
        prompt: what is drawn;
            on two lines.
        steps, chunk: how many: of each.
        share: of all.

    Raises:
        SettingsError: never mind.
    """

    prompt: str
    steps: Count = 3
    chunk: CountOrZero | None = None
    share: Annotated[float, Limits(above=0, below=1)] = 0.5
    part: Share = 1
    beta: Annotated[float, Limits(least=0, below=1)] = 0.0
    weight: NotNegative = 0.0
    shift: float = 0.0
    form: Literal["plain", "noisy"] | Literal[""] = "plain"
    sizes: tuple[Count, ...] = (1, 2)
    inner: Inner | None = None
    switch: bool = False


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prompt", 3, "3, expected a text"),
        ("steps", 0, "0, expected a whole number, 1 or more"),
        ("steps", 1.0, "1.0, expected a whole number, 1 or more"),
        ("chunk", -1, "-1, expected a whole number, 0 or more, or none"),
        ("share", 1, "1, expected a number above 0 and below 1"),
        ("part", 1.01, "1.01, expected a number from 0 to 1"),
        ("beta", 1, "1, expected a number, 0 or more and below 1"),
        ("weight", math.nan, "nan, expected a finite number, 0 or more"),
        ("shift", -math.inf, "-inf, expected a finite number"),
        ("form", "x", "'x', expected one of plain, noisy, ''"),
        ("sizes", (1, 0), "[1, 0], expected a list, each a whole number, 1 or more"),
        ("sizes", [1], "[1], expected a list, each a whole number, 1 or more"),
        ("inner", 0.1, "0.1, expected settings, or none"),
        ("switch", 1, "1, expected true or false"),
    ],
)
def test_messages(field: str, value: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Example(**{"prompt": "a", field: value})
    assert str(caught.value) == f"{field} is {message}."


def test_a_number_too_long_to_be_written_is_refused_all_the_same() -> None:
    with pytest.raises(SettingsError, match="steps is a int, expected a whole number, 1 or more"):
        Example("", steps=-(10**5000))


def test_what_lies_within_stays_as_it_was_given() -> None:
    example = Example("", 1, 0, 1e-9, 0, 0.999, 2, -1e300, "", (), Inner(2))
    assert [type(value) for value in dataclasses.astuple(example)[:8]] == [str, int, int, float, int, float, int, float]
    assert Example.from_dict(example.to_dict() | {"sizes": [4]}) == example.replace(sizes=(4,))
    assert settings_from(Example, {"prompt": "a", "shift": 1, "steps": 1}, "file").to_dict() == (
        Example("a", 1, shift=1.0).to_dict()
    )
    assert type(settings_from(Example, {"prompt": "a", "part": 1}, "file").part) is float
    with pytest.raises(SettingsError, match=r"^file: inner: radius is 0, expected a finite number above 0\.$"):
        settings_from(Example, {"prompt": "", "inner": {"radius": 0}}, "file")
    with pytest.raises(SettingsError, match=r"^file: prompt is missing, expected a text\.$"):
        settings_from(Example, {}, "file")
