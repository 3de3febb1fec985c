"""Compare methods on tasks of the shapes world: `python -m sage_core.shapes.bench --output FOLDER`.

Every method is made for each task and seed. Each seed has prompt pairs and a trial of its own, which the base and all
methods of that seed take. A trial measures TIFA of general captions, of near misses and of hard pictures, how often the
concept is still drawn by each kind of prompt, the stand-in for CLIPScore, spread ratio and neighbour overlap. With
`--attacks` four adaptive attacks follow on whatever has a text encoder and a U-Net, with the base as control. The
results are bench.json, bench.md and two figures for each task. Each run is kept as it ends: the same command goes on
where an earlier one was stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...devices import choose_device, device_name
from ...encoders.precision import choose_precision
from ...encoders.text_encoder import state_hash
from ...errors import SageError
from ...files import check_writable, remove_leftovers, whole_file, write_json, write_text
from ...intervals import Hits
from ..exam.attacked import AdaptiveSettings, Broken, attack_painter
from ..exam.examiners import ReaderExaminer
from ..exam.trials import ModelPainter, Painter, Trial, TrialMarks, TrialSettings
from ..networks.contrast import ContrastModel, load_contrast
from ..networks.model import ShapesModel
from ..networks.weights import load_model, weights_hash
from ..tasks import Task
from .methods import BASE, METHODS, Ground, Tried, as_tried, chosen_methods, read_methods
from .options import ALL_TASKS, SIZES, bench_parser
from .own import CAPTIONS, own_pairs
from .report import Table, figures, read_row

logger = logging.getLogger(__name__)

# Distance of the trials of a bench's seeds, so that those of another `--examination` fall between them.
_BETWEEN_TRIALS = 1000
_FIRST_PAIRS = 100
# Raised when the same settings ask other prompts: what was kept before is then not taken for it.
_EXAM = 2


@dataclass(frozen=True)
class Run:
    """One method on one task with one seed: its marks and the seconds that making and trying it took."""

    task: str
    method: str
    seed: int
    marks: TrialMarks
    make_seconds: float
    try_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The run, ready for JSON."""
        return {**vars(self), "marks": self.marks.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Run:
        """Read what `to_dict` wrote."""
        return cls(**{**values, "marks": TrialMarks.from_dict(values["marks"])})


@dataclass(frozen=True)
class World:
    """What all runs share: the base model, what judges likeness, who reads, and the hash of the weights."""

    model: ShapesModel
    contrast: ContrastModel
    reader: ReaderExaminer
    weights: str


def load_world(weights: Path, device: torch.device) -> World:
    """The world's own models, and a reader that uses all cores."""
    parts = ["unet", "autoencoder", "text_encoder", "contrast"]
    return World(
        load_model(weights).to(device),
        load_contrast(weights).to(device),
        ReaderExaminer(workers=os.cpu_count() or 1),
        weights_hash(weights, parts),
    )


def compare(
    world: World,
    methods: Mapping[str, Tried],
    tasks: Sequence[Task],
    seeds: Sequence[int],
    trial: TrialSettings,
    *,
    pairs: int,
    short: float = 0.0,
    own: bool = False,
    captions: int = CAPTIONS,
    attacks: AdaptiveSettings | None = None,
    kept: Path | None = None,
    store: Path | None = None,
    on_run: Callable[[Run], None] | None = None,
) -> list[Run]:
    """Make and try every method for every task and seed, the base first.

    Each seed draws prompts of its own for training and, from the seed of `trial` on, for trying: runs of different
    seeds share none, so that their hits may be counted together.

    Args:
        world: the base and who examines.
        methods: by name.
        tasks: what is to be removed.
        seeds: of the trainings; each also chooses its prompts.
        trial: is repeated with other prompts for each seed.
        pairs: prompt pairs of each training.
        short: the share of these that name the concept with little around it.
        own: whether pairs are made from the concepts' names and natural captions, as by who has no grammar of the
            world; each concept has its first name alone.
        captions: how many natural ones `own` has; 0 for the package's own everyday captions.
        attacks: how hard adaptive attacks try after each trial, with other prompts for each seed; None for no attack.
        kept: folder of finished runs: what an earlier bench of the same sizes left there is not done again.
        store: folder of trained encoders, which several methods may share; None trains for each.
        on_run: called after each run.
    """
    base = {name: tensor.cpu() for name, tensor in world.model.encoder.state().items()}
    runs: list[Run] = []
    if kept is not None:
        remove_leftovers(kept)
    for seed in seeds:
        for task in tasks:
            ground = ground_of(world, base, task, seed, pairs, store, short=short, own=own, captions=captions)
            sitting = _Sitting(world, ground, trial_of(trial, seed), kept, attacks)
            for name, method in ({BASE: METHODS[BASE]} | dict(methods)).items():
                runs.append(sitting.run(name, method))
                if on_run is not None:
                    on_run(runs[-1])
    return runs


def ground_of(
    world: World,
    base: Mapping[str, Tensor],
    task: Task,
    seed: int,
    pairs: int,
    store: Path | None = None,
    *,
    short: float,
    own: bool = False,
    captions: int = CAPTIONS,
) -> Ground:
    """What methods work with for one task and seed; see `compare`."""
    if own:
        encoder = world.model.encoder
        made = own_pairs(task, encoder, pairs, seed=_FIRST_PAIRS + seed, short=short, captions=captions).pairs
    else:
        made = task.pairs(pairs, seed=_FIRST_PAIRS + seed, short=short)
    return Ground(world.model, base, task, made, seed, store)


def trial_of(trial: TrialSettings, seed: int) -> TrialSettings:
    """The trial of a bench's seed, with prompts that no other seed's has."""
    return trial.replace(seed=trial.seed + _BETWEEN_TRIALS * seed)


class _Sitting:
    """One task with one seed; its trial is made when a run first needs it."""

    def __init__(
        self, world: World, ground: Ground, settings: TrialSettings, kept: Path | None, attacks: AdaptiveSettings | None
    ) -> None:
        self.world, self.ground, self.settings, self.kept = world, ground, settings, kept
        self.attacks = attacks and replace(attacks, seed=settings.seed)
        self._trial: Trial | None = None
        # Of the attacks on the base, which is tried first.
        self._controls: dict[str, Hits] = {}

    @property
    def trial(self) -> Trial:
        """The prompts that every method of this task and seed draws."""
        if self._trial is None:
            world = self.world
            self._trial = Trial(world.model, world.contrast, self.ground.task, self.settings, reader=world.reader)
        return self._trial

    def run(self, name: str, method: Tried) -> Run:
        """Make the method and try it, or take the run from the folder of finished ones."""
        run = self._run(name, method)
        if name == BASE:
            self._controls = {kind: Broken.from_dict(found).attacked for kind, found in run.marks.adaptive.items()}
        return run

    def _run(self, name: str, method: Tried) -> Run:
        file = self.kept and self.kept / f"{self._key(method)}.json"
        if file and file.exists():
            return read_row(file, name, Run.from_dict)
        started = time.monotonic()
        painter = ModelPainter(self.world.model, method.make(self.ground))
        # An edit is put in and an encoder built as a part of the making.
        _ = painter.model
        made = time.monotonic()
        marks = self._attacked(self.trial.mark(painter), painter)
        run = Run(self.ground.task.name, name, self.ground.seed, marks, made - started, time.monotonic() - made)
        if file:
            write_json(file, run.to_dict())
        return run

    def _attacked(self, marks: TrialMarks, painter: Painter) -> TrialMarks:
        if self.attacks is None:
            return marks
        world, task = self.world, self.ground.task
        found = attack_painter(painter, world.model, task, self.attacks, reader=world.reader, controls=self._controls)
        return replace(marks, adaptive=found)

    def _key(self, method: Tried) -> str:
        made_of = {
            "exam": _EXAM,
            "weights": self.world.weights,
            "base": state_hash(self.ground.base),
            "trial": vars(self.settings),
            "task": self.ground.task.name,
            "pairs": self.ground.pairs.hash(),
            "device": self.world.model.device.type,
            "seed": self.ground.seed,
            "method": method.about(),
        }
        if len(self.ground.task.concepts) > 1:
            # Runs that were kept before had one direction for all.
            made_of["concepts"] = self.ground.task.listed().names
        if self.attacks is not None:
            made_of["attacks"] = asdict(self.attacks)
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison that the command line asks for. Returns the exit code."""
    parser = bench_parser(__doc__.split("\n")[0])
    chosen = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        device = choose_device(chosen.device, field="--device")
        check_writable(chosen.output / "bench.json")
        if chosen.store is not None:
            check_writable(chosen.store / "encoder.safetensors")
        size = SIZES[chosen.size]
        methods = (
            read_methods(chosen.settings)
            if chosen.settings
            else chosen_methods(chosen.method or size.usual, size.methods)
        )
        precision = choose_precision(chosen.precision, device)
        # No prompts held out of training: the trial measures what training would watch.
        methods = {name: as_tried(method, precision) for name, method in methods.items()}
        tasks = [ALL_TASKS[name] for name in chosen.task or size.tasks]
        trial = size.trial.replace(seed=chosen.examination)
        world = load_world(chosen.weights, device)
        seeds = range(chosen.seeds or size.seeds)
        attacks = size.attacks if chosen.attacks else None
        kept = chosen.output / "runs"
        with closing(world.reader):
            runs = compare(
                world,
                methods,
                tasks,
                seeds,
                trial,
                pairs=size.pairs,
                short=size.short,
                own=chosen.pairs == "own",
                captions=chosen.captions,
                attacks=attacks,
                kept=kept,
                store=chosen.store,
                on_run=_log,
            )
    except SageError as error:
        parser.error(str(error))
    about = {
        "command": "python -m sage_core.shapes.bench " + shlex.join(sys.argv[1:] if arguments is None else arguments),
        "device": device_name(device),
        "torch": torch.__version__,
        "pairs": size.pairs,
        "short": size.short,
        "pairs_from": chosen.pairs,
        **({"captions": chosen.captions} if chosen.pairs == "own" else {}),
        "precision": precision,
        "trial": vars(trial),
        "weights": world.weights,
    }
    if attacks is not None:
        about["attacks"] = asdict(attacks)
    save(chosen.output, runs, methods, about)
    return 0


def save(folder: Path, runs: list[Run], methods: Mapping[str, Tried], about: dict[str, Any]) -> None:
    """Write bench.json, bench.md, and tifa_by_type.png and spread_and_tifa.png of each task."""
    tables = {task: _table(runs, task) for task in dict.fromkeys(run.task for run in runs)}
    content = {
        "about": about,
        "methods": {name: method.about() for name, method in methods.items()},
        "runs": [run.to_dict() for run in runs],
        "tables": {task: table.to_dict() for task, table in tables.items()},
    }
    write_json(folder / "bench.json", content)
    trial = about["trial"]
    head = (
        f"`{about['command']}` on {about['device']}, torch {about['torch']}, {about['precision']}. For each row and "
        f"seed the reader read pictures of {trial['prompts']} general captions, drawn well and drawn badly, of "
        f"{trial['near']} near misses where the task has them, of {trial['near']} short prompts for what is one step "
        f"away from the concept, and of {trial['unsafe']} prompts of each kind that name it. Spread ratio and "
        "Jaccard are of the general captions' flattened embeddings."
    )
    if attacks := about.get("attacks"):
        head += (
            f" Adaptive attacks had {attacks['prompts']} prompts, {attacks['token_steps']} steps on "
            f"{attacks['tokens']} tokens, {attacks['steps']} on {attacks['vectors']} vectors (inversion: "
            f"{attacks['shared_vectors']}) by the embedding, and {attacks['unet_steps']} more through the U-Net. Two "
            "rows are their controls: the same on the base, and random starts. Where an attack fails on the base, its "
            "failure elsewhere says nothing."
        )
    parts = [head, *(f"## {task}\n\n{table.to_markdown()}" for task, table in tables.items())]
    write_text(folder / "bench.md", "\n\n".join(parts) + "\n")
    for task, table in tables.items():
        for name, figure in figures(table).items():
            with whole_file(folder / f"{task.replace(' ', '_')}_{name}.png") as temporary:
                figure.savefig(temporary, format="png")


def _table(runs: Sequence[Run], task: str) -> Table:
    own = [run for run in runs if run.task == task]
    seconds = {
        name: sum(times) / len(times)
        for name in dict.fromkeys(run.method for run in own)
        for times in [[run.make_seconds + run.try_seconds for run in own if run.method == name]]
    }
    return Table([(run.method, run.marks) for run in own], seconds)


def _log(run: Run) -> None:
    marks = run.marks
    hits = ", ".join(f"{kind} {found.k}/{found.n}" for kind, found in marks.attack.items())
    for kind, each in marks.adaptive.items():
        hits += f", attack by {kind} {each['attacked']['k']}/{each['attacked']['n']}"
    near = "" if marks.tifa_near is None else f", near {100 * marks.tifa_near:.1f}"
    space = "" if marks.jaccard is None else f", spread {marks.spread_ratio:.3f}, Jaccard {marks.jaccard:.3f}"
    logger.info(
        "%s, %s, seed %d: TIFA %.1f%s, hard %.1f; %s%s (%.1f + %.1f s)",
        run.task, run.method, run.seed, 100 * marks.tifa, near, 100 * marks.tifa_hard, hits, space,
        run.make_seconds, run.try_seconds,
    )  # fmt: skip
