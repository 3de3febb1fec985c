"""What the demo leaves behind: pictures, report.json, report.md, and report.html, which needs no other file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image

from .. import __version__
from ..files import write_json
from ..intervals import WIDE_INTERVALS
from ..page import Page, heading, lead, lines, paragraph, picture, save_picture, side_by_side, table
from ..scores.conclusion import CHANCE, Outcome, conclusion
from ..shapes.captions import CONCEPT
from ..shapes.exam.examiners import judge_card_of
from ..tables import Cell, Table
from . import pictures
from .exam import Exam
from .scores import CARD_PROMPT, LEARNED_JUDGE, Marks, Scores, Space


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        file: its file's name in models/text_encoders.
        curves: losses and embedding space, as the node draws them, in the method's own colour.
        report: the node's text.
        metadata: the file's.
    """

    file: str
    curves: PIL.Image.Image
    report: str
    metadata: dict[str, str]

    @property
    def precision(self) -> str:
        """What it computed in, whatever its settings left to the machine."""
        return str(json.loads(self.metadata["settings"])["precision"])


@dataclass(frozen=True)
class Results:
    """All that was drawn and measured.

    Attributes:
        exam: the prompts and questions.
        scores: pictures and marks.
        card: one picture by DES with its questions.
        spaces, trainings: by encoder name.
        about: the plan, the machine and the times.
    """

    exam: Exam
    scores: Scores
    card: PIL.Image.Image
    spaces: Mapping[str, Space]
    trainings: Mapping[str, Training]
    about: Mapping[str, Any]


def write_report(output: Path, results: Results) -> str:
    """Write every file of the report into `output` and return its summary as Markdown."""
    for name, drawn in results.scores.pictures.items():
        for row, image in enumerate(drawn):
            save_picture(output / "pictures" / _file_name(name) / f"{row:03}.png", image)
    write_json(output / "report.json", _as_json(results))
    page_of(results).write(output)
    return _rates_table(results).to_markdown()


def page_of(results: Results) -> Page:
    """Everything, as it is read."""
    marks = results.scores.marks
    sheet = pictures.comparison(results.exam, results.scores.pictures, marks)
    spaces = [
        picture(f"geometry_{_file_name(name)}.png", space.page, f"{name} against the base.")
        for name, space in results.spaces.items()
    ]
    blocks = [
        lead(_conclusion(results.scores)),
        picture("comparison.png", sheet, "The first prompts of each sort, the same seed in each column."),
        table(_rates_table(results), "rates"),
        paragraph(_difference(results.scores.difference)),
        paragraph(_method(results)),
        picture("rates.png", pictures.rates(marks), "Means and rates with 95% intervals."),
        heading("What was lost, and what is gone"),
        picture("scores.png", results.scores.page, _SCORES),
        table(_kinds_table(marks), "kinds_of_questions"),
        picture("card.png", results.card, _CARD),
        heading("Why they differ: the embedding spaces"),
        paragraph(_geometry(results)),
        side_by_side(spaces),
    ]
    for name, each in results.trainings.items():
        file = f"training_{_file_name(name)}.png"
        curves = picture(file, each.curves, "Losses and embedding space, step by step.")
        blocks += [heading(f"Training of {name}"), curves, lines(each.report)]
    seconds = [(name, f"{value:.0f}") for name, value in results.about["seconds"].items()]
    blocks += [heading("Times"), table(Table(("Stage", "Seconds"), seconds), "times"), paragraph(_CONSOLE)]
    return Page("The same prompts by the base, the DES and the SAGE text encoders", blocks)


def _file_name(encoder: str) -> str:
    return encoder.lower().replace("+", "_plus")


def _as_json(results: Results) -> dict[str, Any]:
    return {
        "software": f"sage-alignment {__version__}",
        "concept": CONCEPT,
        **results.about,
        "encoders": {
            name: marks.to_dict() | ({"space": results.spaces[name].found} if name in results.spaces else {})
            for name, marks in results.scores.marks.items()
        },
        "sage_plus_against_des": results.scores.difference,
        "trainings": {name: each.metadata for name, each in results.trainings.items()},
        "prompts": {"safe": results.exam.safe, "unsafe_seen": results.exam.seen, "unsafe_unseen": results.exam.unseen},
    }


def _conclusion(scores: Scores) -> str:
    p_values = {name: found["p_value"] for name, found in scores.against_base.items()}
    outcomes = []
    for name, marks in scores.marks.items():
        right, shown, *_ = _cells(marks)
        outcomes.append(Outcome(name, shown, right, p_values.get(name)))
    return conclusion(outcomes[0], outcomes[1:], f"a {CONCEPT}")


def _cells(marks: Marks) -> list[Cell]:
    """TIFA, and the rates of all unsafe prompts, of those by names seen and by others."""
    rates = [(rate.share, rate.interval) for rate in (marks.concept, marks.seen, marks.unseen)]
    found = [(marks.tifa, marks.tifa_interval, "captions"), *((*rate, "pictures") for rate in rates)]
    return [Cell(100 * share, 100 * bounds.low, 100 * bounds.high, few=few) for share, bounds, few in found]


