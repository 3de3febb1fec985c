"""`sage extract-lora`: save what an alignment changed as a LoRA."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import PromptError
from ..options import number
from . import common

_TEXT = f"""
Save what an alignment changed as a LoRA.

Stock loaders read it, and it takes tens of megabytes instead of a whole encoder's hundreds. --prompts measures what is
lost in cosine, spread and neighbours.
{common.ENCODERS}
examples:
  sage extract-lora base.safetensors sage.safetensors sage-lora.safetensors --rank 64
  sage extract-lora base.safetensors sage.safetensors sage-lora.safetensors --energy 0.95 --prompts captions.txt
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = common.add_command(subparsers, "extract-lora", run, _TEXT)
    command.add_argument("base", type=Path, metavar="BASE")
    command.add_argument("aligned", type=Path, metavar="ALIGNED")
    command.add_argument("out", type=Path, metavar="OUT", help="the LoRA (.safetensors)")
    limit = command.add_mutually_exclusive_group(required=True)
    limit.add_argument("--rank", type=int, help="rank of every matrix, for instance 64")
    limit.add_argument("--energy", type=number, help="share of the squared change to keep, for instance 0.95")
    command.add_argument("--prompts", type=Path, metavar="FILE", help="prompts to measure the loss on")
    common.add_work(command)


def run(options: argparse.Namespace) -> int:
    """Write the LoRA file, and what it loses on the prompts if there are any."""
    common.check_safetensors("OUT", options.out)
    common.check_outputs(
        {"OUT": options.out, "--report": options.report},
        {"BASE": options.base, "ALIGNED": options.aligned, "--prompts": options.prompts},
    )
    from ..encoders.lora import apply_lora, extract_lora, save_lora
    from ..encoders.text_encoder import TextEncoder, state_hash
    from ..geometry.comparison import GeometrySettings, compare_encoders

    bars, device = common.Bars(options.quiet), common.device(options)
    prompts = common.prompts(options.prompts) if options.prompts else ()
    if len(prompts) == 1:
        raise PromptError(f"{options.prompts} holds 1 prompt; expected 2 or more, whose neighbours are compared.")
    base, aligned = common.read_state(options.base), common.read_state(options.aligned)
    lora = extract_lora(
        base, aligned, rank=options.rank, energy=options.energy, device=device, on_matrix=bars("decomposing")
    )
    hashes = {"base_hash": state_hash(base), "aligned_hash": state_hash(aligned)}
    save_lora(options.out, lora, hashes)
    found: dict[str, Any] = {
        "out": common.path_text(options.out),
        "bytes": lora.bytes,
        "kept": lora.kept,
        "left_out": lora.left_out,
        "ranks": lora.ranks,
        **hashes,
    }
    text = f"{common.path_text(options.out)}: {lora.summary()}\n"
    if prompts:
        settings = GeometrySettings(k=min(GeometrySettings.k, len(prompts) - 1))
        encoders = TextEncoder.from_state(aligned), TextEncoder.from_state(apply_lora(base, lora.tensors))
        cost = compare_encoders(
            *encoders, prompts, settings=settings, device=device, on_batch=bars("embedding prompts")
        )
        found["cost"] = cost.to_dict()
        text += f"\nThe LoRA's space compared with the aligned encoder's:\n\n{cost.to_markdown()}"
    common.write(options, found, text)
    return 0
