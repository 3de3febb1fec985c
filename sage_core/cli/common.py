"""What the commands share: options, inputs, progress, and how results are written.

Nothing heavy is imported before a command runs, so that help and errors of a command line appear at once.
"""

from __future__ import annotations

import argparse
import codecs
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError
from ..files import check_writable, same_file
from ..options import number
from ..rows import printable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..plots import Theme
    from ..prompts.concepts import ConceptList
    from ..prompts.pairs import PromptPairs

# What a file of a folder of pictures ends in.
PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
# Exit code of a command that measured a state worse than its options allow.
WORSE = 3

ENCODERS = """
BASE and ALIGNED hold an SD 1.x text encoder: a .safetensors, .pt or .ckpt file, a whole checkpoint, or a transformers
folder. PROMPTS is a text file with a prompt a line, a CSV file with the column `prompt`, JSON or JSON Lines.
"""

# Help of --concepts.
CONCEPTS = "file of one or more concepts (.toml or .json), instead of --concept"


def add_command(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    """The parser of a command that `run` carries out; `text` is a summary, an empty line, and the rest of the help."""
    summary, description = text.strip().split("\n\n", 1)
    command = subparsers.add_parser(
        name,
        help=summary,
        description=f"{summary}\n\n{description}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def add_device(command: argparse.ArgumentParser) -> None:
    """Add --device, for commands that compute with models."""
    command.add_argument("--device", help="cpu, cuda, mps, ... (default: cuda or mps if there is one, else cpu)")


def add_results(command: argparse.ArgumentParser) -> None:
    """Add --report and --json, which every command has."""
    command.add_argument("--report", type=Path, metavar="FILE", help="write the results to this file, as JSON")
    command.add_argument("--json", action="store_true", help="JSON on standard output instead of tables")


def add_quiet(command: argparse.ArgumentParser) -> None:
    """Add --quiet, for commands that show progress."""
    command.add_argument("--quiet", action="store_true", help="show no progress")


def add_work(command: argparse.ArgumentParser) -> None:
    """Add --device, --report, --json and --quiet, which nearly every command has."""
    add_device(command)
    add_results(command)
    add_quiet(command)


def text(argument: str) -> str:
    """Words of the command line; bytes that are not text arrive as half characters, which no tokenizer takes."""
    stripped = argument.strip()
    try:
        stripped.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{argument!a} is not text in the terminal's encoding") from None
    if not stripped:
        raise argparse.ArgumentTypeError("the text is empty")
    return stripped


def distance(argument: str) -> float:
    """A finite number of 0 or more."""
    value = number(argument)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{argument!r} is below 0, which no distance is")
    return value


def rate(argument: str) -> float:
    """A finite number above 0."""
    value = number(argument)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{argument!r} is not above 0")
    return value


def device(options: argparse.Namespace) -> torch.device:
    """The device of --device, or the machine's best."""
    from ..devices import choose_device

    return choose_device(options.device, field="--device")


def read_state(path: Path) -> dict[str, Tensor]:
    """The text encoder in a file or folder, in fp32; raises EncoderError if it cannot embed prompts."""
    from ..encoders.layouts import EncoderConfig, read_encoder, require_positions

    state = {name: tensor.float() for name, tensor in read_encoder(path)[0].items()}
    require_positions(EncoderConfig.of(state), str(path))
    return state


def prompts(path: Path) -> tuple[str, ...]:
    """The prompts in a file; says on standard error what was left out."""
    from ..prompts.pairs import read_prompts

    found, report = read_prompts(path)
    say(report.summary())
    return found


def concept_inputs(path: Path | None) -> dict[str, Path]:
    """The file of --concepts and the prompt files that it names, as inputs for `check_outputs`."""
    if path is None:
        return {}
    from ..prompts.concept_files import concept_files

    own, *named = concept_files(path)
    return {"--concepts": own} | {f"--concepts, in its field unsafe ({file.name})": file for file in named}


def concepts(path: Path) -> ConceptList:
    """The concepts in a file; says on standard error what they are and what was left out."""
    from ..prompts.concept_files import read_concepts

    found = read_concepts(path)
    say(found.summary())
    return found


def changes(assignments: Sequence[str]) -> dict[str, Any]:
    """Settings of a training or edit from NAME=VALUE of --set; a value is read as JSON if possible, else as text."""
    found = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise SettingsError(f"--set takes NAME=VALUE, for instance learning_rate=2e-4; found {assignment!r}.")
        try:
            found[name] = json.loads(text)
        except (ValueError, RecursionError):
            found[name] = text
    return found


def pairs_of(path: Path, unsafe: Path | None, from_concept: bool, concept: str | ConceptList) -> PromptPairs:
    """The pairs in a file, or of its safe prompts with --unsafe, --from-concept or the concepts of --concepts."""
    from ..prompts.concept_pairs import read_concepts_pairs
    from ..prompts.pairs import read_concept_pairs, read_pairs

    if not isinstance(concept, str):
        if unsafe or from_concept:
            given = "--unsafe" if unsafe else "--from-concept"
            raise SettingsError(f"Unsafe prompts come from --concepts or from {given}; both are given.")
        return read_concepts_pairs(path, concept)
    if unsafe and from_concept:
        raise SettingsError("Unsafe prompts come from --unsafe or from --from-concept; both are given.")
    if from_concept:
        return read_concept_pairs(path, concept)
    return read_pairs(path, unsafe)


def check_safetensors(name: str, path: Path) -> None:
    """Refuse a name without .safetensors before any work: other programs would take the file for a pickle."""
    if path.suffix.lower() != ".safetensors":
        raise SettingsError(f"{name} is '{path}'; expected a file name that ends in .safetensors.")


def check_outputs(outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | None]) -> None:
    """Check before any work that no output is an input, a file of an input folder, or another output.

    Args:
        outputs: option -> the file it names, or None if it was not given.
        inputs: argument -> the file or folder it names.

    Raises:
        SettingsError: an output would destroy what it is made of, or what another option writes.
        FileError: an output cannot be written.
    """
    given = {name: path for name, path in outputs.items() if path is not None}
    names = list(given)
    for place, name in enumerate(names):
        path = given[name]
        if path.is_dir():
            raise SettingsError(f"{name} is '{path}', a folder; expected the name of a file.")
        if path.exists() and not path.is_file():
            # Devices and pipes hold nothing that could be lost.
            continue
        for other in names[:place]:
            if same_file(path, given[other]):
                raise SettingsError(f"{name} and {other} are the same file, '{path}'; give each a name of its own.")
        for other, source in inputs.items():
            if source is not None and (same_file(path, source) or _is_file_in(path, source)):
                raise SettingsError(
                    f"{name} is '{path}', which {other} is read from; it would be lost. Choose another name."
                )
        check_writable(path)


def _is_file_in(path: Path, folder: Path) -> bool:
    if not (folder.is_dir() and path.is_file()):
        return False
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


class Bars:
    """Progress bars on standard error, one after the other."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bars: dict[str, Any] = {}

    def __call__(self, name: str) -> Callable[[int, int], None]:
        """A function that tells the bar of this name how far the work is."""
        from tqdm import tqdm

        def update(done: int, total: int) -> None:
            if name not in self.bars:
                # How long the first took is not known: its speed counts from here.
                self.bars[name] = tqdm(total=total, desc=printable(name), initial=done, disable=self.quiet)
            bar = self.bars[name]
            bar.update(done - bar.n)
            if done == total:
                bar.close()

        return update

    def counter(self, name: str, total: int) -> Callable[[int], None]:
        """A function that tells the bar of this name how much more is done, of `total`."""
        from ..batches import counting

        return counting(self(name), total)


def theme(options: argparse.Namespace) -> Theme:
    """The theme of pictures, dark with --dark."""
    from ..plots import DARK, LIGHT

    return DARK if options.dark else LIGHT


def check_suffix(name: str, path: Path | None, suffix: str) -> None:
    """Raise SettingsError unless a file ends in what tells programs what it is; devices may be called anything."""
    if path is not None and path.suffix.lower() != suffix and (path.is_file() or not path.exists()):
        raise SettingsError(f"{name} is '{path}'; expected a file name that ends in {suffix}.")


def path_text(path: Path) -> str:
    r"""A path as text that JSON can hold; bytes that are not text are spelled as \xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def write(options: argparse.Namespace, value: Mapping[str, Any], table: str) -> None:
    """Write a command's results: to --report as JSON, and to standard output as JSON or as a table."""
    from ..files import write_json

    if options.report:
        write_json(options.report, value)
    if options.json:
        table = json.dumps(value, indent=2, ensure_ascii=not _takes_all_text(sys.stdout)) + "\n"
    sys.stdout.write(printable(table))
    # Flushed here, a full disk is an error of the command; at exit Python would only warn.
    sys.stdout.flush()


def _takes_all_text(stream: Any) -> bool:
    return codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name == "utf-8"


def say(words: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(printable(words) + "\n")
