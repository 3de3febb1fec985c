"""`sage evaluate`: whole test sets drawn and scored by many methods, from one plan."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SettingsError
from ..options import count
from . import common

if TYPE_CHECKING:
    from ..evaluation.layout import Progress

_TEXT = """
Draw and score whole test sets by many methods.

PLAN is a TOML file that says which methods draw which prompts how, and what is scored; --init writes one with a comment
for every field. The whole plan is checked before anything is drawn. Pictures, scores and the report lie in the plan's
output folder: tables 2, 3 and 4 and figures 3 and 4 of the paper for your methods, with intervals and tests against the
base. Give the command again after a stop, a crash or a change: what is there is not done again.

Several processes may work at one plan, on one machine or on many that share the folder: --processes starts them here,
`accelerate launch -m sage_core.evaluation PLAN` on every GPU.

examples:
  sage evaluate plan.toml --init
  sage evaluate plan.toml --dry-run
  sage evaluate plan.toml --batches 1 && sage evaluate plan.toml --dry-run
  sage evaluate plan.toml
  sage evaluate plan.toml --status
  sage evaluate world/plan.toml --init --shapes && sage evaluate world/plan.toml --processes 2
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = common.add_command(subparsers, "evaluate", run, _TEXT)
    command.add_argument("plan", type=Path, metavar="PLAN", help="TOML file")
    command.add_argument("--init", action="store_true", help="write a commented plan and stop")
    command.add_argument(
        "--shapes", action="store_true", help="with --init: a plan of the shapes world, with its files, in some minutes"
    )
    command.add_argument("--dry-run", action="store_true", help="check the plan, say how much work it is, and stop")
    command.add_argument("--status", action="store_true", help="say how far it is, also while others draw, and stop")
    command.add_argument(
        "--batches", type=count(1, 10**6), help="draw so many batches, and as many of each attack, and stop"
    )
    command.add_argument("--processes", type=count(1, 256), default=1, help="on this machine (default: %(default)s)")
    command.add_argument(
        "--part", type=_part, metavar="K/N", help="this is process K of N that you start yourself; the first reports"
    )
    common.add_work(command)


def run(options: argparse.Namespace) -> int:
    """Write a plan, estimate one, or carry one out."""
    if options.shapes and not options.init:
        raise SettingsError("--shapes goes with --init: it writes a plan of the shapes world.")
    if options.part and options.processes > 1:
        raise SettingsError("--part is for processes that you start yourself; found --processes too. Give one of them.")
    looks = "--dry-run" if options.dry_run else "--status" if options.status else ""
    if looks and options.batches:
        raise SettingsError(f"--batches has no effect with {looks}, which draws nothing. Give one after the other.")
    common.check_outputs({"--report": options.report}, {"PLAN": options.plan})
    if options.init:
        return _init(options)
    from ..evaluation.drawing import Share
    from ..evaluation.layout import check_room, progress
    from ..evaluation.run import open_plan
    from ..evaluation.run import run as evaluate

    layout = open_plan(options.plan)
    for note in (note for each in layout.lists for note in each.notes):
        common.say(note)
    if options.dry_run:
        _tell_progress(options, progress(layout))
        check_room(layout)
        return 0
    if options.status:
        from ..evaluation.status import status

        found = status(layout)
        common.write(options, found.to_dict(), found.to_markdown(options.processes) + "\n")
        return 0
    share = Share(*options.part) if options.part else Share(0, options.processes)
    bars = _Bars(options.quiet or share.number > 0)
    with _others(options):
        results = evaluate(
            layout, device=common.device(options), share=share, batches=options.batches, on_progress=bars
        )
    if results is None:
        return _tell_progress(options, progress(layout)) if share.number == 0 else 0
    from ..evaluation.report import FOLDER, as_dict

    text = "\n\n".join(table.shown.to_markdown() for table in results.tables)
    folder = common.path_text(layout.output / FOLDER)
    common.write(options, as_dict(results), f"{text}\n\nThe report is {folder}/report.html.\n")
    return 0


def _tell_progress(options: argparse.Namespace, found: Progress) -> int:
    common.write(options, found.to_dict(), found.summary(options.processes) + "\n")
    return 0


def _init(options: argparse.Namespace) -> int:
    from ..files import write_text

    if options.plan.suffix.lower() != ".toml":
        raise SettingsError(f"PLAN is '{options.plan}'; expected a file name that ends in .toml.")
    if options.shapes:
        from ..shapes.evaluation_plan import write_shapes_plan

        write_shapes_plan(options.plan, device=common.device(options), on_progress=_Bars(options.quiet))
    elif options.plan.exists():
        raise SettingsError(f"{options.plan} is there already. Choose another name, or delete it.")
    else:
        from ..evaluation.template import TEMPLATE

        write_text(options.plan, TEMPLATE)
    common.say(f"{options.plan} is written. Look at it, then: sage evaluate {options.plan} --dry-run")
    return 0


def _part(argument: str) -> tuple[int, int]:
    """K/N as number from 0, and count."""
    found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", argument)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{argument!r} is not K/N, such as 2/4")
    return int(found[1]) - 1, int(found[2])


@contextmanager
def _others(options: argparse.Namespace) -> Iterator[None]:
    """The other processes of --processes, which end with this one; what one of them loses this one draws."""
    command = ["evaluate", str(options.plan), "--quiet", *(["--device", options.device] if options.device else [])]
    command += ["--batches", str(options.batches)] if options.batches else []
    # Anew, and not forked: a fork would share this process's threads and what it has on the GPU.
    context = multiprocessing.get_context("spawn")
    started: list[BaseProcess] = [
        context.Process(target=_other, args=([*command, "--part", f"{number}/{options.processes}"],))
        for number in range(2, options.processes + 1)
    ]
    for process in started:
        process.start()
    try:
        yield
        for process in started:
            process.join()
    finally:
        _end(started)


def _other(command: Sequence[str]) -> None:
    """One of the other processes: only the first says what it found."""
    from .main import main

    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        sys.exit(main(command))


def _end(started: Sequence[BaseProcess]) -> None:
    for process in started:
        process.terminate()
    for process in started:
        process.join()


class _Bars:
    """A bar for each thing that is done, made when it is first heard of."""

    def __init__(self, quiet: bool) -> None:
        self._bars = common.Bars(quiet)

    def __call__(self, what: str, done: int, total: int) -> None:
        """Tell the bar of this name how far the work is."""
        self._bars(what)(done, total)
