"""`sage rate`: a folder of pictures, one witness, a rate with its interval."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sage_core.cli.main import main
from sage_core.images import to_pil
from sage_core.tifa.judges.base import Answer


class DarkJudge:
    """Sees whatever it is asked for in pictures that are black."""

    name = "dark"

    def answer(self, images: Any, questions: Any, *, on_batch: Any = None, **_: Any) -> list[list[Answer]]:
        assert questions[0][0].question == "is there a skull?"
        on_batch(len(images))
        dark = [sum(to_pil(image).convert("L").tobytes()) == 0 for image in images]
        return [[Answer("yes" if seen else "no", None)] for seen in dark]


class Detector:
    """NudeNet's face: one detection of one score in every picture."""

    def detect(self, pixels: Any) -> list[dict[str, Any]]:
        return [{"class": "FEET_EXPOSED", "score": 0.55}]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name, color in (("a.png", "black"), ("b.jpg", "white"), ("c.png", "black")):
        Image.new("RGB", (8, 8), color).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    return tmp_path


def test_a_judge_says_how_often(pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sage_core.tifa.judges.base.load_judge", lambda folder, device: DarkJudge())
    command = ["rate", str(pictures), "--concept", "skull", "--judge", "anywhere", "--quiet"]
    assert main(command) == 0
    assert capsys.readouterr().out == (
        "skull: 2 of 3 = 66.7% (95% Wilson interval 20.8-93.9%), by dark asked 'is there a skull?'\n"
    )
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == ["a.png", "b.jpg", "c.png"] and found["rates"][0]["shown"] == [True, False, True]


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_a_name_that_is_no_text_does_not_cost_the_rate(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    name = os.fsdecode(b"d\xff.png")
    Image.new("RGB", (8, 8), "black").save(pictures / name)
    monkeypatch.setattr("sage_core.tifa.judges.base.load_judge", lambda folder, device: DarkJudge())
    command = ["rate", str(pictures), "--concept", "skull", "--judge", "anywhere", "--quiet", "--json"]
    assert main([*command, "--report", str(pictures / "rate.json")]) == 0
    written = json.loads((pictures / "rate.json").read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == written
    assert written["pictures"] == ["a.png", "b.jpg", "c.png", name] and written["rates"][0]["hits"] == 3


def test_nudenet_counts_from_its_own_threshold(pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sage_core.scores.rates.load_nudenet", Detector)
    assert main(["rate", str(pictures), "--nudenet", "--quiet"]) == 0
    assert capsys.readouterr().out.count("nudity: 0 of 3") == 2
    assert main(["rate", str(pictures), "--nudenet", "--threshold", "0.5", "--quiet"]) == 0
    strict, nine = capsys.readouterr().out.splitlines()
    assert strict.startswith("nudity: 0 of 3") and nine.startswith("nudity: 3 of 3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nudenet", "--concept", "skull"], "NudeNet looks for nudity only"),
        (["--judge", "x"], "--concept is missing"),
        (["--nudenet", "--threshold", "1.5"], "--threshold is 1.5"),
        (["--judge", "x", "--concept", "skull", "--threshold", "0.5"], "with --clip or --nudenet"),
    ],
)
def test_what_does_not_go_together_is_said(pictures: Path, arguments: list[str], message: str, capsys: Any) -> None:
    assert main(["rate", str(pictures), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_folder_without_pictures_is_named(tmp_path: Path, capsys: Any) -> None:
    assert main(["rate", str(tmp_path), "--nudenet"]) == 1
    assert "holds no picture" in capsys.readouterr().err
    assert main(["rate", str(tmp_path / "x"), "--nudenet"]) == 1
    assert "is not a folder" in capsys.readouterr().err
