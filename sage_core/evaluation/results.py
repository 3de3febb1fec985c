"""All that an evaluation measured and made, as the report writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from ..geometry.report import GeometryReport
from ..tifa.comparison import Comparison
from .layout import Layout, Progress
from .scoring import Scores
from .tables import PaperTable


@dataclass(frozen=True)
class Results:
    """All that was measured, and the tables and figures made of it.

    Attributes:
        layout: where the pictures are.
        scores: of every method, the base first.
        comparisons: TIFA of each method against the base, by its name.
        geometry: of each method that changes the text encoder, by its name.
        tables: those for which there are numbers.
        figures: caption and picture, by the file's name without its suffix.
        drawn: how many pictures there are, and what drew them.
    """

    layout: Layout
    scores: Sequence[Scores]
    comparisons: Mapping[str, Comparison]
    geometry: Mapping[str, GeometryReport]
    tables: Sequence[PaperTable]
    figures: Mapping[str, tuple[str, Image.Image]]
    drawn: Progress

    @property
    def protocol(self) -> str:
        """How the pictures are drawn, and which lists are drawn by settings of their own."""
        own = [f"{each.name} by its file's own {each.own}" for each in self.layout.lists if each.own]
        text = f"{self.layout.plan.protocol} Computed in {' and '.join(self.drawn.ways)}."
        return f"{text} But {'; '.join(own)}." if own else text

    @property
    def notes(self) -> list[str]:
        """How the lists were read, what was left out of them, and what scores say of themselves."""
        notes = [note for each in self.layout.lists for note in each.notes]
        notes += [note for each in self.scores for note in each.notes]
        return [*dict.fromkeys(notes)]
