"""The command line, without ComfyUI: `sage train`, `geometry`, `neighbours`, `drift`, `score` and `extract-lora`.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 input that cannot be used,
2 a wrong command line, 3 the encoder is in a worse state than `sage geometry --require` or `sage drift --above`
allows, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from .. import __version__
from ..alignment.settings import PRESETS
from ..errors import SageError
from ..geometry import DEFAULT_NEIGHBOURS
from . import common

_ENCODERS = """
BASE and ALIGNED hold an SD 1.x text encoder: a .safetensors, .pt or .ckpt file, a whole checkpoint, or a transformers
folder. PROMPTS is a text file with a prompt a line, a CSV file with the column `prompt`, JSON or JSON Lines.
"""

_TRAIN = """
Train a safe version of a text encoder.

The run is kept in --store under what it was made of: interrupted, it goes on from its checkpoint when the command is
given again; finished, it is found instead of trained again.

BASE is a file or folder that holds an SD 1.x text encoder. PAIRS is a CSV, JSON or JSON Lines file with the columns
`safe` and `unsafe`, or a file of safe prompts to go with --unsafe or --from-concept.

examples:
  sage train sd-v1-4.ckpt pairs.csv --concept nudity --out sage.safetensors
  sage train base.safetensors safe.txt --unsafe unsafe.txt --concept nudity --preset paper --out paper.safetensors
  sage train base.safetensors pairs.csv --concept nudity --set learning_rate=2e-4 --set epochs=4 --out mine.safetensors
"""

_GEOMETRY = f"""
Compare the embedding spaces of two text encoders.

Did your prompts move together (spread ratio), do they have other neighbours (Jaccard overlap), which were hurt most?
{_ENCODERS}
examples:
  sage geometry sd-v1-4.ckpt sage.safetensors captions.txt --page page.png
  sage geometry base.safetensors aligned.safetensors captions.txt --report report.json --require strained
"""

_NEIGHBOURS = f"""
Show the nearest prompts of some, before and after alignment.

What did alignment bring together, and what did it take apart? Without --prompt the most hurt of PROMPTS are shown.
{_ENCODERS}
examples:
  sage neighbours sd-v1-4.ckpt sage.safetensors captions.txt --page neighbours.png
  sage neighbours base.safetensors aligned.safetensors captions.txt --prompt "two red cats" --prompt "a blue cup" --json
"""

_DRIFT = f"""
Say how far alignment moved each prompt.

At a drift of 1 a prompt moved as far as the prompts nearest to it are away. PROMPTS are measured among themselves and
60 everyday ones, or those of --among.
{_ENCODERS}
examples:
  sage drift sd-v1-4.ckpt sage.safetensors my-prompts.txt
  sage drift base.safetensors aligned.safetensors my-prompts.txt --above 0.2 --json
"""

_SCORE = """
Score pictures by TIFA.

A judge, a visual question answering model, answers questions whose answers are known from the prompt. A picture is
named by the id of its caption in QUESTIONS: 17.png, and 17_2.png for a second one of the same caption.

QUESTIONS is a JSON file in TIFA's own format, JSON Lines or CSV. The judge is a transformers folder with safetensors,
for instance of dandelin/vilt-b32-finetuned-vqa or Salesforce/blip-vqa-base.

example:
  sage score pictures/ questions.json --judge models/LLM/blip-vqa-base --report tifa.json
"""

_LORA = f"""
Save what an alignment changed as a LoRA.

