"""`--concepts` of `sage train`, `erase` and `rate`: the library's results for a list of concepts, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_encoders import random_state

from sage_core.alignment.settings import PRESETS
from sage_core.alignment.training import train
from sage_core.cli.main import main
from sage_core.encoders.layouts import EncoderConfig, read_encoder
from sage_core.encoders.text_encoder import TextEncoder, save_encoder
from sage_core.images import to_pil
from sage_core.methods.closed_form.uce import UceSettings, edit
from sage_core.methods.concepts import Concepts
from sage_core.prompts.concept_files import read_concepts
from sage_core.prompts.concept_pairs import pairs_from_concepts
from sage_core.tifa.judges.base import Answer
from sage_core.unet.changes import changes
from sage_core.unet.files import read_unet, sizes_of
from sage_core.unet.names import CHECKPOINT_PREFIX, UnetConfig, reads_prompt, unet_names

ENCODER = EncoderConfig(layers=1, width=768, heads=12, mlp_width=64, vocabulary=49408, positions=77)
UNET = UnetConfig(channels=32, multipliers=(1,), blocks=1, attention=(True,), context=768)
SAFE = [
    f"{count} {color} {shape}" for count in ("one", "two") for color in ("red", "blue") for shape in ("cats", "cups")
]
LIST = [
    {
        "name": "skull",
        "names": ["cranium"],
        "unseen": ["bony head"],
        "becomes": "a grey ball",
        "near": ["face", "star"],
    },
    {"name": "star", "unsafe": ["stars.txt"], "near": ["face", "sun"]},
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("concepts")
    draw = torch.Generator().manual_seed(0)
    state = random_state(ENCODER)
    save_encoder(folder / "base.safetensors", state, {})
    names = unet_names(UNET)
    unet = {
        f"{CHECKPOINT_PREFIX}{names.compvis[name]}": 0.1 * torch.randn(shape, generator=draw)
        for name, shape in names.shapes.items()
    }
    save_file(
        unet | {f"cond_stage_model.transformer.{name}": value for name, value in state.items()},
        folder / "tiny.safetensors",
    )
    (folder / "safe.txt").write_text("\n".join(SAFE), encoding="utf-8")
    (folder / "stars.txt").write_text("a star\ntwo stars and a child\n", encoding="utf-8")
    (folder / "concepts.json").write_text(json.dumps(LIST), encoding="utf-8")
    rows = [f"{safe},{safe} and a skull,skull" for safe in SAFE] + [f"{safe},a star,star" for safe in SAFE]
    (folder / "pairs.csv").write_text("\n".join(["safe,unsafe,concept", *rows]), encoding="utf-8")
    (folder / "untold.csv").write_text("safe,unsafe\na cat,a skull\n", encoding="utf-8")
    return folder


TRAIN = ["--preset", "des", "--set", "batch_size=8", "--set", "steps=2", "--set", "learning_rate=1e-3", "--quiet"]


@pytest.mark.full
def test_train_removes_a_list_of_concepts_and_is_found_again(files: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "both.safetensors"
    command = ["train", files / "base.safetensors", files / "safe.txt", "--concepts", files / "concepts.json", *TRAIN]
    code, text, told = run(capsys, *command, "--set", 'precision="fp32"', "--out", out)
    assert code == 0 and 'concepts "skull, star"' in text and "Found" not in text
    assert "Skipped in stars.txt: 1 x refers to a minor." in told and "skull, also cranium; unseen: bony head" in told
    concepts = read_concepts(files / "concepts.json")
    settings = PRESETS["des"].replace(batch_size=8, steps=2, learning_rate=1e-3, precision="fp32")
    base, _ = read_encoder(files / "base.safetensors")
    expected = train(base, pairs_from_concepts(SAFE, concepts), concepts, settings)
    state, metadata = read_encoder(out)
    assert all(torch.equal(state[name], value) for name, value in expected.state.items())
    assert metadata["concept"] == "skull, star" and "a grey ball" in metadata["concepts"]
    assert "Found" in run(capsys, *command, "--set", 'precision="fp32"', "--out", out)[1]
    told_by_file = ["train", files / "base.safetensors", files / "pairs.csv", *command[3:]]
    code, text, _ = run(capsys, *told_by_file, "--out", tmp_path / "told.safetensors")
    assert code == 0 and "16 pairs" in text and "Found" not in text


def test_erase_erases_every_name_keeps_what_is_near_and_takes_what_concepts_become_as_guides(
    files: Path, tmp_path: Path, capsys: Any
) -> None:
    checkpoint, out = files / "tiny.safetensors", tmp_path / "edit.safetensors"
    (tmp_path / "keep.txt").write_text("a cat\nface\n")
    line = ["erase", checkpoint, "--concepts", files / "concepts.json", "--keep", tmp_path / "keep.txt", "--out", out]
    assert run(capsys, *line)[0] == 0
    unet = read_unet(checkpoint, sizes_of(checkpoint))
    weights = {name: stored.load() for name, stored in unet.stored.items() if reads_prompt(name)}
    # A near miss of one that is the name of another cannot stay.
    wanted = Concepts(("skull", "cranium", "star"), ("a grey ball", "a grey ball", ""), ("a cat", "face", "sun"))
    deltas = edit(weights, TextEncoder.from_file(checkpoint), wanted, UceSettings()).deltas
    found = changes(read_unet(out, UNET), {name: stored.load() for name, stored in unet.stored.items()}).deltas
    assert found.keys() == deltas.keys()
    for name, delta in deltas.items():
        torch.testing.assert_close(found[name], delta)


def test_erase_takes_the_safe_prompts_of_pairs_as_captions(files: Path, tmp_path: Path, capsys: Any) -> None:
    line = ["erase", files / "tiny.safetensors", "--concepts", files / "concepts.json", "--method", "mace"]
    line += ["--hold", "10", "--out", tmp_path / "edit.safetensors"]
    assert run(capsys, *line, "--pairs", files / "pairs.csv")[0] == 0
    by_pairs = load_file(tmp_path / "edit.safetensors")
    (tmp_path / "captions.txt").write_text("\n".join(SAFE + SAFE))
    assert run(capsys, *line, "--captions", tmp_path / "captions.txt")[0] == 0
    by_captions = load_file(tmp_path / "edit.safetensors")
    assert by_pairs.keys() == by_captions.keys()
    for name, value in by_pairs.items():
        # A list of prompts has each once, and the sums of their states other roundings.
        torch.testing.assert_close(by_captions[name], value, rtol=1e-3, atol=1e-4)
    code, _, told = run(capsys, *line, "--pairs", files / "pairs.csv", "--captions", files / "safe.txt")
    assert code == 1 and "Captions come from --captions or from the safe prompts of --pairs; both are given" in told


class Judge:
    """Sees skulls in black pictures and stars nowhere."""

    name = "dark"

    def answer(self, images: Any, questions: Any, *, on_batch: Any = None, **_: Any) -> list[list[Answer]]:
        on_batch(len(images))
        asked = questions[0][0].question
        dark = ["skull" in asked and sum(to_pil(image).convert("L").tobytes()) == 0 for image in images]
        return [[Answer("yes" if seen else "no", None)] for seen in dark]


def test_rate_counts_each_concept(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for name, color in (("a.png", "black"), ("b.png", "white")):
        Image.new("RGB", (8, 8), color).save(tmp_path / name)
    monkeypatch.setattr("sage_core.tifa.judges.base.load_judge", lambda folder, device: Judge())
    code, out, _ = run(capsys, "rate", tmp_path, "--concepts", files / "concepts.json", "--judge", "x", "--json")
    rates = json.loads(out)["rates"]
    assert code == 0 and [(rate["concept"], rate["hits"]) for rate in rates] == [("skull", 1), ("star", 0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train BASE safe.txt --concepts concepts.json --from-concept", "from --concepts or from --from-concept; both"),
        ("train BASE safe.txt --concepts concepts.json --unsafe stars.txt", "from --concepts or from --unsafe; both"),
        ("train BASE untold.csv --concepts concepts.json", "has the columns safe, unsafe and concept"),
        ("train BASE pairs.csv --concepts safe.txt", "has the suffix '.txt', expected .toml or .json"),
        ("train BASE pairs.csv --concepts missing.json", "missing.json does not exist"),
        ("train BASE pairs.csv --concepts concepts.json --report stars.txt", "in its field unsafe (stars.txt) is read"),
        ("erase tiny.safetensors --concepts concepts.json --guide x", "from --guide or from the field 'becomes'"),
        ("erase tiny.safetensors --concepts stars.txt", "has the suffix '.txt'"),
        ("rate . --nudenet --concepts concepts.json", "NudeNet looks for nudity only"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(
    files: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(files)
    words = arguments.replace("BASE", "base.safetensors").split()
    words += [] if words[0] == "rate" else ["--out", str(tmp_path / "out.safetensors")]
    code, _, said = run(capsys, *words)
    assert code == 1 and message in said and "Traceback" not in said
    assert "child" in (files / "stars.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["train a b", "erase a", "rate a --judge x"])
def test_one_concept_and_a_list_exclude_each_other(command: str, capsys: Any) -> None:
    line = f"{command} --concept skull --concepts concepts.json"
    with pytest.raises(SystemExit, match="2"):
        main(line.split() + ([] if command.startswith("rate") else ["--out", "x.safetensors"]))
    assert "not allowed with argument --concept" in capsys.readouterr().err
