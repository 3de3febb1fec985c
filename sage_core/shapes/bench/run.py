"""Compare alignment objectives in the shapes world: `python -m sage_core.shapes.bench --output FOLDER`.

Every objective is trained on several seeds, each with prompt pairs and an examination of its own, which the base and
all encoders of that seed sit: TIFA by type, attack success on seen and unseen names of the concept and under an
adaptive attack, the stand-in for CLIPScore, spread ratio and neighbour overlap. Leaves bench.json, bench.md and two
figures. Each run is kept as it ends: the same command goes on where an earlier one was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ...alignment.settings import PRESETS, TrainingSettings
from ...alignment.training import train
from ...attacks.tokens import AttackSettings
from ...devices import device_name
from ...encoders.precision import Precision
from ...encoders.text_encoder import TextEncoder, state_hash
from ...errors import SageError, SettingsError
from ...files import whole_file, write_json, write_text
from ...prompts.pairs import PromptPairs, pairs_from_lists
from ..captions import CONCEPT, matched_pairs
from ..exam.examination import Examination, Marks
from ..exam.examiners import JudgeExaminer, load_examiner
from ..networks.contrast import load_contrast
from ..networks.weights import WEIGHTS, load_model, read_packed, weights_hash
from .report import Table, figures

logger = logging.getLogger(__name__)

BASE = "base"
# The examinations of one bench's seeds are this far apart, so that those of another `--examination` fall between them.
_BETWEEN_EXAMINATIONS = 1000
OBJECTIVES: dict[str, TrainingSettings] = {
    "des": PRESETS["des"],
    "paper": PRESETS["paper"],
    "des, lr 1e-4": PRESETS["des"].replace(learning_rate=1e-4),
    "paper, lr 1e-4": PRESETS["paper"].replace(learning_rate=1e-4),
    "sage_plus": PRESETS["sage_plus"],
    "sage_plus, bf16": PRESETS["sage_plus"].replace(precision="bf16"),
}


@dataclass(frozen=True)
class Size:
    """How much a bench does: prompt pairs and seeds of each objective, and the sizes of an Examination."""

    objectives: Mapping[str, TrainingSettings]
    pairs: int
    seeds: int
    examination: Mapping[str, Any]


# A step costs a CPU seconds: fewer and larger ones, on a smaller batch.
_SHORT = {
    name: OBJECTIVES[name].replace(batch_size=32, epochs=1, steps=40, learning_rate=3e-4)
    for name in ("des", "paper", "sage_plus")
}
SIZES = {
    "full": Size(OBJECTIVES, pairs=6912, seeds=5, examination={}),
    "laptop": Size(
        _SHORT,
        pairs=512,
        seeds=5,
        examination={
            "prompts": 48,
            "unsafe": 40,
            "attacked": 12,
            "steps": 10,
            "adaptive": AttackSettings(rounds=10, candidates=16),
        },
    ),
    "quick": Size(_SHORT, pairs=512, seeds=1, examination={"prompts": 40, "unsafe": 20, "attacked": 0, "steps": 10}),
}


@dataclass(frozen=True)
class Run:
    """One objective with one seed: its marks and the seconds that its training and examination took."""

    objective: str
    seed: int
    marks: Marks
    train_seconds: float
    examine_seconds: float

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Run:
        """From what `asdict` made of it."""
        return cls(**{**values, "marks": Marks.from_dict(values["marks"])})


def compare(
    objectives: Mapping[str, TrainingSettings],
    seeds: Sequence[int],
    examination: Examination,
    *,
    pairs: int,
    kept: Path | None = None,
    on_run: Callable[[Run], None] | None = None,
) -> list[Run]:
    """Train and examine every objective with every seed, the base first; `on_run` is called after each.

    Each seed draws prompts of its own for training and, from the seed of `examination` on, for examining: encoders of
    different seeds share none, so that their hits may be counted together.
    `kept` is a folder of runs: what an earlier bench of the same sizes left there is not done again.
    """
    device = examination.model.device
    base = {name: tensor.cpu() for name, tensor in examination.model.encoder.state().items()}
    runs: list[Run] = []

    def run(
        name: str, seed: int, examination: Examination, prompts: PromptPairs, settings: TrainingSettings | None
    ) -> None:
        about = {**examination.about(), "base": state_hash(base), "pairs": pairs, "device": device.type}
        made_of = json.dumps({**about, "seed": seed, "settings": settings and settings.to_dict()}, sort_keys=True)
        file = kept and kept / f"{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.json"
        if file and file.exists():
            runs.append(Run.from_dict({**json.loads(file.read_text(encoding="utf-8")), "objective": name}))
        else:
            encoder, seconds = examination.model.encoder, 0.0
            if settings:
                result = train(base, prompts, CONCEPT, settings, device=device)
                encoder, seconds = TextEncoder.from_state(result.state), result.seconds
            started = time.monotonic()
            runs.append(Run(name, seed, examination.mark(encoder), seconds, time.monotonic() - started))
            if file:
                write_json(file, asdict(runs[-1]))
        if on_run is not None:
            on_run(runs[-1])

    for seed in seeds:
        matched = matched_pairs(pairs, seed=100 + seed, names="seen", split="train")
        prompts = pairs_from_lists(matched.safe, matched.unsafe)
        examined = examination.with_seed(examination.seed + _BETWEEN_EXAMINATIONS * seed)
        run(BASE, seed, examined, prompts, None)
        for name, settings in objectives.items():
            run(name, seed, examined, prompts, settings.replace(seed=seed))
    return runs


def read_objectives(path: Path) -> dict[str, TrainingSettings]:
    """Objectives from a JSON file: name → the fields in which its settings differ from the paper's.

    Raises:
        SettingsError: the file is not such a mapping, or a field is wrong.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict) or not all(isinstance(fields, dict) for fields in content.values()):
        raise SettingsError(f'{path}: expected {{"objective": {{"setting": value, …}}, …}}.')
    if BASE in content:
        raise SettingsError(f"{path}: {BASE!r} is the encoder before alignment; give the objective another name.")
    return {name: TrainingSettings.from_dict(fields, f"{path}, {name}") for name, fields in content.items()}


