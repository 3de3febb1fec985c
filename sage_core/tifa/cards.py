"""Pictures of scored images: the image, its caption, and each question ticked or crossed."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from ..images import ImageLike, to_pil
from ..plots import LIGHT, Theme, label, picture_font
from .scoring import ScoredQuestion

_SIDE = 256
_MARGIN = 12
_LINE = 22
_TEXT_WIDTH = 560
_CHARACTERS = 68
_RIGHT, _WRONG = "✓", "✗"


def question_card(image: ImageLike, scored: Sequence[ScoredQuestion], theme: Theme = LIGHT) -> Image.Image:
    """The image next to its caption and questions: ✓ question, or ✗ question → what was seen, and what is right."""
    picture = to_pil(image)
    scale = _SIDE / max(picture.size)
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    height = 2 * _MARGIN + max(_SIDE, _LINE * (len(scored) + 2))
    card = Image.new("RGB", (3 * _MARGIN + _SIDE + _TEXT_WIDTH, height), theme.background)
    card.paste(picture, (_MARGIN + (_SIDE - picture.width) // 2, _MARGIN + (_SIDE - picture.height) // 2))
    draw = ImageDraw.Draw(card)
    left, top = 2 * _MARGIN + _SIDE, _MARGIN
    right = sum(row.score for row in scored)
    draw.text((left, top), label(scored[0].question.caption, _CHARACTERS), fill=theme.text, font=picture_font(15))
    top += _LINE
    draw.text((left, top), f"{right} of {len(scored)} right", fill=theme.muted, font=picture_font(13))
    for row in scored:
        top += _LINE
        mark, color = (_RIGHT, theme.good) if row.score else (_WRONG, theme.hurt)
        draw.text((left, top), mark, fill=color, font=picture_font(16))
        draw.text((left + 22, top), _line(row), fill=theme.text if row.score else color, font=picture_font(14))
    return card


def card_sheet(cards: Sequence[Image.Image], theme: Theme = LIGHT) -> Image.Image:
    """Cards, one below the other."""
    sheet = Image.new("RGB", (max(card.width for card in cards), sum(card.height for card in cards)), theme.background)
    top = 0
    for card in cards:
        sheet.paste(card, (0, top))
        top += card.height
    return sheet


def _line(row: ScoredQuestion) -> str:
    text = f"{row.question.question} {row.chosen}"
    return label(text if row.score else f"{text}, not {row.question.answer}", _CHARACTERS)
