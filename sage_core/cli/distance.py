"""`sage distance`: how far two sets of pictures are from each other."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SettingsError
from ..options import count
from . import common

if TYPE_CHECKING:
    from ..scores.features import Extractor, Features
    from ..scores.statistics import Statistics

_MOST = 10_000_000
_TEXT = """
Say how far two sets of pictures are from each other: FID, KID or CMMD.

A and B are folders of pictures, or for FID .npz files with mu and sigma, as FID tools write them. B may be photographs,
or the pictures that the untouched model draws of the same prompts and seeds: what alignment costs shows there.

The model is FID's Inception (pt_inception-2015-12-05-6726825d.pth, or the TorchScript inception-2015-12-05.pt with
--trust), or a transformers folder of DINOv2 or CLIP. CMMD needs CLIP. torchvision's Inception is another one, and
refused. FID and CMMD depend on the number of pictures, KID does not.

examples:
  sage distance aligned/ photographs/ --model models/VQA/clip-vit-large-patch14-336
  sage distance aligned/ base/ --model pt_inception-2015-12-05-6726825d.pth --measure KID
  sage distance aligned/ coco.npz --model pt_inception-2015-12-05-6726825d.pth --measure FID --save-a aligned.npz
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = common.add_command(subparsers, "distance", run, _TEXT)
    command.add_argument("first", type=Path, metavar="A", help="folder, or .npz")
    command.add_argument("second", type=Path, metavar="B", help="folder, or .npz: what A is measured against")
    command.add_argument("--model", type=Path, metavar="FOLDER", help="whose features; not needed for two .npz")
    command.add_argument("--measure", choices=("FID", "KID", "CMMD"), help="default: CMMD with CLIP, else KID")
    command.add_argument(
        "--resizing", choices=("clean", "bilinear"), default="clean", help="for Inception, as clean-fid or pytorch-fid"
    )
    command.add_argument("--take", type=count(2, _MOST), metavar="N", help="the first N pictures of each folder")
    command.add_argument("--fewest", type=count(2, _MOST), metavar="N", help="refuse FID of fewer (default: 2048)")
    command.add_argument("--different-counts", action="store_true", help="FID and CMMD of different numbers, too")
    command.add_argument("--trust", action="store_true", help="run a TorchScript, which is a program")
    command.add_argument("--seed", type=count(0, 2**32 - 1), default=0, help="of KID's subsets (default: 0)")
    for side in ("a", "b"):
        command.add_argument(
            f"--save-{side}", type=Path, metavar="FILE", help=f"write {side.upper()}'s mu and sigma (.npz)"
        )
    common.add_work(command)


def run(options: argparse.Namespace) -> int:
    """Measure the distance, and write it and the statistics."""
    _check(options)
    from ..scores.distances import FEWEST_FOR_FID, distance
    from ..scores.features import Features, load_extractor
    from ..scores.statistics import Statistics, write_statistics

    extractor = None
    if options.model is not None:
        device = common.device(options)
        extractor = load_extractor(options.model, resizing=options.resizing, device=device, trusted=options.trust)
    bars = common.Bars(options.quiet)
    sides = [
        _side(options, path, extractor, bars, name) for name, path in (("A", options.first), ("B", options.second))
    ]
    for side, path in zip(sides, (options.save_a, options.save_b), strict=True):
        if path is not None:
            write_statistics(path, Statistics.of(side) if isinstance(side, Features) else side)
    measure = options.measure or ("FID" if extractor is None else "CMMD" if extractor.kind == "clip" else "KID")
    found = distance(
        measure,
        *sides,
        fewest=options.fewest or FEWEST_FOR_FID,
        different_counts=options.different_counts,
        seed=options.seed,
        on_step=bars("comparing"),
    )
    common.write(options, found.to_dict(), found.to_markdown() + "\n")
    return 0


def _check(options: argparse.Namespace) -> None:
    outputs = {"--report": options.report, "--save-a": options.save_a, "--save-b": options.save_b}
    common.check_outputs(outputs, {"A": options.first, "B": options.second, "--model": options.model})
    statistics = [path.suffix.lower() == ".npz" for path in (options.first, options.second)]
    if options.model is None and not all(statistics):
        raise SettingsError("--model is missing; pictures need a model whose features are compared.")
    if options.take and all(statistics):
        raise SettingsError("--take chooses among pictures, and statistics in .npz hold none; leave it out.")
    for name in ("save_a", "save_b"):
        path = getattr(options, name)
        if path is not None and path.suffix.lower() != ".npz":
            raise SettingsError(f"--{name.replace('_', '-')} is '{path}'; expected a file name that ends in .npz.")


def _side(
    options: argparse.Namespace, path: Path, extractor: Extractor | None, bars: common.Bars, name: str
) -> Features | Statistics:
    from ..scores.features import pictures_in
    from ..scores.statistics import read_statistics

    if path.suffix.lower() == ".npz" or extractor is None:
        return read_statistics(path)
    files = pictures_in(path, options.take or 0)
    return extractor.embed(files, bars.counter(f"looking at {name}", len(files)))
