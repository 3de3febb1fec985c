"""The types of the pack's own sockets, and what they carry."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_api.latest import io

from ...sage_core.tifa.judges.base import Judge
from ...sage_core.tifa.sentences import SentenceEncoder
from . import memory

Pairs = io.Custom("SAGE_PAIRS")
# A list of what is removed, sage_core's ConceptList.
Concepts = io.Custom("SAGE_CONCEPTS")
Settings = io.Custom("SAGE_SETTINGS")
JudgeType = io.Custom("SAGE_JUDGE")
Questions = io.Custom("SAGE_QUESTIONS")
Scores = io.Custom("SAGE_SCORES")
# Points of geometry against TIFA, one for each aligned encoder.
Methods = io.Custom("SAGE_METHODS")
GateType = io.Custom("SAGE_GATE")


@dataclass(frozen=True)
class LoadedJudge:
    """A judge, its sentence encoder if any, and the function that brings both into memory."""

    judge: Judge
    sentences: SentenceEncoder | None
    managed: tuple[memory.Managed, ...]

    def load(self) -> None:
        """Bring the models to their device."""
        memory.load(self.managed)
