"""`sage erase` and `sage edit` on a tiny checkpoint of SD 1.x's kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_unets import CHECKPOINT_ENCODER, CHECKPOINT_UNET, write_checkpoint

from sage_core.cli.main import main
from sage_core.encoders.text_encoder import TextEncoder, state_hash
from sage_core.errors import SettingsError
from sage_core.methods.closed_form.uce import UceSettings, edit
from sage_core.methods.concepts import Concepts
from sage_core.methods.table import METHODS, of_kind, settings_of
from sage_core.runs.keeping import weights_hash
from sage_core.unet.changes import changes
from sage_core.unet.files import read_unet, sizes_of
from sage_core.unet.names import reads_prompt


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("erase"))


@pytest.fixture(scope="module")
def captions(checkpoint: Path) -> str:
    path = checkpoint.parent / "captions.txt"
    path.write_text("\n".join(f"{n} {c} {s}" for n in ("one", "two") for c in ("red", "blue") for s in ("cup", "dog")))
    return str(path)


def test_erase_writes_the_librarys_edit_and_edit_reports_it(
    checkpoint: Path, tmp_path: Path, captions: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "edit.safetensors"
    line = ["erase", str(checkpoint), "--concept", "skull", "--guide", "star", "--keep", captions, "--out", str(out)]
    assert main([*line, "--erase-scale", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    unet = read_unet(checkpoint, sizes_of(checkpoint))
    weights = {name: stored.load() for name, stored in unet.stored.items() if reads_prompt(name)}
    kept = tuple(Path(captions).read_text().splitlines())
    encoder = TextEncoder.from_file(checkpoint)
    wanted = edit(weights, encoder, Concepts(("skull",), ("star",), kept), UceSettings(erase_scale=2.0))
    assert found["matrices"] == len(weights) and found["residual"] < 1e-10
    assert found["relative"] == pytest.approx(wanted.relative)
    written = changes(read_unet(out, CHECKPOINT_UNET), {name: stored.load() for name, stored in unet.stored.items()})
    assert written.deltas.keys() == wanted.deltas.keys()
    for name, delta in wanted.deltas.items():
        torch.testing.assert_close(written.deltas[name], delta)
    assert all(key.startswith("diffusion_model.") and key.endswith(".diff") for key in load_file(out))
    with safe_open(out, framework="pt") as file:
        about = file.metadata()
    assert about["sage_method"] == "UCE" and "'erase_scale': 2.0" in about["sage_settings"].replace('"', "'")
    assert about["matrices_hash"] == weights_hash(weights)
    assert about["encoder_hash"] == state_hash(encoder.state()) and "software" in about

    again = tmp_path / "again.safetensors"
    assert main(["edit", str(out), "--base", str(checkpoint), "--out", str(again), "--quiet"]) == 0
    text = capsys.readouterr().out
    assert f"{len(weights)} of {len(unet.stored)} tensors changed" in text and "looks like UCE" in text
    assert all(torch.equal(value, load_file(out)[key]) for key, value in load_file(again).items())


@pytest.mark.parametrize("method", list(of_kind("closed form")))
def test_every_method_is_named_in_the_help_and_runs(
    method: str, checkpoint: Path, captions: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["erase", "--help"])
    assert method in capsys.readouterr().out.split("methods:")[1].split("examples:")[0]
    line = ["erase", str(checkpoint), "--concept", "skull", "--method", method, "--captions", captions]
    # Eight captions are too few for MACE's prior alone.
    line += ["--hold", "1"] if method == "mace" else []
    assert main([*line, "--out", str(tmp_path / "out.safetensors")]) == 0
    assert "matrices changed by" in capsys.readouterr().out


def test_edit_warns_of_another_base(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = {name: value + 0.01 for name, value in load_file(checkpoint).items()}
    save_file(moved, tmp_path / "other.safetensors")
    assert main(["edit", str(tmp_path / "other.safetensors"), "--base", str(checkpoint), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["changed"] == found["total"] and "another base" in found["warnings"][0]
    assert found["other_parts"] == {"text encoder": len(CHECKPOINT_ENCODER.shapes())}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--concept", "skull", "--guide", "skull"], "is its own guide"),
        (["--concept", "skull", "--method", "paint"], "method is 'paint', expected one of uce"),
        (["--concept", "skull", "--rounds", "2"], "rounds is 2, but UCE (2025) has no such setting"),
        (["--concept", "skull", "--guide", "a", "--guide", "b"], "1 concepts but 2 guides"),
        (["--concept", "skull", "--method", "mace"], "needs captions"),
        (["--concept", "skull", "--text-encoder", "CHECKPOINT.missing"], "CHECKPOINT.missing"),
    ],
)
def test_what_cannot_be_erased_is_one_sentence(
    arguments: list[str], words: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["erase", str(checkpoint), *arguments, "--out", str(tmp_path / "out.safetensors")]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()


def test_files_that_do_not_fit_are_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {name: value for name, value in load_file(checkpoint).items() if name.startswith("cond_stage")}
    save_file(words, tmp_path / "words.safetensors")
    assert main(["edit", str(tmp_path / "words.safetensors"), "--base", str(checkpoint)]) == 1
    assert "holds a text encoder and nothing of a U-Net" in capsys.readouterr().err
    assert main(["edit", str(checkpoint), "--base", str(tmp_path / "words.safetensors")]) == 1
    assert "not a whole U-Net" in capsys.readouterr().err
    assert main(["edit", str(checkpoint), "--base", str(checkpoint), "--quiet"]) == 1
    assert "changes nothing" in capsys.readouterr().err
    assert main(["erase", str(checkpoint), "--concept", "skull", "--out", str(checkpoint)]) == 1
    assert "would be lost" in capsys.readouterr().err
    assert main(["erase", str(tmp_path / "none.ckpt"), "--concept", "skull", "--out", str(tmp_path / "x.pt")]) == 1
    assert "ends in .safetensors" in capsys.readouterr().err


def test_rounds_are_whole() -> None:
    assert type(settings_of("rece", {"rounds": 2.0}).epochs) is int
    with pytest.raises(SettingsError, match=r"rounds is 1\.5, expected a whole number"):
        settings_of("rece", {"rounds": 1.5})


@pytest.mark.parametrize("method", list(of_kind("closed form")))
def test_knobs_reach_the_settings(method: str) -> None:
    knobs = {"erase_scale": 7.0, "hold": 3.0, "keep_scale": 2.0, "rounds": 5}
    taken = 0
    for name, value in knobs.items():
        try:
            settings = settings_of(method, {name: value})
        except SettingsError:
            continue
        assert settings != settings_of(method, {name: 0}) and value in vars(settings).values()
        taken += 1
    assert taken == len(METHODS[method].knobs)
