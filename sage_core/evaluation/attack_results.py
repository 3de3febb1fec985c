"""What attacks on methods reached: rates beside those without attack and the base's control, and success by budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..attacks.budgets import LEAST_CONTROL, success_curves
from ..intervals import Hits
from ..plots import figure_to_image
from ..scores.rates import Rate
from ..tables import Cell, csv_text
from .layout import Layout
from .plan import slug
from .prompts import PromptList

if TYPE_CHECKING:
    from .scoring import Scores


@dataclass(frozen=True)
class Attacked:
    """What one attack reached on one method.

    Attributes:
        rate: of all of its pictures, prompt by prompt, and of each look by look.
        tries: attempts at each prompt that were evaluated until each look; the first look is at a random start.
        before: whether the picture of each prompt shows the concept without an attack.
    """

    rate: Rate
    tries: tuple[int, ...]
    before: tuple[bool, ...]

    @property
    def looked(self) -> np.ndarray:
        """Whether a prompt was broken at a look, (prompts, looks) bool."""
        return np.array(self.rate.shown).reshape(-1, len(self.tries))

    def curve(self) -> list[tuple[int, Hits]]:
        """Tries, and the prompts that were broken at any look until then."""
        ever = np.maximum.accumulate(self.looked, axis=1)
        return [(tries, Hits(int(row.sum()), len(row))) for tries, row in zip(self.tries, ever.T, strict=True)]

    @property
    def success(self) -> Hits:
        """Prompts that were broken within the budget."""
        return self.curve()[-1][1]


def prompts_before(listed: PromptList, source: PromptList) -> list[int]:
    """Which pictures of the list under attack are those of an attack's prompts without it."""
    first = {item.source: number for number, item in reversed(list(enumerate(source.items)))}
    return [first[item.source] for item in listed.items if item.id.endswith(" look 0")]


def attacked_cells(scores: Scores) -> dict[str, Cell]:
    """A row: of each attack the success, at the random start where there is one, and without the attack."""
    row: dict[str, Cell] = {}
    for name, found in scores.attacked.items():
        row[name] = _cell(found.success)
        if len(found.tries) > 1:
            row[f"{name}, start"] = _cell(found.curve()[0][1])
        row[f"{name}, before"] = _cell(Hits(sum(found.before), len(found.before)))
    return row


def _cell(hits: Hits) -> Cell:
    low, high = hits.interval
    return Cell(100 * hits.share, 100 * low, 100 * high)


def attacked_note(base: Scores) -> str:
    """What the numbers are, and which attacks prove nothing."""
    rule = "; ".join(dict.fromkeys(found.rate.rule for found in base.attacked.values()))
    sizes = ", ".join(
        f"{name} {len(found.before):,} prompts"
        + f", up to {found.tries[-1]:,} tries and {len(found.tries)} pictures each" * (len(found.tries) > 1)
        for name, found in base.attacked.items()
    )
    weak = [name for name, found in base.attacked.items() if found.success.share < LEAST_CONTROL]
    note = (
        "Attacks on what each method draws with, in per cent of prompts of which a picture within the budget shows the "
        f"concept, by {rule}; 95% Wilson intervals. Beside it: at the attack's random start, and before, the same "
        f"prompts without an attack. The base's row is the control. {sizes}."
    )
    if weak:
        note += (
            f" ⚠ The control succeeds in less than {LEAST_CONTROL:.0%} by {', '.join(weak)}: where such an attack "
            "fails it proves nothing. Give a search more steps, restarts or free tokens."
        )
    return note


def attacked_figures(scores: Sequence[Scores]) -> Iterator[tuple[str, str, Image.Image]]:
    """Of each attack that has a budget its name, caption and curves, a line for each method."""
    for name, control in scores[0].attacked.items():
        if len(control.tries) > 1:
            curves = {each.method.name: each.attacked[name].curve() for each in scores if name in each.attacked}
            caption = f"{name}: prompts that are broken, by the attempts at each; with 95% Wilson intervals."
            yield f"attack_{slug(name)}", caption, figure_to_image(success_curves(curves, first=0))


def found_csv(layout: Layout, scores: Sequence[Scores]) -> str:
    """Every attempt that was drawn: method, attack, prompt, tries, the text found, and whether its picture shows it."""
    rows = []
    for each in scores:
        for listed in (listed for listed in layout.lists if listed.name in each.attacked and listed.attack):
            found = each.attacked[listed.name]
            shown = dict(zip((item.place for item in listed.items), found.rate.shown, strict=True))
            for job in layout.jobs_of(each.method, listed):
                record = job.found()
                for item, row in zip(job.items, record.pictures if record else (), strict=False):
                    tried = found.tries[item.place % len(found.tries)]
                    text = row.get("text", "")
                    rows.append([each.method.name, listed.name, item.prompt, tried, text, shown[item.place]])
    return csv_text(["method", "attack", "prompt", "tries", "found", "shows it"], rows)
