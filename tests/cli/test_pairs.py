"""`sage pairs` on the shapes world's text encoder, and what `sage train` makes of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from tiny_unets import write_checkpoint

from sage_core.cli.main import main
from sage_core.encoders.layouts import read_encoder
from sage_core.encoders.text_encoder import save_encoder
from sage_core.prompts.concept_files import read_concepts
from sage_core.shapes.bench.own import natural_captions
from sage_core.shapes.networks.checkpoint import ExpandedFiles


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captions") / "captions.txt"
    path.write_text("\n".join(natural_captions(300, seed=0)))
    return path


def command(files: ExpandedFiles, captions: Path, out: Path, *more: object) -> list[str]:
    base = ["pairs", str(files.text_encoder), "--captions", str(captions), "--out", str(out), "--device", "cpu"]
    return [*base, "--count", "32", "--quiet", *map(str, more)]


def test_pairs_are_written_with_what_was_found_and_can_be_trained_with(
    shapes_files: ExpandedFiles, captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, found = tmp_path / "pairs.csv", tmp_path / "found.toml"
    line = command(shapes_files, captions, out, "--concept", "skull", "--concepts-out", found, "--json")
    assert main(line) == 0, capsys.readouterr().err
    report = json.loads(capsys.readouterr().out)
    rows = list(csv.DictReader(out.open(encoding="utf-8")))
    assert len(rows) == report["pairs"] == 32 and {row["concept"] for row in rows} == {"skull"}
    assert not any("skull" in row["safe"] for row in rows)
    assert read_concepts(found)[0].near == tuple(report["found"][0]["near"][:24])

    # Half of the encoder trains in half of the time.
    half, encoder = tmp_path / "half.safetensors", tmp_path / "safe.safetensors"
    state, _ = read_encoder(shapes_files.text_encoder)
    save_encoder(half, {name: value for name, value in state.items() if ".layers.1." not in name}, {})
    train = ["train", str(half), str(out), "--concept", "skull", "--out", str(encoder), "--quiet"]
    settings = ["batch_size=4", "neighbours=2", "steps=2", "held_out=0", "until=removed", "precision=fp32"]
    assert main([*train, *(part for each in settings for part in ("--set", each)), "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Trained") and lines[1].startswith("⚠ Not removed: ")


MADE = {
    "erase": ["--method", "uce"],
    "redirect": ["--set", "pictures=2", "--set", "sampling_steps=2", "--set", "batch_size=2", "--steps", "1"],
    "make gate": ["--set", "batch_size=4", "--set", "false_alarms=0.4", "--steps", "2"],
}


@pytest.mark.full
def test_every_command_takes_what_was_made(
    shapes_files: ExpandedFiles, captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, found, report = tmp_path / "pairs.csv", tmp_path / "found.toml", tmp_path / "report.json"
    line = command(shapes_files, captions, pairs, "--concept", "red star", "--concepts-out", found)
    assert main(line) == 0, capsys.readouterr().err
    write_checkpoint(tmp_path)
    (concept,) = read_concepts(found)
    assert concept.near and concept.names
    for name, more in MADE.items():
        out = tmp_path / f"{name}.safetensors"
        given = ["--pairs", str(pairs), "--concepts", str(found), "--out", str(out), "--report", str(report)]
        trained = [] if name == "erase" else ["--size", "32", "--quiet", "--device", "cpu"]
        assert main([*name.split(), str(tmp_path / "tiny.safetensors"), *given, *trained, *more]) == 0, name
        assert out.stat().st_size > 0
        assert "32 kept from pairs.csv" in capsys.readouterr().err, name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--concept", "naked child"], "refers or may refer to a minor"),
        (["--concept", "skull", "--short", "1.5"], "short is 1.5, expected"),
        (["--concept", "skull", "--concepts-out", "found.txt"], "ends in .toml"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    words: str,
    shapes_files: ExpandedFiles,
    captions: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command(shapes_files, captions, tmp_path / "pairs.csv", *arguments)) == 1
    assert words in capsys.readouterr().err and not (tmp_path / "pairs.csv").exists()
