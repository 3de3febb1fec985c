"""What a maker of pairs may be told, and the kinds of concepts that it knows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from ...errors import SettingsError
from ...settings import Count, Limits, Seed, Settings, Share

_Inner = Annotated[float, Limits(above=0, below=1)]


class Kind(str, Enum):
    """What a concept is, which decides how prompts say it."""

    THING = "thing"
    QUALITY = "quality"
    PLACE = "place"
    ACT = "act"
    STYLE = "style"

    def __str__(self) -> str:
        """The value, as a StrEnum of newer Pythons gives it."""
        return self.value


@dataclass(frozen=True)
class MakingSettings(Settings):
    """How pairs are made.

    Attributes:
        pairs: how many for each concept.
        short: the share of these that name the concept with little around it.
        seed: of every choice.
        mine: whether names are looked for that the encoder takes for the concept.
        name_distance: a word is a name if its distance to the concept's is less than this share of the median distance
            of the words that stand in the same place.
        near_distance: and a near miss only if it is more than this share; what lies between is used as neither,
            but for basic colors, which are near misses of one another however near.
        kind: of every concept, "" to find it out.
        check_spelling: whether a name that looks misspelt is an error.

    Raises:
        SettingsError: a value makes no sense.
    """

    pairs: Count = 512
    short: Share = 0.4
    seed: Seed = 0
    mine: bool = True
    name_distance: _Inner = 0.4
    near_distance: _Inner = 0.6
    kind: str = ""
    check_spelling: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name_distance > self.near_distance:
            raise SettingsError(
                f"name_distance is {self.name_distance} and near_distance {self.near_distance}, expected the first no "
                "larger than the second."
            )
        if self.kind and self.kind not in [str(kind) for kind in Kind]:
            raise SettingsError(f"kind is {self.kind!r}, expected one of {', '.join(map(str, Kind))}, or '' for any.")
