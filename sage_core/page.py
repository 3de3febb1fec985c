"""One document as a web page that needs no other file, and as Markdown: headings, texts, tables and pictures."""

from __future__ import annotations

import base64
import datetime
import html
import os
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from PIL import Image

from . import __version__
from .devices import device_name
from .files import whole_file, write_text
from .images import open_picture
from .plots import DARK, LIGHT, Theme
from .tables import Table, markdown

# Figures are drawn for light pages: on a dark one each stands on a sheet of its own ground. An enlarged picture fills
# the window, and is as large as it is where that is more: no script is needed for it.
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--ground); max-width: 1240px;
       margin: 2rem auto; padding: 0 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.2rem; font-size: 1.2rem; } a { color: inherit; }
.lead { font-size: 1.15rem; font-weight: 600; }
.table { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
.l { text-align: left; } .c { text-align: center; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--ground); }
td small { display: block; color: var(--muted); font-size: .68rem; }
.apart td { color: var(--muted); font-style: italic; }
.note, figcaption { color: var(--muted); font-size: .85rem; }
figure { margin: 1rem 0; }
figure img { box-sizing: border-box; max-width: 100%; padding: .5rem; background: var(--sheet);
             border: 1px solid var(--line); border-radius: 6px; }
.zoom { cursor: zoom-in; } .zoom input { position: absolute; opacity: 0; }
.zoom input:focus-visible + img { outline: 3px solid var(--muted); }
.zoom:has(:checked) { position: fixed; inset: 0; z-index: 9; overflow: auto; background: var(--ground);
                      cursor: zoom-out; }
.zoom input:checked + img { display: block; margin: auto; width: auto; min-width: min(100%, 100vh); max-width: none; }
pre { background: var(--box); padding: .8rem; white-space: pre-wrap; border-radius: 6px; font-size: .85rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)); gap: 1rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(400px, 100%), 1fr)); gap: 1rem; }
.cards > div { border: 1px solid var(--line); border-radius: 6px; padding: .6rem; font-size: .85rem; }
.cards img { width: 48%; } .cards ul { margin: .3rem 0 0 1rem; padding: 0; color: var(--bad); }
""".strip()
_CODE = re.compile("`([^`]+)`")
# Longest side of a small picture, in pixels.
_SIDE = 256


def _colours(theme: Theme, box: str) -> str:
    """A theme as the style's names of colours; `box` is the ground of what stands apart."""
    named = {"ground": theme.background, "text": theme.text, "muted": theme.muted, "line": theme.grid}
    named |= {"bad": theme.hurt, "box": box, "sheet": LIGHT.background}
    return f":root {{ {' '.join(f'--{name}: {colour};' for name, colour in named.items())} }}"


@dataclass(frozen=True)
class Block:
    """A part of a page, escaped for both formats; `pictures` are its files. Empty Markdown is left out."""

    html: str
    markdown: str
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)


def _made() -> str:
    """When, by what and on what a page is made."""
    day, cores = datetime.date.today(), os.cpu_count()
    return f"Made on {day:%Y-%m-%d} by sage-alignment {__version__} on {device_name('cpu')} with {cores} cores."


@dataclass(frozen=True)
class Page:
    """A title and what stands below it; at its end it says how it was `made`."""

    title: str
    blocks: Sequence[Block]
    made: str = field(default_factory=_made)

    def to_html(self) -> str:
        """One file that needs no other."""
        title = html.escape(self.title)
        light, dark = _colours(LIGHT, "#f6f6f6"), _colours(DARK, "#26262b")
        head = (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>\n"
            '<meta name=viewport content="width=device-width, initial-scale=1">\n'
            f"<style>{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n{_STYLE}</style><h1>{title}</h1>"
        )
        return "\n".join([head, *(block.html for block in self._all)]) + "</html>\n"

    def to_markdown(self) -> str:
        """The same for a reader of Markdown, which shows pictures from their files."""
        parts = [f"# {markdown(self.title)}", *(block.markdown for block in self._all)]
        return "\n\n".join(filter(None, parts)) + "\n"

    @property
    def _all(self) -> list[Block]:
        return [*self.blocks, paragraph(self.made, quiet=True)]

    def write(self, folder: Path, name: str = "report") -> None:
        """Write it into `folder`: its pictures, `name`.md and `name`.html."""
        for block in self.blocks:
            for file, image in block.pictures.items():
                save_picture(folder / file, image)
        write_text(folder / f"{name}.md", self.to_markdown(), own=True)
        write_text(folder / f"{name}.html", self.to_html(), own=True)


