"""`sage edit`: what an edit of a U-Net changes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from . import common

if TYPE_CHECKING:
    from torch import Tensor

_TEXT = """
Say what an edit of a U-Net changes.

FILE is what any erasing method publishes: a whole U-Net or checkpoint, a part of one, a diffusers folder, a LoRA, or a
file of changes. CHECKPOINT is what it was made from, or what it is to be used with.

examples:
  sage edit diffusers-nudity-ESDu1-UNET.pt --base sd14.ckpt
  sage edit uce-nudity.safetensors --base sd15.safetensors --out uce-nudity-lora.safetensors
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    edit = common.add_command(subparsers, "edit", run, _TEXT)
    edit.add_argument("file", type=Path, metavar="FILE")
    edit.add_argument("--base", type=Path, required=True, metavar="CHECKPOINT")
    edit.add_argument("--out", type=Path, metavar="OUT", help="save the change for LoRA loaders (.safetensors)")
    common.add_results(edit)
    common.add_quiet(edit)


def run(options: argparse.Namespace) -> int:
    """The report of an edit, and the edit as a file of changes if asked for."""
    if options.out:
        common.check_safetensors("--out", options.out)
    common.check_outputs(
        {"--out": options.out, "--report": options.report}, {"FILE": options.file, "--base": options.base}
    )
    from ..drawing.models import whole_unet
    from ..unet.changes import changes, save_changes
    from ..unet.files import read_unet

    base = whole_unet(options.base)
    edit = read_unet(options.file, base.names.config)
    tensors: dict[str, Tensor] = {name: base.stored[name].load() for name in edit.stored}
    found = changes(edit, tensors, on_tensor=common.Bars(options.quiet)("comparing"))
    text = found.report.summary() + "\n"
    if options.out:
        metadata = {"sage_source": options.file.name, "sage_maker": found.report.maker}
        save_changes(options.out, found.deltas, metadata, config=base.names.config)
        text += f"Saved as {common.path_text(options.out)}.\n"
    common.write(options, found.report.to_dict(), text)
    return 0
