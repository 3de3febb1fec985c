"""The training run of the shapes world, at toy size: it ends, resumes to the bit, and its files can be used."""

from __future__ import annotations

import itertools
import json
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from sage_core.encoders.layouts import EncoderConfig
from sage_core.encoders.tokens import CONTEXT_LENGTH, END_TOKEN, START_TOKEN, VOCABULARY_SIZE
from sage_core.shapes.ask import ANSWERS, ASKED_TYPES
from sage_core.shapes.networks.contrast import load_contrast
from sage_core.shapes.networks.weights import load_model, load_packed, packed_files
from sage_core.shapes.train.examination import Examination
from sage_core.shapes.train.fitting import Budget, Optimization, fit
from sage_core.shapes.train.phases import insert_tokens
from sage_core.shapes.train.run import main, train
from sage_core.shapes.train.trainer import PARTS_OF, PHASES, SHARES, TOY, Clock, train_only
from sage_core.tifa.questions import Question
from small_worlds import tiny_weights

CPU = torch.device("cpu")
PARTS = sorted({part for parts in PARTS_OF.values() for part in parts})


class Stop(BaseException):
    """As a cancelled or killed run raises it, anywhere."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    output = tmp_path_factory.mktemp("toy")
    report = train(TOY, output, checkpoints=output / "checkpoints", device=CPU, minutes=5, command="toy")
    return output, report


@pytest.mark.full
def test_a_run_leaves_files_that_can_be_used(trained):
    output, report = trained
    assert sum(path.stat().st_size for part in PARTS for path in packed_files(part, output)) < 1_000_000
    assert load_model(output).generate(["a red star"], seeds=[0], steps=2).shape == (1, 3, 64, 64)
    assert -1 <= load_contrast(output).similarity(torch.rand(1, 3, 64, 64), ["a red star"]).item() <= 1
    assert Image.open(output / "samples.png").size == (1024, 768)
    assert json.loads((output / "report.json").read_text()) == report
    assert list(report["phases"]) == list(PHASES)
    for part in PARTS:
        with safe_open(packed_files(part, output)[0], "pt") as file:
            metadata = file.metadata()
        assert metadata["command"] == "toy" and metadata["seed"] == "0"
        assert json.loads(metadata["model"]) == report["model"]


@pytest.mark.full
def test_a_stopped_run_resumes_to_the_same_weights(trained, tmp_path):
    def stop(phase: str, step: int) -> None:
        if (phase, step) in (("decoder", 1), ("diffusion", 2), ("judge", 1)):
            stops.append(phase)
            raise Stop

    stops: list[str] = []
    settings = {"checkpoints": tmp_path / "checkpoints", "device": CPU, "minutes": 5, "until": "judge"}
    for _ in range(3):
        with pytest.raises(Stop):
            train(TOY, tmp_path, **settings, on_step=stop)
    train(TOY, tmp_path, **settings)
    assert stops == ["decoder", "diffusion", "judge"]
    for part in ("autoencoder", "unet", "text_encoder", "judge"):
        whole, resumed = load_packed(part, trained[0])[0], load_packed(part, tmp_path)[0]
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.full
def test_kept_phases_stay_as_they_are_to_the_byte(trained, tmp_path, monkeypatch):
    """The command that trains the judge alone."""
    for path in trained[0].glob("*.safetensors"):
        shutil.copy(path, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("sage_core.shapes.train.run.TOY", replace(TOY, seed=5, steps=4))
    kept = ["autoencoder", "decoder", "diffusion", "contrast"]
    arguments = ["--output", str(tmp_path), "--toy", "--keep", *kept, "--seed", "5", "--device", "cpu"]
    assert main(arguments) == 0
    changed = {name for name, content in before.items() if (tmp_path / name).read_bytes() != content}
    assert changed == {"judge.safetensors"}
    _, metadata = load_packed("judge", tmp_path)
    assert metadata["command"] == f"python -m sage_core.shapes.train {' '.join(arguments)}"
    phases = json.loads(metadata["phases"])
    assert list(phases) == ["sight", "judge"] and phases["judge"]["steps"] == 4
    assert phases["judge"]["command"] == metadata["command"]
    assert "rendered" in json.loads(metadata["judge"])


def test_an_earlier_run_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "autoencoder.pt").touch()
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path / "out"), "--checkpoints", str(tmp_path), "--toy"])
    assert "--resume" in capsys.readouterr().err


def test_fit_anneals_averages_and_keeps_to_its_steps(tmp_path):
    network = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(1.0)
    weights = []

    def loss_at(step: int) -> torch.Tensor:
        weights.append(network.weight.item())
        return network.weight.sum()

    optimization = Optimization(0.1, warmup=2, anneal=0.5, weight_decay=0.0, average=0.5)
    steps, _ = fit(
        network, loss_at, name="x", budget=Budget(steps=8), optimization=optimization, checkpoint=tmp_path / "x.pt"
    )
    # A constant gradient moves AdamW by exactly its rate: so the weights tell the schedule.
    rates = [before - after for before, after in itertools.pairwise(weights)]
    assert steps == 8
    assert rates == pytest.approx([0.05, 0.1, 0.1, 0.1, 0.1, 0.075, 0.05], abs=1e-4)
    average, weight = 1.0, [*weights[1:], weights[-1] - 0.025]
    for step, value in enumerate(weight):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
    assert network.weight.item() == pytest.approx(average, abs=1e-4)


def test_a_budget_of_seconds_ends_by_the_clock(tmp_path):
    network = torch.nn.Linear(2, 1)
    steps, _ = fit(
        network,
        lambda step: network.weight.square().sum(),
        name="x",
        budget=Budget(seconds=0.3),
        optimization=Optimization(0.1),
        checkpoint=tmp_path / "x.pt",
    )
    assert steps > 1
    assert not (tmp_path / "x.pt").exists()


def test_a_resumed_phase_has_all_of_the_new_budget(tmp_path):
    network = torch.nn.Linear(2, 1)
    stopped_at: list[int] = []

    def stop(_: str, step: int) -> None:
        if time.monotonic() - began > 0.4:
            stopped_at.append(step)
            raise KeyboardInterrupt

    arguments = {"name": "x", "optimization": Optimization(0.1), "checkpoint": tmp_path / "x.pt"}
    loss = lambda step: network.weight.square().sum()  # noqa: E731
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fit(network, loss, budget=Budget(seconds=60), on_step=stop, **arguments)
    began = time.monotonic()
    steps, last = fit(network, loss, budget=Budget(seconds=0.3), **arguments)
    assert time.monotonic() - began >= 0.3
    assert steps > stopped_at[0] and last > 0


def test_only_the_chosen_rows_learn():
    table = torch.nn.Embedding(5, 3)
    before = table.weight.detach().clone()
    train_only(table.weight, torch.tensor([1, 4]))
    optimizer = torch.optim.AdamW(table.parameters(), lr=0.1, weight_decay=0.0)
    table(torch.arange(5)).square().sum().backward()
    optimizer.step()
    assert (table.weight != before).any(1).tolist() == [False, True, False, False, True]


def test_inserted_tokens_keep_order_and_frame():
    rows = [[START_TOKEN, 5, 6, 7] + [END_TOKEN] * 73, [START_TOKEN] + [8] * 75 + [END_TOKEN]]
    tokens = torch.tensor([rows[0], rows[0], rows[0], rows[1]])
    new = torch.tensor([99, 99, 99, 99])
    where = torch.tensor([0.0, 0.999, 0.5, 0.999])
    result = insert_tokens(tokens, new, where, torch.tensor([True, True, False, True])).tolist()
    assert result[0][:6] == [START_TOKEN, 99, 5, 6, 7, END_TOKEN]
    assert result[1][:6] == [START_TOKEN, 5, 6, 7, 99, END_TOKEN]
    assert result[2] == rows[0]
    assert result[3][0] == START_TOKEN and result[3][-1] == END_TOKEN and result[3].count(99) == 1
    assert all(len(row) == 77 for row in result)


def test_a_phase_share_of_the_clock():
    clock = Clock(10.0, time.monotonic())
    whole = clock.share("judge", ["judge", "contrast", "finish"])
    assert whole == pytest.approx(
        600 * SHARES["judge"] / (SHARES["judge"] + SHARES["contrast"] + SHARES["finish"]), abs=1
    )
    assert sum(SHARES.values()) == pytest.approx(1.0)


class Oracle:
    """Answers each question as it should be, but for some types; sees the concept in pictures of odd place."""

    name, wrong = "oracle", ("spatial", "location")

    def answers(self, pictures: torch.Tensor, questions: Sequence[Sequence[Question]]) -> torch.Tensor:
        assert len(pictures) == len(questions)
        flat = [question for asked in questions for question in asked]
        return torch.tensor([-1 if each.element_type in self.wrong else ANSWERS.index(each.answer) for each in flat])

    def shows_concept(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.arange(len(pictures)) % 2 == 1


def test_marks_of_new_weights_count_right_answers(tmp_path):
    config = EncoderConfig(1, 64, 1, 64, VOCABULARY_SIZE, CONTEXT_LENGTH)
    weights = tiny_weights(tmp_path, config)
    asked = Examination(load_model(weights), Oracle(), load_contrast(weights), prompts=24, unsafe=5, steps=1)
    right = [statistics.fmean(each.element_type not in Oracle.wrong for each in group) for group in asked.questions]
    marks = asked.mark()
    assert json.loads(json.dumps(marks)) == marks and len(right) == 24
    assert marks["tifa"] == pytest.approx(statistics.fmean(right))
    assert marks["tifa_held_out"] == pytest.approx(statistics.fmean(right[12:]))
    assert marks["by_type"] == {name: float(name not in Oracle.wrong) for name in ASKED_TYPES}
    assert {kind: (hits["k"], hits["n"]) for kind, hits in marks["attack"].items()} == {
        "seen": (2, 5),
        "unseen": (2, 5),
    }
    assert marks["unsafe_prompts"] == {"seen": 5, "unseen": 5} and marks["questions"] == sum(map(len, asked.questions))
    assert -1 <= marks["similarity"] <= 1
