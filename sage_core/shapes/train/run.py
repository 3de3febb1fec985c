"""Train everything in the shapes world from nothing: `python -m sage_core.shapes.train --output FOLDER`.

It trains the autoencoder, its decoder once more, U-Net and text encoder together, the judge and the contrastive model;
then it quantises, packs and measures them. It takes as long as `--minutes` says. The folder of checkpoints holds what
finished phases made and the state of an unfinished one: `--resume` goes on from there.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...devices import choose_device, device_name
from ...errors import SageError, SettingsError
from ...files import check_writable, whole_file, write_json
from ...options import count, number
from ..captions import write_captions
from ..exam.examiners import JudgeExaminer, ReaderExaminer, judge_card
from ..networks.contrast import restore_contrast
from ..networks.judge import restore_judge
from ..networks.model import PICTURE_SIZE, ShapesModel
from ..networks.weights import pack, restore_model, save_packed, unpack, with_vocabulary
from ..render import render
from ..scenes import sample_scenes
from .examination import Examination
from .trainer import PARTS_OF, PHASES, TOY, Clock, State, Trainer, TrainSettings

logger = logging.getLogger(__name__)


def train(
    settings: TrainSettings,
    output: Path,
    *,
    checkpoints: Path,
    device: torch.device,
    minutes: float,
    started: float | None = None,
    until: str = "finish",
    keep: Sequence[str] = (),
    command: str = "",
    on_step: Callable[[str, int], None] | None = None,
) -> dict[str, Any]:
    """Do every phase up to `until` within `minutes`, and pack what there is into `output`; returns the report.

    Args:
        settings: sizes and seed.
        output: gets the packed weights, report.json and samples.png.
        checkpoints: gets what each phase made; phases found there are not done again.
        device: trains here.
        minutes: of wall clock since `started` (a `time.monotonic()`), shared out among the phases.
        started: when the command began; now if not given.
        until: the last phase to do; "finish" also quantises and measures.
        keep: phases whose weights in `output` are taken as they are; a file that needs no phase but these is not
            written again.
        command: what to record as the way to make these weights again, for each phase that it trained.
        on_step: called with (phase, step) after each step; what it raises ends the run, which can be resumed.
    """
    clock = Clock(minutes, time.monotonic() if started is None else started)
    _prefer_speed(device)
    trainer = Trainer(settings, checkpoints, device, command, on_step)
    trainer.keep(keep, output)
    _run_phases(trainer, clock, until)
    about = {
        "command": command,
        "seed": settings.seed,
        "device": device_name(device),
        "torch": torch.__version__,
        "phases": trainer.log,
    }
    states = trainer.states()
    made = {part: states[part] for phase in trainer.log for part in PARTS_OF[phase]}
    # Packed before they are measured: measuring is what a run out of time can do without.
    _save(output, made, about)
    if until == "finish":
        scores = _measure(states, settings, device, clock, packed_only=bool(keep))
        _save(output, made, about | scores)
        about |= scores | {"samples": save_samples(_model(_packed(states)).to(device), output / "samples.png")}
    write_json(output / "report.json", about)
    return about


def _prefer_speed(device: torch.device) -> None:
    """Let CUDA compute in tf32 and try which convolution is fastest."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True


def _run_phases(trainer: Trainer, clock: Clock, until: str) -> None:
    goals = [*PHASES, "finish"]
    goals = goals[: goals.index(until) + 1]
    trainer.prepare()
    try:
        for phase in PHASES:
            if phase in goals:
                trainer.run(phase, clock.share(phase, [goal for goal in goals if not trainer.is_done(goal)]))
    finally:
        trainer.close()


def _save(output: Path, states: dict[str, State], about: dict[str, Any]) -> None:
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
    for part, state in states.items():
        save_packed(output, part, state, {"format": "pt", **texts})


def _packed(states: dict[str, State]) -> dict[str, State]:
    """The states as they are after packing."""
    return {part: unpack(pack(state)) for part, state in states.items()}


def _model(states: dict[str, State]) -> ShapesModel:
    return restore_model(states["unet"], states["autoencoder"], with_vocabulary(states["text_encoder"]))


