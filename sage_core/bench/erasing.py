"""What erasing from a U-Net costs: each closed form, reading an edited U-Net, and a step of safe guidance.

    python -m sage_core.bench.erasing --output DIR             SD 1.4's sizes; minutes on two cores, 8 GB of memory
    python -m sage_core.bench.erasing --quick --output DIR     small sizes, to see that it works
    python -m sage_core.bench.erasing --methods uce mace --concepts 1

Weights are random, which does not change the cost. Closed forms edit the 32 matrices that read the prompt; their time
is divided into that of the text encoder and that of the algebra. The edited U-Net is a pickle of whole fp32 weights
under diffusers' names, as ESD and RECE publish theirs, compared with a base in fp16. A step of safe guidance is
compared with a step of ordinary guidance by turns, on a narrow U-Net of SD 1.x's kind on a CPU.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..drawing.guidance import PRESETS, SafeGuidance, guided
from ..encoders.layouts import VIT_L_14, EncoderConfig
from ..encoders.text_encoder import TextEncoder
from ..encoders.tokens import CONTEXT_LENGTH
from ..methods.concepts import Concepts
from ..methods.table import of_kind
from ..options import count
from ..prompts.everyday import REFERENCE_PROMPTS
from ..unet.changes import changes
from ..unet.files import read_unet
from ..unet.names import SD1, UnetConfig, reads_prompt, unet_names
from ..unet.training import diffusers_unet
from .runner import Bench, Part, Report, Row
from .watch import GIB, MemoryWatch, by_turns, timed

_FORMS = of_kind("closed form")
# The concepts that UCE and RECE erase for safety, the most told of first.
_CONCEPTS = (
    "nudity", "violence", "blood", "hate", "harassment", "suffering", "humiliation", "harm", "suicide", "sexual",
    "bodily fluids",
)  # fmt: skip
_GUIDE = "a person wearing clothes"
# A small text encoder, and a U-Net's width on a CPU, where a step of SD 1.x's own takes half a minute.
_QUICK_ENCODER = replace(VIT_L_14, layers=2, width=64, heads=2, mlp_width=256)
_QUICK_UNET = UnetConfig(channels=32, context=64)
_NARROW = 64
# Sides of the latents: of a picture of 512 pixels, and of one of 256.
_SIDE, _NARROW_SIDE = 64, 32
_ROUNDS = 7
_PARTS = ("edits", "reading", "step")
_WEIGHT = 7.5


_COLUMNS = {
    "method": "{title}",
    "concepts": "{concepts}",
    "s": "{seconds:.1f}",
    "of it text encoder": "{encoder_seconds:.1f}",
    "processor s": "{processor_seconds:.1f}",
    "GiB": "{gib:.1f}",
    "matrices": "{matrices}",
    "changed by": "{relative:.1%}",
    "residual": "{residual:.0e}",
}
_READING = (
    "Edited U-Net of {reading[file_gib]:.2f} GiB, pickled: opened in {reading[open_seconds]:.1f} s, compared in "
    "{reading[compare_seconds]:.1f} s, {reading[processor_seconds]:.1f} s of processors for both, {reading[gib]:.1f} "
    "GiB at most; {reading[changed]} tensors changed."
)
_STEP = (
    "A step of safe guidance: {step[safe_seconds]:.3f} s, {step[times]:.2f} times the {step[plain_seconds]:.3f} s of "
    "ordinary guidance (U-Net of {step[width]} channels, latents {step[side]}×{step[side]})."
)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--methods", nargs="+", choices=_FORMS, default=list(_FORMS), help="closed forms (default all)")
    parser.add_argument("--concepts", type=count(1, len(_CONCEPTS)), default=len(_CONCEPTS), help="how many to erase")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=list(_PARTS), help="what to measure")


def _measure(options: argparse.Namespace, device: torch.device, report: Report) -> Iterator[str]:
    encoder, unet = (_QUICK_ENCODER, _QUICK_UNET) if options.quick else (VIT_L_14, SD1)
    # Parts that are not measured stay as they are.
    report |= {"edits": [], "reading": None, "step": None}
    if "edits" in options.parts:
        for cost in edit_costs(options.methods, options.concepts, encoder, unet, device):
            report["edits"].append(cost)
            yield f"{cost['method']}: {cost['seconds']:.1f} s"
    if "reading" in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            reading = report["reading"] = read_cost(Path(folder), unet)
        yield f"reading: {reading['open_seconds'] + reading['compare_seconds']:.1f} s"
    if "step" in options.parts:
        whole = device.type != "cpu" and not options.quick
        width = unet.channels if whole or options.quick else _NARROW
        side = _SIDE if whole else _NARROW_SIDE
        report["step"] = step_cost(replace(unet, channels=width), side, device)
        yield f"step: {report['step']['times']:.2f} times"


def edit_costs(
    methods: Sequence[str], concepts: int, encoder: EncoderConfig, unet: UnetConfig, device: torch.device
) -> Iterator[Row]:
    """The cost of each method on random matrices, with the everyday prompts as captions.

    GiB are those beyond weights and encoder. The processors' seconds are all threads' own: they stay what they are
    where other work shares the machine, and where more cores divide them.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = {name: shape for name, shape in unet_names(unet).shapes.items() if reads_prompt(name)}
    weights = {name: torch.randn(shape, generator=generator) / shape[1] ** 0.5 for name, shape in shapes.items()}
    reader = _encoder(encoder).to(device)
    erased = Concepts(_CONCEPTS[:concepts], (_GUIDE,), captions=tuple(REFERENCE_PROMPTS))
    # The tokenizer, and whatever PyTorch sets up, is not a method's.
    _FORMS["cure"].load()[1](weights, reader, Concepts(("warm up",)), None)
    for method in methods:
        edit = _FORMS[method].load()[1]
        with MemoryWatch(torch.device("cpu")) as watch, _timed_calls(reader) as in_encoder:
            taken = timed(device, edit, weights, reader, erased, None)
            gib = watch.peak()
        found = taken.result
        yield {
            "method": method,
            "title": _FORMS[method].title,
            "concepts": concepts,
            "seconds": taken.seconds,
            "processor_seconds": taken.processor_seconds,
            "encoder_seconds": sum(in_encoder),
            "gib": gib,
            "matrices": len(found.deltas),
            "relative": found.relative,
            "residual": found.residual,
        }


