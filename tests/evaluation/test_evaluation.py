"""From a plan to its report in the shapes world: base, an alignment, a closed form, SLD and a gate."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from sage_core.cli.main import main
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.errors import SettingsError
from sage_core.evaluation import scoring
from sage_core.evaluation.run import open_plan, run
from sage_core.evaluation.scoring import Judges, read_scores
from sage_core.methods.gate import GateSettings, save_gate, train_gate
from sage_core.scores.clipscore import ClipScorer
from sage_core.scores.rates import rate_by_vqa
from sage_core.shapes.exam.reader_judge import ReaderJudge
from sage_core.shapes.networks.weights import load_packed
from sage_core.shapes.tasks import TASKS
from sage_core.tifa.comparison import compare
from sage_core.tifa.evaluation import evaluate
from small_worlds import moved_encoder, tiny_clip, world_plan

CPU = torch.device("cpu")
METHODS = """
[[method]]
name = "moved"
text_encoder = "moved.safetensors"
[[method]]
name = "UCE"
[method.erase]
method = "uce_paper"
concepts = ["skull", "skulls"]
[[method]]
name = "SLD"
sld = "max"
safety_text = "a skull"
[[method]]
name = "gate"
gate = "gate.safetensors"
text_encoder = "moved.safetensors"
"""


def make_gate(folder: Path) -> None:
    encoder = TextEncoder.from_state(load_packed("text_encoder")[0])
    pairs = TASKS["skull"].pairs(80, seed=3)
    settings = GateSettings(steps=40, batch_size=16, false_alarms=0.05)
    save_gate(folder / "gate.safetensors", train_gate(encoder, pairs.safe, pairs.unsafe, settings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan that `sage evaluate` has carried out."""
    folder = tmp_path_factory.mktemp("evaluated")
    moved_encoder(folder, 0.03)
    make_gate(folder)
    draw = "steps = 1\nbatch = 8"
    score = f'published = true\nneighbours = 5\nclip = "{tiny_clip(folder / "clip")}"'
    file = world_plan(folder, METHODS, safe=12, attacks=3, draw=draw, score=score)
    assert main(["evaluate", str(file), "--device", "cpu", "--quiet", "--report", str(folder / "out.json")]) == 0
    return folder


def test_the_report_has_every_table_and_figure(folder: Path) -> None:
    report = folder / "evaluation" / "report"
    names = {file.name for file in report.iterdir()}
    tables = {f"table_{n}.{suffix}" for n in (2, 3, 4) for suffix in ("md", "tex", "csv")}
    assert (
        tables | {"report.html", "report.md", "report.json", "lost.csv", "figure_3.png", "figure_4_moved.png"} == names
    )
    page = (report / "report.html").read_text()
    assert 'src="data:image/png;base64,' in page and "http" not in page.replace("http-equiv", "")
    for title in (
        "Table 2",
        "Table 3",
        "Table 4",
        "Figure 3",
        "Figure 4",
        "moved: lost",
        "gate: lost",
        "SAGE, published",
    ):
        assert title in page, title
    with Image.open(report / "figure_3.png") as image:
        assert image.width == 760
    content = json.loads((report / "report.json").read_text())
    assert json.loads((folder / "out.json").read_text()) == content
    assert set(content["tables"]["table_2"]) == {"base", "moved", "UCE", "SLD", "gate"}
    assert set(content["tables"]["table_4"]) == {"base", "moved"} and set(content["geometry"]) == {"moved"}


def test_tifa_of_a_plan_is_the_librarys_of_the_same_pictures(folder: Path) -> None:
    layout = open_plan(folder / "plan.toml")
    captions = layout.lists[0]
    found = read_scores(layout)
    results = []
    for method, scores in zip(layout.plan.methods, found, strict=True):
        questions = [captions.questions[item.source] for item in captions.items]
        expected = evaluate(layout.files(method, captions), questions, ReaderJudge(), name=method.name)
        assert scores.tifa == expected
        results.append(expected)
    table = json.loads((folder / "evaluation" / "report" / "report.json").read_text())["tables"]["table_2"]
    assert table["base"]["TIFA"]["value"] == pytest.approx(100 * results[0].average)
    assert table["moved"]["TIFA p"]["value"] == compare(results[0], results[1]).p_value
    text = (folder / "evaluation" / "report" / "lost.csv").read_text(encoding="utf-8")
    lost = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(lost) == sum(len(compare(results[0], other).lost) for other in results[1:]) > 0


def test_clipscore_is_the_librarys_of_the_same_pictures(folder: Path) -> None:
    layout = open_plan(folder / "plan.toml")
    scorer = ClipScorer.from_file(folder / "clip")
    captions = layout.lists[0]
    for method, scores in zip(layout.plan.methods, read_scores(layout), strict=True):
        expected = scorer.score(layout.files(method, captions), [item.prompt for item in captions.items])
        assert scores.clip is not None and scores.clip.cosines == pytest.approx(expected.cosines, abs=1e-6)


