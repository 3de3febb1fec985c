"""The command line, run in this process: what it writes, what it says, and its exit codes."""

from __future__ import annotations

import json
import re
import shlex

import pytest
import torch
from command_line import run
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_encoders import save_random

from sage_core.alignment.settings import PRESETS
from sage_core.alignment.training import train
from sage_core.cli import agreement as agreement_command
from sage_core.cli import common
from sage_core.cli import geometry as geometry_commands
from sage_core.cli import lora as lora_command
from sage_core.cli import score as score_command
from sage_core.cli import train as train_command
from sage_core.cli.main import main
from sage_core.encoders.layouts import EncoderConfig, read_encoder
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.geometry.comparison import GeometrySettings, compare_encoders
from sage_core.prompts.everyday import REFERENCE_PROMPTS
from sage_core.prompts.pairs import read_pairs

SD1 = EncoderConfig(layers=1, width=768, heads=12, mlp_width=64, vocabulary=49408, positions=77)
LONG = EncoderConfig(layers=1, width=64, heads=1, mlp_width=96, vocabulary=49408, positions=248)
COLORS, SHAPES = ("red", "blue", "grey"), ("cats", "cups")
PROMPTS = [f"{count} {color} {shape}" for count in ("one", "two") for color in COLORS for shape in SHAPES]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    (folder / "one.txt").write_text("a cat\n", encoding="utf-8")
    (folder / "half.json").write_text(r'["a cat", "a \ud83d dog"]', encoding="utf-8")
    return {
        "long": save_random(folder / "long.safetensors", LONG),
        "one": str(folder / "one.txt"),
        "half": str(folder / "half.json"),
        "base": save_random(folder / "base.safetensors"),
        "aligned": save_random(folder / "aligned.safetensors", change=0.03),
        "prompts": str(folder / "prompts.txt"),
    }


def compare_files(capsys, files, *more):
    return run(capsys, "geometry", files["base"], files["aligned"], files["prompts"], "-k", 3, "--quiet", *more)


def test_geometry_is_the_librarys_report(capsys, files, tmp_path):
    code, out, _ = compare_files(
        capsys, files, "--json", "--report", tmp_path / "r.json", "--page", tmp_path / "p.png", "--dark"
    )
    encoders = [TextEncoder.from_file(files[name]) for name in ("base", "aligned")]
    expected = compare_encoders(*encoders, PROMPTS, settings=GeometrySettings(k=3)).to_dict()
    assert code == 0
    assert json.loads(out) == json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert json.loads(out) == json.loads(json.dumps(expected))
    assert Image.open(tmp_path / "p.png").width == 1024


def test_geometry_writes_a_table(capsys, files):
    code, out, _ = compare_files(capsys, files, "--embedding", "mean")
    assert code == 0
    assert "| spread ratio |" in out
    assert "mean embedding" in out


def test_require_decides_the_exit_code(capsys, files):
    same = ("geometry", files["base"], files["base"], files["prompts"], "-k", 3, "--quiet")
    assert run(capsys, *same, "--require", "healthy")[0] == 0
    code, out, _ = compare_files(capsys, files, "--require", "healthy")
    assert "**Strained**" in out
    assert code == 3


def reference_report(files, prompts, **settings):
    encoders = [TextEncoder.from_file(files[name]) for name in ("base", "aligned")]
    return compare_encoders(*encoders, prompts, settings=GeometrySettings(**settings))


def test_neighbours_of_chosen_prompts(capsys, files, tmp_path):
    chosen = ["two pink cats", PROMPTS[2]]
    command = ("neighbours", files["base"], files["aligned"], files["prompts"], "-k", 3, "--quiet")
    command += ("--prompt", chosen[0], "--prompt", chosen[1])
    code, out, _ = run(capsys, *command, "--json", "--page", tmp_path / "n.png")
    report = reference_report(files, list(dict.fromkeys([*chosen, *PROMPTS])), k=3)
    found = json.loads(out)
    assert code == 0
    assert (found["prompts"], found["prompts_sha256"]) == (13, report.prompts_hash)
    expected = [report.prompt_row(row) | report.neighbours_of(row) for row in range(2)]
    assert found["neighbours"] == json.loads(json.dumps(expected))
    assert Image.open(tmp_path / "n.png").width == 1024
    table = run(capsys, *command)[1]
    assert "**two pink cats**: Jaccard" in table
    lost = sum(len(row["lost"]) for row in found["neighbours"])
    assert table.count("| − ") == table.count("| + ") == lost > 0


