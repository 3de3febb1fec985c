"""`sage score`: TIFA of a folder of pictures."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import JudgeError, SettingsError
from . import common

if TYPE_CHECKING:
    from ..tifa.questions import Question


_TEXT = """
Score pictures by TIFA.

A judge, a visual question answering model, answers questions whose answers are known from the prompt. A picture is
named by the id of its caption in QUESTIONS: 17.png, and 17_2.png for a second one of the same caption.

QUESTIONS is a JSON file in TIFA's own format, JSON Lines or CSV. The judge is a transformers folder with safetensors,
for instance of dandelin/vilt-b32-finetuned-vqa or Salesforce/blip-vqa-base.

example:
  sage score pictures/ questions.json --judge models/LLM/blip-vqa-base --report tifa.json
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = common.add_command(subparsers, "score", run, _TEXT)
    command.add_argument("pictures", type=Path, metavar="PICTURES", help="folder")
    command.add_argument("questions", type=Path, metavar="QUESTIONS")
    command.add_argument("--judge", type=Path, required=True, metavar="FOLDER", help="visual question answering model")
    command.add_argument("--sentences", type=Path, metavar="FOLDER", help="sentence encoder to match free answers with")
    command.add_argument("--log", type=Path, metavar="FILE", help="keep each answer here, and ask none twice (JSONL)")
    common.add_work(command)


def run(options: argparse.Namespace) -> int:
    """Ask the judge about every picture whose caption has questions, and write the scores."""
    _check_outputs(options)
    from ..tifa.evaluation import evaluate
    from ..tifa.judges.base import load_judge
    from ..tifa.questions import group_by_caption, read_questions
    from ..tifa.sentences import SentenceEncoder

    device = common.device(options)
    questions, report = read_questions(options.questions)
    common.say(report.summary())
    captions = group_by_caption(questions)
    matched, missing = _match(options.pictures, captions)
    if missing:
        common.say(f"{len(missing):,} of {len(captions):,} captions have no picture (the first: {missing[0]}).")
    judge = load_judge(options.judge, device=device)
    sentences = SentenceEncoder.from_folder(options.sentences, device=device) if options.sentences else None
    result = evaluate(
        list(matched),
        list(matched.values()),
        judge,
        sentences=sentences,
        image_ids=[path.stem for path in matched],
        name=options.pictures.name,
        log=options.log,
        on_progress=common.Bars(options.quiet)("asking"),
    )
    found = result.to_dict() | {"captions_in_questions": len(captions), "captions_without_picture": missing}
    common.write(options, found, result.to_markdown())
    return 0


def _check_outputs(options: argparse.Namespace) -> None:
    outputs = {"--log": options.log, "--report": options.report}
    inputs = {"QUESTIONS": options.questions, "--judge": options.judge, "--sentences": options.sentences}
    common.check_outputs(outputs, inputs)
    for name, path in outputs.items():
        # Reports may lie among the pictures, but must not replace one.
        if path is not None and path.suffix.lower() in common.PICTURES:
            raise SettingsError(f"{name} is '{path}', which has the name of a picture; expected .json or .jsonl.")


def _match(
    folder: Path, captions: Mapping[str, Sequence[Question]]
) -> tuple[dict[Path, Sequence[Question]], list[str]]:
    """Picture -> the questions of its caption, and the captions without a picture; other names are a JudgeError."""
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in common.PICTURES)
    found, strange, missing = {}, [], dict.fromkeys(captions)
    for path in pictures:
        caption = path.stem if path.stem in captions else path.stem.rpartition("_")[0]
        if caption in captions:
            found[path] = captions[caption]
            missing.pop(caption, None)
        else:
            strange.append(path.name)
    if not found or strange:
        names = f"{strange[0]} and {len(strange) - 1} more" if strange else "no picture at all"
        raise JudgeError(
            f"{folder}: pictures are named by caption ids such as {next(iter(captions))}.png; found {names}."
        )
    return found, list(missing)
