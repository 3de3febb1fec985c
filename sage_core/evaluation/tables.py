"""The paper's tables 2, 3 and 4 of a plan's methods, with intervals and paired tests against the base."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..geometry.report import GeometryReport
from ..intervals import (
    WIDE_INTERVALS,
    Difference,
    Interval,
    joined_bounds,
    mean_interval,
    paired_change,
    permutation_p_value,
)
from ..scores.clipscore import ClipScores
from ..scores.rates import NINE_CLASSES, Rate
from ..tables import Cell, Table, csv_text, p_cell
from ..tifa.comparison import Comparison
from ..tifa.scoring import TifaResult
from . import published
from .attack_results import attacked_cells, attacked_note
from .plan import BASE, DOMAINS, Plan
from .scoring import Scores

_CLIP, _TIFA, _MEAN, _HARMONIC = "CLIPScore", "TIFA", "mean", "harmonic mean"
_TEST = (
    "Changes and p-values are against the base on the same prompts and seeds (paired sign-flip permutation test, two-"
    f"sided, not corrected for the number of methods; random flips give no less than 0.0001). {WIDE_INTERVALS}"
)
# Columns of Soft TIFA, by what `TifaResult` calls them.
_SOFT = {"Soft TIFA, arithmetic": "soft arithmetic", "Soft TIFA, geometric": "soft geometric"}
# Columns of ratios, with two digits.
_RATIOS = ("spread ratio", "Jaccard")
# Of published figures, where it is not one.
_DIGITS = {"FID": 2, "CLIP score": 3, **dict.fromkeys(_RATIOS, 2)}


@dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables.

    Attributes:
        name: of its files, such as "table_2".
        title: above it.
        note: below it: what the numbers are and how sure.
        columns: titles.
        rows: by method, a cell for each column; missing ones are left blank.
        published: rows of others, by method and column.
    """

    name: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Cell]]
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def shown(self) -> Table:
        """The table as it is read, published rows at the end."""
        rows = [
            (name if source == "measured" else f"{name}, {source}", *cells) for name, source, cells in self._lines()
        ]
        return Table(("", *self.columns), rows, "", self.title, self.note, self.name, apart=len(self.published))

    def to_csv(self) -> str:
        """A row for each method, and for each column its number and bounds in full precision."""
        header = ["method", "source", *(f"{column}{end}" for column in self.columns for end in ("", " low", " high"))]
        rows = (
            [name, source, *(value for cell in cells for value in (cell.value, cell.low, cell.high))]
            for name, source, cells in self._lines()
        )
        return csv_text(header, rows)

    def _lines(self) -> Iterator[tuple[str, str, list[Cell]]]:
        """Method, source and cells of every row."""
        for name, row in self.rows.items():
            yield name, "measured", [row.get(column, Cell(None)) for column in self.columns]
        for name, numbers in self.published.items():
            cells = [Cell(numbers.get(column), digits=_DIGITS.get(column, 1)) for column in self.columns]
            yield name, "published", cells


def all_tables(
    plan: Plan, scores: Sequence[Scores], comparisons: Mapping[str, Comparison], reports: Mapping[str, GeometryReport]
) -> list[PaperTable]:
    """The tables for which there are numbers; `comparisons` and `reports` are by method, without the base."""
    tables = []
    if any(each.tifa or each.clip or each.columns for each in scores):
        tables.append(quality_table(plan, scores, comparisons))
    if any(each.geneval for each in scores):
        tables.append(geneval_table(plan, scores))
    if any(each.attacks for each in scores):
        tables.append(attack_table(plan, scores))
    if any(each.attacked for each in scores):
        rows = {each.method.name: attacked_cells(each) for each in scores}
        title = f"Attacks on methods: {plan.contents}"
        tables.append(PaperTable("attacked", title, attacked_note(scores[0]), tuple(rows[BASE]), rows))
    if plan.score.published and published.UNLEARNDIFFATK_LIST in scores[0].attacks:
        tables.append(leaderboard_table(plan, scores))
    if any(each.kept for each in scores):
        tables.append(retention_table(plan, scores))
    if any(each.parts for each in scores):
        tables.append(parts_table(plan, scores))
    if reports:
        tables.append(geometry_table(plan, scores, reports))
    return tables


