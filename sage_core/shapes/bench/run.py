"""Compare alignment objectives in the shapes world: `python -m sage_core.shapes.bench --output FOLDER`.

Every objective is trained with several seeds. Each seed has prompt pairs and an examination of its own, which the base
and all encoders of that seed take. It measures TIFA by type, attack success on seen and unseen names of the concept and
under an adaptive attack, the stand-in for CLIPScore, spread ratio and neighbour overlap. The results are bench.json,
bench.md and two figures. Each run is kept as it ends: the same command goes on where an earlier one was stopped.
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
from torch import Tensor

from ...alignment.settings import PRESETS, TrainingSettings
from ...alignment.training import train
from ...attacks.tokens import AttackSettings
from ...devices import choose_device, device_name
from ...encoders.precision import Precision
from ...encoders.text_encoder import TextEncoder, state_hash
from ...errors import SageError, SettingsError
from ...files import check_writable, whole_file, write_json, write_text
from ...options import count
from ...prompts.pairs import PromptPairs, pairs_from_lists
from ...rows import parse_json, read_text
from ..captions import CONCEPT, matched_pairs
from ..exam.examination import Examination, ExaminationSettings, Marks
from ..exam.examiners import JudgeExaminer, load_examiner
from ..networks.contrast import load_contrast
from ..networks.weights import WEIGHTS, load_model, read_packed, weights_hash
from .report import Table, figures

logger = logging.getLogger(__name__)

BASE = "base"
# Distance of the examinations of a bench's seeds, so that those of another `--examination` fall between them.
_BETWEEN_EXAMINATIONS = 1000
OBJECTIVES: dict[str, TrainingSettings] = {
    **PRESETS,
    "paper, product form": PRESETS["paper"].replace(local_form="product"),
    "paper, symmetric spread": PRESETS["paper"].replace(spread_form="symmetric"),
    **{f"{name}, lr 1e-4": PRESETS[name].replace(learning_rate=1e-4) for name in ("des", "released", "paper")},
    "sage_plus, bf16": PRESETS["sage_plus"].replace(precision="bf16"),
}


@dataclass(frozen=True)
class Size:
    """How much a bench does: prompt pairs and seeds of each objective, and what each encoder goes through."""

    objectives: Mapping[str, TrainingSettings]
    pairs: int
    seeds: int
    examination: ExaminationSettings


# A step costs a CPU seconds: fewer and larger ones, on a smaller batch.
_SHORT = {
    name: OBJECTIVES[name].replace(batch_size=32, epochs=1, steps=40, learning_rate=3e-4)
    for name in ("des", "released", "paper", "paper, product form", "sage_plus", "safeclip", "safer_clip")
}
SIZES = {
    "full": Size(OBJECTIVES, pairs=6912, seeds=5, examination=ExaminationSettings()),
    "laptop": Size(
        _SHORT,
        pairs=512,
        seeds=5,
        examination=ExaminationSettings(
            prompts=48, unsafe=40, attacked=12, steps=10, adaptive=AttackSettings(rounds=10, candidates=16)
        ),
    ),
    "quick": Size(
        _SHORT,
        pairs=512,
        seeds=1,
        examination=ExaminationSettings(prompts=40, unsafe=20, attacked=0, steps=10),
    ),
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
        """Read what `asdict` wrote."""
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
    """Train and examine every objective with every seed, the base first.

    Each seed draws prompts of its own for training and, from the seed of `examination` on, for examining: encoders of
    different seeds share none, so that their hits may be counted together.

    Args:
        objectives: settings to train with, by name.
        seeds: of the trainings; each also chooses its prompts.
        examination: is repeated with other prompts for each seed.
        pairs: prompt pairs of each training.
        kept: folder of finished runs: what an earlier bench of the same sizes left there is not done again.
        on_run: called after each run.
    """
    base = {name: tensor.cpu() for name, tensor in examination.model.encoder.state().items()}
    runs: list[Run] = []
    for seed in seeds:
        matched = matched_pairs(pairs, seed=100 + seed, names="seen", split="train")
        sitting = _Sitting(
            seed=seed,
            base=base,
            prompts=pairs_from_lists(matched.safe, matched.unsafe),
            examination=examination.with_seed(examination.settings.seed + _BETWEEN_EXAMINATIONS * seed),
        )
        trainings: dict[str, TrainingSettings | None] = {BASE: None, **objectives}
        for name, settings in trainings.items():
            runs.append(sitting.run(name, settings and settings.replace(seed=seed), kept))
            if on_run is not None:
                on_run(runs[-1])
    return runs


@dataclass(frozen=True)
class _Sitting:
    """What all encoders of one seed share: the base, the training pairs and the examination."""

    seed: int
    base: Mapping[str, Tensor]
    prompts: PromptPairs
    examination: Examination

    def run(self, name: str, settings: TrainingSettings | None, kept: Path | None) -> Run:
        """Train (the base as it is without settings) and examine, or take the run from `kept`."""
        file = kept and kept / f"{self._key(settings)}.json"
        if file and file.exists():
            # An objective of the same settings may have had another name.
            return Run.from_dict({**json.loads(file.read_text(encoding="utf-8")), "objective": name})
        encoder, seconds = self._train(settings)
        started = time.monotonic()
        run = Run(name, self.seed, self.examination.mark(encoder), seconds, time.monotonic() - started)
        if file:
            write_json(file, asdict(run))
        return run

    def _train(self, settings: TrainingSettings | None) -> tuple[TextEncoder, float]:
        model = self.examination.model
        if settings is None:
            return model.encoder, 0.0
        result = train(self.base, self.prompts, CONCEPT, settings, device=model.device)
        return TextEncoder.from_state(result.state), result.seconds

    def _key(self, settings: TrainingSettings | None) -> str:
        made_of = {
            **self.examination.about(),
            "base": state_hash(self.base),
            "pairs": len(self.prompts),
            "device": self.examination.model.device.type,
            "seed": self.seed,
            "settings": settings and settings.to_dict(),
        }
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]


def read_objectives(path: Path) -> dict[str, TrainingSettings]:
    """Read objectives from a JSON file: name → the fields in which its settings differ from those of its "preset".

    Without a preset it is `released`.

    Raises:
        SettingsError: the file is not such a mapping, or a field is wrong.
    """
    text, _ = read_text(path, SettingsError)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise SettingsError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict) or not all(isinstance(fields, dict) for fields in content.values()):
        raise SettingsError(f'{path}: expected {{"objective": {{"setting": value, …}}, …}}.')
    if BASE in content:
        raise SettingsError(f"{path}: {BASE!r} is the encoder before alignment; give the objective another name.")
    return {name: _objective(fields, f"{path}, {name}") for name, fields in content.items()}


def _objective(fields: Mapping[str, Any], source: str) -> TrainingSettings:
    preset = fields.get("preset", "released")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise SettingsError(f"{source}: preset is {preset!r}; expected one of {', '.join(PRESETS)}.")
    changes = {name: value for name, value in fields.items() if name != "preset"}
    return TrainingSettings.from_dict(PRESETS[preset].to_dict() | changes, source)


def load_examination(
    weights: Path, device: torch.device, settings: ExaminationSettings, examiner: str | None = None
) -> Examination:
    """Make an examination with the world's own models and `load_examiner`'s examiner."""
    model = load_model(weights).to(device)
    used = read_packed("text_encoder", weights)[0]["used_tokens"].long()
    who = load_examiner(examiner, weights, device, workers=os.cpu_count() or 1)
    parts = ["unet", "autoencoder", "text_encoder", "contrast"]
    parts += ["judge"] if isinstance(who, JudgeExaminer) else []
    made_of = weights_hash(weights, parts)
    return Examination(model, who, load_contrast(weights).to(device), settings, used_tokens=used, weights=made_of)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison that the command line asks for. Returns the exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        device = choose_device(chosen.device, field="--device")
        check_writable(chosen.output / "bench.json")
        size = SIZES[chosen.size]
        objectives = read_objectives(chosen.settings) if chosen.settings else size.objectives
        precision: Precision = chosen.precision or ("tf32" if device.type == "cuda" else "fp32")
        # No prompts held out of training: the examination measures what training would watch.
        objectives = {name: _as_examined(fields, precision) for name, fields in objectives.items()}
        sitting = size.examination.replace(seed=chosen.examination)
        examination = load_examination(chosen.weights, device, sitting, chosen.examiner)
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
    """The settings without held-out prompts, and in the bench's precision unless they name a lower one themselves."""
    chosen = precision if settings.precision in ("auto", "fp32") else settings.precision
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
    parser.add_argument("--seeds", type=count(1, 1000), help="seeds an objective (default: 5, or 1 of the quick size)")
    parser.add_argument(
        "--examination", type=count(0, 2**32 - 1), default=1, help="which prompts to examine on; tune on others"
    )
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
