"""The benchmark's own claim: what `evaluation` draws is what diffusers' pipeline draws prompt by prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from sage_core.bench import drawing
from sage_core.bench.drawing import differences, disagreements, main
from small_worlds import tiny_folder

PLAN = """
base = "tiny"
[draw]
steps = 3
width = 32
height = 32
batch = 4
[prompts]
[[prompts.safe]]
name = "list"
file = "prompts.txt"
[[method]]
name = "SLD"
sld = "max"
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    tiny_folder(tmp_path / "tiny")
    (tmp_path / "prompts.txt").write_text("\n".join(f"{n} red cats on a blue roof" for n in range(9)) + "\n")
    (tmp_path / "plan.toml").write_text(PLAN)
    return tmp_path / "plan.toml"


def test_a_plan_is_drawn_both_ways_with_the_same_pictures(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bench"
    report = main(["--plan", str(plan), "--device", "cpu", "--precision", "fp32", "bf16", "--output", str(out)])
    rows = {(row["procedure"][:4], row["precision"]): row for row in report["timings"]}
    assert list(rows) == [("diff", "fp32"), ("diff", "bf16"), ("sage", "fp32"), ("sage", "bf16")]
    first, exact = rows["diff", "fp32"], rows["sage", "fp32"]
    assert [row["pictures"] for row in report["timings"]] == [8] * 4
    assert first["times"] == 1 and first["most_difference"] == 0
    # Rounded to the next level on either side of a half.
    assert exact["most_difference"] <= 1 and exact["mean_difference"] < 0.05 and not disagreements(report)
    assert 0 < rows["sage", "bf16"]["mean_difference"] < 6
    assert exact["times"] == pytest.approx(first["seconds"] / exact["seconds"]) and exact["cpu_seconds"] > 0
    table, saved = capsys.readouterr().out, json.loads((out / "bench.json").read_text())
    assert (out / "bench.md").read_text() == table and "| sage_core.evaluation | fp32 |" in table
    assert "8 pictures of tiny: ddim, 3 steps, guidance 7.5, 32×32 pixels; ours in batches of 4." in table
    assert saved["timings"][2]["pictures_per_second"] == 8 / exact["seconds"] and saved["machine"]["diffusers"] in table
    # Neither the plan's own folder nor its methods are touched.
    assert not (tmp_path / "evaluation").exists() or not list((tmp_path / "evaluation").rglob("*.png"))


def test_other_pictures_are_told(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / f"{level}.png" for level in (10, 13)]
    for file in files:
        Image.new("RGB", (4, 4), (int(file.stem), 10, 10)).save(file)
    assert differences(files[:1], files[:1]) == (0.0, 0)
    assert differences(files[:1], files[1:]) == (pytest.approx(1.0), 3)
    monkeypatch.setattr(drawing, "differences", lambda files, expected: (0.0 if files is expected else 9.0, 30))
    report = main(["--plan", str(plan), "--device", "cpu", "--precision", "fp32", "--pictures", "2"])
    assert disagreements(report) == ["sage_core.evaluation: pictures in fp32 differ by 9.00 levels in the mean"]
    assert "NOT WITHIN TOLERANCE: sage_core.evaluation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [(["--base", "missing.ckpt"], "missing.ckpt"), (["--plan", "missing.toml"], "missing.toml"),
     (["--base", "text.ckpt"], "text.ckpt is not a whole PyTorch"),
     (["--base", "folder"], "folder holds no U-Net: expected unet/diffusion_pytorch_model.safetensors")],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(
    more: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.ckpt").write_text("hello\n")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["--device", "cpu", *more])
    assert words in capsys.readouterr().err


@pytest.mark.full
def test_the_shapes_world_is_drawn_alike() -> None:
    report = main(["--quick", "--device", "cpu", "--precision", "fp32"])
    assert [row["pictures"] for row in report["timings"]] == [8, 8] and not disagreements(report)
    assert report["timings"][1]["most_difference"] <= 2
