"""`sage make` and `sage redirect` on a tiny checkpoint of SD 1.x's kind."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_unets import CHECKPOINT_UNET, one_layer_encoder, write_checkpoint

from sage_core.cli import make as make_command
from sage_core.cli.main import main
from sage_core.drawing.models import Model, whole_unet
from sage_core.encoders.text_encoder import TextEncoder, save_encoder
from sage_core.errors import SettingsError
from sage_core.evaluation.changes import change_of
from sage_core.evaluation.plan import MethodPlan, Part
from sage_core.methods.making import what_is
from sage_core.methods.redirecting import RedirectingSettings, train_redirection
from sage_core.methods.table import METHODS
from sage_core.prompts.pairs import pairs_from_lists
from sage_core.unet.changes import changes
from sage_core.unet.files import read_unet, sizes_of
from sage_core.unet.training import UnetRun, diffusers_unet

COLORS = ("red", "blue", "green", "black", "white", "grey", "brown", "pink")
SAFE, UNSAFE = ["a red ball", "two balls", "a cube"], ["a red skull", "two skulls", "bones"]
SET = ["--set", "pictures=2", "--set", "sampling_steps=2", "--set", "batch_size=2", "--set", "keep_batch=2"]
SMALL = [*SET, "--steps", "2", "--size", "32", "--quiet"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("redirect")
    write_checkpoint(folder)
    rows = [f"{safe},{unsafe}" for safe, unsafe in zip(SAFE, UNSAFE, strict=True)]
    (folder / "pairs.csv").write_text("\n".join(["safe,unsafe", *rows]))
    (folder / "safe.txt").write_text("\n".join(SAFE))
    (folder / "minors.csv").write_text("safe,unsafe\na ball,a child with a skull\n")
    (folder / "concepts.json").write_text(json.dumps([{"name": "skull"}, {"name": "bone"}]))
    save_encoder(folder / "narrow.safetensors", one_layer_encoder().state(), {})
    return folder


def command(files: Path, out: Path, *more: object) -> list[str]:
    return ["redirect", str(files / "tiny.safetensors"), *map(str, more), *SMALL, "--device", "cpu", "--out", str(out)]


def test_it_writes_the_librarys_edit_and_finds_it_again(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, curves = tmp_path / "edit.safetensors", tmp_path / "curves.png"
    line = command(
        files, out, "--pairs", files / "pairs.csv", "--concept", "skulls", "--seed", 3, "--set", "strength=2"
    )
    assert main([*line, "--curves", str(curves), "--report", str(tmp_path / "report.json")]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Trained: SAGE U-Net, preset sage_unet, concept skulls, 2 steps")
    assert "3 kept from pairs.csv" in said.err and "Load LoRA" in said.out and curves.is_file()
    report = json.loads((tmp_path / "report.json").read_text())
    assert not report["found"] and len(report["history"]) == 2 and report["metadata"]["pairs"] == "3"

    unet = read_unet(files / "tiny.safetensors", sizes_of(files / "tiny.safetensors"))
    state = {name: stored.load() for name, stored in unet.stored.items()}
    settings = RedirectingSettings(
        steps=2, pictures=2, sampling_steps=2, batch_size=2, keep_batch=2, seed=3, strength=2.0
    )
    encoder = TextEncoder.from_file(files / "tiny.safetensors")
    pairs = pairs_from_lists(SAFE, UNSAFE)
    wanted = train_redirection(UnetRun(state, size=32), encoder, pairs, settings, tmp_path / "runs")
    written = changes(read_unet(out, CHECKPOINT_UNET), state)
    assert written.deltas.keys() == wanted.deltas.keys() and report["tensors"] == len(wanted.deltas)
    for name, delta in wanted.deltas.items():
        torch.testing.assert_close(written.deltas[name], delta, rtol=1e-4, atol=1e-9)
    assert all(key.startswith("diffusion_model.") for key in load_file(out))

    again = tmp_path / "again.safetensors"
    assert main([*line[:-1], str(again)]) == 0
    assert capsys.readouterr().out.startswith("Found, not trained again")
    assert all(torch.equal(value, load_file(out)[key]) for key, value in load_file(again).items())


def test_pairs_are_made_as_in_train(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    safe, out = files / "safe.txt", tmp_path / "edit.safetensors"
    assert main(command(files, out, "--pairs", safe, "--concepts", files / "concepts.json", "--json")) == 0
    about = json.loads(capsys.readouterr().out)["metadata"]
    assert about["concept"] == "skull, bone" and about["pairs"] == "6"
    assert main(command(files, out, "--pairs", safe, "--concept", "skull", "--from-concept", "--json")) == 0
    about = json.loads(capsys.readouterr().out)["metadata"]
    assert about["concept"] == "skull" and about["pairs"] == "3"


def test_help_has_examples_that_the_command_line_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        main(["redirect", "--help"])
    examples = [shlex.split(line)[1:] for line in capsys.readouterr().out.splitlines() if line[:6] == "  sage"]
    taken: list[object] = []
    monkeypatch.setattr(make_command, "run_redirect", lambda options: len(taken.append(options) or ""))
    assert all(main(example) == 0 for example in examples)
    assert len(taken) == len(examples) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            "--pairs pairs.csv --set paint=1",
            "unknown setting 'paint'. Did you mean plain? Known settings: trained,",
        ),
        ("--pairs pairs.csv --set pictures=2.5", "--set: pictures is 2.5, expected a whole number, 1 or more"),
        ("--pairs pairs.csv --set steps=3", "steps comes from --steps; leave it out of --set"),
        ("--pairs pairs.csv --set seed=3", "seed comes from --seed; leave it out of --set"),
        ("--pairs pairs.csv --size 30", "size is 30, expected a multiple of 8 pixels"),
        ("--pairs pairs.csv --from-concept", "--from-concept needs --concept"),
        ("--pairs pairs.csv --text-encoder narrow.safetensors", "states of width 64, and the text encoder gives 16"),
        ("--pairs pairs.csv --report pairs.csv", "which --pairs is read from; it would be lost"),
        ("--pairs minors.csv", "No pair of prompts is left to use"),
        ("--pairs missing.csv", "missing.csv"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    arguments: str, words: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [files / each if each.endswith((".csv", ".safetensors")) else each for each in arguments.split()]
    line = command(files, tmp_path / "out.safetensors")
    assert main([*line, *map(str, more)]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()


# Short, and small enough for the tiny checkpoint.
SHORT = {
    "unlearning": ["--set", "sampling_steps=2", "--set", "retain_batch=1", "--steps", "1"],
    "erasing": ["--set", "sampling_steps=2", "--steps", "1"],
    "redirecting": [*SET, "--steps", "1"],
    "alignment": ["--set", "batch_size=20", "--set", "held_out=0", "--steps", "1"],
    "gate": ["--set", "batch_size=4", "--set", "false_alarms=0.4", "--steps", "2"],
}


@pytest.mark.parametrize("name", {method.kind: name for name, method in METHODS.items()}.values())
def test_every_method_is_made_and_read_back(
    name: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method, out = METHODS[name], tmp_path / "made.safetensors"
    pairs = [f"{count} {color} balls,{count} {color} skulls" for count in ["two", "three", "four"] for color in COLORS]
    (tmp_path / "pairs.csv").write_text("\n".join(["safe,unsafe", *pairs]))
    (tmp_path / "captions.txt").write_text("\n".join(f"a {color} ball on a table" for color in COLORS))
    line = ["make", name, str(files / "tiny.safetensors"), "--concept", "skull", "--out", str(out), "--device", "cpu"]
    line += ["--size", "32", "--quiet", *SHORT.get(method.kind, [])]
    line += ["--pairs", str(tmp_path / "pairs.csv")] if "pairs" in method.reads else []
    line += ["--captions", str(tmp_path / "captions.txt")] if "captions" in method.needs else []
    # A prior of six captions is too few for MACE's systems.
    line += ["--set", "lam=1"] if name == "mace" else []
    assert main([*line, "--json"]) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["out"] == str(out)

    kinds = {"alignment": "text encoder", "unlearning": "text encoder", "gate": "gate"}
    kinds |= dict.fromkeys(("guidance", "prompts"), "settings")
    assert what_is(out) == kinds.get(method.kind, "U-Net")
    unet = diffusers_unet({name: value for name, _, value in whole_unet(files / "tiny.safetensors").tensors()})
    model = Model(unet, torch.nn.Identity(), TextEncoder.from_file(files / "tiny.safetensors"), "tiny")
    change = change_of(MethodPlan(name, file=Part(out)), model)
    filled = {"text encoder": change.encoder, "U-Net": change.deltas, "gate": change.reads}
    assert filled.get(what_is(out), change.safety or change.reads)


def test_a_file_that_says_nothing_of_itself_is_named(files: Path) -> None:
    with pytest.raises(SettingsError, match=r"narrow\.safetensors was not written by `sage make`"):
        what_is(files / "narrow.safetensors")
