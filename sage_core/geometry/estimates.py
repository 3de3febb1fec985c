"""A measured value with its interval, as every part of the geometry reports one."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A measured value and its 95 % interval over prompts; the report says how it is found."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        # A resample of two or three prompts can consist of one prompt, which has no ratio.
        return f"{self.value:.3f}" + (f" [{self.low:.3f}, {self.high:.3f}]" if math.isfinite(self.low) else "")
