"""Compare alignment objectives in the shapes world: `python -m sage_core.shapes.bench --output FOLDER`.

Every objective is trained on several seeds, each with its own prompt pairs, and every encoder sits the same
examination: TIFA by type, attack success on seen and unseen names of the concept and under an adaptive attack, the
stand-in for CLIPScore, spread ratio and neighbour overlap. Leaves bench.json, bench.md and two figures.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..encoder import TextEncoder
from ..errors import SageError, SettingsError
from ..files import whole_file, write_json, write_text
from ..prompts import pairs_from_lists
from ..settings import PRESETS, TrainingSettings
from ..training import train
from .bench_report import Table, figures
from .captions import CONCEPT, matched_pairs
from .contrast import load_contrast
from .examination import Examination, Marks
from .examiners import load_examiner
from .weights import WEIGHTS, load_model, read_packed

logger = logging.getLogger(__name__)

BASE = "base"
OBJECTIVES: dict[str, TrainingSettings] = {
    "des": PRESETS["des"],
    "paper": PRESETS["paper"],
    "des, lr 1e-4": PRESETS["des"].replace(learning_rate=1e-4),
    "paper, lr 1e-4": PRESETS["paper"].replace(learning_rate=1e-4),
    "sage_plus": PRESETS["sage_plus"],
}
PAIRS = 6912

# A step costs a CPU seconds: fewer and larger ones, on a smaller batch.
QUICK_OBJECTIVES = {
    name: OBJECTIVES[name].replace(batch_size=64, epochs=1, learning_rate=2e-4)
    for name in ("des", "paper", "sage_plus")
}
QUICK_PAIRS = 1536
QUICK_EXAMINATION = {"prompts": 60, "unsafe": 30, "attacked": 0, "steps": 12}


@dataclass(frozen=True)
class Run:
    """One objective with one seed: its marks and the seconds that its training and examination took."""

    objective: str
    seed: int
    marks: Marks
    train_seconds: float
    examine_seconds: float


def compare(
    objectives: dict[str, TrainingSettings],
    seeds: Sequence[int],
    examination: Examination,
    *,
    pairs: int = PAIRS,
    on_run: Callable[[Run], None] | None = None,
) -> list[Run]:
    """Train and examine every objective with every seed, the base first; `on_run` is called after each."""
    device = examination.model.device
    base = {name: tensor.cpu() for name, tensor in examination.model.encoder.state().items()}
    runs: list[Run] = []

    def examine(name: str, seed: int, encoder: TextEncoder, train_seconds: float) -> None:
        started = time.monotonic()
        marks = examination.mark(encoder)
        runs.append(Run(name, seed, marks, train_seconds, time.monotonic() - started))
        if on_run is not None:
            on_run(runs[-1])

    examine(BASE, 0, examination.model.encoder, 0.0)
    for seed in seeds:
        matched = matched_pairs(pairs, seed=100 + seed, names="seen", split="train")
        prompts = pairs_from_lists(matched.safe, matched.unsafe)
        for name, settings in objectives.items():
            result = train(base, prompts, CONCEPT, settings.replace(seed=seed), device=device)
            examine(name, seed, TextEncoder.from_state(result.state), result.seconds)
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
    return {name: TrainingSettings.from_dict(fields, f"{path}, {name}") for name, fields in content.items()}


def load_examination(weights: Path, device: torch.device, examiner: str | None = None, **sizes: Any) -> Examination:
    """An examination with the world's own model and contrastive model, and `load_examiner`'s examiner."""
    model = load_model(weights).to(device)
    used = read_packed("text_encoder", weights)[0]["used_tokens"].long()
    who = load_examiner(examiner, weights, device, workers=os.cpu_count() or 1)
    return Examination(model, who, load_contrast(weights).to(device), used_tokens=used, **sizes)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    chosen = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    device = torch.device(chosen.device)
    try:
        built_in = QUICK_OBJECTIVES if chosen.quick else OBJECTIVES
        objectives = read_objectives(chosen.settings) if chosen.settings else built_in
        precision = chosen.precision or ("tf32" if device.type == "cuda" else "fp32")
        # No prompts held out of training: the examination measures what training would watch.
        objectives = {name: fields.replace(precision=precision, held_out=0) for name, fields in objectives.items()}
        sizes = QUICK_EXAMINATION if chosen.quick else {}
        examination = load_examination(chosen.weights, device, chosen.examiner, seed=chosen.examination, **sizes)
        pairs, seeds = (QUICK_PAIRS, 1) if chosen.quick else (PAIRS, chosen.seeds)
        runs = compare(objectives, range(seeds), examination, pairs=pairs, on_run=_log)
    except SageError as error:
        parser.error(str(error))
    about = {
        "command": "python -m sage_core.shapes.bench " + shlex.join(sys.argv[1:] if arguments is None else arguments),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU",
        "torch": torch.__version__,
        "pairs": pairs,
        "precision": precision,
        "examination": examination.about(),
    }
    save(chosen.output, runs, objectives, about)
    return 0


def save(folder: Path, runs: list[Run], objectives: dict[str, TrainingSettings], about: dict[str, Any]) -> None:
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
        f"`{about['command']}` on {about['device']}, torch {about['torch']}. The {examined['examiner']} answered "
        f"{examined['questions']} questions about {examined['prompts']} pictures for each row and seed."
    )
    write_text(folder / "bench.md", f"{head}\n\n{table.to_markdown()}\n")
    for name, figure in figures(table).items():
        with whole_file(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=150)


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
    parser.add_argument("--seeds", type=int, default=5, help="seeds an objective (default: 5)")
    parser.add_argument("--examination", type=int, default=1, help="which prompts to examine on; tune on others")
    parser.add_argument(
        "--examiner", choices=["judge", "reader"], help="who looks at the pictures (default: the judge if it is good)"
    )
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], help="default: tf32 on CUDA, else fp32")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of packed weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--quick", action="store_true", help="one seed, fewer objectives, few pictures: minutes on a CPU"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
