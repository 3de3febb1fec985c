"""Numbers of command lines, as argparse types: a value that makes no sense is refused before any work."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def number(argument: str) -> float:
    """A finite number; every comparison with NaN is false, so that such a limit would silently never hold."""
    try:
        value = float(argument)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid float value: {argument!r}") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{argument!r} is not a finite number")
    return value


def count(least: int, most: int) -> Callable[[str], int]:
    """An argparse type: a whole number from `least` to `most`."""

    def read(argument: str) -> int:
        try:
            value = int(argument)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            shown = argument if len(argument) <= 30 else argument[:30] + "…"
            raise argparse.ArgumentTypeError(f"{shown!r} is not a whole number from {least} to {most:,}")
        return value

    return read
