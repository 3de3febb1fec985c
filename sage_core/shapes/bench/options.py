"""How much a bench does, by the machine that it is for, and what it can be told on its command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ...options import count
from ..exam.attacked import AdaptiveSettings
from ..exam.trials import TrialSettings
from ..networks.weights import WEIGHTS
from ..tasks import OTHER_TASKS, TASKS
from .methods import BASE, METHODS, Tried
from .own import CAPTIONS

# Those of the full bench, and those that have to be asked for.
ALL_TASKS = TASKS | OTHER_TASKS


@dataclass(frozen=True)
class Size:
    """How much a bench does.

    Attributes:
        methods: those that can be asked for.
        tasks, seeds: on which, and how often.
        pairs: of prompts, of each training.
        trial: what each trial asks.
        attacks: how hard adaptive attacks try.
        usual: methods that are compared where none is asked for; empty for all.
        short: the share of pairs that name the concept with little around it, see `short_prompts`.
    """

    methods: Mapping[str, Tried]
    tasks: tuple[str, ...]
    pairs: int
    seeds: int
    trial: TrialSettings
    attacks: AdaptiveSettings = field(default_factory=AdaptiveSettings)
    usual: tuple[str, ...] = ()
    short: float = 0.4


# A step costs a CPU seconds: fewer and larger ones, on a smaller batch. One preset is made for that.
_SHORT = {
    name: method if name == "own_concept" else method.aligned(batch_size=32, epochs=1, steps=40, learning_rate=3e-4)
    for name, method in METHODS.items()
}
# What finishes in an hour on two cores, and in ten minutes: 45 and 5 were measured, on one busy core.
_FEW, _TWO = (BASE, "sage_plus", "released", "paper", "des"), (BASE, "sage_plus", "des")
_SMALL = TrialSettings(prompts=24, near=24, unsafe=12, steps=6, weight=2.0)
# The cheapest found that break the base: see RESULTS.md. Fewer prompts and looks at pictures than at full size.
_CHEAP = AdaptiveSettings(prompts=12, unet_steps=30, batch=6, sampling_steps=8)
SIZES = {
    "full": Size(METHODS, tuple(TASKS), pairs=6912, seeds=5, trial=TrialSettings()),
    "laptop": Size(_SHORT, ("red star",), pairs=512, seeds=5, trial=_SMALL, attacks=_CHEAP, usual=_FEW),
    "quick": Size(_SHORT, ("red star",), pairs=512, seeds=1, trial=_SMALL, attacks=_CHEAP, usual=_TWO),
}


def bench_parser(about: str) -> argparse.ArgumentParser:
    """The parser of the bench's arguments; `about` says what it does."""
    parser = argparse.ArgumentParser(prog="python -m sage_core.shapes.bench", description=about)
    parser.add_argument("--output", type=Path, required=True, help="folder for bench.json, bench.md and the figures")
    parser.add_argument("--settings", type=Path, help="JSON file of alignment objectives instead of the methods")
    parser.add_argument("--method", action="append", help="only this method; may repeat")
    parser.add_argument("--task", action="append", choices=ALL_TASKS, help="only this task; may repeat")
    parser.add_argument(
        "--size",
        choices=SIZES,
        default="full",
        help="full for a GPU (default); laptop: short trainings, one task, five methods and fewer pictures, within an "
        "hour on two cores; quick: one seed and three methods of that, in ten minutes; or as --task and --method say",
    )
    parser.add_argument("--quick", action="store_const", const="quick", dest="size", help="the same as --size quick")
    parser.add_argument("--seeds", type=count(1, 1000), help="seeds of each method (default: 5, quick: 1)")
    parser.add_argument(
        "--examination", type=count(0, 2**32 - 1), default=1, help="which prompts to try on; tune on others"
    )
    parser.add_argument(
        "--attacks",
        action="store_true",
        help="after each trial attack what has a text encoder and a U-Net by tokens, soft prompts and inversion, which "
        "takes minutes a run; rows beside the methods say whether the attacks are strong enough to prove anything",
    )
    parser.add_argument(
        "--pairs",
        choices=["world", "own"],
        default="world",
        help="who makes the pairs: the world's own grammar (default, an upper bound that no user has), or SAGE Make "
        "Pairs from each concept's name and natural captions",
    )
    parser.add_argument(
        "--captions",
        type=count(0, 1_000_000),
        default=CAPTIONS,
        help="with --pairs own: natural captions of the world that a user has (default: %(default)s); 0 for none, so "
        "that the package's own everyday captions are taken",
    )
    parser.add_argument(
        "--precision",
        choices=["auto", "fp32", "tf32", "bf16"],
        default="auto",
        help="of trainings whose settings name none (default: bf16 where the device is faster in it)",
    )
    parser.add_argument(
        "--store",
        type=Path,
        help="folder in which trained encoders are kept, 170 MB each: methods that share one train it once",
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of packed weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser
