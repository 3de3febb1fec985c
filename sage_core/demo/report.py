"""What the demo leaves behind: pictures, report.json, report.md, and report.html, which needs no other file."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import PIL.Image

from .. import __version__
from ..files import whole_file, write_json, write_text
from ..shapes.captions import CONCEPT
from ..shapes.exam.examiners import judge_card_of
from ..tables import markdown_table
from . import pictures
from .exam import Exam
from .scores import CARD_PROMPT, LEARNED_JUDGE, Marks, Scores
from .spaces import Space

_STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 1240px; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { margin-top: 2.2rem; font-size: 1.25rem; }
figure { margin: 1rem 0; overflow-x: auto; }
img { box-sizing: border-box; max-width: 100%; border: 1px solid #e3e3e3; border-radius: 6px; }
figcaption { color: #616161; font-size: .9rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .35rem .9rem; text-align: right; border-bottom: 1px solid #e3e3e3; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } pre { background: #f6f6f6; padding: .8rem; white-space: pre-wrap;
       border-radius: 6px; font-size: .85rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(480px, 1fr)); gap: 1rem; }
""".strip()


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        file: its file's name in models/text_encoders.
        curves: the node's picture of losses and embedding space.
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


Table = list[list[str]]


def write_report(output: Path, results: Results) -> str:
    """Write every file of the report into `output` and return its summary as Markdown."""
    images = {
        "comparison.png": pictures.comparison(results.exam, results.scores.pictures, results.scores.marks),
        "rates.png": pictures.rates(results.scores.marks),
        "scores.png": results.scores.page,
        "card.png": results.card,
        **{f"training_{_file_name(name)}.png": each.curves for name, each in results.trainings.items()},
        **{f"geometry_{_file_name(name)}.png": each.page for name, each in results.spaces.items()},
    }
    for name, image in images.items():
        _save(output / name, image)
    for name, drawn in results.scores.pictures.items():
        for row, image in enumerate(drawn):
            _save(output / "pictures" / _file_name(name) / f"{row:03}.png", image)
    write_json(output / "report.json", _as_json(results))
    summary = _markdown_table(_rates_table(results))
    write_text(output / "report.md", _markdown(results, summary))
    write_text(output / "report.html", _page(results, images))
    return summary


def _file_name(encoder: str) -> str:
    return encoder.lower().replace("+", "_plus")


def _save(path: Path, image: PIL.Image.Image) -> None:
    with whole_file(path) as temporary:
        image.save(temporary, format="PNG")


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


def _rates_table(results: Results) -> Table:
    head = [
        "Encoder",
        "TIFA, %",
        f"{CONCEPT}s, %",
        "by names seen",
        "by other names",
        "Spread ratio",
        "Jaccard overlap",
    ]
    rows = []
    for name, marks in results.scores.marks.items():
        rates = [(marks.tifa, marks.tifa_interval)]
        rates += [(rate.share, rate.interval) for rate in (marks.concept, marks.seen, marks.unseen)]
        space = results.spaces.get(name)
        cells = [f"{100 * share:.1f} ({100 * interval.low:.0f}-{100 * interval.high:.0f})" for share, interval in rates]
        cells += [f"{space.spread_ratio:.3f}", f"{space.jaccard:.3f}"] if space else ["1", "1"]
        rows.append([name, *cells])
    return [head, *rows]


def _kinds_table(marks: Mapping[str, Marks]) -> Table:
    first, *_ = marks.values()
    head = ["About", "Questions", *marks]
    return [head] + [
        [kind, str(count), *(f"{each.by_type[kind]:.0%}" for each in marks.values())]
        for kind, count in first.type_counts.items()
    ]


def _seconds_table(results: Results) -> Table:
    return [["Stage", "Seconds"], *([name, f"{value:.0f}"] for name, value in results.about["seconds"].items())]


def _difference(found: Mapping[str, Any]) -> str:
    change, (low, high) = found["tifa"]["change"], found["tifa"]["interval_95"]
    return (
        f"SAGE+ against DES on the same safe prompts: TIFA {100 * change:+.1f} points (95% interval {100 * low:+.1f} "
        f"to {100 * high:+.1f}; paired permutation test, p = {found['p_value']:.2g})."
    )


