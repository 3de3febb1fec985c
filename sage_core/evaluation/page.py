"""report.html: tables, figures, and the pictures behind each lost question, in one file that needs no other.

Pictures of attacks are never on it: whoever opens a page of numbers need not see them.
"""

from __future__ import annotations

import base64
import html
from collections import defaultdict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from PIL import Image

from ..files import write_text
from ..images import open_picture
from ..tifa.comparison import Comparison
from ..tifa.scoring import ScoredQuestion
from .plan import CAPTIONS, MethodPlan
from .results import Results

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 1240px; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.2rem; font-size: 1.2rem; }
.table { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #e3e3e3; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
td small { display: block; color: #616161; font-size: .68rem; }
tr.published td { color: #616161; font-style: italic; } .note, figcaption { color: #616161; font-size: .85rem; }
figure { margin: 1rem 0; } figure > img { max-width: 100%; border: 1px solid #e3e3e3; border-radius: 6px; }
.lost { display: grid; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); gap: 1rem; }
.lost > div { border: 1px solid #e3e3e3; border-radius: 6px; padding: .6rem; font-size: .85rem; }
.lost img { width: 48%; image-rendering: auto; } .lost ul { margin: .3rem 0 0 1rem; padding: 0; color: #d55e00; }
""".strip()
# Longest side of a picture on the page, in pixels.
_SIDE = 256


def write_page(file: Path, results: Results) -> None:
    """Write the page."""
    plan = results.layout.plan
    name = html.escape(plan.headline)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style><h1>{name}</h1><p>{html.escape(results.protocol)}</p>",
        *(table.to_html() for table in results.tables),
        *(_figure(image, caption) for caption, image in results.figures.values()),
    ]
    for method in plan.methods[1:]:
        if comparison := results.comparisons.get(method.name):
            parts += _lost(results, method, comparison)
    parts += [f"<p class=note>{html.escape(note)}</p>" for note in results.notes]
    write_text(file, "\n".join(parts) + "</html>\n")


def _lost(results: Results, method: MethodPlan, comparison: Comparison) -> Iterator[str]:
    """The pictures of the captions that lost most, each next to the base's."""
    groups: dict[str, list[ScoredQuestion]] = defaultdict(list)
    for row in comparison.lost:
        groups[row.image].append(row)
    most = sorted(groups, key=lambda image: -len(groups[image]))[: results.layout.plan.score.lost]
    total = f"{len(comparison.lost):,} questions about {len(groups):,} pictures"
    yield f"<h2>{html.escape(method.name)}: lost against the base</h2>"
    shown = f"the {len(most)} pictures that lost most are shown" if len(most) < len(groups) else "all are shown"
    beside = f"; {shown}, the base on the left" if most else ""
    yield f"<p class=note>{total}{beside}. All questions are in lost.csv.</p>"
    captions = next(each for each in results.layout.lists if each.kind == CAPTIONS)
    places = {item.id: item.file for item in captions.items}
    yield "<div class=lost>"
    for image in most:
        files = [
            results.layout.pictures(each, captions) / places[image] for each in (results.layout.plan.methods[0], method)
        ]
        pictures = " ".join(_image(_small(file), alt) for file, alt in zip(files, ("base", method.name), strict=True))
        lines = "".join(f"<li>{html.escape(_line(row))}" for row in groups[image])
        yield f"<div>{pictures}<br>{html.escape(groups[image][0].question.caption)}<ul>{lines}</ul></div>"
    yield "</div>"


def _line(row: ScoredQuestion) -> str:
    return f"{row.question.question} {row.chosen}, not {row.question.answer}"


def _small(file: Path) -> Image.Image:
    picture = open_picture(file)
    picture.thumbnail((_SIDE, _SIDE))
    return picture


def _figure(image: Image.Image, caption: str) -> str:
    text = html.escape(caption)
    return f"<figure>{_image(image, caption, 'PNG')}<figcaption>{text}</figcaption></figure>"


def _image(image: Image.Image, alt: str, form: str = "JPEG") -> str:
    content = BytesIO()
    image.save(content, format=form, **({"quality": 85} if form == "JPEG" else {}))
    data = base64.b64encode(content.getvalue()).decode()
    return f'<img src="data:image/{form.lower()};base64,{data}" alt="{html.escape(alt)}">'