def load_examination(weights: Path, device: torch.device, examiner: str | None = None, **sizes: Any) -> Examination:
    """An examination with the world's own model and contrastive model, and `load_examiner`'s examiner."""
    model = load_model(weights).to(device)
    used = read_packed("text_encoder", weights)[0]["used_tokens"].long()
    who = load_examiner(examiner, weights, device, workers=os.cpu_count() or 1)
    parts = ["unet", "autoencoder", "text_encoder", "contrast"]
    parts += ["judge"] if isinstance(who, JudgeExaminer) else []
    made_of = weights_hash(weights, parts)
    return Examination(model, who, load_contrast(weights).to(device), used_tokens=used, weights=made_of, **sizes)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    chosen = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    device = torch.device(chosen.device)
    try:
        size = SIZES[chosen.size]
        objectives = read_objectives(chosen.settings) if chosen.settings else size.objectives
        precision: Precision = chosen.precision or ("tf32" if device.type == "cuda" else "fp32")
        # No prompts held out of training: the examination measures what training would watch.
        objectives = {name: _as_examined(fields, precision) for name, fields in objectives.items()}
        examination = load_examination(
            chosen.weights, device, chosen.examiner, seed=chosen.examination, **size.examination
        )
        seeds = range(chosen.seeds or size.seeds)
        runs = compare(objectives, seeds, examination, pairs=size.pairs, kept=chosen.output / "runs", on_run=_log)
    except SageError as error:
        parser.error(str(error))
    about = {
        "command": "python -m sage_core.shapes.bench " + shlex.join(sys.argv[1:] if arguments is None else arguments),
        "device": device_name(device),
        "torch": torch.__version__,
        "pairs": size.pairs,
        "precision": precision,
        "examination": examination.about(),
    }
    save(chosen.output, runs, objectives, about)
    return 0


def _as_examined(settings: TrainingSettings, precision: Precision) -> TrainingSettings:
    """Settings without prompts held out, and in the bench's precision unless they name a lower one themselves."""
    chosen = precision if settings.precision == "fp32" else settings.precision
    return settings.replace(precision=chosen, held_out=0)


def save(folder: Path, runs: list[Run], objectives: Mapping[str, TrainingSettings], about: dict[str, Any]) -> None:
    """Write bench.json, bench.md, tifa_by_type.png and spread_and_tifa.png."""
    table = Table([(run.objective, run.marks) for run in runs], _seconds(runs))
    content = {
        "about": about,
        "objectives": {name: settings.to_dict() for name, settings in objectives.items()},
        "runs": [asdict(run) for run in runs],
        "table": table.to_dict(),
    }
    write_json(folder / "bench.json", content)
    examined = about["examination"]
    head = (
        f"`{about['command']}` on {about['device']}, torch {about['torch']}. For each row and seed the "
        f"{examined['examiner']} answered some {examined['questions']:,} questions about {examined['prompts']} "
        f"pictures; spread ratio and Jaccard are of {examined['geometry']}."
    )
    write_text(folder / "bench.md", f"{head}\n\n{table.to_markdown()}\n")
    for name, figure in figures(table).items():
        with whole_file(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")


def _seconds(runs: list[Run]) -> dict[str, float]:
    names = dict.fromkeys(run.objective for run in runs)
    return {
        name: sum(times) / len(times)
        for name in names
        for times in [[run.train_seconds + run.examine_seconds for run in runs if run.objective == name]]
    }


def _log(run: Run) -> None:
    marks = run.marks
    attack = ", ".join(f"{kind} {100 * hits.share:.1f}" for kind, hits in marks.attack.items())
    logger.info(
        "%s, seed %d: TIFA %.2f, attack success %% %s, similarity %.3f, spread %.3f, Jaccard %.3f (%.1f + %.1f s)",
        run.objective, run.seed, 100 * marks.tifa, attack, marks.similarity, marks.spread_ratio, marks.jaccard,
        run.train_seconds, run.examine_seconds,
    )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sage_core.shapes.bench", description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for bench.json, bench.md and the figures")
    parser.add_argument("--settings", type=Path, help="JSON file of objectives instead of the built-in ones")
    parser.add_argument(
        "--size",
        choices=SIZES,
        default="full",
        help="full for a GPU (default); laptop: short trainings, fewer pictures, an hour on two cores; quick: one seed "
        "of that without the attack",
    )
    parser.add_argument("--quick", action="store_const", const="quick", dest="size", help="the same as --size quick")
    parser.add_argument("--seeds", type=int, help="seeds an objective (default: 5, or 1 of the quick size)")
    parser.add_argument("--examination", type=int, default=1, help="which prompts to examine on; tune on others")
    parser.add_argument(
        "--examiner", choices=["judge", "reader"], help="who looks at the pictures (default: the judge if it is good)"
    )
    parser.add_argument(
        "--precision",
        choices=["fp32", "tf32", "bf16"],
        help="of objectives that name none lower (default: tf32 on CUDA, else fp32)",
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of packed weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser
