"""A whole evaluation, as one of any number of processes: checked, drawn, scored, reported."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from ..files import remove_leftovers
from .attacking import attacked_list
from .bases import load
from .checking import check_files
from .distances import check_distances
from .drawing import ALONE, Share, draw
from .layout import Layout, check_room
from .prompts import read_lists
from .reading import read_plan
from .report import write_report
from .results import Results
from .scoring import score

Tell = Callable[[str, int, int], None]


def open_plan(file: str | os.PathLike[str]) -> Layout:
    """A plan with its prompts, checked whole.

    Raises:
        SageError: a field or a file of it is wrong.
    """
    plan = read_plan(Path(file))
    check_files(plan)
    lists = read_lists(plan)
    named = {each.name: each for each in lists}
    lists += tuple(attacked_list(plan, attack, named[attack.list]) for attack in plan.attacking)
    check_distances(plan, lists)
    layout = Layout(plan, lists)
    for method in plan.methods:
        for prompts in layout.lists_of(method) if method.pictures else ():
            layout.files(method, prompts)
    return layout


def run(
    layout: Layout,
    *,
    device: torch.device,
    share: Share = ALONE,
    batches: int | None = None,
    on_progress: Tell | None = None,
) -> Results | None:
    """Draw and score what is missing; the first of the processes then writes the report.

    Args:
        layout: from `open_plan`.
        device: where to draw and judge.
        share: which of the processes this is.
        batches: draw so many and stop, for an estimate of the time.
        on_progress: called with (what, done, total); what it raises stops the work, which goes on at the next call.

    Returns:
        The results, from the first process alone; None from the others and after a stop at `batches`.
    """
    check_room(layout)
    remove_leftovers(layout.output, below=True)

    def told(done: int, total: int) -> None:
        if on_progress:
            on_progress("drawing", done, total)

    draw(
        layout,
        lambda: load(layout.plan.base),
        device=device,
        share=share,
        batches=batches,
        on_progress=told,
        on_making=on_progress,
    )
    if batches is not None:
        return None
    score(layout, device=device, on_progress=on_progress)
    return write_report(layout, device=device, on_progress=on_progress) if share.number == 0 else None
