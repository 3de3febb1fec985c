"""The house style of all pictures: themes, figures, fonts, and labels for prompts.

Figures are made and drawn through matplotlib's objects and touch none of its global state, so that a server thread can
draw while a notebook plots. Colours are from Okabe and Ito's palette: distinct under common colour blindness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from .files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase, SubFigure
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

DPI = 100
# On common screens ComfyUI shows a picture at most 1024 pixels wide. A wider one would be scaled down, letters and all.
WIDTH = 1024


@dataclass(frozen=True)
class Theme:
    """The colours of a picture, by what they stand for.

    `base` is the encoder or model before any change; `aligned` is the one that a picture of a single method is about;
    `methods` are those of the methods of a report, see `method`.
    """

    background: str
    text: str
    muted: str
    grid: str
    base: str
    aligned: str
    hurt: str
    unsafe: str
    good: str
    methods: tuple[str, ...]

    def method(self, place: int) -> str:
        """The one colour that a method has in all figures of a report, by its place in it; at 0 stands the base.

        Beyond eight methods colours come again.
        """
        return self.methods[(place - 1) % len(self.methods)] if place else self.base

    def about(self, place: int) -> Theme:
        """This theme for a picture of the method at a place alone."""
        return replace(self, aligned=self.method(place))


LIGHT = Theme(
    "#FFFFFF", "#1A1A1A", "#616161", "#E3E3E3", "#6B6B6B", "#E69F00", "#D55E00", "#CC79A7", "#009E73",
    ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#8A7A00", "#5B4B9A", "#E69F00"),
)  # fmt: skip
DARK = Theme(
    "#1B1B1F", "#F2F2F2", "#A6A6AD", "#3A3A42", "#B9B9C1", "#E69F00", "#F0713A", "#CC79A7", "#2CC295",
    ("#F0713A", "#56B4E9", "#2CC295", "#CC79A7", "#A8DAF7", "#C9B937", "#A598E8", "#E69F00"),
)  # fmt: skip


def new_figure(height: int, theme: Theme, width: int = WIDTH) -> Figure:
    """An empty figure of this size in pixels, in the theme's colours, with a layout that avoids overlaps."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, wspace=0.02, hspace=0.02)
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=theme.background, layout=layout)


def parts(
    figure: FigureBase, theme: Theme, *, heights: Sequence[float] = (1,), widths: Sequence[float] = (1,)
) -> list[SubFigure]:
    """Divide a figure into rows of these relative heights or columns of these relative widths."""
    grid = figure.subfigures(len(heights), len(widths), height_ratios=heights, width_ratios=widths, squeeze=False)
    for part in grid.flat:
        part.set_facecolor(theme.background)
    return list(grid.flat)


def style(axes: Axes, theme: Theme) -> None:
    """Give axes the theme's colours, a light grid behind the data and no box around it."""
    axes.set_facecolor(theme.background)
    axes.grid(True, color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.muted, labelsize=10, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def title(axes: Axes, text: str, theme: Theme, size: int = 12, *, bold: bool = False) -> None:
    """Write a title at the top left of axes."""
    axes.set_title(text, loc="left", color=theme.text, fontsize=size, fontweight="bold" if bold else "normal")


def whole_ticks(axes: Axes) -> None:
    """Put ticks of the x axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))


def figure_to_image(figure: Figure) -> Image:
    """Draw a figure as an RGB picture of its own size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, whole."""
    with whole_file(path) as temporary:
        figure_to_image(figure).save(temporary, format="PNG")


@lru_cache
def picture_font(size: int, *, bold: bool = False) -> FreeTypeFont:
    """A font to write into pictures with: the one that matplotlib brings, the same on every system, with ✓ and ✗."""
    from matplotlib import font_manager
    from PIL import ImageFont

    properties = font_manager.FontProperties(family=["DejaVu Sans"], weight="bold" if bold else "normal")
    return ImageFont.truetype(font_manager.findfont(properties), size)


def label(text: str, length: int) -> str:
    """A prompt as it can be drawn: on one line, cut in the middle to `length` characters, with no missing glyphs.

    The end of a prompt often tells it from its neighbours; so the middle is cut.
    """
    line = " ".join(text.split())
    # Chinese, Japanese and Korean letters take two places.
    places = [2 if east_asian_width(character) in "WF" else 1 for character in line]
    if sum(places) > length:
        tail = length // 3
        first = sum(1 for end in accumulate(places) if end < length - tail)
        last = sum(1 for end in accumulate(reversed(places)) if end <= tail)
        line = line[:first].rstrip() + "…" + line[len(line) - last :].lstrip()
    known = _glyphs()
    return "".join(character if ord(character) in known else "□" for character in line)


def font(**properties: Any) -> dict[str, Any]:
    """Keywords for a matplotlib text that shows a prompt: letters of any script, and no formula between dollars."""
    return {"family": list(font_families()), "parse_math": False, **properties}


# Fonts with wide coverage on the three desktop systems, in the order in which a missing glyph is looked for.
_FALLBACK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Nirmala UI", "Segoe UI", "Segoe UI Symbol"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Symbols2"),
)


@lru_cache(maxsize=1)
def font_families() -> tuple[str, ...]:
    """The font that matplotlib brings, then the fallback fonts that this machine has."""
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return ("DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed))


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    from matplotlib import font_manager

    paths = (font_manager.findfont(font_manager.FontProperties(family=[name])) for name in font_families())
    return frozenset().union(*(font_manager.get_font(path).get_charmap() for path in paths))
