"""`sage erase` and `sage edit`: a U-Net without a concept, in closed form; and what an edit of a U-Net changes."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError
from ..options import count
from . import common, training_inputs

if TYPE_CHECKING:
    from torch import Tensor

_ERASE = """
Erase a concept from a U-Net in closed form.

Takes seconds and no training: the matrices that read the prompt are solved for. CHECKPOINT is a .safetensors or .ckpt
file of SD 1.x, or a diffusers folder. OUT holds what is to be added to it: ComfyUI's Load LoRA applies it, with a
strength.

methods: uce, uce_paper, rece, mace (its closed-form part; needs --captions), speed, cure, oce

--concepts erases every name of each concept of a file, except those that are kept unseen; its `becomes` is the guide.

They read --guide and --keep. mace reads no --keep, and cure no --guide; oce reads --keep with a --keep-scale. mace, oce
and speed read --captions: hundreds of everyday prompts hold on to what you draw.

examples:
  sage erase sd15.safetensors --concept nudity --method rece --out no-nudity.safetensors
  sage erase sd15.safetensors --concept "Van Gogh" --guide art --keep styles.txt --out no-van-gogh.safetensors
  sage erase sd15.safetensors --concepts concepts.toml --out neither.safetensors
  sage erase sd15.safetensors --concept nudity --text-encoder sage.safetensors --out on-top-of-sage.safetensors
"""
_EDIT = """
Say what an edit of a U-Net changes.

FILE is what any erasing method publishes: a whole U-Net or checkpoint, a part of one, a diffusers folder, a LoRA, or a
file of changes. CHECKPOINT is what it was made from, or what it is to be used with.

examples:
  sage edit diffusers-nudity-ESDu1-UNET.pt --base sd14.ckpt
  sage edit uce-nudity.safetensors --base sd15.safetensors --out uce-nudity-lora.safetensors
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both commands to the parser."""
    erase = common.add_command(subparsers, "erase", run_erase, _ERASE)
    erase.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    what = erase.add_mutually_exclusive_group(required=True)
    what.add_argument("--concept", type=common.text, action="append", help="to erase; may be repeated")
    what.add_argument("--concepts", type=Path, metavar="FILE", help=common.CONCEPTS)
    erase.add_argument("--guide", type=common.text, action="append", help="what it becomes: one for all, or one each")
    erase.add_argument("--keep", type=Path, metavar="FILE", help="texts that are to keep their meaning")
    erase.add_argument("--captions", type=Path, metavar="FILE", help="everyday prompts, for mace, oce and speed")
    erase.add_argument("--method", default="uce", help="see above (default: uce)")
    erase.add_argument("--text-encoder", type=Path, metavar="FILE", help="instead of the checkpoint's own")
    erase.add_argument("--erase-scale", type=common.distance, help="how strongly (cure: alpha)")
    erase.add_argument("--hold", type=common.distance, help="how much the matrices stay (lam; speed: retain_scale)")
    erase.add_argument("--keep-scale", type=common.distance, help="weight of the texts in --keep")
    erase.add_argument("--rounds", type=count(1, 1000), help="of rece")
    erase.add_argument("--out", type=Path, required=True, metavar="OUT", help="the change (.safetensors)")
    common.add_results(erase)
    edit = common.add_command(subparsers, "edit", run_edit, _EDIT)
    edit.add_argument("file", type=Path, metavar="FILE")
    edit.add_argument("--base", type=Path, required=True, metavar="CHECKPOINT")
    edit.add_argument("--out", type=Path, metavar="OUT", help="save the change for LoRA loaders (.safetensors)")
    common.add_results(edit)
    common.add_quiet(edit)


def run_erase(options: argparse.Namespace) -> int:
    """The file of changes, and how well its equations were solved."""
    common.check_safetensors("--out", options.out)
    inputs = {"CHECKPOINT": options.checkpoint, "--keep": options.keep, "--captions": options.captions}
    inputs |= {"--text-encoder": options.text_encoder} | common.concept_inputs(options.concepts)
    common.check_outputs({"--out": options.out, "--report": options.report}, inputs)
    from ..encoders.text_encoder import TextEncoder
    from ..methods.closed_form import METHODS, settings_of
    from ..methods.concepts import Concepts
    from ..unet.changes import save_changes
    from ..unet.names import reads_prompt

    start = time.monotonic()
    knobs = {name: getattr(options, name) for name in ("erase_scale", "hold", "keep_scale", "rounds")}
    settings = settings_of(options.method, knobs)
    concepts = Concepts(
        *_texts(options),
        common.prompts(options.keep) if options.keep else (),
        common.prompts(options.captions) if options.captions else (),
    )
    unet = training_inputs.whole_unet(options.checkpoint)
    weights = {name: stored.load() for name, stored in unet.stored.items() if reads_prompt(name)}
    own = options.text_encoder or training_inputs.own_encoder(options.checkpoint)
    encoder = TextEncoder.from_state(common.read_state(own), copy=False)
    edit = METHODS[options.method].load()[1](weights, encoder, concepts, settings)
    save_changes(options.out, edit.deltas, edit.metadata(), config=unet.names.config)
    found: dict[str, Any] = {
        "out": common.path_text(options.out),
        "method": edit.method,
        "matrices": len(edit.deltas),
        "relative": edit.relative,
        "residual": edit.residual,
        "seconds": time.monotonic() - start,
        "settings": edit.settings,
        "notes": [*edit.notes, *METHODS[options.method].unread(concepts)],
    }
    lines = [
        f"{found['out']}: {edit.summary()}",
        *METHODS[options.method].unread(concepts),
        f"Settings: {edit.knobs()}.",
        f"{found['seconds']:.1f} s. ComfyUI's Load LoRA applies the file, at strength 1 as it was solved.",
    ]
    common.write(options, found, "\n".join(lines) + "\n")
    return 0


def _texts(options: argparse.Namespace) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is erased, and the guides."""
    from ..prompts.concepts import texts_to_erase

    if not options.concepts:
        return tuple(options.concept), tuple(options.guide or ("",))
    if options.guide:
        raise SettingsError("Guides come from --guide or from the field 'becomes' of --concepts; both are given.")
    return texts_to_erase(common.concepts(options.concepts))


def run_edit(options: argparse.Namespace) -> int:
    """The report of an edit, and the edit as a file of changes if asked for."""
    if options.out:
        common.check_safetensors("--out", options.out)
    common.check_outputs(
        {"--out": options.out, "--report": options.report}, {"FILE": options.file, "--base": options.base}
    )
    from ..unet.changes import changes, save_changes
    from ..unet.files import read_unet

    base = training_inputs.whole_unet(options.base)
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
