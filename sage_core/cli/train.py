"""`sage train`: make an aligned text encoder from a base and pairs of prompts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .. import plots
from ..alignment.settings import PRESETS
from . import common

if TYPE_CHECKING:
    import torch

_TEXT = """
Train a safe version of a text encoder.

--store keeps the run, named by its inputs. Give the command again to resume an interrupted run from its checkpoint;
a finished run is found instead of trained again.

BASE is a file or folder that holds an SD 1.x text encoder. PAIRS is a CSV, JSON or JSON Lines file with the columns
`safe` and `unsafe`, or a file of safe prompts to go with --unsafe or --from-concept.

--concepts removes several concepts at once. Its file has for each a name and, where wanted, more names, templates,
files of unsafe prompts, the text of its direction, and what it becomes. PAIRS then holds safe prompts, into which the
concepts are written, or the columns `safe`, `unsafe` and `concept`.

examples:
  sage train sd-v1-4.ckpt pairs.csv --concept nudity --out sage.safetensors
  sage train base.safetensors safe.txt --unsafe unsafe.txt --concept nudity --preset paper --out paper.safetensors
  sage train base.safetensors safe.txt --concepts concepts.toml --out both.safetensors
  sage train base.safetensors pairs.csv --concept nudity --set learning_rate=2e-4 --set epochs=4 --out mine.safetensors
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = common.add_command(subparsers, "train", run, _TEXT)
    command.add_argument("base", type=Path, metavar="BASE")
    command.add_argument("pairs", type=Path, metavar="PAIRS")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--concept", type=common.text, help="what is to be removed, in a word or two")
    what.add_argument("--concepts", type=Path, metavar="FILE", help=common.CONCEPTS)
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="the aligned encoder (.safetensors)")
    command.add_argument("--unsafe", type=Path, metavar="FILE", help="unsafe prompts; PAIRS then holds safe ones")
    command.add_argument("--from-concept", action="store_true", help="make the unsafe prompts: PAIRS with the concept")
    command.add_argument("--preset", choices=list(PRESETS), default="sage_plus", help="(default: %(default)s)")
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting of the preset; may repeat"
    )
    command.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    command.add_argument(
        "--fp16-base",
        action="store_true",
        help="round the base to fp16 first, as ComfyUI holds it: then the graph and this command give the same file",
    )
    command.add_argument("--store", type=Path, help="folder of runs (default: .sage-runs next to --out)")
    command.add_argument("--curves", type=Path, metavar="PNG", help="draw the losses")
    common.add_work(command)


def run(options: argparse.Namespace) -> int:
    """Write the aligned encoder, equal to what the graph's training saves for the same inputs."""
    common.check_safetensors("--out", options.out)
    common.check_outputs(
        {"--out": options.out, "--curves": options.curves, "--report": options.report},
        {"BASE": options.base, "PAIRS": options.pairs, "--unsafe": options.unsafe}
        | common.concept_inputs(options.concepts),
    )
    common.check_suffix("--curves", options.curves, ".png")
    from ..alignment.report import run_summary
    from ..alignment.training import train_stored
    from ..alignment.verdict import verdict_lines
    from ..encoders.layouts import EncoderConfig, require_sd1
    from ..encoders.text_encoder import save_encoder
    from ..runs.curves import training_curves

    device = common.device(options)
    settings = PRESETS[options.preset].replace(**{"seed": options.seed} | common.changes(options.set))
    concept = common.concepts(options.concepts) if options.concepts else options.concept
    pairs = common.pairs_of(options.pairs, options.unsafe, options.from_concept, concept)
    common.say(pairs.report.summary())
    base = common.read_state(options.base)
    require_sd1(EncoderConfig.of(base), str(options.base))
    if options.fp16_base:
        base = {name: tensor.half().float() for name, tensor in base.items()}
    bars = common.Bars(options.quiet)
    result, found = train_stored(
        base,
        pairs,
        concept,
        settings,
        options.store or options.out.parent / ".sage-runs",
        device=device,
        free_memory=_free_memory(device),
        on_plan=lambda plan: common.say(f"Training takes {plan.summary()}, on {device}."),
        on_prepare=bars("embedding prompts"),
        on_begin=bars("training"),
        on_step=lambda report: bars("training")(report.step, report.steps),
    )
    save_encoder(options.out, result.state, result.metadata)
    if options.curves:
        plots.save_figure(options.curves, training_curves(result.history))
    out = common.path_text(options.out)
    verdict = verdict_lines(base, result.state, pairs, concept, device=device, on_batch=bars("looking at the result"))
    first, rest = run_summary(result, out, found=found, pairs=len(pairs)).split("\n", 1)
    text = "\n".join([first, *verdict, rest])
    common.write(options, result.to_dict() | {"out": out, "found": found, "verdict": verdict}, text + "\n")
    return 0


def _free_memory(device: torch.device) -> int | None:
    """Bytes that a training may take, or None if the device does not say what is free."""
    import torch

    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
