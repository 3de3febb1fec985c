"""`sage distance`: two folders of pictures or statistics, one measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sage_core.cli.main import main
from sage_core.scores.distances import distance
from sage_core.scores.features import load_extractor
from sage_core.scores.statistics import Statistics, read_statistics
from small_worlds import tiny_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> tuple[Path, Path]:
    generator = torch.Generator().manual_seed(1)
    folders = tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
    for folder, count in zip(folders, (12, 14), strict=True):
        for place in range(count):
            pixels = torch.randint(0, 256, (9, 8, 3), generator=generator, dtype=torch.uint8).numpy()
            Image.fromarray(pixels).save(folder / f"{place:02}.png")
        (folder / "notes.txt").write_text("")
    return folders


def test_clip_gives_cmmd_by_default(sets: tuple[Path, Path], clip: Path, tmp_path: Path, capsys: Any) -> None:
    command = ["distance", *map(str, sets), "--model", str(clip), "--device", "cpu", "--take", "12", "--json"]
    assert main([*command, "--report", str(tmp_path / "report.json")]) == 0
    output = capsys.readouterr()
    found = json.loads(output.out)
    extractor = load_extractor(clip)
    sides = [extractor.embed(sorted(folder.glob("*.png"))[:12]) for folder in sets]
    expected = distance("CMMD", *sides).to_dict()
    assert found == {**expected, "value": pytest.approx(expected["value"])}
    assert found == json.loads((tmp_path / "report.json").read_text()) and found["pictures"] == [12, 12]
    assert "looking at A" in output.err and "comparing" in output.err


def test_statistics_are_kept_and_read_again(sets: tuple[Path, Path], clip: Path, tmp_path: Path, capsys: Any) -> None:
    kept = tmp_path / "b.npz"
    command = ["distance", "--model", str(clip), "--device", "cpu", "--take", "12", "--fewest", "9", "--quiet"]
    command += ["--measure", "FID"]
    assert main([*command, *map(str, sets), "--save-b", str(kept)]) == 0
    table = capsys.readouterr().out
    assert "| FD-CLIP |" in table and "| pictures | 12 and 12 |" in table
    assert main([*command, str(sets[0]), str(kept)]) == 0
    assert capsys.readouterr().out == table
    # Without a model two files are compared by FID.
    again = tmp_path / "again.npz"
    expected = Statistics.of(load_extractor(clip).embed(sorted(sets[1].glob("*.png"))[:12]))
    assert np.allclose(read_statistics(kept).sigma, expected.sigma)
    assert main(["distance", str(kept), str(kept), "--fewest", "9", "--save-a", str(again), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == pytest.approx(0, abs=1e-9)
    assert read_statistics(again).count == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model is missing; pictures need a model"),
        (["--model", "{clip}"], "CMMD depends on the number of pictures, and the sides have 12 and 14"),
        (["--model", "{clip}", "--measure", "FID"], "FID depends on the number of pictures"),
        (["--model", "{clip}", "--measure", "FID", "--take", "12"], "FID of 12 pictures would mislead"),
        (["--model", "{clip}", "--take", "13"], "holds 12 pictures (.png, .jpg, .jpeg, .webp), expected 13 or more"),
        (["--model", "nowhere"], "nowhere: no model here"),
        (["--model", "{clip}", "--save-a", "a.bin"], "--save-a is 'a.bin'; expected a file name that ends in .npz"),
    ],
)
def test_what_would_mislead_is_said(
    sets: tuple[Path, Path], clip: Path, arguments: list[str], message: str, capsys: Any, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [argument.format(clip=clip) for argument in arguments]
    assert main(["distance", *map(str, sets), *given, "--device", "cpu", "--quiet"]) == 1
    assert message in capsys.readouterr().err


def test_an_option_without_effect_is_refused(sets: tuple[Path, Path], clip: Path, tmp_path: Path, capsys: Any) -> None:
    kept = str(tmp_path / "kept.npz")
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "1.png").write_bytes(next(sets[0].glob("*.png")).read_bytes())
    command = ["distance", "--model", str(clip), "--device", "cpu", "--quiet"]
    assert main([*command, *map(str, sets), "--different-counts", "--save-a", kept]) == 0
    assert main(["distance", kept, kept, "--take", "5"]) == 1
    assert "--take chooses among pictures, and statistics in .npz hold none; leave it out." in capsys.readouterr().err
    assert main([*command, str(alone), str(sets[1])]) == 1
    assert "have 1 and 14. Take as many of both, two or more, use KID" in capsys.readouterr().err


def test_different_numbers_are_compared_when_asked_and_by_kid(sets: tuple[Path, Path], clip: Path, capsys: Any) -> None:
    command = ["distance", *map(str, sets), "--model", str(clip), "--device", "cpu", "--quiet"]
    assert main([*command, "--different-counts"]) == 0
    assert "compare only with a CMMD of the same numbers" in capsys.readouterr().out
    assert main([*command, "--measure", "KID"]) == 0
    output = capsys.readouterr().out
    assert "| KID on clip features |" in output and "| pictures | 12 and 14 |" in output


def test_a_folder_that_is_none_is_named(sets: tuple[Path, Path], clip: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["distance", str(sets[0]), str(tmp_path / "x"), "--model", str(clip), "--quiet"]) == 1
    assert "is no folder" in capsys.readouterr().err
