"""`sage-demo`: a real ComfyUI, three trainings and their pictures in a few minutes, without any download of weights.

The checkpoint is the shapes world's, a complete SD 1.x that draws coloured shapes; the concept to remove is "skull".
"""

from __future__ import annotations

import argparse
import errno
import importlib.metadata
import math
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..errors import SageError
from ..files import check_writable, write_text

if TYPE_CHECKING:
    from ..shapes.networks.checkpoint import ExpandedFiles
    from .comfyui.server import Server
    from .exam import Exam
    from .progress import Screen
    from .report import Results, Training
    from .scores import Scores

PACKAGE = "sage-alignment"
EXTRAS = ("comfyui", "demo")
# What is trained on, in ComfyUI's input folder.
PAIRS = "shapes_pairs.csv"
# Where the pack keeps trainings, in ComfyUI's base folder.
RUNS = "output/sage/runs"
# Bytes: the checkpoint, its text encoder, and three trained ones.
NEEDED_SPACE = 1200 * 2**20


@dataclass(frozen=True)
class Plan:
    """How much is trained and drawn.

    Attributes:
        pairs: prompt pairs to train on.
        steps, batch_size, learning_rate: of each training.
        safe: pictures of safe prompts that each encoder draws.
        seen, unseen: pictures of unsafe prompts that each encoder draws: those that call the concept by names that
            training saw, and those that call it by others.
        sampling_steps: of each picture.
    """

    pairs: int = 512
    steps: int = 40
    batch_size: int = 32
    learning_rate: float = 3e-4
    safe: int = 24
    seen: int = 18
    unseen: int = 18
    sampling_steps: int = 10


