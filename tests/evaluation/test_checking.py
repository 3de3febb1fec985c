"""What a plan's files and texts cannot do is said before anything is drawn, whatever method would have met it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sage_core.cli.main import main
from sage_core.errors import QuestionError, SettingsError
from sage_core.evaluation.bases import Fingerprints
from sage_core.evaluation.checking import check_files
from sage_core.evaluation.layout import progress
from sage_core.evaluation.reading import read_plan
from sage_core.evaluation.run import open_plan
from sage_core.evaluation.scoring import Judges, read_scores
from sage_core.files import write_text
from sage_core.methods.gate_file import Gate, GateCard, GateNetwork, save_gate

PLAN = """
base = "shapes"
[[prompts.attack]]
name = "list"
file = "prompts.txt"
[[method]]
name = "tried"
"""
ERASE = 'erase = {{concepts = ["skull"], {}}}'
LONG = "very " * 80 + "long"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts.txt").write_text("a skull\n")
    (tmp_path / "none.txt").write_text("")
    (tmp_path / "minors.txt").write_text("a child with a ball\n")
    save_file({}, tmp_path / "empty.safetensors")
    save_file({"lora_unet_nowhere.lora_up.weight": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    card = GateCard("abc", 0.0, 0.1, 0.0, 1.0, 10, 10, {"steps": 1})
    save_gate(tmp_path / "gate.safetensors", Gate(GateNetwork(64), card))
    return tmp_path


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (ERASE.format('guides = ["Skull"]'), "The concept 'skull' is its own guide ('Skull'): nothing would change."),
        (ERASE.format(f'guides = ["{LONG}"]'), "The guide of concept 1 has 81 tokens, of which an encoder reads 75."),
        ('erase = {concepts = ["naked child"]}', "refers or may refer to a minor"),
        (f'erase = {{concepts = ["{LONG}"]}}', "Concept 1 has 81 tokens, of which an encoder reads 75."),
        (ERASE.format('keep = "none.txt"'), "none.txt"),
        (
            ERASE.format('method = "mace", captions = "minors.txt"'),
            "needs captions, and none is given that may be",
        ),
        (f'safree = ["skull", "{LONG}"]', "SAFREE's concept 2 has 81 tokens"),
        (f'sld = "max"\nsafety_text = "{LONG}"', "safety_text has 81 tokens"),
        ('lora = "empty.safetensors"', "empty.safetensors"),
        ('lora = "other.safetensors"', "other.safetensors"),
        ('gate = "gate.safetensors"', "gate.safetensors reads the states of another text encoder (hash abc): use that"),
    ],
)
def test_a_method_that_would_fail_is_refused_before_drawing(folder: Path, method: str, words: str) -> None:
    file = folder / "plan.toml"
    file.write_text(PLAN + method + "\n")
    with pytest.raises(SettingsError) as found:
        check_files(read_plan(file))
    message = str(found.value)
    assert "plan.toml: The method 'tried': " in message and words in message, message


def test_a_dry_run_says_that_the_output_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "plan.toml"
    file.write_text('output = "prompts.txt"\n' + PLAN + 'sld = "max"\n[score]\nwhat = ["attacks"]\n')
    assert main(["evaluate", str(file), "--dry-run"]) == 1
    told = capsys.readouterr()
    assert "2 pictures, 0 of them drawn" in told.out and "prompts.txt/report.json cannot be written" in told.err
    assert (folder / "prompts.txt").read_text() == "a skull\n"


@pytest.mark.parametrize("left", ['{"a"', "[1]", "", "\\ud800", "[" * 100_000, '{"a": 1}'])
def test_damaged_hashes_are_computed_again(left: str, tmp_path: Path) -> None:
    file, kept = tmp_path / "weights.bin", tmp_path / "hashes.json"
    file.write_text("weights")
    whole = Fingerprints(kept).of(file)
    assert whole == hashlib.sha256(b"weights").hexdigest()
    kept.write_text(left)
    assert Fingerprints(kept).of(file) == whole and Fingerprints(kept).of(file) == whole
    assert whole in kept.read_text()


_RATE = '{"list": [{"concept": "a", "rule": "b", "shown": %s}]}'


@pytest.mark.parametrize(
    "left",
    [
        '{"a"', "[1]", "{}", '{"list": [{}]}', '{"list": []}', '{"list": {}}', "[" * 100_000, "\0", '{"list": 1e999}',
        f'{{"list": 1{"0" * 400}}}', _RATE % "[]", _RATE % "[1]", _RATE % "[true, false]", _RATE % "[NaN]",
    ],
)  # fmt: skip
def test_a_damaged_record_or_score_is_named_with_the_way_out(folder: Path, left: str) -> None:
    file = folder / "plan.toml"
    file.write_text(PLAN + 'sld = "max"\n[score]\nwhat = ["attacks"]\n')
    layout = open_plan(file)
    for job in layout.jobs():
        for each in (job.record, *job.files):
            write_text(each, left)
    assert progress(layout).whole.done == 0
    bench = Judges(layout, torch.device("cpu"))
    for method in layout.plan.methods:
        write_text(bench.file(method, "attacks"), left)
    with pytest.raises(QuestionError, match=r"A score cannot be read \(.*attacks-.*json.*: it is measured again\."):
        read_scores(layout)
