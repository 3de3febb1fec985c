"""Several aligned encoders side by side: what each kept of the space, and of TIFA.

The idea is from Yousaf et al. (ECCV 2026), figure 3: one point for each method, spread ratio against TIFA.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import SettingsError
from ..intervals import Correlation, Difference, Interval, correlation
from ..rows import shown
from .estimates import Estimate
from .report import GeometryReport, finite

_FIGURES = ("spread_ratio", "jaccard")
# What must be the same for points that share one picture, by the keys of a report.
_SAME = {"embedding": "embedding", "k": "k", "prompts_sha256": "prompts", "base_sha256": "base encoder"}


@dataclass(frozen=True)
class Point:
    """One aligned encoder.

    Attributes:
        name: what the run of its pictures is called.
        spread_ratio: of all prompts.
        jaccard: of all prompts, at k neighbours.
        tifa: TIFA of the base's and of this encoder's pictures, from 0 to 1.
        about: what the geometry was measured on and how: `embedding`, `k`, and the hashes of prompts and base.
    """

    name: str
    spread_ratio: Estimate
    jaccard: Estimate
    tifa: Difference
    about: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, report: GeometryReport, tifa: Difference) -> Point:
        """The point of a report and of the pictures' scores."""
        about = {key: value for key, value in report.about().items() if key in _SAME}
        return cls(name, report.spread_ratio, report.jaccard[report.k], tifa, about)

    def to_dict(self) -> dict[str, Any]:
        """All of it, fit for JSON."""
        return finite(
            {
                "name": self.name,
                "spread_ratio": asdict(self.spread_ratio),
                "jaccard": asdict(self.jaccard),
                "tifa": self.tifa.to_dict(),
                **self.about,
            }
        )

    @classmethod
    def from_dict(cls, value: Any, source: str) -> Point:
        """Read what `to_dict` wrote.

        Raises:
            SettingsError: a field is missing or of another kind; the message names `source`.
        """
        try:
            tifa = value["tifa"]
            interval = tifa["interval_95"] and Interval(*map(_number, tifa["interval_95"]))
            spread_ratio, jaccard = (
                Estimate(*(_number(value[key][part]) for part in ("value", "low", "high"))) for key in _FIGURES
            )
            return cls(
                str(value["name"]),
                spread_ratio,
                jaccard,
                Difference(_number(tifa["base"]), _number(tifa["other"]), interval),
                {key: value[key] for key in _SAME},
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise SettingsError(
                f"{source} holds no method ({shown(str(error))}). Expected a report of `sage geometry --scores`."
            ) from None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{shown(value)} is not a number")
    return float(value)


def joined(methods: Sequence[Point], new: Point) -> tuple[Point, ...]:
    """The methods with one more at the end.

    Raises:
        SettingsError: a method has the same name, or was measured in another way, on other prompts, against another
            base or against other pictures of it.
    """
    for other in methods:
        if other.name == new.name:
            raise SettingsError(f"Two methods are called {new.name!r}. Give each run a name of its own.")
        for key, what in _SAME.items():
            if other.about[key] != new.about[key]:
                found = f"{shown(other.about[key])} and {shown(new.about[key])}"
                raise SettingsError(f"{other.name!r} and {new.name!r} differ in {what} ({found}). Measure both alike.")
        if not math.isclose(other.tifa.base, new.tifa.base, abs_tol=1e-9):
            raise SettingsError(
                f"{other.name!r} and {new.name!r} are held against bases of TIFA {100 * other.tifa.base:.2f} % and "
                f"{100 * new.tifa.base:.2f} %. Score one run of the base, and hold all methods against it."
            )
    return (*methods, new)


def methods_correlation(methods: Sequence[Point]) -> Correlation | None:
    """Pearson's correlation of spread ratio and TIFA over the methods and the base, which stands at 1.

    None for fewer than three methods, which make fewer than four points with the base.
    """
    spreads = [1.0, *(method.spread_ratio.value for method in methods)]
    return correlation(spreads, [methods[0].tifa.base, *(method.tifa.other for method in methods)])
