"""`sage redirect`: train a U-Net by prompt pairs, to draw the safe prompt where the unsafe one is asked for."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import plots
from ..errors import SettingsError
from ..options import count
from ..settings import settings_from
from . import common, training_inputs

if TYPE_CHECKING:
    import torch

    from ..methods.redirecting import RedirectingSettings
    from ..unet.training import EditResult

_TEXT = """
Train a U-Net to draw the safe prompt of a pair where the unsafe one is asked for.

A text encoder alone cannot keep out embeddings that stand for no word; this U-Net goes behind an aligned one, or alone.
The pairs decide what goes: where their two sides differ. CHECKPOINT is a .safetensors or .ckpt file of SD 1.x, or a
diffusers folder. OUT holds what is to be added to it: ComfyUI's Load LoRA applies it, with a strength.

--pairs is a CSV, JSON or JSON Lines file with the columns `safe` and `unsafe`, or a file of safe prompts to go with
--unsafe, --from-concept or --concepts, as `sage train` takes them. Pairs that refer to minors are left out.

--text-encoder is the one that reads the pairs; not an aligned one, to which both prompts of a pair are the same.

--store keeps the run, named by its inputs. Give the command again to resume an interrupted run from its checkpoint;
a finished run is found instead of trained again.

The defaults were not measured on SD 1.x weights: draw with the result, and count, before you rely on it.

examples:
  sage redirect sd15.safetensors --pairs pairs.csv --concept nudity --out redirected.safetensors
  sage redirect sd15.safetensors --pairs safe.txt --concepts concepts.toml --out both.safetensors
  sage redirect sd15.safetensors --pairs pairs.csv --set strength=0.5 --precision bf16 --out mine.safetensors
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = common.add_command(subparsers, "redirect", run, _TEXT)
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    command.add_argument("--pairs", type=Path, required=True, metavar="FILE", help="pairs, or safe prompts")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--concept", type=common.text, help="its name in reports, and for --from-concept")
    what.add_argument("--concepts", type=Path, metavar="FILE", help=common.CONCEPTS)
    command.add_argument("--out", type=Path, required=True, metavar="OUT", help="the change (.safetensors)")
    command.add_argument("--unsafe", type=Path, metavar="FILE", help="unsafe prompts; --pairs then holds safe ones")
    command.add_argument("--from-concept", action="store_true", help="make the unsafe prompts: --pairs with --concept")
    command.add_argument("--text-encoder", type=Path, metavar="FILE", help="instead of the checkpoint's own")
    command.add_argument("--size", type=count(8, 2048), default=512, help="of pictures, in pixels (default: 512)")
    command.add_argument("--steps", type=count(1, 1_000_000), help="of training")
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting; may repeat"
    )
    command.add_argument("--seed", type=count(0, 2**32 - 1), default=0, help="(default: %(default)s)")
    command.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="what the U-Net computes in (default: bf16 on a GPU that does so natively, else fp32)",
    )
    command.add_argument("--store", type=Path, help="folder of runs (default: .sage-runs next to --out)")
    command.add_argument("--curves", type=Path, metavar="PNG", help="draw the losses")
    common.add_work(command)


def run(options: argparse.Namespace) -> int:
    """Write the change of the U-Net, and how the training went."""
    common.check_safetensors("--out", options.out)
    inputs = {"CHECKPOINT": options.checkpoint, "--pairs": options.pairs, "--unsafe": options.unsafe}
    inputs |= {"--text-encoder": options.text_encoder} | common.concept_inputs(options.concepts)
    common.check_outputs({"--out": options.out, "--curves": options.curves, "--report": options.report}, inputs)
    common.check_png("--curves", options.curves)
    if options.from_concept and not options.concept:
        raise SettingsError("--from-concept needs --concept, the words that are written into the safe prompts.")
    from ..runs.curves import training_curves
    from ..unet.changes import save_changes

    result, config = _trained(options)
    metadata = {"sage_method": result.metadata["method"], **result.metadata}
    save_changes(options.out, result.deltas, metadata, config=config)
    if options.curves:
        plots.save_figure(options.curves, training_curves(result.history))
    out = common.path_text(options.out)
    found: dict[str, Any] = {
        "out": out,
        "found": result.found,
        "tensors": len(result.deltas),
        "metadata": result.metadata,
        "history": [asdict(step) for step in result.history],
    }
    text = f"{result.summary()}\n{out}: ComfyUI's Load LoRA applies the file, at strength 1 as it was trained.\n"
    common.write(options, found, text)
    return 0


def _trained(options: argparse.Namespace) -> tuple[EditResult, Any]:
    """The training's result, and the U-Net's sizes."""
    from ..encoders.text_encoder import TextEncoder
    from ..methods.redirecting import drawable, train_redirection
    from ..unet.training import UnetRun

    settings, device = _settings(options), common.device(options)
    concept = common.concepts(options.concepts) if options.concepts else options.concept or ""
    pairs = drawable(training_inputs.pairs_of(options.pairs, options.unsafe, options.from_concept, concept))
    common.say(pairs.report.summary())
    unet = training_inputs.whole_unet(options.checkpoint)
    own = training_inputs.own_encoder(options.checkpoint)
    encoder = TextEncoder.from_state(common.read_state(options.text_encoder or own), copy=False).to(device)
    bars = common.Bars(options.quiet)
    result = train_redirection(
        UnetRun(
            {name: value for name, _, value in unet.tensors()},
            options.size,
            device,
            _dtype(options.precision, device),
            on_step=lambda report: bars("training")(report.step, report.steps),
        ),
        encoder.requires_grad_(False),
        pairs,
        settings,
        options.store or options.out.parent / ".sage-runs",
        title=options.concept or "",
        on_draw=bars("drawing pictures"),
    )
    return result, unet.names.config


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    import torch

    from ..encoders.precision import choose_precision

    if precision == "auto":
        # A CPU is timed for this, and might give another answer when an interrupted run is to be found.
        precision = choose_precision("auto", device) if device.type == "cuda" else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _settings(options: argparse.Namespace) -> RedirectingSettings:
    """The defaults with --seed, --steps and --set; raises SettingsError for what is no setting, or of another type."""
    from ..methods.redirecting import RedirectingSettings

    changed = training_inputs.changes(options.set)
    for name in ("seed", "steps") if options.steps else ("seed",):
        if name in changed:
            raise SettingsError(f"{name} comes from --{name}; leave it out of --set.")
    given = {"seed": options.seed} | ({"steps": options.steps} if options.steps else {})
    return settings_from(RedirectingSettings, given | changed, "--set")