QUICK = Plan(pairs=128, steps=3, batch_size=24, safe=8, seen=6, unseen=4, sampling_steps=8)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo. Returns the exit code: 0, 1 for an error told in one line, 130 when stopped."""
    arguments = _parse(argv)
    if missing := _missing_packages():
        return _fail(f"not installed: {', '.join(missing)}. Run: pip install -e '.[demo]'")
    # So that a plain `kill` cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    from .progress import Screen

    try:
        with Screen() as screen:
            _demo(arguments, QUICK if arguments.quick else Plan(), screen)
    except KeyboardInterrupt:
        sys.stderr.write("Stopped. Nothing is left running.\n")
        return 130
    except SageError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail("The disk is full." if error.errno == errno.ENOSPC else str(error))
    return 0


def _demo(arguments: argparse.Namespace, plan: Plan, screen: Screen) -> None:
    from .comfyui.server import Server
    from .report import write_report

    start = time.monotonic()
    output = arguments.output.resolve()
    tree, files = _prepare(output, screen)
    models = {"checkpoints": [files.checkpoint], "text_encoders": [files.text_encoder]}
    with _base_folder(output, arguments.serve) as base:
        server = Server(tree, base, models=models, port=arguments.port, start_limit=300)
        with screen.stage("Start ComfyUI"):
            server.start()
        with server:
            screen.line(f"ComfyUI is up at {server.url}")
            results = _measure(server, plan, files, screen, start)
            summary = write_report(output, results)
            screen.line(f"\n{summary}\n\nEverything is in {output}; begin with report.html")
            if arguments.serve:
                _serve(server, plan, files, results, screen)


def _prepare(output: Path, screen: Screen) -> tuple[Path, ExpandedFiles]:
    """ComfyUI's folder and the shapes world's files, once there is room for all that will be written."""
    from ..shapes.networks.checkpoint import expand
    from .comfyui.provision import cache_folder, provision

    for folder in (output, cache_folder()):
        check_writable(folder / "everything", NEEDED_SPACE)
    with screen.stage("Get ComfyUI and expand the checkpoint"):
        return provision(screen.line), expand(cache_folder() / "shapes")


def _measure(server: Server, plan: Plan, files: ExpandedFiles, screen: Screen, start: float) -> Results:
    """Train, draw, score and compare; `start` is when the command began."""
    from .exam import Exam
    from .report import Results
    from .scores import compare_spaces, score_one

    exam = Exam.make(plan.safe, plan.seen, plan.unseen)
    trainings = _train(server, plan, files, screen)
    for name, each in trainings.items():
        screen.line(f"{name} was trained in {each.precision}")
    encoders = {name: each.file for name, each in trainings.items()}
    # ComfyUI never chooses bf16 on a CPU, not on one that computes in it natively.
    on_cpu = all(device["type"] == "cpu" for device in server.get("/system_stats")["devices"])
    compute = "bf16" if on_cpu and all(each.precision == "bf16" for each in trainings.values()) else "default"
    scores = _score(server, plan, files, exam, encoders, compute, screen)
    with screen.stage("Score one picture"):
        card = score_one(server, files, encoders["DES"], steps=plan.sampling_steps)
    with screen.stage("Compare the embedding spaces"):
        spaces = compare_spaces(server, files.text_encoder.name, encoders)
    seconds = {**screen.seconds, "All": time.monotonic() - start}
    about = {"plan": asdict(plan), "drawn_in": compute, "seconds": seconds, **server.get("/system_stats")}
    return Results(exam, scores, card, spaces, trainings, about)


def _train(server: Server, plan: Plan, files: ExpandedFiles, screen: Screen) -> dict[str, Training]:
    """Train each encoder on the shapes world; its training, by its name."""
    from safetensors import safe_open

    from ..plots import LIGHT, figure_to_image
    from ..rows import read_json
    from ..runs.curves import training_curves
    from ..runs.record import StepReport
    from ..shapes.captions import CONCEPT, matched_pairs
    from ..tables import csv_text
    from .graphs import ALIGNED, training_graph
    from .report import Training

    pairs = matched_pairs(plan.pairs, seed=1)
    rows = zip(pairs.safe, pairs.unsafe, strict=True)
    write_text(server.base / "input" / PAIRS, csv_text(["safe", "unsafe"], rows))
    settings = {"steps": plan.steps, "batch_size": plan.batch_size, "learning_rate": plan.learning_rate}
    graph = training_graph(files.text_encoder.name, PAIRS, CONCEPT, {**settings, "held_out": 32})
    nodes = {name: f"Train {name}" for name in ALIGNED}
    with screen.stage_per_node(dict.fromkeys(nodes.values(), 1)) as on_progress:
        outputs = server.run(graph, on_progress)
    runs = {run["metadata"].get("hash"): run for run in map(read_json, (server.base / RUNS).glob("*.json"))}
    trainings = {}
    for place, (name, node) in enumerate(nodes.items(), start=1):
        file = f"{graph[node]['inputs']['name']}.safetensors"
        with safe_open(server.base / "models" / "text_encoders" / file, "pt") as encoder:
            # Without the line that names the file, in a folder that will not last.
            report = "\n".join(line for line in outputs[node]["text"][0].split("\n") if file not in line)
            about = encoder.metadata()
        # The node's own picture, in the colour that the method has in all others.
        history = [StepReport.from_dict(row) for row in runs[about["hash"]]["history"]]
        curves = figure_to_image(training_curves(history, LIGHT.about(place)))
        trainings[name] = Training(file, curves, report, about)
    return trainings


def _score(
    server: Server, plan: Plan, files: ExpandedFiles, exam: Exam, encoders: dict[str, str], compute: str, screen: Screen
) -> Scores:
    """Run the shipped evaluation workflow on the shapes world."""
    from .scores import BATCH, DRAWING, ENCODERS, score_encoders

    drawn = dict(zip(DRAWING, (plan.safe, plan.seen + plan.unseen), strict=True))
    stages = {f"{name}: {part}": math.ceil(count / BATCH) for name in ENCODERS for part, count in drawn.items()}
    how: dict[str, Any] = {"steps": plan.sampling_steps, "compute": compute}
    with screen.stage_per_node(stages) as on_progress:
        return score_encoders(server, files, exam, encoders, on_progress=on_progress, **how)


@contextmanager
def _base_folder(output: Path, keep: bool) -> Iterator[Path]:
    """ComfyUI's base folder: temporary, unless --serve leaves ComfyUI up for someone to work in."""
    if keep:
        yield output / "comfyui"
        return
    base = Path(tempfile.mkdtemp(prefix=".comfyui-", dir=output))
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _serve(server: Server, plan: Plan, files: ExpandedFiles, results: Results, screen: Screen) -> None:
    from .serve import write_workflows

    written = write_workflows(
        server, files, results.exam, encoder=results.trainings["SAGE+"].file, sampling_steps=plan.sampling_steps
    )
    screen.end_bars()
    screen.line(
        f"\nComfyUI stays up at {server.url}: Workflows in its side bar (w) lists {len(written)} for the shapes world, "
        "ready to queue. Ctrl-C ends it."
    )
    while server.is_up():
        time.sleep(1)
    raise SageError(f"ComfyUI has ended:\n{server.log_tail()}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sage-demo", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--output", type=Path, default=Path("sage-demo-output"), metavar="DIR", help="for everything made (%(default)s)"
    )
    parser.add_argument("--port", type=_port, default=0, help="ComfyUI's port; any free one if not given")
    parser.add_argument("--serve", action="store_true", help="leave ComfyUI up afterwards, until Ctrl-C")
    parser.add_argument("--quick", action="store_true", help="a minute's run that shows the way, not the result")
    return parser.parse_args(argv)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; choose a number from 1 to 65535")
    return int(text)


def _missing_packages() -> list[str]:
    """Names of the extras' requirements that are not installed."""
    missing = []
    for requirement in importlib.metadata.requires(PACKAGE) or []:
        match = re.match(r"[\w.-]+", requirement)
        if match and any(f'extra == "{extra}"' in requirement.replace("'", '"') for extra in EXTRAS):
            try:
                importlib.metadata.version(match.group())
            except importlib.metadata.PackageNotFoundError:
                missing.append(match.group())
    return missing


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    # asyncio ends in order on SIGINT; an exception raised here could interrupt it anywhere.
    signal.raise_signal(signal.SIGINT)


def _fail(message: str) -> int:
    sys.stderr.write(f"sage-demo: {message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
