"""The README and docs/: the Python example runs as it stands, links lead somewhere, and nothing is said twice."""

from __future__ import annotations

import csv
import re
import runpy
from pathlib import Path

import pytest
import torch

from node_entries import ENTRIES
from sage_core.alignment.settings import PRESETS
from sage_core.encoders.layouts import EncoderConfig
from sage_core.encoders.text_encoder import TextEncoder, save_encoder
from sage_core.evaluation.template import TEMPLATE
from sage_core.methods.systems import SYSTEMS, systems_table
from sage_core.methods.table import METHODS

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
# Read on GitHub, in the order in which a newcomer meets them.
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (README, *sorted((ROOT / "docs").glob("*.md")))}
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)")
LINKS = [(page, *found) for page, text in PAGES.items() for found in LINK.findall(text)]


def test_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGES["python.md"], re.DOTALL)
    config = EncoderConfig(layers=1, width=32, heads=2, mlp_width=32, vocabulary=49408, positions=77)
    state = {name: 0.1 * torch.randn(value.shape) for name, value in TextEncoder(config).state().items()}
    save_encoder(tmp_path / "sd15.safetensors", state, {})
    with open(tmp_path / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        colors = ("red", "green", "blue", "white", "black", "yellow")
        words = [f"{count} {color} apples" for color in colors for count in ("one", "two", "six", "nine")]
        csv.writer(file).writerows([("safe", "unsafe"), *((word, f"{word}, nudity") for word in words)])
    (tmp_path / "example.py").write_text(example, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("example.py", run_name="__main__")
    assert re.search(r"^spread ratio \d\.\d{3}$", capsys.readouterr().out, re.MULTILINE)
    assert (tmp_path / "mine.safetensors").is_file()


def headings(text: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    lines = [line for line in text.splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-") for line in lines}


@pytest.mark.parametrize(("page", "target", "anchor"), LINKS)
def test_files_and_anchors_that_are_shown_or_linked_exist(page: str, target: str, anchor: str) -> None:
    path = README if page == "README.md" else ROOT / "docs" / page
    path = path.parent / target if target else path
    assert path.exists()
    assert not anchor or anchor in headings(path.read_text(encoding="utf-8"))


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    assert len(PAGES["README.md"].split()) <= 1500
    linked = {target for page, target, _ in LINKS if page == "README.md"}
    assert {f"docs/{page}" for page in PAGES if page != "README.md"} <= linked


def test_no_sentence_is_there_twice() -> None:
    seen: dict[str, str] = {}
    for page, text in PAGES.items():
        prose = re.sub(r"```.*?```|^\|.*$", "", text, flags=re.DOTALL | re.MULTILINE)
        for sentence in re.split(r"(?<=[.:?])\s+|\n\n", prose):
            if len(sentence.split()) > 5:
                assert sentence not in seen, (page, seen[sentence], sentence)
                seen[sentence] = page


def test_every_preset_has_its_row() -> None:
    rows = [line for line in PAGES["presets.md"].splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(row.split(" | ")[0] for row in rows))) == set(PRESETS)


def test_every_node_is_on_the_page_of_nodes() -> None:
    rows = [line.split(" | ") for line in PAGES["nodes.md"].splitlines() if line.startswith("| ")]
    folder, listed = "", {}
    for first, name, *_ in rows[2:]:
        folder = first.strip("| ") or folder
        listed[name.strip()] = f"SAGE/{folder}"
    assert listed == {entry.name: entry.category for entry in ENTRIES.values()}


def test_the_commented_plan_names_what_is_downloaded() -> None:
    commands = re.findall(r"^(?:hf download|curl -LO) .*", PAGES["evaluation.md"], re.MULTILINE)
    named = {
        value for line in TEMPLATE.splitlines() if not line.startswith("#")
        for value in re.findall(r'^\w+ = "([^"]+/[^"]+|[^"]+\.(?:ckpt|pt|json|csv))"', line)
    }  # fmt: skip
    assert len(named) == 7 == len(commands)
    for name in named:
        assert any(name in command for command in commands), name


def test_the_table_of_systems_is_that_of_the_methods() -> None:
    assert systems_table() in PAGES["systems.md"]
    made = {name for system in SYSTEMS for name in system.methods}
    assert made <= set(METHODS)
