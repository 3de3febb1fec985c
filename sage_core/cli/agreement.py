"""`sage agreement`: how well metrics agree with people."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import common

_TEXT = """
Show how well metrics agree with people.

The correlation of TIFA with several judges, and of CLIPScore, with people's ratings of the same pictures.

FILE is TIFA's annotation file, tifa_human_annotations_with_scores.json.

example:
  sage agreement tifa_human_annotations_with_scores.json
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = common.add_command(subparsers, "agreement", run, _TEXT)
    command.add_argument("file", type=Path, metavar="FILE")
    common.add_results(command)


def run(options: argparse.Namespace) -> int:
    """Write the table of correlations, one row for each metric."""
    common.check_outputs({"--report": options.report}, {"FILE": options.file})
    from ..tifa.agreement import official_agreement, to_markdown

    found = official_agreement(options.file)
    value = {"agreement": [each.to_dict() for each in found]}
    common.write(options, value, to_markdown(found).rstrip("\n") + "\n")
    return 0
