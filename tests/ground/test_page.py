"""A page needs no other file and shows texts as they are; Markdown says the same."""

from __future__ import annotations

import base64
import csv
import io
import re
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from sage_core import __version__
from sage_core.page import Page, cards, heading, lead, lines, paragraph, picture, side_by_side, table
from sage_core.tables import Cell, Table

RUDE = '<script>alert("&")</script>'


class Reader(HTMLParser):
    """Tags, and text outside of the style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def made(folder: Path) -> Page:
    Image.new("RGB", (600, 300), "red").save(folder / "large.png")
    images = [picture(f"{name}.png", Image.new("RGB", (8, 4), name), f"{name} {RUDE}") for name in ("red", "blue")]
    return Page(
        f"Title {RUDE}",
        [
            paragraph(f"`code` and {RUDE}"), paragraph("note", quiet=True), heading(RUDE), images[0],
            side_by_side(images[1:]), lines(f"two ```\n{RUDE}"),
            table(Table(("", RUDE), [(RUDE, 1)], title=RUDE, note=RUDE), RUDE),
            cards([({RUDE: folder / "large.png"}, RUDE, [RUDE])]),
        ],
    )  # fmt: skip


def test_texts_are_shown_as_they_are(tmp_path: Path) -> None:
    page = made(tmp_path).to_html()
    reader = Reader(page)
    assert "script" not in {tag for tag, _ in reader.tags} and reader.text.count(RUDE) == 14
    assert "<code>code</code>" in page and "<p class=note>note</p>" in page
    sources = [found["src"] for tag, found in reader.tags if tag == "img"]
    assert len(sources) == 3 and all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"(?:href|src)=\"(?!data:)", page) and "http" not in page
    small = Image.open(io.BytesIO(base64.b64decode(sources[2].split(",")[1])))
    assert small.size == (256, 128) and small.format == "JPEG"


def test_a_page_is_written_with_its_pictures(tmp_path: Path) -> None:
    page = made(tmp_path)
    page.write(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "blue.png",
        "red.png",
        "report.html",
        "report.md",
    ]
    with Image.open(tmp_path / "out" / "blue.png") as image:
        assert image.size == (8, 4)
    text = (tmp_path / "out" / "report.md").read_text()
    kept = RUDE.replace("<", r"\<")
    assert text.startswith(f"# Title {kept}\n\n`code` and ") and f"|\n\n{kept}\n\nMade on 2" in text
    assert text.endswith(" cores.\n") and f"by sage-alignment {__version__} on " in text
    fenced = f"````\ntwo ```\n{RUDE}\n````"
    assert f"![blue {kept}](blue.png)" in text and fenced in text and "large" not in text
    # No viewer finds a tag to read as HTML outside of what is shown as it stands.
    assert not re.search(r"(?<!\\)<[a-z/]", text.replace(fenced, ""))


def test_a_link_in_a_pages_place_goes_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    for name in ("report.html", "report.md", "red.png"):
        (tmp_path / "out" / name).symlink_to(tmp_path / "diary.txt")
    made(tmp_path).write(tmp_path / "out")
    assert (tmp_path / "diary.txt").read_text() == "mine"
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!doctype")


def test_a_page_begins_with_its_conclusion_and_hands_out_its_tables() -> None:
    shown = Table(("method", "TIFA", "n"), [("=SAGE, ours", Cell(1 / 3, 0.25, 0.5), 2), ("base", Cell(None), 3)])
    page = Page("t", [lead(f"Won {RUDE}"), table(shown, "rates")], made="then")
    reader = Reader(page.to_html())
    (link,) = (found for tag, found in reader.tags if tag == "a")
    assert link["download"] == "rates.csv"
    content = urllib.parse.unquote((link["href"] or "").partition(",")[2])
    first, ours, base = csv.reader(io.StringIO(content))
    assert first == ["method", "TIFA", "TIFA low", "TIFA high", "n"]
    assert ours == ["'=SAGE, ours", repr(1 / 3), "0.25", "0.5", "2"] and base == ["base", "", "", "", "3"]
    kept = RUDE.replace("<", r"\<")
    assert page.to_markdown().startswith(f"# t\n\n**Won {kept}**\n\n") and page.to_markdown().endswith("\n\nthen\n")
    assert page.to_html().index("<p class=lead>Won") < page.to_html().index("<table")
