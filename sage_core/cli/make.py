"""`sage make`, `erase` and `redirect`: what makes a model forget, made by any method and saved as one file."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import plots
from ..errors import SettingsError
from ..methods.table import KNOBS, METHODS, WORDS, Method, named, of_kind, settings_for, settings_of
from ..options import count
from . import common

if TYPE_CHECKING:
    import torch

    from ..methods.making import Made
    from ..methods.removal import Base, Removal
    from ..prompts.concepts import ConceptList

_FORMS = of_kind("closed form")


def _lines(methods: dict[str, Method]) -> str:
    """A line for each method: its name, when to take it, and what it reads."""
    told = {
        name: f"{method.help}{'; reads ' + ', '.join(WORDS[each] for each in method.reads) if method.reads else ''}"
        for name, method in methods.items()
    }
    return "\n".join(f"  {name:<12} {text}" for name, text in told.items())


_MAKE = f"""
Make a model forget, by any method.

CHECKPOINT is a .safetensors or .ckpt file of SD 1.x, or a diffusers folder. OUT is one file: a text encoder, a change
of the U-Net that ComfyUI's Load LoRA applies, a gate, or the settings of what needs no weights. A plan of
`sage evaluate` takes any of them as the `file` of a method.

methods:
{_lines(METHODS)}

--pairs is a CSV, JSON or JSON Lines file with the columns `safe` and `unsafe`, or a file of safe prompts to go with
--unsafe, --from-concept or --concepts. Trainings are kept in --store: give the command again to resume one.

examples:
  sage make rece sd15.safetensors --concept nudity --out no-nudity.safetensors
  sage make esd_x sd15.safetensors --concept "Van Gogh" --set steps=300 --out esd.safetensors
  sage make gate sd15.safetensors --concept nudity --pairs pairs.csv --out gate.safetensors
  sage make sld_max sd15.safetensors --concept nudity --out sld.safetensors
"""
_ERASE = f"""
Erase a concept from a U-Net in closed form.

Takes seconds and no training: the matrices that read the prompt are solved for. CHECKPOINT is a .safetensors or .ckpt
file of SD 1.x, or a diffusers folder. OUT holds what is to be added to it: ComfyUI's Load LoRA applies it, with a
strength.

methods:
{_lines(_FORMS)}

--concepts erases every name of each concept of a file, except those that are kept unseen; its `becomes` is the guide,
and what is `near` is kept. Files of `sage pairs` are taken as they are.

Guides come from --guide, texts to keep from --keep (oce reads it with a --keep-scale), captions from --captions, or
from the safe prompts of --pairs: hundreds of everyday prompts hold on to what you draw, and mace needs them, or for an
object a --hold of 1,000.

examples:
  sage erase sd15.safetensors --concept nudity --method rece --out no-nudity.safetensors
  sage erase sd15.safetensors --concept "Van Gogh" --guide art --keep styles.txt --out no-van-gogh.safetensors
  sage erase sd15.safetensors --concepts found.toml --pairs pairs.csv --out gone.safetensors
  sage erase sd15.safetensors --concept nudity --text-encoder sage.safetensors --out on-top-of-sage.safetensors
"""
_REDIRECT = """
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
    """Add the three commands to the parser."""
    make = common.add_command(subparsers, "make", run_make, _MAKE)
    make.add_argument("method", metavar="METHOD", choices=METHODS, help="see above")
    _add_removal(make, required=True)
    _add_pairs(make)
    make.add_argument("--erase-from", type=common.text, action="append", help="for esd and race: one each")
    _add_training(make)

    erase = common.add_command(subparsers, "erase", run_erase, _ERASE)
    _add_removal(erase, required=True)
    erase.add_argument("--pairs", type=Path, metavar="FILE", help="pairs, whose safe prompts are the captions")
    erase.set_defaults(unsafe=None, from_concept=False)
    erase.add_argument("--method", default="uce", help="see above (default: uce)")
    erase.add_argument("--erase-scale", type=common.distance, help="how strongly (cure: alpha)")
    erase.add_argument("--hold", type=common.distance, help="how much the matrices stay (lam; speed: retain_scale)")
    erase.add_argument("--keep-scale", type=common.distance, help="weight of the texts in --keep")
    erase.add_argument("--rounds", type=count(1, 1000), help="of rece")
    common.add_results(erase)

    redirect = common.add_command(subparsers, "redirect", run_redirect, _REDIRECT)
    _add_removal(redirect, required=False, texts=False)
    _add_pairs(redirect, required=True)
    _add_training(redirect)


def _add_removal(command: argparse.ArgumentParser, *, required: bool, texts: bool = True) -> None:
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    what = command.add_mutually_exclusive_group(required=required)
    what.add_argument("--concept", type=common.text, action="append", help="what is to go; may be repeated")
    what.add_argument("--concepts", type=Path, metavar="FILE", help=common.CONCEPTS)
    command.add_argument("--text-encoder", type=Path, metavar="FILE", help="instead of the checkpoint's own")
    command.add_argument("--out", type=Path, required=True, metavar="OUT", help="the change (.safetensors)")
    if texts:
        command.add_argument("--guide", type=common.text, action="append", help="what it becomes: one, or one each")
        command.add_argument("--keep", type=Path, metavar="FILE", help="texts that are to keep their meaning")
        command.add_argument("--captions", type=Path, metavar="FILE", help="everyday prompts, see above")


def _add_pairs(command: argparse.ArgumentParser, *, required: bool = False) -> None:
    command.add_argument("--pairs", type=Path, required=required, metavar="FILE", help="pairs, or safe prompts")
    command.add_argument("--unsafe", type=Path, metavar="FILE", help="unsafe prompts; --pairs then holds safe ones")
    command.add_argument("--from-concept", action="store_true", help="make the unsafe prompts: --pairs with --concept")


