"""`sage doctor`: is a file really SD 1.4's text encoder?"""

from __future__ import annotations

import argparse
from pathlib import Path

from . import common

_TEXT = """
Say what a text encoder's file holds, and whether it is SD 1.4's.

Layers, width, tokens, stored type, layout, NaN; and for an encoder of SD 1.x's size how its embeddings of 463 words
agree with public figures about SD 1.4's encoder, which all SD 1.x base models share (240 cosines from the package
clip-similarwords, MIT). This takes a minute or two on a CPU. The exit code is 3 if it is another encoder or
damaged.

FILE is a .safetensors, .pt or .ckpt file, a whole checkpoint, or a transformers folder.

examples:
  sage doctor v1-4.ckpt
  sage doctor SAGE.pt --json
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = common.add_command(subparsers, "doctor", run, _TEXT)
    command.add_argument("file", type=Path, metavar="FILE")
    common.add_work(command)


def run(options: argparse.Namespace) -> int:
    """Write what the file holds and the verdict; return 3 unless it is SD 1.4's encoder."""
    common.check_outputs({"--report": options.report}, {"FILE": options.file})
    from ..encoders.doctor import examine
    from ..tables import markdown_table

    bar = common.Bars(options.quiet)("embedding words")
    found = examine(options.file, device=common.device(options), on_batch=bar)
    table = markdown_table(("", common.path_text(options.file)), found.figures())
    common.write(options, found.to_dict(), f"{table}\n\n{found.verdict}\n")
    return 0 if found.is_sd14 else common.WORSE
