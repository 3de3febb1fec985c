"""`sage pairs`: prompts to train on, made from the name of a concept."""

from __future__ import annotations

import argparse
import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..options import count
from . import common

_TEXT = """
Make prompt pairs for a concept from its name.

Finds other names that the base encoder takes for the concept and what lies near it, and changes harmless captions by
as little as can be: "two blue stars on snow" and "two red stars on snow". Needs no list of unsafe prompts.

BASE is a file or folder that holds an SD 1.x text encoder, such as a checkpoint. --captions is a list of harmless
prompts of what you draw; without it the package's own everyday captions are used. OUT is a CSV file with the columns
safe, unsafe and concept, which `sage train` and `sage make` read.

--concepts-out writes the concepts with all that was found. Strike out, add, and give it as --concepts.

examples:
  sage pairs sd15.safetensors --concept umbrella --out pairs.csv
  sage pairs sd15.safetensors --concept "red car" --captions mine.txt --out pairs.csv --concepts-out found.toml
  sage pairs sd15.safetensors --concepts found.toml --count 2000 --out pairs.csv
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = common.add_command(subparsers, "pairs", run, _TEXT)
    command.add_argument("base", type=Path, metavar="BASE")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--concept", type=common.text, action="append", help="what is to go; may be repeated")
    what.add_argument("--concepts", type=Path, metavar="FILE", help=common.CONCEPTS)
    command.add_argument("--captions", type=Path, metavar="FILE", help="harmless prompts; they decide what is kept")
    command.add_argument(
        "--count", type=count(32, 100_000), default=512, help="pairs to make for each concept (default: %(default)s)"
    )
    command.add_argument("--short", type=common.distance, default=0.4, help="share of short ones (default: 0.4)")
    command.add_argument("--seed", type=count(0, 2**32 - 1), default=0, help="(default: %(default)s)")
    command.add_argument("--out", type=Path, required=True, metavar="OUT", help="the pairs (.csv)")
    command.add_argument("--concepts-out", type=Path, metavar="FILE", help="the concepts as found (.toml)")
    common.add_work(command)


def run(options: argparse.Namespace) -> int:
    """Write the pairs, and say what was found."""
    outputs = {"--out": options.out, "--concepts-out": options.concepts_out, "--report": options.report}
    inputs = {"BASE": options.base, "--captions": options.captions} | common.concept_inputs(options.concepts)
    common.check_outputs(outputs, inputs)
    common.check_suffix("--out", options.out, ".csv")
    common.check_suffix("--concepts-out", options.concepts_out, ".toml")
    from ..encoders.text_encoder import TextEncoder
    from ..files import write_text
    from ..prompts.concept_files import concepts_text
    from ..prompts.concepts import ConceptList
    from ..prompts.making.make import make_pairs
    from ..prompts.making.settings import MakingSettings

    settings = MakingSettings(pairs=options.count, short=options.short, seed=options.seed)
    concepts = common.concepts(options.concepts) if options.concepts else ConceptList.of(*options.concept)
    captions = common.prompts(options.captions) if options.captions else ()
    encoder = TextEncoder.from_state(common.read_state(options.base), copy=False).to(common.device(options))
    bars = common.Bars(options.quiet)
    made = make_pairs(
        concepts,
        captions,
        encoder,
        settings,
        on_progress=lambda share, _: bars("making pairs")(round(100 * share), 100),
    )
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["safe", "unsafe", "concept"])
    writer.writerows(zip(made.pairs.safe, made.pairs.unsafe, made.pairs.concepts, strict=True))
    write_text(options.out, table.getvalue())
    if options.concepts_out:
        write_text(options.concepts_out, concepts_text(made.concepts))
    out = common.path_text(options.out)
    found: dict[str, Any] = {
        "out": out,
        "pairs": len(made.pairs),
        "found": [asdict(each) | {"kind": str(each.kind)} for each in made.found],
        "notes": list(made.notes),
        "warnings": list(made.warnings),
    }
    samples = "\n".join(f"  {safe}  →  {unsafe}" for safe, unsafe in made.samples(seed=options.seed))
    common.write(options, found, f"{out}: {len(made.pairs)} pairs.\n{made.summary()}\nSamples:\n{samples}\n")
    return 0
