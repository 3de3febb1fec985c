"""How far an evaluation is, whoever works at it: pictures, batches that are being drawn, and scores, by method."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..tables import markdown_table
from .claims import claim
from .judges import Judges
from .layout import Job, Layout, Progress, progress
from .scoring import WITHOUT_PICTURES


@dataclass(frozen=True)
class MethodStatus:
    """One method.

    Attributes:
        name: in tables.
        pictures, drawn: how many there are to be, and how many are there.
        drawing: batches that a process is at work on now.
        scored, missing: names of scores.
    """

    name: str
    pictures: int
    drawn: int
    drawing: int
    scored: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Status:
    """All of a plan."""

    drawn: Progress
    methods: tuple[MethodStatus, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything, fit for JSON."""
        return {"drawn": self.drawn.to_dict(), "methods": [asdict(each) for each in self.methods]}

    def to_markdown(self, processes: int = 1) -> str:
        """A line on the whole, and a table of methods."""
        rows = [
            (
                each.name,
                f"{each.drawn:,} of {each.pictures:,}",
                str(each.drawing),
                ", ".join(each.scored) or "none",
                ", ".join(each.missing) or "none",
            )
            for each in self.methods
        ]
        table = markdown_table(("", "drawn", "batches in work", "scored", "not yet scored"), rows, "lrrll")
        return f"{self.drawn.summary(processes)}\n\n{table}"


def status(layout: Layout) -> Status:
    """Look at the output folder alone: nothing is loaded, and whoever is at work there is not disturbed."""
    judges, jobs = Judges(layout, torch.device("cpu")), layout.jobs()
    wanted = [name for name in layout.plan.score.what if name not in WITHOUT_PICTURES]
    found = []
    for method in layout.plan.methods:
        own = [job for job in jobs if job.method.name == method.name]
        there = [name for name in wanted if judges.file(method, name).exists()]
        found.append(
            MethodStatus(
                method.name,
                _pictures(own),
                _pictures(job for job in own if job.is_done),
                sum(not job.is_done and _is_locked(job.lock) for job in own),
                tuple(there),
                tuple(name for name in wanted if name not in there),
            )
        )
    return Status(progress(layout), tuple(found))


def _pictures(jobs: Iterable[Job]) -> int:
    return sum(len(job.items) for job in jobs)


def _is_locked(file: Path) -> bool:
    """A process that finds the lock taken for this moment comes back to the batch in its next round."""
    if not file.exists():
        return False
    with claim(file) as is_mine:
        return not is_mine
