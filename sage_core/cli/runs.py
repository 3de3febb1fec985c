"""`sage runs`: list the stored runs of a folder and delete old ones."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from ..errors import SettingsError
from . import common

_TEXT = """
List the stored runs of trainings, and delete old ones.

A finished training stays in its store, so that the same inputs find it again: about 500 MB for Stable Diffusion 1.x.
An interrupted one leaves a checkpoint to go on from. Deleting a run loses no encoder that was saved from it. Files that
other programs wrote are neither listed nor deleted.

STORE is a folder of runs: .sage-runs next to what `sage train` or `redirect` wrote; output/sage/runs, and for gates
output/sage/gates, in ComfyUI.

examples:
  sage runs .sage-runs
  sage runs ComfyUI/output/sage/runs --limit 5
  sage runs .sage-runs --clear
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = common.add_command(subparsers, "runs", run, _TEXT)
    command.add_argument("store", type=Path, metavar="STORE")
    room = command.add_mutually_exclusive_group()
    room.add_argument(
        "--limit", type=common.distance, metavar="GB", help="delete the oldest until all take at most this"
    )
    room.add_argument("--clear", action="store_true", help="delete all")
    common.add_results(command)


def run(options: argparse.Namespace) -> int:
    """Write the runs that are left, and those that were deleted."""
    common.check_outputs({"--report": options.report}, {})
    from ..runs.store import RunStore

    if not options.store.is_dir():
        raise SettingsError(f"{options.store} is not a folder. Give the folder of runs, for instance .sage-runs.")
    store = RunStore(options.store)
    most = 0 if options.clear else options.limit and options.limit * 1e9
    gone = [] if most is None else store.clear(most)
    left = store.runs()
    lines = [run.summary() for run in left]
    lines += [f"{len(left)} runs, {sum(run.bytes for run in left) / 2**20:,.1f} MiB in {options.store}"]
    if most is not None:
        lines += [f"Deleted {len(gone)} runs, {sum(run.bytes for run in gone) / 2**20:,.1f} MiB"]
    found = {"runs": left, "deleted": gone}
    value = {
        name: [asdict(run) | {"files": [str(file) for file in run.files]} for run in runs]
        for name, runs in found.items()
    }
    common.write(options, value, "\n".join(lines) + "\n")
    return 0
