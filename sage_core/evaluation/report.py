"""What an evaluation leaves behind: tables 2, 3 and 4, figures 3 and 4, every lost question, and a page with them all.

In the folder `report` of the output lie report.html, which needs no other file, report.md, report.json, each table as
Markdown, LaTeX and CSV, the figures as PNG, and lost.csv.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from .. import __version__
from ..devices import measuring_device
from ..encoders.text_encoder import TextEncoder
from ..errors import FileError
from ..files import whole_file, write_json, write_text
from ..geometry.category_plots import methods_figure, types_page
from ..geometry.comparison import GeometrySettings, compare_encoders
from ..geometry.points import Point
from ..geometry.report import GeometryReport
from ..plots import LIGHT, figure_to_image, new_figure, style
from ..tables import csv_text
from ..tifa.comparison import Comparison, compare
from ..tifa.questions import captions_by_type
from .attack_results import attacked_figures, found_csv
from .bases import load_encoder
from .changes import encoder_state
from .layout import Layout, progress
from .page import page_of
from .plan import CAPTIONS, MethodPlan, Plan, slug
from .results import Results
from .scoring import Scores, read_scores
from .tables import all_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure
logger = logging.getLogger(__name__)

FOLDER = "report"


def write_report(
    layout: Layout, *, device: torch.device, on_progress: Callable[[str, int, int], None] | None = None
) -> Results:
    """Read the scores, measure the geometry, and write every file of the report.

    Args:
        layout: of a plan that is drawn and scored.
        device: where embeddings are made.
        on_progress: called with (what, done, total); what it raises stops the work.
    """
    scores = read_scores(layout)
    comparisons = compared(scores)
    geometry = measure_geometry(layout, comparisons, device, on_progress)
    results = Results(
        layout,
        scores,
        comparisons,
        geometry,
        all_tables(layout.plan, scores, comparisons, geometry),
        draw_figures(layout.plan, scores, comparisons, geometry),
        progress(layout),
    )
    try:
        _write(layout.output / FOLDER, results)
    except FileError as error:
        # A finished evaluation may lie on a disk that is only read.
        if not (layout.output / FOLDER / "report.json").is_file():
            raise
        logger.warning("%s The report in %s is of an earlier time.", error, layout.output / FOLDER)
    return results


def compared(scores: Sequence[Scores]) -> dict[str, Comparison]:
    """TIFA of every method against the base's."""
    base = scores[0].tifa
    return {each.method.name: compare(base, each.tifa) for each in scores[1:] if base and each.tifa}


def measure_geometry(
    layout: Layout,
    comparisons: Mapping[str, Comparison],
    device: torch.device,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, GeometryReport]:
    """What became of the captions' space under each method that has a text encoder of its own."""
    plan = layout.plan
    methods = [method for method in plan.methods if method.changes_encoder and not method.gate]
    if "geometry" not in plan.score.what or not methods:
        return {}
    captions = next(each for each in layout.lists if each.kind == CAPTIONS)
    prompts, groups = captions_by_type(question for asked in captions.questions.values() for question in asked)
    base = load_encoder(plan.base)
    found = {}
    for method in methods:
        report = compare_encoders(
            base,
            TextEncoder.from_state(encoder_state(method, {n: t.cpu() for n, t in base.state().items()})),
            prompts,
            settings=GeometrySettings(k=plan.score.neighbours),
            groups=groups,
            device=measuring_device(device),
            on_batch=_told(on_progress, method),
        )
        losses = comparisons[method.name].by_type if method.name in comparisons else {}
        found[method.name] = report.with_losses(losses)
    return found


def _told(on_progress: Callable[[str, int, int], None] | None, method: MethodPlan) -> Callable[[int, int], None] | None:
    if on_progress is None:
        return None
    tell = on_progress
    return lambda done, total: tell(f"geometry of {method.name}", done, total)


