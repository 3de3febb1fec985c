"""One document as a web page that needs no other file, and as Markdown: headings, texts, tables and pictures."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from PIL import Image

from .files import whole_file, write_text
from .images import open_picture
from .tables import Table, markdown

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 1240px; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.2rem; font-size: 1.2rem; }
.table { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #e3e3e3; white-space: nowrap; }
.l { text-align: left; } .c { text-align: center; }
th:first-child, td:first-child { position: sticky; left: 0; background: #fff; }
td small { display: block; color: #616161; font-size: .68rem; }
.apart td { color: #616161; font-style: italic; } .note, figcaption { color: #616161; font-size: .85rem; }
figure { margin: 1rem 0; overflow-x: auto; }
figure > img { box-sizing: border-box; max-width: 100%; border: 1px solid #e3e3e3; border-radius: 6px; }
pre { background: #f6f6f6; padding: .8rem; white-space: pre-wrap; border-radius: 6px; font-size: .85rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)); gap: 1rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(400px, 100%), 1fr)); gap: 1rem; }
.cards > div { border: 1px solid #e3e3e3; border-radius: 6px; padding: .6rem; font-size: .85rem; }
.cards img { width: 48%; } .cards ul { margin: .3rem 0 0 1rem; padding: 0; color: #d55e00; }
""".strip()
_CODE = re.compile("`([^`]+)`")
# Longest side of a small picture, in pixels.
_SIDE = 256


@dataclass(frozen=True)
class Block:
    """A part of a page, escaped for both formats; `pictures` are its files. Empty Markdown is left out."""

    html: str
    markdown: str
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """A title and what stands below it."""

    title: str
    blocks: Sequence[Block]

    def to_html(self) -> str:
        """One file that needs no other."""
        title = html.escape(self.title)
        head = (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>\n"
            '<meta name=viewport content="width=device-width, initial-scale=1">\n'
            f"<style>{_STYLE}</style><h1>{title}</h1>"
        )
        return "\n".join([head, *(block.html for block in self.blocks)]) + "</html>\n"

    def to_markdown(self) -> str:
        """The same for a reader of Markdown, which shows pictures from their files."""
        return (
            "\n\n".join(filter(None, [f"# {markdown(self.title)}", *(block.markdown for block in self.blocks)])) + "\n"
        )

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


def lines(text: str) -> Block:
    """Lines as they stand."""
    fence = "`" * max([3, *(len(found) + 1 for found in re.findall("`+", text))])
    return Block(f"<pre>{html.escape(text)}</pre>", f"{fence}\n{text}\n{fence}")


def table(shown: Table) -> Block:
    """A table with its title and note."""
    return Block(shown.to_html(), shown.to_markdown())


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
    content = BytesIO()
    image.save(content, format=form, **({"quality": 85} if form == "JPEG" else {}))
    data = base64.b64encode(content.getvalue()).decode()
    return f'<img src="data:image/{form.lower()};base64,{data}" alt="{html.escape(alt)}">'