def quality_table(plan: Plan, scores: Sequence[Scores], comparisons: Mapping[str, Comparison]) -> PaperTable:
    """Table 2: TIFA by type of question and over captions, CLIPScore, and further scores."""
    base = scores[0]
    types = list(base.tifa.by_type) if base.tifa else []
    columns = [*types]
    if base.tifa:
        columns += [_TIFA, "TIFA change", "TIFA p"]
        soft = tuple(_SOFT) if "soft_tifa" in plan.score.what and base.tifa.soft_questions else ()
        columns += soft
    if base.clip:
        columns += [_CLIP, "CLIPScore change", "CLIPScore p"]
    # The base has no distance to itself.
    columns += [name for name in dict.fromkeys(name for each in scores for name in each.columns) if name not in columns]
    rows = {}
    for each in scores:
        row: dict[str, Cell] = {}
        if each.tifa:
            intervals = each.tifa.intervals()
            for name, value in {**each.tifa.by_type, _TIFA: each.tifa.average}.items():
                found = intervals.get(name)
                row[name] = _percent(value, (found.low, found.high) if found else None, few="captions")
            for name in soft:
                found, value = intervals.get(_SOFT[name]), getattr(each.tifa, _SOFT[name].replace(" ", "_"))
                row[name] = _percent(value, (found.low, found.high) if found else None, few="captions")
        if change := comparisons.get(each.method.name):
            row |= {"TIFA change": _change(change.tifa), "TIFA p": p_cell(change.p_value)}
        if each.clip and base.clip:
            row |= _clip_cells(each.clip, None if each is base else base.clip)
        row |= {name: _column(found) for name, found in each.columns.items()}
        rows[each.method.name] = row
    sentences = []
    if base.tifa:
        sentences.append(
            "TIFA in per cent of questions answered right: by type over all questions, TIFA as the mean over captions; "
            f"with 95% score intervals for captions as clusters of questions, in which "
            f"a caption without a mistake counts once. Judge: {base.tifa.judge}."
        )
    if base.clip:
        sentences.append(
            f"CLIPScore is the mean of 100 · cos over {len(base.clip.cosines):,} pictures of harmless prompts, with "
            "Student's 95% interval."
        )
    note = " ".join([*sentences, _TEST])
    title = f"Table 2. Quality of pictures: {plan.contents}"
    return _beside(plan, PaperTable("table_2", title, note, tuple(columns), rows))


def attack_table(plan: Plan, scores: Sequence[Scores]) -> PaperTable:
    """Table 3: attack success by list and as the mean of lists, and CLIPScore."""
    base = scores[0]
    lists = list(base.attacks)
    columns = [*lists, _MEAN, "mean change", "mean p", *([_CLIP] if base.clip else [])]
    if base.tifa:
        columns += [_TIFA, _HARMONIC]
    rows = {}
    for each in scores:
        rates = [each.attacks[name] for name in lists]
        row = {
            name: _percent(rate.share, (rate.interval.low, rate.interval.high), few="pictures")
            for name, rate in zip(lists, rates, strict=True)
        }
        bounds = [(rate.interval.low, rate.interval.high) for rate in rates]
        row[_MEAN] = _percent(_mean(rates), joined_bounds([rate.share for rate in rates], bounds), few="pictures")
        if each is not base:
            row |= _attack_change([base.attacks[name] for name in lists], rates)
        if each.clip:
            row[_CLIP] = _clip_cells(each.clip, None)[_CLIP]
        if each.tifa:
            row |= {_TIFA: _tifa_cell(each.tifa), _HARMONIC: _percent(_harmonic(1 - _mean(rates), each.tifa.average))}
        rows[each.method.name] = row
    rule = "; ".join(dict.fromkeys(rate.rule for rate in base.attacks.values()))
    counts = ", ".join(f"{name} {len(rate.shown):,}" for name, rate in base.attacks.items())
    note = (
        f"Attack success in per cent of pictures that show the concept, by {rule}; 95% Wilson intervals. Pictures: "
        f"{counts}. The mean is over lists, its interval that of independent lists. {_TEST}"
    )
    if base.tifa:
        note += (
            f" The {_HARMONIC} is that of TIFA and of what is gone (100 minus the mean): it is low where either is, "
            "and does not say which."
        )
    title = f"Table 3. Attack success: {plan.contents}"
    return _beside(plan, PaperTable("table_3", title, note, tuple(columns), rows))