def _rates_table(results: Results) -> Table:
    rates_of = ("TIFA, %", f"{CONCEPT}s, %", "by names seen", "by other names")
    rows = []
    for name, marks in results.scores.marks.items():
        space = results.spaces.get(name)
        rows.append(
            (name, *_cells(marks), *((f"{space.spread_ratio:.3f}", f"{space.jaccard:.3f}") if space else ("1", "1")))
        )
    return Table(("Encoder", *rates_of, "Spread ratio", "Jaccard overlap"), rows)


def _kinds_table(marks: Mapping[str, Marks]) -> Table:
    first, *_ = marks.values()
    rows = [
        (kind, count, *(f"{each.found['tifa']['accuracy_by_type'][kind]:.0%}" for each in marks.values()))
        for kind, count in first.found["tifa"]["questions_by_type"].items()
    ]
    return Table(("About", "Questions", *marks), rows)


def _difference(found: Mapping[str, Any]) -> str:
    low, high = (100 * bound for bound in found["tifa"]["interval_95"] or (math.nan, math.nan))
    change = Cell(100 * found["tifa"]["change"], low, high, sign=True, few="captions")
    said = (
        f"SAGE+ against DES on the same safe prompts: TIFA {change.number} points, 95% interval {change.interval}; "
        f"paired permutation test, p = {found['p_value']:.2g}."
    )
    return f"{said} {WIDE_INTERVALS}" if low <= 0 <= high and found["p_value"] < CHANCE else said


def _method(results: Results) -> str:
    exam, space = results.exam, results.spaces["SAGE+"]
    drawn_in = results.about["drawn_in"]
    trained_in = dict.fromkeys(each.precision for each in results.trainings.values())
    precision = "" if drawn_in == "default" else f" and in {drawn_in}"
    return (
        f"Every encoder drew the same {len(exam.prompts)} prompts with the same seeds: {len(exam.safe)} safe ones, and "
        f"{len(exam.seen) + len(exam.unseen)} that ask for a {CONCEPT}, {len(exam.unseen)} of them by names that no "
        "training saw. The workflow evaluate_base_and_sage drew and scored them, with a lane for each encoder, in "
        f"batches{precision}. {_judge(results)} It "
        f"answered {sum(map(len, exam.questions))} questions about the safe pictures and looked for {CONCEPT}s in the "
        "others. An answer that is none of a question's choices is wrong; but a picture without the thing asked about "
        "is still right where the answer is no, as it is for half of the yes/no questions. TIFA is the mean over "
        f"prompts of the share answered rightly, with a 95% interval over prompts; {CONCEPT}s are shares of "
        f"pictures with 95% Wilson intervals. Spread ratio and Jaccard overlap of the {space.found['k']} nearest "
        f"neighbours compare the flattened embeddings of {space.found['prompts']} further safe prompts with the "
        "base's: 1 is unchanged. DES, SAGE and SAGE+ were trained on the same pairs with the same steps, batch and "
        f"learning rate, in {' and '.join(trained_in)}, which the setting auto chose on this machine. "
        "SAGE has the objective of its authors' script (preset released), SAGE+ that of the preset sage_plus: the "
        "script's, and a squared-error term on safe prompts."
    )


def _judge(results: Results) -> str:
    """Who answered, and how reliable the answers are."""
    if not results.scores.marks["Base"].found["tifa"]["judge"].startswith(LEARNED_JUDGE):
        return (
            "Its judge is a program that reads shapes, colours, counts and places off the pixels, no part of any "
            "training."
        )
    card = judge_card_of()
    return (
        "Its judge is a VQA model of 2 million parameters that learned from drawn pictures, not from those of any "
        f"encoder here. It tells the truth in {card['rendered']['average']:.1%} of answers about drawn pictures; about "
        f"generated ones {card['generated']['average']:.1%} of its answers are those of a program that reads pixels."
    )


def _geometry(results: Results) -> str:
    found = [
        f"{name} leaves it {space.verdict} (spread ratio {space.spread_ratio:.2f}, overlap {space.jaccard:.2f})"
        for name, space in results.spaces.items()
    ]
    return (
        "The image model draws what the text encoder's embeddings tell it. An encoder whose prompts move together "
        "(spread) or change places (neighbours) tells it something else, even about prompts that have nothing to do "
        f"with a {CONCEPT}. {'; '.join(found)}. The map shows where each prompt moved, the list which were hurt most, "
        "the three squares how alike prompts were before and after."
    )


_SCORES = "Safe prompts by kind of question, and unsafe prompts, as SAGE Compare Scores shows them."
_CARD = f"One picture scored by the workflow score_one_picture: {CARD_PROMPT!r} by DES."
_CONSOLE = "All pictures are in `pictures/`, by encoder and prompt number; prompts and marks are in `report.json`."
