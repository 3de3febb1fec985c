"""FID, KID and CMMD in a plan: the library's numbers of the same pictures, and refusals before and after drawing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sage_core.errors import SettingsError
from sage_core.evaluation import distances
from sage_core.evaluation.bases import load
from sage_core.evaluation.drawing import draw
from sage_core.evaluation.run import open_plan, run
from sage_core.evaluation.scoring import read_scores
from sage_core.scores.distances import cmmd, distance, frechet_distance, kernel_distance
from sage_core.scores.features import described, load_extractor
from sage_core.scores.statistics import Statistics, write_statistics
from small_worlds import tiny_clip, world_plan

CPU = torch.device("cpu")
DRAW = "steps = 1\nbatch = 12"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


def plan_with(folder: Path, clip: Path, what: str, more: str = "") -> Path:
    return world_plan(folder, safe=12, attacks=0, draw=DRAW, score=f'what = {what}\nfeatures = "{clip}"\n{more}')


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Path:
    """What a plan leaves whose pictures are drawn and not scored; how they are scored changes none of them."""
    folder = tmp_path_factory.mktemp("drawn")
    draw(open_plan(plan_with(folder, clip, '["kid"]')), lambda: load(None), device=CPU)
    return folder / "evaluation"


@pytest.fixture
def drawn(tmp_path: Path, evaluation: Path) -> Path:
    """A folder for a plan that has its pictures."""
    shutil.copytree(evaluation, tmp_path / "evaluation")
    return tmp_path


def photographs(folder: Path, count: int) -> Path:
    folder.mkdir()
    generator = np.random.default_rng(3)
    for number in range(count):
        Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{number:02}.png")
    return folder


def test_distances_to_the_base_are_the_librarys(drawn: Path, clip: Path, monkeypatch) -> None:
    monkeypatch.setattr(distances, "FEWEST_FOR_FID", 9)
    layout = open_plan(plan_with(drawn, clip, '["fid", "kid", "cmmd"]'))
    results = run(layout, device=CPU)
    assert results is not None
    extractor, captions = load_extractor(clip), layout.lists[0]
    base, sld = (extractor.embed(layout.files(method, captions)) for method in layout.plan.methods)
    (table,) = results.tables
    columns = ("FD-CLIP to base", "KID on clip features to base", "CMMD to base")
    assert table.columns == columns and not table.rows["base"]
    row = table.rows["SLD"]
    expected = (
        frechet_distance(Statistics.of(sld), Statistics.of(base)),
        kernel_distance(sld.values, base.values),
        cmmd(sld.values, base.values),
    )
    found = [row[name].value for name in columns]
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-9)
    cell, error = row[columns[1]], distance("KID", sld, base).details["its standard error"]
    assert cell.high - cell.low == pytest.approx(2 * 1.96 * error, rel=1e-5) and cell.digits == 5
    markdown = (drawn / "evaluation" / "report" / "report.md").read_text()
    assert "CMMD to base: 12 and 12 pictures. Features: CLIP, " in markdown and markdown.count("CMMD to base:") == 1
    assert "FD-CLIP to base" in (drawn / "evaluation" / "report" / "table_2.csv").read_text()


def test_features_are_computed_once(drawn: Path, clip: Path, monkeypatch) -> None:
    file = plan_with(drawn, clip, '["cmmd"]')
    first = run(open_plan(file), device=CPU)
    kept = sorted((drawn / "evaluation" / "features").rglob("*.npz"))
    assert len(kept) == 2
    file.write_text(file.read_text().replace('"cmmd"', '"cmmd", "kid"'))
    with monkeypatch.context() as patch:
        patch.setattr("sage_core.evaluation.judges.load_extractor", lambda *_, **__: pytest.fail("features are there"))
        second = run(open_plan(file), device=CPU)
    assert first and second
    assert second.tables[0].rows["SLD"]["CMMD to base"] == first.tables[0].rows["SLD"]["CMMD to base"]
    # What is damaged is computed again.
    kept[0].write_bytes(b"PK")
    file.write_text(file.read_text().replace('"cmmd", "kid"', '"kid"'))
    for each in (drawn / "evaluation" / "scores").rglob("kid-*.json"):
        each.unlink()
    third = run(open_plan(file), device=CPU)
    assert third and third.tables[0].rows == {
        name: {title: cell for title, cell in row.items() if "KID" in title}
        for name, row in second.tables[0].rows.items()
    }


def test_distances_to_photographs_have_a_row_for_the_base(drawn: Path, clip: Path) -> None:
    folder = photographs(drawn / "coco", 9)
    layout = open_plan(plan_with(drawn, clip, '["kid", "cmmd"]', 'reference = "coco"'))
    results = run(layout, device=CPU)
    assert results is not None
    table, extractor = results.tables[0], load_extractor(clip)
    assert table.columns == ("KID on clip features", "CMMD")
    other = extractor.embed(sorted(folder.iterdir()))
    for method in layout.plan.methods:
        own = extractor.embed(layout.files(method, layout.lists[0]))
        assert table.rows[method.name]["CMMD"].value == pytest.approx(cmmd(own.values, other.values), rel=1e-5)
    assert any("CMMD: 12 and 9 pictures" in note and "numbers of pictures differ" in note for note in results.notes)
    # Another set of photographs is another number.
    (folder / "00.png").unlink()
    again = run(open_plan(drawn / "plan.toml"), device=CPU)
    assert again and again.tables[0].rows["base"]["CMMD"] != table.rows["base"]["CMMD"]


def test_statistics_of_other_features_become_a_note(drawn: Path, clip: Path, monkeypatch) -> None:
    monkeypatch.setattr(distances, "FEWEST_FOR_FID", 9)
    stated = Statistics(np.zeros(8), np.eye(8), 3000, "CLIP, another, 123", "by another rule", "clip")
    write_statistics(drawn / "coco.npz", stated)
    results = run(open_plan(plan_with(drawn, clip, '["fid", "tifa"]', 'reference = "coco.npz"')), device=CPU)
    assert results is not None
    assert "TIFA" in results.tables[0].columns and "FD-CLIP" not in results.tables[0].columns
    (note,) = (note for note in results.notes if note.startswith("FID is not in table 2: The extractor of the two"))
    assert "CLIP, another, 123" in note
    assert note in (drawn / "evaluation" / "report" / "report.md").read_text()
    assert [scores.notes for scores in read_scores(results.layout)] == [(note,), (note,)]


@pytest.mark.parametrize(
    ("what", "more", "words"),
    [
        ('["fid"]', "", "score.what: fid needs 2,048 pictures or more of each side, and the plan draws 12 of harmless"),
        ('["kid"]', 'reference = "few"', "score.what: kid needs 3 pictures or more of each side, and score.reference"),
        ('["fid"]', 'reference = "wide.npz"', "score.reference: it is of 4 features a picture, score.features gives 8"),
        ('["kid"]', 'reference = "wide.npz"', "mean and covariance do for fid alone, not for kid"),
        ('["kid"]', 'reference = "bad.npz"', "score.reference: "),
        ('["kid"]', 'reference = "empty"', "holds 0 pictures"),
    ],
)
def test_what_cannot_be_measured_is_said_before_drawing(
    tmp_path: Path, clip: Path, what: str, more: str, words: str
) -> None:
    photographs(tmp_path / "few", 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.npz").write_bytes(b"PK")
    write_statistics(tmp_path / "wide.npz", Statistics(np.zeros(4), np.eye(4)))
    with pytest.raises(SettingsError, match=re.escape(words)):
        open_plan(plan_with(tmp_path, clip, what, more))
    assert not (tmp_path / "evaluation").exists()


def test_models_of_features_are_checked_before_drawing(tmp_path: Path, clip: Path) -> None:
    assert described(clip) == ("clip", 8)
    (tmp_path / "dino").mkdir()
    (tmp_path / "dino" / "config.json").write_text(json.dumps({"model_type": "dinov2", "hidden_size": 16}))
    save_file({"x": torch.zeros(1)}, tmp_path / "dino" / "model.safetensors")
    assert described(tmp_path / "dino") == ("dinov2", 16)
    with pytest.raises(SettingsError, match=r"score\.what: cmmd is of a CLIP's embeddings, and score\.features is of"):
        open_plan(plan_with(tmp_path, tmp_path / "dino", '["cmmd"]'))
    with pytest.raises(SettingsError, match=r"score\.features: .*questions\.json: no model here, expected FID's"):
        open_plan(plan_with(tmp_path, tmp_path / "questions.json", '["kid"]'))
    with pytest.raises(SettingsError, match=r"score\.features: it is missing, and scoring needs it \(kid\)"):
        open_plan(world_plan(tmp_path, safe=12, attacks=0, score='what = ["kid"]'))
    with pytest.raises(SettingsError, match=r"score\.reference: found 'seen\.txt', expected 'base', a folder of"):
        open_plan(plan_with(tmp_path, clip, '["kid"]', 'reference = "seen.txt"'))


def test_features_alone_ask_for_kid(tmp_path: Path, clip: Path) -> None:
    file = world_plan(tmp_path, safe=12, attacks=0, score=f'features = "{clip}"\nreference = "base"')
    plan = open_plan(file).plan
    assert "kid" in plan.score.what and plan.score.reference is None
