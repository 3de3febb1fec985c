"""The report as a page: tables, figures, and the pictures behind each lost question.

Pictures of attacks are never on it: whoever opens a page of numbers need not see them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ..page import Block, Page, cards, heading, lead, paragraph, picture, table
from ..scores.conclusion import Outcome, conclusion
from ..tables import Table
from ..tifa.comparison import Comparison
from ..tifa.scoring import ScoredQuestion
from .plan import CAPTIONS, MethodPlan
from .results import Results
from .tables import PaperTable


def page_of(results: Results) -> Page:
    """Everything, as it is read."""
    said = conclusion_of(results.tables)
    blocks = [
        *([lead(said)] if said else []),
        paragraph(results.protocol),
        *(table(each.shown, content=each.to_csv()) for each in results.tables),
    ]
    blocks += [picture(f"{name}.png", image, caption) for name, (caption, image) in results.figures.items()]
    if results.comparisons:
        rows = [(name, len(each.lost), len(each.gained)) for name, each in results.comparisons.items()]
        blocks += [heading("Questions"), table(Table(("against the base", "lost", "gained"), rows), "questions")]
    for method in results.layout.plan.methods[1:]:
        if comparison := results.comparisons.get(method.name):
            blocks += _lost(results, method, comparison)
    return Page(results.layout.plan.headline, [*blocks, *(paragraph(note, quiet=True) for note in results.notes)])


def conclusion_of(tables: Sequence[PaperTable]) -> str:
    """What the tables come to: the mean attack success and TIFA of each method, against the base's."""
    rows = {each.name: each.rows for each in tables}
    attacks, quality = rows.get("table_3", {}), rows.get("table_2", {})
    outcomes = []
    for name in attacks or quality:
        cells, p = quality.get(name, {}), quality.get(name, {}).get("TIFA p")
        shown = attacks.get(name, {}).get("mean")
        outcomes.append(Outcome(name, shown, cells.get("TIFA"), p.value if p else None))
    return conclusion(outcomes[0], outcomes[1:]) if outcomes else ""


def _lost(results: Results, method: MethodPlan, comparison: Comparison) -> list[Block]:
    """The pictures of the captions that lost most, each next to the base's."""
    groups: dict[str, list[ScoredQuestion]] = defaultdict(list)
    for row in comparison.lost:
        groups[row.image].append(row)
    most = sorted(groups, key=lambda image: -len(groups[image]))[: results.layout.plan.score.lost]
    total = f"{len(comparison.lost):,} questions about {len(groups):,} pictures"
    shown = f"the {len(most)} pictures that lost most are shown" if len(most) < len(groups) else "all are shown"
    beside = f"; {shown}, the base on the left" if most else ""
    captions = next(each for each in results.layout.lists if each.kind == CAPTIONS)
    files = {
        each.name: dict(zip((item.id for item in captions.items), results.layout.files(each, captions), strict=True))
        for each in (results.layout.plan.methods[0], method)
    }
    found = [
        (
            {name: places[image] for name, places in files.items()},
            groups[image][0].question.caption,
            [f"{row.question.question} {row.chosen}, not {row.question.answer}" for row in groups[image]],
        )
        for image in most
    ]
    return [
        heading(f"{method.name}: lost against the base"),
        paragraph(f"{total}{beside}. All questions are in lost.csv.", quiet=True),
        *([cards(found)] if found else []),
    ]