def test_neighbours_of_none_are_those_of_the_most_hurt(capsys, files):
    _, out, _ = run(
        capsys, "neighbours", files["base"], files["aligned"], files["prompts"], "-k", 3, "--json", "--quiet"
    )
    report = reference_report(files, PROMPTS, k=3)
    shown = [row["prompt"] for row in json.loads(out)["neighbours"]]
    assert shown == [PROMPTS[row] for row in report.most_hurt[:6]]


def test_drift_of_one_prompt_is_that_of_the_graph(capsys, files):
    command = ("drift", files["base"], files["aligned"], files["one"], "--json", "--quiet")
    code, out, _ = run(capsys, *command)
    expected = reference_report(files, ["a cat", *REFERENCE_PROMPTS])
    found = json.loads(out)
    assert code == 0
    assert (found["above"], found["beyond"]) == (None, None)
    assert found["drift"] == [json.loads(json.dumps(expected.prompt_row(0)))]
    among = json.loads(run(capsys, *command, "--among", files["prompts"])[1])
    assert among["prompts_sha256"] == reference_report(files, ["a cat", *PROMPTS]).prompts_hash


def test_drift_decides_the_exit_code(capsys, files):
    command = ("drift", files["base"], files["aligned"], files["prompts"], "--quiet")
    drifts = [row["drift"] for row in json.loads(run(capsys, *command, "--json")[1])["drift"]]
    assert drifts == sorted(drifts, reverse=True)
    middle = (drifts[5] + drifts[6]) / 2
    code, out, _ = run(capsys, *command, "--above", middle)
    assert code == 3
    assert "\n6 of 12 prompts drifted further than" in out
    code, out, _ = run(capsys, *command, "--above", 2 * drifts[0])
    assert code == 0
    assert "\n0 of 12 prompts drifted further than" in out


def test_progress_goes_to_standard_error_alone(capsys, files):
    _, out, error = run(capsys, "geometry", files["base"], files["aligned"], files["prompts"], "-k", 3)
    assert "embedding prompts: 100%" in error
    assert "%|" not in out


def test_extract_lora_writes_the_file_and_its_cost(capsys, files, tmp_path):
    path = tmp_path / "lora.safetensors"
    many = tmp_path / "many.txt"
    many.write_text("\n".join(PROMPTS + [prompt + " on a mat" for prompt in PROMPTS]), encoding="utf-8")
    code, out, _ = run(
        capsys,
        "extract-lora",
        files["base"],
        files["aligned"],
        path,
        "--rank",
        64,
        "--prompts",
        many,
        "--json",
        "--quiet",
    )
    found = json.loads(out)
    assert code == 0
    assert load_file(path)["lora_te_text_model_encoder_layers_0_mlp_fc1.alpha"] == 64
    assert found["kept"] == pytest.approx(1)
    assert found["bytes"] == sum(tensor.nbytes for tensor in load_file(path).values())
    # The embeddings changed, too, which a LoRA cannot hold.
    assert found["left_out"]["embeddings"] > 0.5
    assert found["cost"]["mean_displacement"]["value"] > 1e-4


def test_the_cost_of_a_lora_takes_few_prompts(capsys, files, tmp_path):
    (tmp_path / "three.txt").write_text("a cat\na dog\na cup\n", encoding="utf-8")
    command = ("extract-lora", files["base"], files["aligned"], tmp_path / "lora.safetensors", "--rank", 4)
    code, out, _ = run(capsys, *command, "--prompts", tmp_path / "three.txt", "--json", "--quiet")
    assert code == 0
    assert json.loads(out)["cost"]["k"] == 2


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    rows = "".join(f"{prompt},{prompt} with a skull\n" for prompt in PROMPTS)
    (folder / "pairs.csv").write_text("safe,unsafe\n" + rows, encoding="utf-8")
    return save_random(folder / "base.safetensors", SD1), folder / "pairs.csv"


TRAIN = ("--concept", "skull", "--set", "batch_size=6", "--set", "neighbours=2", "--set", "epochs=1", "--quiet")


