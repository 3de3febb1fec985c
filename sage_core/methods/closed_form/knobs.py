"""A few knobs under one name for all closed forms, which call them by names of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import SettingsError
from .common import METHODS

_SCALED = ("uce", "uce_paper", "rece", "oce")

# What each knob is in a method's settings: how strongly a concept is erased, how much the matrices hold on to what they
# are, the weight of texts to keep, and rounds.
KNOBS: dict[str, dict[str, str]] = {
    "erase_scale": {**dict.fromkeys(_SCALED, "erase_scale"), "cure": "alpha"},
    "hold": {**dict.fromkeys((*_SCALED, "mace"), "lam"), "speed": "retain_scale"},
    "keep_scale": dict.fromkeys(_SCALED, "preserve_scale"),
    "rounds": {"rece": "epochs"},
}
# Those that count something.
WHOLE = ("rounds",)


def settings_of(method: str, knobs: Mapping[str, float | None]) -> Any:
    """The settings of a method with some knobs turned; 0 and None leave the method's own value.

    Raises:
        SettingsError: there is no such method, it has no such knob, or the value makes no sense for it.
    """
    if method not in METHODS:
        raise SettingsError(f"method is '{method}', expected one of {', '.join(METHODS)}.")
    chosen = {}
    for knob, value in knobs.items():
        if not value:
            continue
        if method not in KNOBS[knob]:
            raise SettingsError(
                f"{knob} is {value!s:.30}, but {METHODS[method].title} has no such setting: leave it out."
            )
        if knob in WHOLE:
            if not float(value).is_integer():
                raise SettingsError(f"{knob} is {value!s:.30}, expected a whole number.")
            value = int(value)
        chosen[KNOBS[knob][method]] = value
    return METHODS[method].load()[0](**chosen)