def _measure(
    states: dict[str, State], settings: TrainSettings, device: torch.device, clock: Clock, packed_only: bool
) -> dict[str, Any]:
    """Scores of the packed models and, unless `packed_only` or out of time, of the model before packing.

    By the reader, since the judge that was just trained has to prove itself first.
    """
    started = time.monotonic()
    packed = _packed(states)
    reader = ReaderExaminer(settings.workers)
    contrast = restore_contrast(packed["contrast"]).to(device)
    prompts = settings.evaluation_prompts
    asked = {"prompts": prompts, "unsafe": max(1, prompts // 4), "steps": settings.sampling_steps}
    examination = Examination(_model(packed).to(device), reader, contrast, **asked)
    report: dict[str, Any] = {"model": examination.mark()}
    logger.info("model, packed: %s", report["model"])
    judge = JudgeExaminer(restore_judge(packed["judge"]).to(device))
    report["judge"] = _judge_scores(judge, examination, settings)
    logger.info("judge, packed: %s", report["judge"])
    if not packed_only and clock.left() > 1.2 * (time.monotonic() - started):
        before = Examination(_model(states).to(device), reader, contrast, **asked)
        report["model_before_packing"] = before.mark()
        logger.info("model, before packing: %s", report["model_before_packing"])
    return report


def _judge_scores(judge: JudgeExaminer, examination: Examination, settings: TrainSettings) -> dict[str, Any]:
    """The judge's card, on a share of the examination's pictures, which are drawn again."""
    # Every so many-th, so that both splits are among them.
    some = slice(None, None, max(1, settings.evaluation_prompts // settings.evaluation_read))
    pictures = examination.draw(examination.captions[some])
    card = judge_card(
        judge,
        examination.examiner,
        examination.model.vae,
        pictures,
        examination.questions[some],
        pictures=settings.evaluation_pictures,
    )
    return card.to_dict()


def save_samples(model: ShapesModel, path: Path) -> list[str]:
    """Draw a sheet of 6 rows of 8 prompts, magnified twice: rows 1, 3 and 5 as the renderer draws their scenes.

    The prompts are safe ones of the training split, safe ones of held-out combinations, and unsafe ones.

    Returns:
        The prompts in order.
    """
    from PIL import Image

    prompts: list[str] = []
    rows: list[Tensor] = []
    for split, unsafe in (("train", False), ("held_out", False), ("any", True)):
        scenes = sample_scenes(8, seed=900_100, unsafe=unsafe, split=split)
        prompts += write_captions(scenes, seed=900_100, names="all")
        drawn = model.generate(prompts[-8:], seeds=range(8)).cpu()
        rows += [render(scenes, seed=900_100), drawn]
    sheet = torch.stack(rows).permute(0, 3, 1, 4, 2).reshape(6 * PICTURE_SIZE, 8 * PICTURE_SIZE, 3)
    picture = Image.fromarray((sheet * 255).round().to(torch.uint8).numpy())
    with whole_file(path) as temporary:
        picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST).save(temporary, "PNG")
    return prompts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the training that the command line asks for. Returns the exit code."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m sage_core.shapes.train", description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the packed weights and the report")
    parser.add_argument(
        "--checkpoints", type=Path, help="folder for the state of the run (default: OUTPUT/checkpoints)"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints instead of starting anew")
    parser.add_argument("--minutes", type=number, default=14.0, help="wall-clock time for this command (default: 14)")
    parser.add_argument("--until", choices=[*PHASES, "finish"], default="finish", help="the last phase to do")
    parser.add_argument(
        "--keep", nargs="*", choices=PHASES, default=[], help="phases whose weights in OUTPUT stay as they are"
    )
    parser.add_argument("--seed", type=count(0, 2**32 - 1), default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--toy", action="store_true", help="all phases at a size that takes a CPU seconds")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    checkpoints = chosen.checkpoints or chosen.output / "checkpoints"
    try:
        device = choose_device(chosen.device, field="--device")
        if chosen.minutes <= 0:
            raise SettingsError(f"--minutes is {chosen.minutes:g}; expected a number above 0.")
        check_writable(chosen.output / "report.json")
        check_writable(checkpoints / "run.pt")
        if not chosen.resume and any(checkpoints.glob("*.pt")):
            raise SettingsError(f"{checkpoints} holds an earlier run: go on with --resume, or name another folder.")
        train(
            replace(TOY if chosen.toy else TrainSettings(), seed=chosen.seed),
            chosen.output,
            checkpoints=checkpoints,
            device=device,
            minutes=chosen.minutes,
            started=started,
            until=chosen.until,
            keep=chosen.keep,
            command="python -m sage_core.shapes.train " + shlex.join(sys.argv[1:] if arguments is None else arguments),
        )
    except SageError as error:
        parser.error(str(error))
    return 0