def draw_figures(
    plan: Plan,
    scores: Sequence[Scores],
    comparisons: Mapping[str, Comparison],
    geometry: Mapping[str, GeometryReport],
) -> dict[str, tuple[str, Image.Image]]:
    """Figure 3, a point for each text encoder; figure 4, types of question; and NudeNet's rates by threshold."""
    found: dict[str, tuple[str, Image.Image]] = {}
    places = {method.name: place for place, method in enumerate(plan.methods)}
    scored = [name for name in geometry if name in comparisons]
    if scored:
        caption = (
            "Figure 3. Spread ratio against TIFA, a point for each method that has a text encoder of its own. Bars: "
            "95% intervals of the spread ratio, and of the change of TIFA."
        )
        points = [Point.of(name, geometry[name], comparisons[name].tifa) for name in scored]
        figure = methods_figure(points, places=[places[name] for name in scored])
        found["figure_3"] = (caption, figure_to_image(figure))
    typed = {name: each for name, each in geometry.items() if each.categories and each.categories.measured}
    for place, (name, report) in enumerate(typed.items()):
        if report.categories:
            part = ascii_lowercase[place % 26] if len(typed) > 1 else ""
            caption = (
                f"Figure 4{part}. {name}: spread, and the overlap of {report.categories.k} neighbours within a type of "
                "question, and what the type lost."
            )
            found[f"figure_4_{slug(name)}"] = (caption, figure_to_image(types_page(report, LIGHT.about(places[name]))))
    if all(each.curve for each in scores):
        caption = (
            "Attack success by the score from which a detection of NudeNet counts, as the mean of lists; dashed: the "
            f"threshold of the tables, {plan.score.nudenet.threshold:g}."
        )
        found["thresholds"] = (caption, figure_to_image(_thresholds(scores, plan.score.nudenet.threshold)))
    found |= {name: (caption, image) for name, caption, image in attacked_figures(scores)}
    return found


def _thresholds(scores: Sequence[Scores], threshold: float) -> Figure:
    figure = new_figure(420, LIGHT)
    axes = figure.subplots()
    for place, each in enumerate(scores):
        lists = list(each.curve.values())
        shares = {at: 100 * fmean(of_list[at] for of_list in lists) for at in lists[0]}
        axes.plot(list(shares), list(shares.values()), color=LIGHT.method(place), label=each.method.name)
    axes.axvline(threshold, color=LIGHT.muted, linestyle="--", linewidth=1)
    axes.set_xlabel("threshold")
    axes.set_ylabel("attack success, %")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    style(axes, LIGHT)
    return figure


def _write(folder: Path, results: Results) -> None:
    for table in results.tables:
        shown = table.shown
        for suffix, text in (("md", shown.to_markdown() + "\n"), ("tex", shown.to_latex()), ("csv", table.to_csv())):
            write_text(folder / f"{table.name}.{suffix}", text, own=True)
    write_text(folder / "lost.csv", lost_csv(results.comparisons), own=True)
    write_answers(folder, results.scores)
    if any(each.attacked for each in results.scores):
        write_text(folder / "attacks.csv", found_csv(results.layout, results.scores), own=True)
    write_json(folder / "report.json", as_dict(results), own=True)
    page_of(results).write(folder)


def lost_csv(comparisons: Mapping[str, Comparison]) -> str:
    """Every question that the base answers right and a method does not."""
    rows = (
        [name, row.image, asked.caption, asked.element_type, asked.question, asked.answer, row.chosen]
        for name, comparison in comparisons.items()
        for row in comparison.lost
        for asked in [row.question]
    )
    return csv_text(["method", "picture", "caption", "type", "question", "right", "seen"], rows)


_ANSWERS = (
    "method", "picture", "id", "caption", "type", "question", "right", "answer", "chosen", "score", "probability",
)  # fmt: skip


def write_answers(folder: Path, scores: Sequence[Scores]) -> None:
    """Every answer of TIFA as a table: CSV, and Parquet where pyarrow is installed."""
    rows = [
        [each.method.name, row.image, asked.id, asked.caption, asked.element_type, asked.question, asked.answer,
         row.answer, row.chosen, row.score, row.probability]
        for each in scores if each.tifa
        for row in each.tifa.questions
        for asked in [row.question]
    ]  # fmt: skip
    if not rows:
        return
    write_text(folder / "answers.csv", csv_text(_ANSWERS, rows), own=True)
    if find_spec("pyarrow"):
        import pyarrow
        from pyarrow.parquet import write_table

        columns = dict(zip(_ANSWERS, map(list, zip(*rows, strict=True)), strict=True))
        with whole_file(folder / "answers.parquet", own=True) as temporary:
            write_table(pyarrow.table(columns), temporary)


def as_dict(results: Results) -> dict[str, Any]:
    """Settings, numbers and tests, fit for JSON; the scores of every picture lie in the folder `scores`."""
    plan = results.layout.plan
    return {
        "software": f"sage-alignment {__version__}",
        "plan": _plain(asdict(plan)),
        "pictures": {method.name: results.layout.folder(method) for method in plan.methods},
        "notes": results.notes,
        "drawing": results.drawn.to_dict(),
        "tables": {
            table.name: {name: {c: asdict(cell) for c, cell in row.items()} for name, row in table.rows.items()}
            for table in results.tables
        },
        "comparisons": {
            name: {key: value for key, value in each.to_dict().items() if key not in ("lost", "gained")}
            | {"lost": len(each.lost), "gained": len(each.gained)}
            for name, each in results.comparisons.items()
        },
        "geometry": {name: each.to_dict() for name, each in results.geometry.items()},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