def leaderboard_table(plan: Plan, scores: Sequence[Scores]) -> PaperTable:
    """What the plan's methods draw of UnlearnDiffAtk's prompts, before and after its attack, and its leaderboard."""
    listed = published.UNLEARNDIFFATK_LIST
    attack = next((each.name for each in plan.attacking if (each.kind, each.list) == ("unlearndiffatk", listed)), "")
    rows = {}
    for each in scores:
        rate = each.attacks[listed]
        row = {published.BEFORE: _percent(rate.share, (rate.interval.low, rate.interval.high))}
        if attack in each.attacked:
            row[published.AFTER] = attacked_cells(each)[attack]
        rows[each.method.name] = row
    columns = tuple(next(iter(published.UNLEARNDIFFATK.values())))
    note = f"Measured: per cent of pictures that show the concept, by {scores[0].attacks[listed].rule}"
    note += f", and of prompts that {attack} breaks within its budget" * bool(attack) + "; 95% Wilson intervals."
    title = f"UnlearnDiffAtk's leaderboard: {plan.contents}"
    return _beside(plan, PaperTable("unlearndiffatk", title, note, columns, rows))


def _beside(plan: Plan, table: PaperTable) -> PaperTable:
    """The table with others' rows, if the plan asks for them, and who judged these."""
    if not plan.score.published:
        return table
    rows, words = published.BESIDE[table.name]
    return replace(table, published=rows, note=f"{table.note} {words}")


def retention_table(plan: Plan, scores: Sequence[Scores]) -> PaperTable:
    """What is gone of the lists that ask for it, and what is left of those that must stay, list by list."""
    domains = {each.name: each.domain for each in plan.safe}
    columns: list[str] = []
    rows = {}
    for each in scores:
        gone = {f"{name}, gone": (100 * (1 - rate.share), _left(rate)) for name, rate in each.attacks.items()}
        stay: dict[str, dict[str, tuple[float, Interval]]] = {domain: {} for domain in DOMAINS}
        for name, rate in each.kept.items():
            stay[domains[name]][f"{name}, stays"] = 100 * rate.share, rate.interval
        groups = {"UA": gone, "IRA": stay["same"], "CRA": stay["other"]}
        row: dict[str, Cell] = {}
        for title, found in groups.items():
            row |= {
                name: Cell(value, 100 * bounds.low, 100 * bounds.high, few="pictures")
                for name, (value, bounds) in found.items()
            }
            if found:
                row[title] = Cell(statistics.fmean(value for value, _ in found.values()))
        means = [cell.value or 0.0 for title in groups if (cell := row.get(title))]
        row[_HARMONIC] = Cell(statistics.harmonic_mean(means))
        columns = list(row)
        rows[each.method.name] = row
    note = (
        "Per cent, with 95% Wilson intervals. UA: pictures of the lists that ask for the concept without it; IRA and "
        "CRA: pictures that show what they must, of lists of the concept's own domain and of another, each as the mean "
        f"of its lists; as in UnlearnCanvas, but by the plan's witness. The {_HARMONIC} is that of those means."
    )
    return PaperTable("retention", f"What is gone and what stays: {plan.contents}", note, tuple(columns), rows)


def _left(rate: Rate) -> Interval:
    return Interval(1 - rate.interval.high, 1 - rate.interval.low)


def geneval_table(plan: Plan, scores: Sequence[Scores]) -> PaperTable:
    """GenEval's tasks and both totals, by the plan's judge."""
    columns = tuple(scores[0].geneval)
    rows = {each.method.name: {name: _column(found) for name, found in each.geneval.items()} for each in scores}
    note = (
        "Per cent of pictures that show all that their prompt asks for, with 95% score intervals for prompts as "
        "clusters of pictures. GenEval's overall score is the mean of its tasks; papers print the mean of pictures too."
    )
    return PaperTable("geneval", f"GenEval: {plan.contents}", note, columns, rows)


def parts_table(plan: Plan, scores: Sequence[Scores]) -> PaperTable:
    """Pictures by part of the body that NudeNet sees, over all attack lists."""
    rows = {}
    for each in scores:
        counts = [Counter(found) for found in each.parts.values()]
        rows[each.method.name] = {_part(name): Cell(count, digits=0) for name, count in _summed(counts).items()}
    pictures = sum(len(rate.shown) for rate in scores[0].attacks.values())
    note = (
        f"Pictures, of {pictures:,} of all lists, in which NudeNet finds the part with a score of "
        f"{plan.score.nudenet.threshold:g} or more."
    )
    columns = tuple(map(_part, NINE_CLASSES))
    return PaperTable("body_parts", f"Exposed parts of the body: {plan.contents}", note, columns, rows)


def _part(name: str) -> str:
    return name.lower().replace("_", " ").removesuffix(" exposed")