def _add_training(command: argparse.ArgumentParser) -> None:
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


def run_make(options: argparse.Namespace) -> int:
    """Write what the method made, and what it says of itself."""
    return _trained(options, options.method)


def run_redirect(options: argparse.Namespace) -> int:
    """Write the change of the U-Net, and how the training went."""
    return _trained(options, "sage_unet")


def run_erase(options: argparse.Namespace) -> int:
    """Write the file of changes, and how well its equations were solved."""
    _check(options)
    settings = settings_of(options.method, {name: getattr(options, name) for name in KNOBS})
    start = time.monotonic()
    out, made = _make(options, options.method, settings, None)
    seconds = time.monotonic() - start
    text = (
        f"{out}: {made.text}\n{seconds:.1f} s. ComfyUI's Load LoRA applies the file, at strength 1 as it was solved.\n"
    )
    common.write(options, {"out": out, "seconds": seconds} | dict(made.report), text)
    return 0


def _trained(options: argparse.Namespace, name: str) -> int:
    _check(options)
    if options.from_concept and not options.concept:
        raise SettingsError("--from-concept needs --concept, the words that are written into the safe prompts.")
    out, made = _make(options, name, _settings(options, name), common.device(options))
    if options.curves and made.history:
        from ..runs.curves import training_curves

        plots.save_figure(options.curves, training_curves(made.history))
    use = " ComfyUI's Load LoRA applies the file, at strength 1 as it was trained." if made.change.deltas else " saved."
    common.write(options, {"out": out} | dict(made.report), f"{made.text}\n{out}:{use}\n")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse outputs that would destroy an input, before any work."""
    common.check_safetensors("--out", options.out)
    names = ("text_encoder", "keep", "captions", "pairs", "unsafe")
    inputs = {f"--{name.replace('_', '-')}": getattr(options, name, None) for name in names}
    inputs |= {"CHECKPOINT": options.checkpoint} | common.concept_inputs(options.concepts)
    curves = getattr(options, "curves", None)
    common.check_outputs({"--out": options.out, "--curves": curves, "--report": options.report}, inputs)
    common.check_suffix("--curves", curves, ".png")


def _settings(options: argparse.Namespace, name: str) -> Any:
    """The method's usual settings with --seed, --steps and --set."""
    changed, own = common.changes(options.set), settings_for(name, {})
    for option in ("seed", "steps"):
        given = getattr(options, option)
        if option in changed and (option == "seed" or given):
            raise SettingsError(f"{option} comes from --{option}; leave it out of --set.")
        if given and not hasattr(own, option):
            raise SettingsError(f"--{option} is {given}, but {named(name).title} has no such setting: leave it out.")
        if given is not None and hasattr(own, option):
            changed[option] = given
    return settings_for(name, changed, "--set")


def _make(options: argparse.Namespace, name: str, settings: Any, device: torch.device | None) -> tuple[str, Made]:
    """The file's name as text, and what was made and saved in it."""
    from ..methods.making import make, save

    removal = _removal(options, drawn=named(name).kind == "redirecting")
    base = _base(options, device)
    bars = common.Bars(getattr(options, "quiet", True))
    store = getattr(options, "store", None) or options.out.parent / ".sage-runs"
    made = make(name, base, removal, settings, store=store, watch=lambda what, done, all_: bars(what)(done, all_))
    save(options.out, made, base.config)
    return common.path_text(options.out), made


def _base(options: argparse.Namespace, device: torch.device | None) -> Base:
    from ..drawing.models import whole_unet
    from ..encoders.text_encoder import TextEncoder
    from ..methods.making import unet_dtype
    from ..methods.removal import Base

    unet = whole_unet(options.checkpoint)
    encoder = TextEncoder.from_state(common.read_state(options.text_encoder or options.checkpoint), copy=False)
    if device is None:
        return Base(encoder, unet.names.config, lambda name: unet.stored[name].load())
    return Base(
        encoder.to(device).requires_grad_(False),
        unet.names.config,
        lambda name: unet.stored[name].load(),
        options.size,
        unet_dtype(options.precision, device),
    )


def _removal(options: argparse.Namespace, *, drawn: bool) -> Removal:
    from ..methods.redirecting import drawable
    from ..methods.removal import Removal

    def prompts(name: str) -> Sequence[str]:
        path = getattr(options, name, None)
        return common.prompts(path) if path else ()

    guides = getattr(options, "guide", None)
    if options.concepts and guides:
        raise SettingsError("Guides come from --guide or from the field 'becomes' of --concepts; both are given.")
    solved = "erase_scale" in options
    if solved and options.pairs and options.captions:
        raise SettingsError("Captions come from --captions or from the safe prompts of --pairs; both are given.")
    listed = common.concepts(options.concepts) if options.concepts else None
    about: dict[str, Any] = {"preserve": tuple(prompts("keep")), "captions": tuple(prompts("captions"))}
    about["sources"] = tuple(getattr(options, "erase_from", None) or ())
    if getattr(options, "pairs", None):
        concept: str | ConceptList = listed or (options.concept or [""])[0]
        pairs = common.pairs_of(options.pairs, options.unsafe, options.from_concept, concept)
        about["pairs"] = drawable(pairs) if drawn else pairs
        common.say(about["pairs"].report.summary())
        if solved:
            about["captions"] = pairs.safe
    if listed is not None:
        return Removal.of(listed, **about)
    return Removal(tuple(options.concept or ()), tuple(guides or ("",)), **about)