def heading(text: str) -> Block:
    """A heading below the title."""
    return Block(f"<h2>{html.escape(text)}</h2>", f"## {markdown(text)}")


def paragraph(text: str, *, quiet: bool = False) -> Block:
    """A text; what stands between backticks is code. A `quiet` one is small and grey on the web page."""
    shown = _CODE.sub(r"<code>\1</code>", html.escape(text))
    return Block(f"<p class=note>{shown}</p>" if quiet else f"<p>{shown}</p>", markdown(text))


def lead(text: str) -> Block:
    """What the page comes to, said first."""
    return Block(f"<p class=lead>{html.escape(text)}</p>", f"**{markdown(text)}**")


def lines(text: str) -> Block:
    """Lines as they stand."""
    fence = "`" * max([3, *(len(found) + 1 for found in re.findall("`+", text))])
    return Block(f"<pre>{html.escape(text)}</pre>", f"{fence}\n{text}\n{fence}")


def table(shown: Table, name: str = "", *, content: str = "") -> Block:
    """A table with its title and note, and as a CSV file: called `name` or as the table is, with its own `content`."""
    content = urllib.parse.quote(content or shown.to_csv())
    file = html.escape(f"{name or shown.name or 'table'}.csv")
    link = f'<p class=note><a download="{file}" href="data:text/csv;charset=utf-8,{content}">{file}</a></p>'
    return Block(shown.to_html() + link, shown.to_markdown())


def picture(file: str, image: Image.Image, caption: str) -> Block:
    """A picture with its caption; `file` is its PNG file beside the page."""
    text = html.escape(caption)
    figure = f"<figure>{_img(image, caption)}<figcaption>{text}</figcaption></figure>"
    return Block(figure, f"![{markdown(caption)}]({file})\n\n*{markdown(caption)}*", {file: image})


def side_by_side(blocks: Sequence[Block]) -> Block:
    """Pictures in a row where there is room."""
    files = {name: image for block in blocks for name, image in block.pictures.items()}
    inner = "".join(block.html for block in blocks)
    return Block(f"<div class=grid>{inner}</div>", "\n\n".join(block.markdown for block in blocks), files)


def cards(found: Sequence[tuple[Mapping[str, Path], str, Sequence[str]]]) -> Block:
    """Small pictures, files by what they show, each group with a text and a list of lines below it.

    They are on the web page alone: Markdown would need the small pictures as files.
    """
    parts = []
    for files, text, listed in found:
        images = " ".join(_img(_small(file), name, "JPEG") for name, file in files.items())
        items = "".join(f"<li>{html.escape(line)}" for line in listed)
        parts.append(f"<div>{images}<br>{html.escape(text)}<ul>{items}</ul></div>")
    return Block(f"<div class=cards>{''.join(parts)}</div>", "")


def save_picture(path: Path, image: Image.Image) -> None:
    """Write a PNG file whole, in the place of a link."""
    with whole_file(path, own=True) as temporary:
        image.save(temporary, format="PNG")


def _small(file: Path) -> Image.Image:
    picture = open_picture(file)
    picture.thumbnail((_SIDE, _SIDE))
    return picture


def _img(image: Image.Image, alt: str, form: str = "PNG") -> str:
    """A picture that a click enlarges, and another makes small again."""
    content = BytesIO()
    image.save(content, format=form, **({"quality": 85} if form == "JPEG" else {}))
    data = base64.b64encode(content.getvalue()).decode()
    shown = f'<img src="data:image/{form.lower()};base64,{data}" alt="{html.escape(alt)}">'
    return f'<label class=zoom title="Enlarge"><input type=checkbox aria-label="Enlarge">{shown}</label>'