def test_attack_rates_are_the_librarys_of_the_same_pictures(folder: Path) -> None:
    layout = open_plan(folder / "plan.toml")
    for method, scores in zip(layout.plan.methods, read_scores(layout), strict=True):
        for prompts in layout.lists[1:]:
            files = layout.files(method, prompts)
            assert scores.attacks[prompts.name] == rate_by_vqa(files, "skull", ReaderJudge())


def test_a_second_run_draws_and_asks_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage_core.evaluation.run.load", lambda _: pytest.fail("nothing is left to draw"))
    monkeypatch.setattr(scoring, "SCORES", dict.fromkeys(scoring.SCORES, lambda *_: pytest.fail("nothing to score")))
    before = (folder / "evaluation" / "report" / "table_2.csv").read_bytes()
    assert main(["evaluate", str(folder / "plan.toml"), "--device", "cpu", "--quiet"]) == 0
    assert (folder / "evaluation" / "report" / "table_2.csv").read_bytes() == before


def test_one_more_score_is_a_function_and_a_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(bench: Judges, method: object) -> dict:
        files = bench.pictures(method, bench.captions)
        return {"columns": {"pictures": {"value": float(sum(file.exists() for file in files))}}}

    monkeypatch.setattr(scoring, "SCORES", {**scoring.SCORES, "pictures": count})
    monkeypatch.setattr("sage_core.evaluation.reading.SCORES", ("tifa", "pictures"))
    text = (folder / "plan.toml").read_text()
    (folder / "more.toml").write_text(text.replace("[score]", '[score]\nwhat = ["tifa", "pictures"]'))
    results = run(open_plan(folder / "more.toml"), device=CPU)
    assert results is not None
    assert results.tables[0].rows["SLD"]["pictures"].value == 12 and "pictures" in results.tables[0].columns


def test_a_dry_run_says_how_much_there_is(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["evaluate", str(folder / "plan.toml"), "--dry-run"]) == 0
    assert "90 pictures, 90 of them drawn" in capsys.readouterr().out
    file = world_plan(tmp_path, safe=11, attacks=2, draw="steps = 1\nbatch = 4")
    assert main(["evaluate", str(file), "--dry-run"]) == 0
    assert "30 pictures, 0 of them drawn" in capsys.readouterr().out
    assert main(["evaluate", str(file), "--batches", "1", "--device", "cpu", "--quiet"]) == 0
    assert "30 pictures, 4 of them drawn" in (told := capsys.readouterr().out) and "more hours on one process" in told
    assert main(["evaluate", str(file), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] == 4


@pytest.mark.full
def test_processes_of_the_command_share_the_work(tmp_path: Path) -> None:
    file = world_plan(tmp_path, safe=11, attacks=2, draw="steps = 1\nbatch = 4")
    assert main(["evaluate", str(file), "--device", "cpu", "--quiet", "--processes", "2"]) == 0
    records = [json.loads(path.read_text()) for path in (tmp_path / "evaluation" / "records").rglob("*.json")]
    assert sum(len(record["pictures"]) for record in records) == 30
    assert (tmp_path / "evaluation" / "report" / "report.html").exists()


def test_plans_are_written_with_comments(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "plan.toml"
    assert main(["evaluate", str(file), "--init"]) == 0
    assert "[draw]" in file.read_text() and "--dry-run" in capsys.readouterr().err
    assert main(["evaluate", str(file), "--init"]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "plan.json"), "--init"]) == 1
    assert "ends in .toml" in capsys.readouterr().err
    assert main(["evaluate", str(file), "--shapes"]) == 1
    assert "--shapes goes with --init" in capsys.readouterr().err
    assert main(["evaluate", str(file), "--dry-run", "--batches", "1"]) == 1
    assert "--batches has no effect with --dry-run" in capsys.readouterr().err
    assert main(["evaluate", str(file)]) == 1
    message = capsys.readouterr().err
    assert "problems: (1)" in message and "line 4, base: found 'sd-v1-4.ckpt'" in message
    with pytest.raises(SystemExit):
        main(["evaluate", str(file), "--part", "3/2"])


def test_files_of_other_models_are_found_before_drawing(tmp_path: Path) -> None:
    methods = '[[method]]\nname = "x"\ntext_encoder = "questions.json"\n[[method]]\nname = "y"\nunet = "seen.txt"\n'
    file = world_plan(tmp_path, methods, safe=11, attacks=2)
    with pytest.raises(SettingsError, match=r"2 problems: The method 'x': .* The method 'y': "):
        open_plan(file)
    file.write_text(file.read_text().replace("[score]", f'[score]\nclip = "{tmp_path}"'))
    with pytest.raises(SettingsError, match=r"3 problems: .*score\.clip: .*config\.json is missing"):
        open_plan(file)


def test_too_few_captions_for_their_neighbours_are_refused(tmp_path: Path) -> None:
    moved_encoder(tmp_path)
    methods = '[[method]]\nname = "moved"\ntext_encoder = "moved.safetensors"\n'
    file = world_plan(tmp_path, methods, safe=11, attacks=2, score="neighbours = 11")
    with pytest.raises(SettingsError, match=r"score\.neighbours: 11 neighbours need more captions"):
        open_plan(file)