def _summed(counts: Sequence[Counter[str]]) -> Counter[str]:
    """Unlike `sum`, with what is nowhere."""
    return Counter({name: sum(each[name] for each in counts) for name in NINE_CLASSES})


def geometry_table(plan: Plan, scores: Sequence[Scores], reports: Mapping[str, GeometryReport]) -> PaperTable:
    """Table 4: what became of the text encoders' space, next to CLIPScore and TIFA."""
    found = {each.method.name: each for each in scores}
    rows = {}
    for name in (BASE, *reports):
        each = found[name]
        row = dict.fromkeys(_RATIOS, Cell(1.0, digits=2))
        if report := reports.get(name):
            for title, estimate in zip(_RATIOS, (report.spread_ratio, report.jaccard[report.k]), strict=True):
                row[title] = Cell(estimate.value, _finite(estimate.low), _finite(estimate.high), digits=2)
        if each.clip:
            row[_CLIP] = _clip_cells(each.clip, None)[_CLIP]
        if each.tifa:
            row[_TIFA] = _tifa_cell(each.tifa)
        rows[name] = row
    columns = [title for title in (*_RATIOS, _CLIP, _TIFA) if any(title in row for row in rows.values())]
    note = (
        f"Flattened embeddings of the captions, {plan.score.neighbours} neighbours, against the base's; 95% "
        "intervals over captions. It has the text encoders and LoRAs that the plan names; gates, and what is made, are "
        "not in it."
    )
    title = f"Table 4. Geometry of text encoders: {plan.title}, and those that change it"
    return _beside(plan, PaperTable("table_4", title, note, tuple(columns), rows))


def _clip_cells(clip: ClipScores, base: ClipScores | None) -> dict[str, Cell]:
    row = {_CLIP: _mean_cell([100 * value for value in clip.cosines], digits=2)}
    if base is not None:
        changes = [100 * (new - old) for new, old in zip(clip.cosines, base.cosines, strict=True)]
        row["CLIPScore change"] = _mean_cell(changes, digits=2, sign=True)
        row["CLIPScore p"] = p_cell(permutation_p_value(np.array(changes)))
    return row


def _mean_cell(values: Sequence[float], *, digits: int, sign: bool = False) -> Cell:
    """A mean with Student's 95% interval."""
    found = mean_interval(values)
    low, high = (found.low, found.high) if found else (None, None)
    return Cell(statistics.fmean(values), low, high, digits, sign)


def _tifa_cell(found: TifaResult) -> Cell:
    interval = found.intervals().get(_TIFA)
    return _percent(found.average, (interval.low, interval.high) if interval else None, few="captions")


def _harmonic(first: float, second: float) -> float:
    return 2 * first * second / (first + second) if first + second else 0.0


def _mean(rates: Sequence[Rate]) -> float:
    return statistics.fmean(rate.share for rate in rates)


def _attack_change(base: Sequence[Rate], rates: Sequence[Rate]) -> dict[str, Cell]:
    """Change of the mean of lists. The test flips signs of prompts, each weighted as its list weighs it."""
    changes, bounds, weighted = [], [], []
    for before, after in zip(base, rates, strict=True):
        old, new = np.array(before.shown, dtype=float), np.array(after.shown, dtype=float)
        gained, lost = np.maximum(new - old, 0)[:, None], np.maximum(old - new, 0)[:, None]
        lows, highs = paired_change(gained, lost, np.ones_like(gained))
        changes.append(after.share - before.share)
        bounds.append((float(lows[0]), float(highs[0])) if np.isfinite(lows[0]) else (-1.0, 1.0))
        weighted.append((new - old) / len(old))
    low, high = joined_bounds(changes, bounds)
    change = Cell(100 * statistics.fmean(changes), 100 * low, 100 * high, sign=True, few="pictures")
    return {"mean change": change, "mean p": p_cell(permutation_p_value(np.concatenate(weighted)))}


def _percent(value: float, bounds: tuple[float, float] | None = None, few: str = "") -> Cell:
    low, high = (100 * bounds[0], 100 * bounds[1]) if bounds else (None, None)
    return Cell(100 * value, low, high, few=few)


def _change(difference: Difference) -> Cell:
    found = difference.interval
    low, high = (100 * found.low, 100 * found.high) if found else (None, None)
    return Cell(100 * difference.change, low, high, sign=True, few="captions")


def _column(found: Mapping[str, float]) -> Cell:
    return Cell(found["value"], found.get("low"), found.get("high"), digits=int(found.get("digits", 2)))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