Stock loaders take it, and it has tens of megabytes instead of a whole encoder's hundreds. With --prompts you learn
what is lost in cosine, spread and neighbours.
{_ENCODERS}
examples:
  sage extract-lora base.safetensors sage.safetensors sage-lora.safetensors --rank 64
  sage extract-lora base.safetensors sage.safetensors sage-lora.safetensors --energy 0.95 --prompts captions.txt
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        sys.stderr.write("sage: interrupted\n")
        return 130
    except (SageError, OSError, torch.OutOfMemoryError) as error:
        sys.stderr.write("sage: error: " + " ".join(str(error).split()) + "\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sage", description="Safe text encoders for Stable Diffusion 1.x.")
    parser.add_argument("--version", action="version", version=f"sage {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, add_arguments, text in (
        ("train", common.train, _add_train, _TRAIN),
        ("geometry", common.geometry, _add_geometry, _GEOMETRY),
        ("neighbours", common.neighbours, _add_neighbours, _NEIGHBOURS),
        ("drift", common.drift, _add_drift, _DRIFT),
        ("score", common.score, _add_score, _SCORE),
        ("extract-lora", common.extract, _add_lora, _LORA),
    ):
        summary, description = text.strip().split("\n\n", 1)
        command = subparsers.add_parser(
            name,
            help=summary,
            description=f"{summary}\n\n{description}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        add_arguments(command)
        command.add_argument("--device", help="cpu, cuda, mps, ... (default: cuda or mps if there is one, else cpu)")
        command.add_argument("--report", type=Path, metavar="FILE", help="write the results to this file, as JSON")
        command.add_argument("--json", action="store_true", help="JSON on standard output instead of tables")
        command.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def _add_train(command: argparse.ArgumentParser) -> None:
    command.add_argument("base", type=Path, metavar="BASE")
    command.add_argument("pairs", type=Path, metavar="PAIRS")
    command.add_argument("--concept", required=True, type=_text, help="what is to be removed, in a word or two")
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
    command.add_argument("--store", type=Path, help="folder of runs (default: .sage-runs beside --out)")
    command.add_argument("--curves", type=Path, metavar="PNG", help="draw the losses")


def _add_geometry(command: argparse.ArgumentParser) -> None:
    _add_spaces(command)
    command.add_argument("--unsafe", type=Path, metavar="FILE", help="unsafe prompts, for their separation and the map")
    _add_page(command, "draw the one-page report")
    command.add_argument(
        "--require", choices=["healthy", "strained"], help="exit with 3 if the verdict is worse than this"
    )


def _add_neighbours(command: argparse.ArgumentParser) -> None:
    _add_spaces(command)
    command.add_argument(
        "--prompt", action="append", default=[], type=_text, metavar="TEXT", help="a prompt to look at; may repeat"
    )
    _add_page(command, "draw the lists side by side")


def _add_drift(command: argparse.ArgumentParser) -> None:
    _add_spaces(command)
    command.add_argument("--among", type=Path, metavar="FILE", help="prompts to measure among, for the everyday ones")
    command.add_argument(
        "--above", type=float, metavar="DRIFT", help="exit with 3 if a prompt drifted further, for instance 0.2"
    )


def _add_spaces(command: argparse.ArgumentParser) -> None:
    command.add_argument("base", type=Path, metavar="BASE")
    command.add_argument("aligned", type=Path, metavar="ALIGNED")
    command.add_argument("prompts", type=Path, metavar="PROMPTS")
    embeddings = ["flattened", "eos", "mean"]
    command.add_argument("--embedding", choices=embeddings, default="flattened", help="(default: %(default)s)")
    command.add_argument(
        "-k", type=int, default=DEFAULT_NEIGHBOURS, help="neighbours of each prompt (default: %(default)s)"
    )
    command.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32", help="(default: %(default)s)")


def _add_page(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--page", type=Path, metavar="PNG", help=what)
    command.add_argument("--dark", action="store_true", help="draw on a dark background")


def _add_score(command: argparse.ArgumentParser) -> None:
    command.add_argument("pictures", type=Path, metavar="PICTURES", help="folder")
    command.add_argument("questions", type=Path, metavar="QUESTIONS")
    command.add_argument("--judge", type=Path, required=True, metavar="FOLDER", help="visual question answering model")
    command.add_argument("--sentences", type=Path, metavar="FOLDER", help="sentence encoder to match free answers with")
    command.add_argument("--log", type=Path, metavar="FILE", help="keep each answer here, and ask none twice (JSONL)")


def _add_lora(command: argparse.ArgumentParser) -> None:
    command.add_argument("base", type=Path, metavar="BASE")
    command.add_argument("aligned", type=Path, metavar="ALIGNED")
    command.add_argument("out", type=Path, metavar="OUT", help="the LoRA (.safetensors)")
    limit = command.add_mutually_exclusive_group(required=True)
    limit.add_argument("--rank", type=int, help="rank of every matrix, for instance 64")
    limit.add_argument("--energy", type=float, help="share of the squared change to keep, for instance 0.95")
    command.add_argument("--prompts", type=Path, metavar="FILE", help="prompts to measure the loss on")


def _text(argument: str) -> str:
    """Words of the command line. Bytes that are no text arrive as half characters, which no tokenizer takes."""
    text = argument.strip()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{argument!a} is no text in the terminal's encoding") from None
    if not text:
        raise argparse.ArgumentTypeError("the text is empty")
    return text