def test_train_is_the_librarys_training_and_found_again(capsys, training, tmp_path):
    base, pairs = training
    out = tmp_path / "sage.safetensors"
    command = ("train", base, pairs, "--out", out, "--preset", "paper", "--seed", 3, "--json", *TRAIN)
    code, text, _ = run(capsys, *command, "--curves", tmp_path / "curves.png")
    settings = PRESETS["paper"].replace(batch_size=6, neighbours=2, epochs=1, seed=3)
    expected = train(read_encoder(base)[0], read_pairs(pairs), "skull", settings)
    assert code == 0
    assert json.loads(text)["found"] is False
    assert all(torch.equal(tensor, expected.state[name]) for name, tensor in load_file(out).items())
    with safe_open(out, "pt") as file:
        assert {key: file.metadata()[key] for key in expected.metadata} == expected.metadata
    assert Image.open(tmp_path / "curves.png").width == 1024
    out.unlink()
    assert json.loads(run(capsys, *command)[1])["found"] is True
    assert all(torch.equal(tensor, expected.state[name]) for name, tensor in load_file(out).items())


def test_train_makes_unsafe_prompts_of_the_concept(capsys, training, files, tmp_path):
    base, _ = training
    out = tmp_path / "sage.safetensors"
    code, text, error = run(capsys, "train", base, files["prompts"], "--from-concept", "--out", out, *TRAIN[:-1])
    assert (code, out.exists()) == (0, True)
    assert "Trained:" in text
    assert "12 kept" in error
    # What it takes and how many steps there are is said before the first of them.
    told = [error.index(words) for words in ("Training takes about ", "whole batches, on cpu.", "training:   0%")]
    assert told == sorted(told) and "training: 100%" in error


def test_a_bar_of_work_that_goes_on_begins_where_it_was(capsys):
    """Its speed is not that of what an earlier run has done."""
    bars = common.Bars(quiet=False)
    bars("training")(40, 100)
    bar = bars.bars["training"]
    bars("training")(41, 100)
    assert (bar.initial, bar.n) == (40, 41) and "40/100" in capsys.readouterr().err


def test_on_cuda_a_training_is_told_what_memory_is_free(capsys, training, tmp_path, monkeypatch):
    base, pairs = training
    seen = {}

    def train_stored(*_, **options):
        seen.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("sage_core.alignment.training.train_stored", train_stored)
    monkeypatch.setattr(common, "device", lambda _: torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (12345 + device.index, 99999))
    assert run(capsys, "train", base, pairs, "--out", tmp_path / "o.safetensors", *TRAIN)[0] == 130
    assert seen["free_memory"] == 12345
    monkeypatch.setattr(common, "device", lambda _: torch.device("cpu"))
    assert run(capsys, "train", base, pairs, "--out", tmp_path / "o.safetensors", *TRAIN)[0] == 130
    assert seen["free_memory"] is None


