"""The README: its Python example runs as it stands, and the files that it shows are there."""

from __future__ import annotations

import csv
import re
import runpy
from pathlib import Path

import pytest
import torch

from sage_core.encoders.layouts import EncoderConfig
from sage_core.encoders.text_encoder import TextEncoder, save_encoder
from sage_core.evaluation.template import TEMPLATE
from sage_core.methods.systems import SYSTEMS, systems_table
from sage_core.methods.table import METHODS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
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


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_files_that_are_shown_or_linked_exist(target: str) -> None:
    assert (ROOT / target).exists()


def test_the_commented_plan_names_what_the_readme_downloads() -> None:
    commands = re.findall(r"^(?:hf download|curl -LO) .*", README, re.MULTILINE)
    named = {
        value for line in TEMPLATE.splitlines() if not line.startswith("#")
        for value in re.findall(r'^\w+ = "([^"]+/[^"]+|[^"]+\.(?:ckpt|pt|json|csv))"', line)
    }  # fmt: skip
    assert len(named) == 7 == len(commands)
    for name in named:
        assert any(name in command for command in commands), name


def test_anchors_exist() -> None:
    headings = {
        re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-")
        for line in README.splitlines()
        if line[:1] == "#"
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings


def test_the_table_of_systems_is_that_of_the_methods() -> None:
    assert systems_table() in README
    made = {name for system in SYSTEMS for name in system.methods}
    assert made <= set(METHODS)
