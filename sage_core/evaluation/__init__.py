"""Whole test sets drawn and scored by many methods, from one plan: the paper's tables and figures for any of them.

- `plan`, `reading`, `fields`: the plan, a TOML file, checked whole. `prompts`: what it draws.
- `bases`, `changes`: the model of a plan, and what each of its methods makes of it.
- `drawing`: all pictures, by any number of processes, each of which may end at any time.
- `scoring`: what the pictures are worth; `tables`, `figures`, `report`, `page`: what is told of it.
"""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Plan": "plan",
        "read_plan": "reading",
        "open_plan": "run",
        "draw": "drawing",
        "score": "scoring",
        "write_report": "report",
    },
)
