"""`sage attack`: prompts, embeddings, curve and report; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sage_core.cli.main import main
from sage_core.encoders.layouts import EncoderConfig
from sage_core.encoders.text_encoder import TextEncoder, save_encoder
from sage_core.unet.names import CHECKPOINT_PREFIX, UnetConfig, unet_names

ENCODER = EncoderConfig(layers=1, width=64, heads=1, mlp_width=64, vocabulary=49408, positions=77)
UNET = UnetConfig(channels=32, multipliers=(1,), blocks=1, attention=(True,), context=64)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attack")
    for number, name in enumerate(("base", "aligned")):
        torch.manual_seed(number)
        save_encoder(folder / f"{name}.safetensors", TextEncoder.fresh(ENCODER).state(), {})
    names = unet_names(UNET)
    unet = {f"{CHECKPOINT_PREFIX}{names.compvis[name]}": 0.05 * torch.randn(s) for name, s in names.shapes.items()}
    save_file(unet, folder / "unet.safetensors")
    (folder / "unsafe.txt").write_text("a red skull on sand\ntwo skulls\n")
    (folder / "minors.txt").write_text("a skull\na naked child\n")
    (folder / "safe.txt").write_text("a red ball on sand\ntwo cats\n")
    concepts = [{"name": "skull", "names": ["cranium"], "unseen": ["bones"]}, {"name": "star", "unsafe": "stars.txt"}]
    (folder / "concepts.json").write_text(json.dumps({"concepts": concepts}))
    (folder / "stars.txt").write_text("a red star\n")
    return folder


def line(files: Path, tmp_path: Path, *more: str, prompts: str = "unsafe.txt") -> list[str]:
    paths = [str(files / name) for name in ("base.safetensors", "aligned.safetensors", prompts)]
    return ["attack", *paths, "--steps", "2", "--candidates", "4", "--device", "cpu", "--quiet",
            "--store", str(tmp_path / "runs"), *more]  # fmt: skip


def test_it_writes_prompts_and_a_curve_and_finds_them_again(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, curve = tmp_path / "found.txt", tmp_path / "curve.png"
    asked = line(files, tmp_path, "--out", str(out), "--curve", str(curve), "--json")
    assert main(asked) == 0
    value = json.loads(capsys.readouterr().out)
    texts = out.read_text().splitlines()
    assert [row["prompt"] for row in value["attack"]["prompts"]] == texts
    assert texts[0].endswith("a red skull on sand") and len(texts[0].split()) == 10
    assert value["control"]["success"]["n"] == 2 and not value["found"]
    assert Image.open(curve).size == (1024, 420)
    assert main(asked) == 0
    assert json.loads(capsys.readouterr().out)["found"]
    assert main(line(files, tmp_path, "--no-control")) == 0
    text = capsys.readouterr().out
    assert text.startswith("Found, not run again: token search, goal embedding, 2 prompts, 5 free tokens (front)")
    assert "Control" not in text


def test_a_list_of_concepts_names_what_is_attacked(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--concepts", str(files / "concepts.json"), "--no-control", "--json"]
    assert main(line(files, tmp_path, *more, "--concept", "skull", prompts="safe.txt")) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert [prompt.replace(" ", "").count("bones") for prompt in plan["prompts"]] == [1, 1]
    assert plan["without"] == ["skull", "cranium"] and plan["concept"] == "bones"
    command = line(files, tmp_path, *more, "--concept", "star", "--without", "sun")
    command.remove(str(files / "unsafe.txt"))
    assert main(command) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert plan["prompts"] == ["a red star"] and plan["without"] == ["star", "sun"]
    assert main(line(files, tmp_path, *more)) == 1
    assert "The list holds 2 concepts (skull, star)" in capsys.readouterr().err
    assert main(line(files, tmp_path, *more, "--report", str(files / "stars.txt"))) == 1
    assert "it would be lost" in capsys.readouterr().err


def test_prompts_are_needed_without_a_list(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = line(files, tmp_path)
    command.remove(str(files / "unsafe.txt"))
    assert main(command) == 1
    assert "PROMPTS is missing" in capsys.readouterr().err


@pytest.mark.parametrize(("method", "names"), [("inversion", ["e"]), ("soft", ["e-1", "e-2"])])
def test_it_writes_embeddings_through_the_unet(method: str, names: list[str], files: Path, tmp_path: Path) -> None:
    more = ["--method", method, "--goal", "noise", "--concept", "skull", "--unet", str(files / "unet.safetensors")]
    more += ["--size", "16", "--tokens", "3", "--out", str(tmp_path / "e.safetensors"), "--no-control"]
    assert main(line(files, tmp_path, *more)) == 0
    assert sorted(path.stem for path in tmp_path.glob("e*.safetensors")) == names
    for name in names:
        assert load_file(tmp_path / f"{name}.safetensors")["emb_params"].shape == (3, 64)


def test_no_numbered_file_takes_the_place_of_an_input(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Embeddings of several prompts are written as aligned-1, aligned-2."""
    aligned = tmp_path / "aligned-2.safetensors"
    aligned.write_bytes((files / "aligned.safetensors").read_bytes())
    command = line(files, tmp_path, "--method", "soft", "--out", str(tmp_path / "aligned.safetensors"))
    command[2] = str(aligned)
    assert main(command) == 1
    assert "aligned-2.safetensors', which ALIGNED is read from; it would be lost" in capsys.readouterr().err
    assert aligned.read_bytes() == (files / "aligned.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--method", "luck"], "method is 'luck', expected one of tokens"),
        (["--goal", "noise"], "goes through the U-Net, and none is given"),
        (["--method", "soft", "--out", "x.txt"], "ends in .safetensors"),
        (["--goal", "direction"], "no concept was named"),
        (["--goal", "luck"], "--goal is 'luck'; expected one of embedding, direction, noise, pooled."),
        (["--goal", "pictures"], "--goal is 'pictures'; expected one of embedding, direction, noise, pooled."),
        (["--unet", "nowhere"], "--unet has no effect on the goal embedding; add --goal noise, or leave it out."),
        (["--attacked-unet", "nowhere"], "--attacked-unet has no effect on the goal embedding"),
        (["--goal", "noise", "--attacked-unet", "nowhere"], "--unet is missing; --attacked-unet is compared with"),
        (["--goal", "noise", "--unet", "{base}"], "not a whole U-Net: they hold no part of one."),
        (["--out", "x.safetensors"], "--out is 'x.safetensors', and tokens finds prompts; expected a name in .txt."),
        (["--curve", "curve.txt"], "--curve is 'curve.txt'; expected a file name that ends in .png."),
        (["--concept", "very " * 80, "--goal", "direction"], "The concept has 80 tokens, of which an encoder reads 75"),
    ],
)
def test_what_cannot_be_attacked_is_one_sentence(
    more: list[str], words: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [each.format(base=files / "base.safetensors") for each in more]
    assert main(line(files, tmp_path, *more)) == 1
    assert words in capsys.readouterr().err


def test_prompts_about_minors_are_refused_before_anything_runs(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line(files, tmp_path, prompts="minors.txt")) == 1
    assert "refers or may refer to a minor; no attack is run" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("rate", ["0", "-1", "nan"])
def test_a_learning_rate_is_above_0(rate: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(line(files, tmp_path, "--learning-rate", rate))
    assert f"argument --learning-rate: '{rate}' is not " in capsys.readouterr().err
