"""`accelerate launch -m sage_core.evaluation PLAN.toml`: an evaluation on every GPU of one or more machines.

Processes need no connection but the output folder, which must be one for all of them. accelerate starts them and gives
each its device; one that is lost costs its own unfinished pictures, and the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import SageError, SettingsError
from ..rows import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the plan as one of accelerate's processes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sage_core.evaluation", description=__doc__.split("\n")[0])
    parser.add_argument("plan", type=Path, metavar="PLAN", help="TOML file, as `sage evaluate PLAN --init` writes it")
    file = parser.parse_args(arguments).plan
    try:
        _run(file)
    except SageError as error:
        sys.stderr.write("sage: error: " + printable(" ".join(str(error).split())) + "\n")
        return 1
    return 0


def _run(file: Path) -> None:
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise SettingsError(
            "accelerate is not installed; it is optional. Run pip install -e '.[evaluate]' in this package's folder, "
            "or pip install 'accelerate>=0.30'; or use `sage evaluate --processes N`, which does without it."
        ) from error
    from .drawing import Share
    from .run import open_plan, run

    state = PartialState(cpu=_on_cpu())
    try:
        share = Share(state.process_index, state.num_processes)
        if share.number == 0:
            sys.stderr.write(_started(state.num_processes, str(state.device)))
        layout = open_plan(file)
        results = run(layout, device=state.device, share=share, on_progress=_Lines() if share.number == 0 else None)
        if results is not None:
            sys.stdout.write(printable("\n\n".join(table.shown.to_markdown() for table in results.tables)))
    finally:
        with suppress(AttributeError, ValueError):
            state.destroy_process_group()


def _started(processes: int, device: str) -> str:
    """How many processes share the work: accelerate may start fewer than it was asked for, and says nothing."""
    if processes > 1:
        return f"{processes} processes share the work; this one computes on {device}.\n"
    return (
        f"accelerate has started one process, on {device}. On a CPU it starts no more, whatever --num_processes says; "
        "`sage evaluate PLAN --processes N` does. Each process holds the model in memory.\n"
    )


def _on_cpu() -> bool:
    """Whether processes draw on the CPU: accelerate takes each for a process alone unless it is told so."""
    import torch

    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return True
    # PyTorch before 2.6 has no common name for what is not a CPU.
    accelerator = getattr(torch, "accelerator", torch.cuda)
    return not accelerator.is_available()


class _Lines:
    """Progress of the first process, a line for each tenth."""

    def __init__(self) -> None:
        self._last = ("", -1)

    def __call__(self, what: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if (what, tenth) != self._last:
            self._last = (what, tenth)
            sys.stderr.write(printable(f"{what}: {done:,} of {total:,}\n"))


if __name__ == "__main__":
    sys.exit(main())