def _method(results: Results) -> str:
    exam, space = results.exam, results.spaces["SAGE+"]
    return (
        f"Every encoder drew the same {len(exam.prompts)} prompts with the same seeds: {len(exam.safe)} safe ones, and "
        f"{len(exam.seen) + len(exam.unseen)} that ask for a {CONCEPT}, {len(exam.unseen)} of them by names that no "
        "training saw. The workflow evaluate_base_and_sage drew and scored them, with a lane for each encoder. "
        f"{_judge(results)} It "
        f"answered {sum(map(len, exam.questions))} questions about the safe pictures and looked for {CONCEPT}s in the "
        "others. An answer that is none of a question's choices is wrong; but a picture without the thing asked about "
        "is still right where the answer is no, as it is for half of the yes/no questions. TIFA is the mean over "
        f"prompts of the share answered rightly, with a 95% interval over prompts; {CONCEPT}s are shares of "
        f"pictures with 95% Wilson intervals. Spread ratio and Jaccard overlap of the {space.k} nearest neighbours "
        f"compare the flattened embeddings of {space.found['prompts']} further safe prompts with the base's: 1 is "
        "unchanged. DES, SAGE and SAGE+ were trained on the same pairs with the same steps, batch and learning rate, "
        f"in {_precisions(results)}, which the setting auto chose on this machine. "
        "SAGE has the objective of its authors' script (preset released), SAGE+ that of the preset sage_plus: the "
        "script's, and a squared-error term on safe prompts."
    )


def _precisions(results: Results) -> str:
    return " and ".join(dict.fromkeys(each.precision for each in results.trainings.values()))


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


_SCORES = "Safe prompts by kind of question, and unsafe prompts, as Compare Scores shows them."
_CARD = f"One picture scored by the workflow score_one_picture: {CARD_PROMPT!r} by DES."
_CONSOLE = "All pictures are in `pictures/`, by encoder and prompt number; prompts and marks are in `report.json`."


def _markdown(results: Results, summary: str) -> str:
    parts = [
        "# The same prompts by the base, the DES and the SAGE text encoders",
        "![The same prompts by every encoder](comparison.png)",
        summary,
        _difference(results.scores.difference),
        _method(results),
        "![Rates](rates.png)",
        "## What was lost, and what is gone",
        f"![{_SCORES}](scores.png)",
        _markdown_table(_kinds_table(results.scores.marks)),
        f"![{_CARD}](card.png)",
    ]
    parts += ["## Why they differ: the embedding spaces", _geometry(results)]
    parts += [f"![Geometry of {name}](geometry_{_file_name(name)}.png)" for name in results.spaces]
    for name, each in results.trainings.items():
        parts += [f"## Training of {name}", f"![Curves](training_{_file_name(name)}.png)", f"```\n{each.report}\n```"]
    parts += ["## Times", _markdown_table(_seconds_table(results)), _CONSOLE]
    return "\n\n".join(parts) + "\n"


def _page(results: Results, images: Mapping[str, PIL.Image.Image]) -> str:
    title = "The same prompts by the base, the DES and the SAGE text encoders"
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style><h1>{title}</h1>",
        _figure(images["comparison.png"], "The first prompts of each sort, the same seed in each column."),
        _html_table(_rates_table(results)),
        f"<p>{html.escape(_difference(results.scores.difference))}</p>",
        f"<p>{html.escape(_method(results))}</p>",
        _figure(images["rates.png"], "Means and rates with 95% intervals."),
        "<h2>What was lost, and what is gone</h2>",
        _figure(images["scores.png"], _SCORES),
        _html_table(_kinds_table(results.scores.marks)),
        _figure(images["card.png"], _CARD),
    ]
    parts += ["<h2>Why they differ: the embedding spaces</h2>", f"<p>{html.escape(_geometry(results))}</p>"]
    pages = [
        _figure(images[f"geometry_{_file_name(name)}.png"], f"{name} against the base.") for name in results.spaces
    ]
    parts.append(f"<div class=pair>{''.join(pages)}</div>")
    for name, each in results.trainings.items():
        parts.append(f"<h2>Training of {name}</h2>")
        parts.append(_figure(images[f"training_{_file_name(name)}.png"], "Losses and embedding space, step by step."))
        parts.append(f"<pre>{html.escape(each.report)}</pre>")
    parts += ["<h2>Times</h2>", _html_table(_seconds_table(results))]
    parts.append(f"<p>{html.escape(_CONSOLE).replace('`', '')}</p></html>")
    return "\n".join(parts) + "\n"


def _figure(image: PIL.Image.Image, caption: str) -> str:
    content = BytesIO()
    image.save(content, format="PNG")
    data = base64.b64encode(content.getvalue()).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _markdown_table(table: Table) -> str:
    head, *rows = table
    return markdown_table(head, rows, "l" + "r" * (len(head) - 1))


def _html_table(table: Table) -> str:
    head, *rows = table
    lines = ["".join(f"<th>{html.escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
