"""A run of four pictures with as many right answers as a test wants."""

from __future__ import annotations

from sage_core.scores.clipscore import ClipScores
from sage_core.scores.rates import Rate
from sage_core.scores.results import Run
from sage_core.tifa.questions import Question
from sage_core.tifa.scoring import ScoredQuestion, TifaResult


def run(name: str, right: int, cosine: float = 0.25, hits: int = 3) -> Run:
    rows = tuple(
        ScoredQuestion(
            f"c{number}",
            Question(f"c{number}", "a red dog", f"{kind}?", ("yes", "no"), "yes", kind, "dog"),
            "yes" if number < right else "no",
            "yes" if number < right else "no",
            0.5,
        )
        for number in range(4)
        for kind in ("object", "color")
    )
    rate = Rate("skull", "somebody", tuple(i < hits for i in range(4)))
    return Run(name, TifaResult(name, "judge", "likelihood", rows), ClipScores("clip", (cosine,) * 4, 0), (rate,))
