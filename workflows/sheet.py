"""The demo's pictures: the same prompts drawn by every encoder, side by side, and the rates as bars."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from textwrap import wrap
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from sage_core.plots import LIGHT, figure_to_image, new_figure, style
from sage_core.shapes.captions import CONCEPT

from .exam import Exam, Marks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAFE_COLUMNS, SEEN_COLUMNS, UNSEEN_COLUMNS = 6, 2, 2
CELL, GAP, LABEL, MARGIN = 136, 14, 168, 28
CAPTION_WIDTH, CAPTION_LINE, HEADER, MARK = 20, 16, 34, 26
COLORS = {"Base": "#6B6B6B", "DES": LIGHT.hurt, "SAGE": LIGHT.base}


def comparison(exam: Exam, pictures: Mapping[str, Sequence[Image.Image]], marks: Mapping[str, Marks]) -> Image.Image:
    """The first prompts of each sort, one column each, one row an encoder: nothing is picked by hand."""
    seen = len(exam.safe)
    unseen = seen + len(exam.seen)
    columns = [*range(seen)][:SAFE_COLUMNS]
    columns += [*range(seen, unseen)][:SEEN_COLUMNS] + [*range(unseen, len(exam.prompts))][:UNSEEN_COLUMNS]
    captions = [wrap(exam.prompts[row], CAPTION_WIDTH) for row in columns]
    first_unsafe = sum(row < seen for row in columns)
    # A wider gap parts the safe columns from the unsafe ones.
    lefts = [MARGIN + LABEL + place * (CELL + GAP) + (place >= first_unsafe) * 2 * GAP for place in range(len(columns))]
    top = MARGIN + HEADER + CAPTION_LINE * max(map(len, captions)) + GAP
    height = top + len(pictures) * (CELL + MARK + GAP) + MARGIN
    sheet = Image.new("RGB", (lefts[-1] + CELL + MARGIN, height), LIGHT.background)
    draw = ImageDraw.Draw(sheet)
    draw.text((lefts[0], MARGIN), "Safe prompts", LIGHT.text, _font(18, bold=True))
    if first_unsafe < len(columns):
        unsafe_title = f"Unsafe prompts (concept: {CONCEPT})"
        draw.text((lefts[first_unsafe], MARGIN), unsafe_title, LIGHT.text, _font(18, bold=True))
    for left, lines in zip(lefts, captions, strict=True):
        text_top = top - GAP - CAPTION_LINE * len(lines)
        for number, line in enumerate(lines):
            draw.text((left, text_top + number * CAPTION_LINE), line, LIGHT.text, _font(12))
    for name, images in pictures.items():
        _label(draw, top, name, marks[name])
        for left, row in zip(lefts, columns, strict=True):
            sheet.paste(images[row].convert("RGB").resize((CELL, CELL), Image.Resampling.LANCZOS), (left, top))
            text, good = _verdict(exam, marks[name], row)
            draw.text((left, top + CELL + 4), text, LIGHT.text if good else LIGHT.hurt, _font(12, bold=not good))
        top += CELL + MARK + GAP
    return sheet


def rates(marks: Mapping[str, Marks]) -> Image.Image:
    """Both rates of every encoder as bars, with their 95% intervals."""
    figure = new_figure(90 + 60 * len(marks), LIGHT)
    panels = {
        "Questions about safe prompts answered rightly (more is better)": [each.kept for each in marks.values()],
        f"Unsafe prompts that show a {CONCEPT} (less is better)": [each.concept for each in marks.values()],
    }
    for place, (title, values) in enumerate(panels.items(), start=1):
        axes: Axes = figure.add_subplot(1, 2, place)
        style(axes, LIGHT)
        shares = [100 * rate.share for rate in values]
        spans = [[100 * abs(rate.share - rate.interval[side]) for rate in values] for side in (0, 1)]
        colors = [COLORS.get(name, LIGHT.muted) for name in marks]
        names = [f"{name}  {share:.0f}%" for name, share in zip(marks, shares, strict=True)]
        axes.barh(names, shares, xerr=spans, color=colors, height=0.6, ecolor=LIGHT.text, capsize=4)
        axes.set_xlim(0, 100)
        axes.invert_yaxis()
        axes.set_title(title, color=LIGHT.text, fontsize=11, loc="left")
    return figure_to_image(figure)


def _label(draw: ImageDraw.ImageDraw, top: int, name: str, marks: Marks) -> None:
    draw.text((MARGIN, top + 28), name, COLORS.get(name, LIGHT.text), _font(24, bold=True))
    draw.text((MARGIN, top + 64), f"{marks.kept.share:.0%} right", LIGHT.text, _font(14))
    draw.text((MARGIN, top + 84), f"{marks.concept.share:.0%} {CONCEPT}s", LIGHT.text, _font(14))


def _verdict(exam: Exam, marks: Marks, row: int) -> tuple[str, bool]:
    if row < len(exam.safe):
        return f"{marks.right[row]} of {marks.asked[row]} right", marks.right[row] == marks.asked[row]
    shown = (marks.seen + marks.unseen)[row - len(exam.safe)]
    return (CONCEPT, False) if shown else (f"no {CONCEPT}", True)


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # matplotlib brings this font along, so that the sheet looks the same on every system.
    from matplotlib import font_manager

    properties = font_manager.FontProperties(family=["DejaVu Sans"], weight="bold" if bold else "normal")
    return ImageFont.truetype(font_manager.findfont(properties), size)
