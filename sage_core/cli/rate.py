"""`sage rate`: how often a concept shows in a folder of pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import JudgeError, SettingsError
from . import common

if TYPE_CHECKING:
    from ..scores.rates import Rate

_TEXT = """
Say how often a concept shows in pictures.

The share of the pictures in a folder that show the concept, with its 95% Wilson interval. One witness decides: a judge
that is asked "is there a ...?", CLIP without training, or NudeNet, which looks for nudity in its five strict classes
and in all nine exposed ones. With --concepts each concept of the file has a rate of its own, by its first name.

examples:
  sage rate pictures/ --concept skull --judge models/VQA/vilt-b32-finetuned-vqa
  sage rate pictures/ --concept skull --clip models/VQA/clip-vit-large-patch14
  sage rate pictures/ --concepts concepts.toml --judge models/VQA/vilt-b32-finetuned-vqa
  sage rate pictures/ --nudenet --report rate.json
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = common.add_command(subparsers, "rate", run, _TEXT)
    command.add_argument("pictures", type=Path, metavar="PICTURES", help="folder")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--concept", type=common.text, help="what to look for, for instance skull; not for NudeNet")
    what.add_argument("--concepts", type=Path, metavar="FILE", help=common.CONCEPTS)
    witness = command.add_mutually_exclusive_group(required=True)
    witness.add_argument("--judge", type=Path, metavar="FOLDER", help="visual question answering model")
    witness.add_argument("--clip", type=Path, metavar="FOLDER", help="CLIP model")
    witness.add_argument("--nudenet", action="store_true", help="NudeNet (pip install nudenet)")
    command.add_argument("--threshold", type=common.number, help="for CLIP (default: 0.5) and NudeNet (default: 0.6)")
    common.add_work(command)


def run(options: argparse.Namespace) -> int:
    """Count the pictures that show the concept, and write the rate."""
    common.check_outputs(
        {"--report": options.report},
        {"PICTURES": options.pictures, "--judge": options.judge, "--clip": options.clip}
        | common.concept_inputs(options.concepts),
    )
    if options.nudenet == bool(options.concept or options.concepts):
        found = "NudeNet looks for nudity only" if options.nudenet else "a judge and CLIP look for what it names"
        given = (
            f"--concepts is {options.concepts}" if options.concepts else f"--concept is {options.concept or 'missing'}"
        )
        raise SettingsError(f"{given}; {found}.")
    if options.threshold is not None and not (0 <= options.threshold <= 1 and not options.judge):
        raise SettingsError(f"--threshold is {options.threshold:g}; expected 0 to 1, with --clip or --nudenet.")
    if not options.pictures.is_dir():
        raise SettingsError(f"{options.pictures} is not a folder. Give the folder that holds the pictures.")
    paths = sorted(path for path in options.pictures.iterdir() if path.suffix.lower() in common.PICTURES)
    if not paths:
        raise JudgeError(f"{options.pictures} holds no picture; expected {', '.join(sorted(common.PICTURES))}.")
    names = common.concepts(options.concepts).names if options.concepts else (options.concept,)
    count = common.Bars(options.quiet).counter("looking", len(names) * len(paths))
    rates = _rates(options, names, paths, count)
    value = {"pictures": [path.name for path in paths], "rates": [rate.to_dict() for rate in rates]}
    common.write(options, value, "\n".join(rate.to_markdown() for rate in rates) + "\n")
    return 0


def _rates(
    options: argparse.Namespace, names: Sequence[str], pictures: Sequence[Path], count: Callable[[int], None]
) -> Sequence[Rate]:
    from ..scores.rates import CLIP_THRESHOLD, NUDENET_THRESHOLD, rate_by_clip, rate_by_vqa, rates_by_nudenet

    if options.nudenet:
        limit = NUDENET_THRESHOLD if options.threshold is None else options.threshold
        return rates_by_nudenet(pictures, threshold=limit, on_batch=count)
    device = common.device(options)
    if options.clip:
        from ..scores.clipscore import ClipScorer

        limit = CLIP_THRESHOLD if options.threshold is None else options.threshold
        scorer = ClipScorer.from_file(options.clip, device=device)
        return [rate_by_clip(pictures, name, scorer, threshold=limit, on_batch=count) for name in names]
    from ..tifa.judges.base import load_judge

    judge = load_judge(options.judge, device=device)
    return [rate_by_vqa(pictures, name, judge, on_batch=count) for name in names]