OUT = ("--concept", "x", "--out", "o.safetensors")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["geometry", "{base}", "nowhere.safetensors", "{prompts}"], "nowhere.safetensors"),
        (["geometry", "{base}", "{aligned}", "nowhere.txt"], "nowhere.txt"),
        (["geometry", "{base}", "{aligned}", "{prompts}", "-k", "12"], "found 12"),
        (["geometry", "{base}", "{aligned}", "{prompts}", "--device", "gpu"], "--device is 'gpu'"),
        (
            ["geometry", "{base}", "{aligned}", "{prompts}", "--device", "cuda:9"],
            "--device is 'cuda:9'; expected one that this machine",
        ),
        (["geometry", "{base}", "{aligned}", "{prompts}", "--device", "meta"], "--device is 'meta'"),
        (["geometry", "{base}", "{aligned}", "{half}"], "half.json, row 2: 'prompt' holds '\\ud83d'"),
        (["geometry", "{base}", "{long}", "{prompts}"], "long.safetensors holds a text encoder of 248 positions"),
        (["drift", "{base}", "{aligned}", "{prompts}", "--among", "nowhere.txt"], "nowhere.txt"),
        pytest.param(
            ["train", "{base}", "{prompts}", *OUT, "--device", "mps"],
            "--device is 'mps'",
            marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has the device"),
        ),
        (["train", "{base}", "{prompts}", *OUT, "--seed", "100000000000000000000"], "seed is 100000000000000000000"),
        (["train", "{long}", "{prompts}", "--from-concept", *OUT], "of 248 positions"),
        (["train", "nowhere", "nowhere", "--concept", "x", "--out", "mine.pt"], "--out is 'mine.pt'; expected"),
        (["extract-lora", "nowhere", "nowhere", "lora.pt", "--rank", "4"], "OUT is 'lora.pt'; expected"),
        (["extract-lora", "{base}", "{aligned}", "l.safetensors", "--rank", "4", "--prompts", "no.txt"], "no.txt"),
        (
            ["extract-lora", "{base}", "{aligned}", "l.safetensors", "--rank", "4", "--prompts", "{one}"],
            "holds 1 prompt",
        ),
        (["extract-lora", "{base}", "{base}", "lora.safetensors", "--rank", "4"], "same weights"),
        (["extract-lora", "{base}", "{aligned}", "lora.safetensors", "--energy", "2"], "energy"),
        (["train", "{base}", "{prompts}", "--from-concept", *OUT], "width 64"),
        (["train", "{base}", "{prompts}", *OUT, "--set", "epochs"], "NAME=VALUE"),
        (["train", "{base}", "{prompts}", *OUT, "--set", "epoch=2"], "epoch"),
        (["train", "{base}", "{prompts}", *OUT, "--set", "learning_rate=NaN"], "learning_rate is nan"),
        (["train", "{base}", "{prompts}", *OUT, "--set", "learning_rate=Infinity"], "learning_rate is inf"),
        (["train", "{base}", "{prompts}", *OUT, "--set", "epochs=" + "[" * 100_000], "epochs is '[[["),
        (["train", "{base}", "{prompts}", *OUT, "--set", "epochs=" + "9" * 5000], "epochs is '999"),
        (["geometry", "{base}", "{aligned}", "{prompts}", "-k", "0"], "k is 0, expected a whole number, 1 or more"),
        (["extract-lora", "{base}", "{aligned}", "lora.safetensors", "--rank", "0"], "rank must be 1 or more"),
        (["extract-lora", "{base}", "{aligned}", "lora.safetensors", "--energy", "-1"], "energy"),
        (["score", "nowhere", "nowhere.json", "--judge", "nowhere"], "nowhere.json"),
    ],
)
def test_errors_are_one_line_that_names_the_cause(capsys, files, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, error = run(capsys, *(argument.format(**files) for argument in arguments))
    assert code == 1
    assert out == ""
    assert message in error
    last = error.splitlines()[-1]
    assert re.match(r"sage: error: .", last)
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_command_says_so(capsys, files, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(common, "prompts", interrupt)
    assert compare_files(capsys, files) == (130, "", "sage: interrupted\n")


RUNS = {
    "train": (train_command, "run"),
    "geometry": (geometry_commands, "run_geometry"),
    "neighbours": (geometry_commands, "run_neighbours"),
    "drift": (geometry_commands, "run_drift"),
    "score": (score_command, "run"),
    "extract-lora": (lora_command, "run"),
    "agreement": (agreement_command, "run"),
}


@pytest.mark.parametrize("command", list(RUNS))
def test_help_has_an_example_that_the_command_line_takes(capsys, command, monkeypatch):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    examples = [shlex.split(line)[1:] for line in text.splitlines() if line.startswith(f"  sage {command}")]
    assert examples
    taken = []
    monkeypatch.setattr(*RUNS[command], lambda options: len(taken.append(options) or ""))
    assert all(main(example) == 0 for example in examples)
    assert len(taken) == len(examples)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["geometry"],
        ["extract-lora", "a", "b", "c"],
        ["paint"],
        ["train", "a", "b", "--concept", " ", "--out", "c.safetensors"],
        ["train", "a", "b", "--concept", "caf\udce9", "--out", "c.safetensors"],
        ["neighbours", "a", "b", "c", "--prompt", ""],
        ["drift", "a", "b", "c", "--above", "nan"],
        ["drift", "a", "b", "c", "--above", "inf"],
        ["drift", "a", "b", "c", "--above", "-0.1"],
        ["drift", "a", "b", "c", "-k", "nan"],
        ["extract-lora", "a", "b", "c.safetensors", "--energy", "nan"],
        ["extract-lora", "a", "b", "c.safetensors", "--energy", "inf"],
        ["extract-lora", "a", "b", "c.safetensors", "--rank", "nan"],
        ["train", "a", "b", "--concept", "x", "--out", "c.safetensors", "--seed", "nan"],
    ],
)
def test_a_wrong_command_line_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: sage" in capsys.readouterr().err
