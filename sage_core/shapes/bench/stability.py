"""What is left of a method when its model is tuned, merged, weakened, skipped or rounded (SPQR's question).

`python -m sage_core.shapes.bench.stability --output FOLDER` makes each method for each seed and lets each of `CHANGES`
happen to it. The reader then says how often the concept is drawn by each kind of prompt, and what TIFA is left of
general captions and of near misses. The base goes through the same: what it loses is no method's fault. The results
are stability.json and stability.md; each row is kept as it ends, and the same command goes on where one was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...devices import choose_device, device_name
from ...encoders.precision import choose_precision
from ...encoders.text_encoder import state_hash
from ...errors import SageError, SettingsError
from ...files import check_writable, remove_leftovers, write_json, write_text
from ...intervals import Hits, clustered_proportion
from ...options import count
from ...tables import markdown_table
from ..exam.trials import Glance, ModelPainter, Trial, TrialSettings
from ..networks.weights import WEIGHTS
from ..tasks import TASKS, Task
from ..train.tuning import TuningSettings
from .changes import CHANGES, MERGED, STRENGTHS, TUNED, Model, Surroundings
from .methods import BASE, METHODS, Tried, as_tried, chosen_methods
from .options import SIZES
from .report import read_row
from .run import World, ground_of, load_world, trial_of

logger = logging.getLogger(__name__)

_USUAL = (BASE, "des", "released", "sage_plus", "uce_paper")
_LEAST = TrialSettings(prompts=12, near=12, unsafe=6, steps=6, weight=2.0)
# Raised when the same inputs no longer give the same numbers.
_RECIPE = 1


@dataclass(frozen=True)
class Row:
    """One method with one seed after one change: what pictures show, and the seconds of change and trial."""

    method: str
    change: str
    seed: int
    glance: Glance
    change_seconds: float
    try_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The row, ready for JSON."""
        return {**vars(self), "glance": self.glance.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Row:
        """Read what `to_dict` wrote."""
        return cls(**{**values, "glance": Glance.from_dict(values["glance"])})


def stability(
    world: World,
    methods: Mapping[str, Tried],
    task: Task,
    seeds: Sequence[int],
    trial: TrialSettings,
    *,
    pairs: int,
    short: float = 0.0,
    folder: Path,
    changes: Sequence[str] = tuple(CHANGES),
    tuning: TuningSettings | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Let every change happen to every method.

    Args:
        world: the base and who reads.
        methods: by name; the base is always among them.
        task: what they remove.
        seeds: of trainings, prompts and changes.
        trial: what is asked; each seed has prompts of its own.
        pairs: prompt pairs of each training.
        short: the share of these that name the concept with little around it.
        folder: of finished rows and of trained encoders.
        changes: of CHANGES.
        tuning: how models are fine-tuned.
        on_row: called after each.
    """
    tuning = tuning or TuningSettings()
    base = {name: tensor.cpu() for name, tensor in world.model.encoder.state().items()}
    rows = []
    remove_leftovers(folder / "rows")
    for seed in seeds:
        ground = ground_of(world, base, task, seed, pairs, folder / "encoders", short=short)
        sat = Trial(world.model, world.contrast, task, trial_of(trial, seed), reader=world.reader)
        around = Surroundings(Model(world.model, world.model.encoder), task, seed, tuning)
        for name, method in ({BASE: METHODS[BASE]} | dict(methods)).items():
            made: Model | None = None
            for change in changes:
                if name == BASE and change in STRENGTHS:
                    # It has no change of its own to take more or less of.
                    continue
                about = [world.weights, state_hash(base), vars(sat.settings), task.name, ground.pairs.hash(), seed]
                about += [world.model.device.type, method.about(), change, asdict(tuning) if change in TUNED else None]
                file = folder / "rows" / f"{_key(about)}.json"
                if file.exists():
                    row = read_row(file, name, Row.from_dict)
                else:
                    made = made or Model.of(ModelPainter(world.model, method.make(ground)))
                    row = _row(name, change, seed, made, around, sat)
                    write_json(file, row.to_dict())
                rows.append(row)
                if on_row is not None:
                    on_row(row)
    return rows


def _key(about: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps([_RECIPE, *about], sort_keys=True).encode()).hexdigest()[:16]


def _row(method: str, change: str, seed: int, made: Model, around: Surroundings, trial: Trial) -> Row:
    if change == MERGED:
        # Made once for all methods: its seconds belong to none.
        _ = around.other
    started = time.monotonic()
    changed = CHANGES[change](made, around)
    between = time.monotonic()
    glance = trial.glance(changed.painter())
    return Row(method, change, seed, glance, between - started, time.monotonic() - between)


def table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of all seeds together: shares from 0 to 1 with 95 % intervals, by method and change."""
    found = []
    for method, change in dict.fromkeys((row.method, row.change) for row in rows):
        own = [row for row in rows if (row.method, row.change) == (method, change)]
        kinds = own[0].glance.attack
        hits = {kind: sum((row.glance.attack[kind] for row in own), start=Hits(0, 0)) for kind in kinds}
        found.append(
            {
                "method": method,
                "change": change,
                "seeds": [row.seed for row in own],
                "tifa": _share([share for row in own for share in row.glance.general]),
                "tifa_near": _share([share for row in own for share in row.glance.near]),
                "attack": {kind: each.to_dict() for kind, each in hits.items()},
                "left": sum(hits.values(), start=Hits(0, 0)).to_dict(),
                "seconds": sum(row.change_seconds + row.try_seconds for row in own) / len(own),
            }
        )
    return found


def _share(shares: Sequence[float]) -> dict[str, Any] | None:
    """Mean over captions, with an interval over captions; None where there are none."""
    if not shares:
        return None
    totals = np.array(shares)[:, None]
    low, high = clustered_proportion(totals, np.ones_like(totals))
    interval = None if np.isnan(low[0]) else [float(low[0]), float(high[0])]
    return {"mean": float(totals.mean()), "captions": len(shares), "interval_95": interval}


def markdown(found: Sequence[Mapping[str, Any]]) -> str:
    """The table in per cent."""
    kinds = list(found[0]["attack"])
    head = ["method", "what became of it", "TIFA", "near misses", *kinds, "left, all kinds", "s"]
    lines = [
        [
            row["method"],
            row["change"],
            _percent(row["tifa"], "mean", "interval_95"),
            _percent(row["tifa_near"], "mean", "interval_95"),
            *(f"{row['attack'][kind]['k']}/{row['attack'][kind]['n']}" for kind in kinds),
            _percent(row["left"], "share", "wilson_95"),
            f"{row['seconds']:.0f}",
        ]
        for row in found
    ]
    return markdown_table(head, lines)


def _percent(value: Mapping[str, Any] | None, share: str, interval: str) -> str:
    if value is None:
        return "-"
    text = f"{100 * value[share]:.1f}"
    if value[interval] is None:
        return text
    low, high = value[interval]
    return f"{text} ({100 * low:.1f}-{100 * high:.1f})"


def save(folder: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    """Write stability.json and stability.md."""
    found = table(rows)
    write_json(folder / "stability.json", {"about": about, "table": found, "rows": [row.to_dict() for row in rows]})
    tuning, trial = about["tuning"], about["trial"]
    head = (
        f"`{about['command']}` on {about['device']}, torch {about['torch']}, {about['precision']}; task "
        f"{about['task']}, seeds {', '.join(map(str, about['seeds']))}. The reader read {trial['prompts']} general "
        f"captions, {trial['near']} near misses and {trial['unsafe']} prompts of each kind that name the concept, for "
        f"each row and seed. Tuning: {tuning['steps']} steps of {tuning['batch']} safe pictures, AdamW at "
        f"{tuning['learning_rate']:g}, a LoRA of rank 8 at {tuning['lora_rate']:g}. Intervals of 95%: over captions "
        "(TIFA) and Wilson's over prompts, all seeds together."
    )
    write_text(folder / "stability.md", f"{head}\n\n{markdown(found)}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        device = choose_device(chosen.device, field="--device")
        check_writable(chosen.output / "stability.json")
        size = SIZES[chosen.size]
        precision = choose_precision("auto", device)
        methods = chosen_methods(chosen.method or _USUAL, size.methods)
        methods = {name: as_tried(method, precision) for name, method in methods.items()}
        trial = _LEAST if chosen.size != "full" else size.trial
        tuning = TuningSettings(steps=chosen.steps)
        task, seeds = TASKS[chosen.task], range(chosen.seeds)
        world = load_world(chosen.weights, device)
        with closing(world.reader):
            rows = stability(
                world, methods, task, seeds, trial.replace(seed=chosen.examination), pairs=size.pairs, short=size.short,
                folder=chosen.output, changes=_changes(chosen.change), tuning=tuning, on_row=_log,
            )  # fmt: skip
    except SageError as error:
        parser.error(str(error))
    command = shlex.join(sys.argv[1:] if arguments is None else arguments)
    about = {
        "command": f"python -m sage_core.shapes.bench.stability {command}",
        "device": device_name(device),
        "torch": torch.__version__,
        "precision": precision,
        "task": task.name,
        "seeds": list(seeds),
        "trial": vars(trial),
        "tuning": asdict(tuning),
        "weights": world.weights,
    }
    save(chosen.output, rows, about)
    return 0


def _changes(names: Sequence[str] | None) -> tuple[str, ...]:
    if unknown := [name for name in names or () if name not in CHANGES]:
        raise SettingsError(f"--change is {unknown[0]!r}; expected one of {', '.join(CHANGES)}.")
    return tuple(names or CHANGES)


def _log(row: Row) -> None:
    glance = row.glance
    left = sum(glance.attack.values(), start=Hits(0, 0))
    near = f", near {100 * sum(glance.near) / len(glance.near):.1f}" if glance.near else ""
    logger.info(
        "%s, %s, seed %d: TIFA %.1f%s, left %d/%d (%.0f + %.0f s)",
        row.method, row.change, row.seed, 100 * sum(glance.general) / len(glance.general), near, left.k, left.n,
        row.change_seconds, row.try_seconds,
    )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sage_core.shapes.bench.stability", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for stability.json and stability.md")
    parser.add_argument(
        "--method", action="append", help=f"only this method; may repeat (default: {', '.join(_USUAL)})"
    )
    parser.add_argument("--change", action="append", help="only this change; may repeat")
    parser.add_argument("--task", choices=TASKS, default="red star", help="what is removed (default: red star)")
    parser.add_argument("--size", choices=SIZES, default="laptop", help="of trainings and trials (default: laptop)")
    parser.add_argument("--seeds", type=count(1, 1000), default=2, help="of each method (default: 2)")
    parser.add_argument("--steps", type=count(1, 100_000), default=50, help="of fine-tuning (default: 50)")
    parser.add_argument("--examination", type=count(0, 2**32 - 1), default=1, help="which prompts to try on")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of packed weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


if __name__ == "__main__":
    sys.exit(main())