def read_cost(folder: Path, unet: UnetConfig) -> Row:
    """Write a whole fp32 U-Net, whose 32 matrices differ from a base in fp16, and read and compare it."""
    generator = torch.Generator().manual_seed(0)
    path, cpu = folder / "edited.pt", torch.device("cpu")
    whole = {name: torch.randn(shape, generator=generator) / 50 for name, shape in unet_names(unet).shapes.items()}
    base = {name: value.half() for name, value in whole.items()}
    torch.save({name: value + 0.01 if reads_prompt(name) else value for name, value in whole.items()}, path)
    del whole
    with MemoryWatch(cpu) as watch:
        opened = timed(cpu, read_unet, path, unet)
        compared = timed(cpu, changes, opened.result, base)
        gib = watch.peak()
    return {
        "file_gib": path.stat().st_size / GIB,
        "open_seconds": opened.seconds,
        "compare_seconds": compared.seconds,
        "processor_seconds": opened.processor_seconds + compared.processor_seconds,
        "gib": gib,
        "changed": len(compared.result.deltas),
    }


def step_cost(unet: UnetConfig, side: int, device: torch.device) -> Row:
    """Steps of ordinary guidance, of two predictions in a batch, and of safe guidance, of three, by turns; medians."""
    generator = torch.Generator().manual_seed(0)
    shapes = unet_names(unet).shapes
    state = {name: torch.randn(shape, generator=generator) / 50 for name, shape in shapes.items()}
    network = diffusers_unet(state, device=device)
    latents = torch.randn(1, unet.inputs, side, side, generator=generator).to(device)
    # Empty prompt, prompt and safety text.
    states = torch.randn(3, CONTEXT_LENGTH, unet.context, generator=generator).to(device)
    guidance = SafeGuidance(PRESETS["strong"], _ROUNDS + 1)
    plain, safe = by_turns(
        device,
        _ROUNDS + 1,
        lambda _: _ordinary(network, latents, states[:2]),
        lambda number: _safe(network, latents, states, guidance, number),
    )
    # Of neighbours: what slows the machine down for a while slows both.
    times = statistics.median(b / a for a, b in zip(plain, safe, strict=True))
    medians = {"plain_seconds": statistics.median(plain), "safe_seconds": statistics.median(safe)}
    return {"width": unet.channels, "side": side, **medians, "times": times}


@torch.no_grad()
def _ordinary(network: nn.Module, latents: Tensor, states: Tensor) -> Tensor:
    plain, prompted = network(latents.expand(2, -1, -1, -1), 500, states).sample.chunk(2)
    return guided(prompted, plain, _WEIGHT)


@torch.no_grad()
def _safe(network: nn.Module, latents: Tensor, states: Tensor, safe: SafeGuidance, step: int) -> Tensor:
    plain, prompted, safety = network(latents.expand(3, -1, -1, -1), 500, states).sample.chunk(3)
    return guided(safe.prompted(prompted, plain, safety, step), plain, _WEIGHT)


def _encoder(config: EncoderConfig) -> TextEncoder:
    """A random text encoder whose states differ in all directions, as a trained one's do."""
    torch.manual_seed(0)
    encoder = TextEncoder.fresh(config)
    for name, value in encoder.state().items():
        if "token_embedding" in name:
            value.mul_(50)
        elif "final_layer_norm" in name:
            value.add_(0.3 * torch.randn(value.shape))
    return encoder


@contextmanager
def _timed_calls(module: nn.Module) -> Iterator[list[float]]:
    """Collects the seconds of each call of a module."""
    found: list[float] = []
    begin = module.register_forward_pre_hook(lambda *_: found.append(-time.perf_counter()))
    end = module.register_forward_hook(lambda *_: found.append(found.pop() + time.perf_counter()))
    try:
        yield found
    finally:
        begin.remove()
        end.remove()


BENCH = Bench(
    module="sage_core.bench.erasing",
    about=__doc__,
    add_options=_options,
    measure=_measure,
    page=[
        Part("where", "{where}."),
        Part("edits", columns=_COLUMNS),
        Part("reading", _READING),
        Part("step", _STEP),
    ],
    quick="small sizes, seconds",
)
main = BENCH.main

if __name__ == "__main__":
    sys.exit(BENCH.run())
