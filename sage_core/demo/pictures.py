"""The demo's pictures: the same prompts drawn by every encoder, side by side, and the rates as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from ..plots import LIGHT, figure_to_image, new_figure, picture_font, style, title
from ..shapes.captions import CONCEPT
from .exam import Exam
from .scores import ENCODERS, Marks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAFE_COLUMNS, SEEN_COLUMNS, UNSEEN_COLUMNS = 5, 2, 2
# Pixels. Cells are three times the pictures' side; text must stay readable on a page half as wide.
CELL, GAP, LABEL, MARGIN = 192, 16, 190, 32
CAPTION_LINES, LINE, HEADER, MARK = 6, 23, 46, 34
COLORS = {name: LIGHT.method(place) for place, name in enumerate(ENCODERS)}


def comparison(exam: Exam, pictures: Mapping[str, Sequence[Image.Image]], marks: Mapping[str, Marks]) -> Image.Image:
    """A sheet of pictures: a column for each of the first prompts of each sort, a row for each encoder.

    Nothing is picked by hand.
    """
    columns = _columns(exam)
    captions = [_elided(exam.prompts[row]) for row in columns]
    first_unsafe = sum(row < len(exam.safe) for row in columns)
    # A wider gap parts the safe columns from the unsafe ones.
    lefts = [MARGIN + LABEL + place * (CELL + GAP) + (place >= first_unsafe) * 2 * GAP for place in range(len(columns))]
    top = MARGIN + HEADER + LINE * max(map(len, captions)) + GAP
    height = top + len(pictures) * (CELL + MARK + GAP) + MARGIN - GAP
    sheet = Image.new("RGB", (lefts[-1] + CELL + MARGIN, height), LIGHT.background)
    draw = ImageDraw.Draw(sheet)
    draw.text((lefts[0], MARGIN), "Safe prompts", LIGHT.text, picture_font(26, bold=True))
    if first_unsafe < len(columns):
        head = f"Prompts that ask for a {CONCEPT}"
        draw.text((lefts[first_unsafe], MARGIN), head, LIGHT.text, picture_font(26, bold=True))
    for left, lines in zip(lefts, captions, strict=True):
        text_top = top - GAP // 2 - LINE * len(lines)
        for number, line in enumerate(lines):
            draw.text((left, text_top + number * LINE), line, LIGHT.text, picture_font(18))
    for name, images in pictures.items():
        _label(draw, top, name, marks[name])
        for left, row in zip(lefts, columns, strict=True):
            sheet.paste(images[row].convert("RGB").resize((CELL, CELL), Image.Resampling.LANCZOS), (left, top))
            text, good = _verdict(exam, marks[name], row)
            draw.text((left, top + CELL + 5), text, LIGHT.good if good else LIGHT.hurt, picture_font(18, bold=True))
        top += CELL + MARK + GAP
    return sheet


def rates(marks: Mapping[str, Marks]) -> Image.Image:
    """Bars of every encoder's TIFA and concept rate, with their 95% intervals."""
    figure = new_figure(90 + 60 * len(marks), LIGHT)
    safe = {name: (each.tifa, each.tifa_interval) for name, each in marks.items()}
    unsafe = {name: (each.concept.share, each.concept.interval) for name, each in marks.items()}
    heads = (
        "TIFA: right answers about safe prompts, % (more is better)",
        f"Unsafe prompts that show a {CONCEPT}, % (less is better)",
    )
    for place, (head, values) in enumerate(zip(heads, (safe, unsafe), strict=True), start=1):
        axes: Axes = figure.add_subplot(1, 2, place)
        style(axes, LIGHT)
        shares = [100 * share for share, _ in values.values()]
        # abs: a bound that equals the share may lie on the other side of it by a rounding error.
        below = [100 * abs(share - interval.low) for share, interval in values.values()]
        above = [100 * abs(interval.high - share) for share, interval in values.values()]
        colors = [COLORS[name] for name in values]
        names = [f"{name}  {share:.0f}" for name, share in zip(values, shares, strict=True)]
        axes.barh(names, shares, xerr=[below, above], color=colors, height=0.6, ecolor=LIGHT.text, capsize=4)
        axes.set_xlim(0, 100)
        axes.invert_yaxis()
        title(axes, head, LIGHT, 11)
    return figure_to_image(figure)


def _columns(exam: Exam) -> list[int]:
    seen = len(exam.safe)
    unseen = seen + len(exam.seen)
    return [
        *[*range(seen)][:SAFE_COLUMNS],
        *[*range(seen, unseen)][:SEEN_COLUMNS],
        *[*range(unseen, len(exam.prompts))][:UNSEEN_COLUMNS],
    ]


def _elided(prompt: str) -> list[str]:
    """The prompt in lines as wide as a cell, the last one with an ellipsis where there would be too many."""
    lines: list[str] = []
    for word in prompt.split():
        longer = f"{lines[-1]} {word}" if lines else ""
        if lines and picture_font(18).getlength(longer) <= CELL:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > CAPTION_LINES:
        lines = [*lines[: CAPTION_LINES - 1], f"{lines[CAPTION_LINES - 1].rsplit(' ', 1)[0]} …"]
    return lines


def _label(draw: ImageDraw.ImageDraw, top: int, name: str, marks: Marks) -> None:
    draw.text((MARGIN, top + 44), name, COLORS[name], picture_font(34, bold=True))
    draw.text((MARGIN, top + 96), f"TIFA {marks.tifa:.0%}", LIGHT.text, picture_font(20))
    draw.text((MARGIN, top + 124), f"{CONCEPT}s {marks.concept.share:.0%}", LIGHT.text, picture_font(20))


def _verdict(exam: Exam, marks: Marks, row: int) -> tuple[str, bool]:
    if row < len(exam.safe):
        right, asked = marks.right(exam.prompts[row])
        return (f"✓ all {asked} right", True) if right == asked else (f"✗ {right} of {asked} right", False)
    return (f"✗ {CONCEPT}", False) if marks.concept.shown[row - len(exam.safe)] else (f"✓ no {CONCEPT}", True)
