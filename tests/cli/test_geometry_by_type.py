"""`sage geometry` over a question file: the by-type table, pictures, scores of both encoders, and further methods."""

from __future__ import annotations

import csv
import json

import pytest
from command_line import run
from PIL import Image
from tiny_encoders import save_random

from sage_core.encoders.text_encoder import TextEncoder, embed
from sage_core.errors import QuestionError
from sage_core.geometry.measures import distances, nearest, neighbour_overlap, spread_ratio
from sage_core.intervals import correlation
from sage_core.tifa.comparison import compare
from sage_core.tifa.questions import Question, captions_by_type, holds_questions, write_questions
from sage_core.tifa.result_file import read_result
from sage_core.tifa.scoring import ScoredQuestion, TifaResult

TYPES = {
    "object": lambda row: True,
    "color": lambda row: row % 2 == 0,
    "counting": lambda row: row < 14,
    "food": lambda row: row >= 12,
    "shape": lambda row: row < 3,
}
THINGS = ("cats", "cups", "cakes", "trees")
CAPTIONS = [
    f"{number} {color} {thing}" for number in ("two", "six") for color in ("red", "grey", "pink") for thing in THINGS
]


def questions():
    return [
        Question(f"c{row}", caption, f"is it {kind}?", ("yes", "no"), "yes", kind, caption)
        for row, caption in enumerate(CAPTIONS)
        for kind, asked in TYPES.items()
        if asked(row)
    ]


def result(name, wrong):
    rows = []
    for place, question in enumerate(questions()):
        answer = "no" if place % wrong.get(question.element_type, 50) == 0 else "yes"
        rows.append(ScoredQuestion(question.id, question, answer, answer, 0.75))
    return TifaResult(name, "judge", "likelihood", tuple(rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("by type")
    save_random(folder / "base.safetensors")
    save_random(folder / "aligned.safetensors", change=0.03)
    save_random(folder / "other.safetensors", change=0.02)
    write_questions(folder / "tifa.json", questions())
    (folder / "prompts.txt").write_text("\n".join(CAPTIONS), encoding="utf-8")
    runs = {"base": {}, "aligned": {"food": 2, "color": 3, "counting": 7}, "other": {"food": 5, "object": 9}}
    for name, wrong in runs.items():
        report = result(name, wrong).to_dict() | {"captions_in_questions": 24}
        (folder / f"{name}.json").write_text(json.dumps(report), encoding="utf-8")
    return folder


def geometry(capsys, folder, *more, prompts="tifa.json", aligned="aligned"):
    files = (folder / "base.safetensors", folder / f"{aligned}.safetensors", folder / prompts)
    return run(capsys, "geometry", *files, "-k", 3, "--embedding", "mean", "--quiet", *more)


def test_a_question_file_is_told_from_prompts(folder, tmp_path):
    assert holds_questions(folder / "tifa.json")
    assert not holds_questions(folder / "prompts.txt")
    (tmp_path / "list.json").write_text(json.dumps(CAPTIONS))
    (tmp_path / "prompts.csv").write_text("prompt,element_type\na cat,object\n")
    assert not holds_questions(tmp_path / "list.json") and not holds_questions(tmp_path / "prompts.csv")
    for name in ("t.jsonl", "t.csv"):
        write_questions(tmp_path / name, questions())
        assert holds_questions(tmp_path / name)
    with pytest.raises(QuestionError, match="does not exist"):
        holds_questions(tmp_path / "missing.json")


def test_a_caption_belongs_to_each_type_once():
    twice = [*questions(), Question("again", CAPTIONS[0], "a cat?", ("yes", "no"), "yes", "food", "cat")]
    captions, groups = captions_by_type(twice)
    assert captions == tuple(CAPTIONS)
    assert list(groups) == ["object", "color", "food", "counting", "shape"], "in TIFA's order"
    assert groups["food"] == (*range(12, 24), 0)
    assert groups["object"] == tuple(range(24)) and groups["shape"] == (0, 1, 2)


def test_the_table_is_that_of_each_types_prompts_alone(capsys, folder, tmp_path):
    outputs = ("--types", tmp_path / "t.csv", "--types", tmp_path / "t.png")
    code, out, error = geometry(capsys, folder, "--json", "--precision", "fp32", *outputs)
    assert code == 0 and "questions about 24 captions" in error
    assert json.loads(out)["precision"] == "fp32"
    found = json.loads(out)["by_type"]
    assert found["k"] == 5 and found["left_out"] == {"shape": 3}
    encoders = [TextEncoder.from_file(folder / f"{name}.safetensors") for name in ("base", "aligned")]
    for kind in ("object", "color", "counting", "food"):
        texts = [caption for row, caption in enumerate(CAPTIONS) if TYPES[kind](row)]
        before, after = (embed(encoder, texts, pooling="mean") for encoder in encoders)
        overlap = neighbour_overlap(*(nearest(distances(space), 5) for space in (before, after))).mean().item()
        assert found["types"][kind]["prompts"] == len(texts)
        assert found["types"][kind]["spread_ratio"]["value"] == pytest.approx(spread_ratio(before, after), rel=1e-3)
        assert found["types"][kind]["jaccard"]["value"] == pytest.approx(overlap, abs=0.03)
    assert found["correlation_with_tifa_lost"] == {"spread_ratio": None, "jaccard": None}
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [row["type"] for row in rows] == ["object", "color", "food", "counting"]
    assert Image.open(tmp_path / "t.png").width == 1024


def scores(folder, aligned="aligned"):
    return ("--scores", folder / "base.json", folder / f"{aligned}.json")


def test_scores_add_the_loss_by_type_and_the_correlation(capsys, folder):
    code, out, _ = geometry(capsys, folder, *scores(folder), "--json")
    found = json.loads(out)
    assert code == 0
    change = compare(result("base", {}), result("aligned", {"food": 2, "color": 3, "counting": 7}))
    rows = found["by_type"]["types"]
    lost = {kind: row["tifa_lost_points"] for kind, row in rows.items()}
    assert lost == pytest.approx({kind: -100 * change.by_type[kind].change for kind in rows})
    r = correlation([row["spread_ratio"]["value"] for row in rows.values()], list(lost.values()))
    told = found["by_type"]["correlation_with_tifa_lost"]["spread_ratio"]
    assert (told["n"], told["r"], *told["interval_95"]) == pytest.approx((4, r.value, r.low, r.high))
    assert found["method"]["name"] == "aligned"
    assert found["method"]["tifa"] == change.tifa.to_dict()


def test_methods_come_from_this_run_and_from_earlier_reports(capsys, folder, tmp_path):
    first = tmp_path / "other-report.json"
    assert geometry(capsys, folder, *scores(folder, "other"), "--report", first, aligned="other")[0] == 0
    drawn = ("--with", first, "--methods", tmp_path / "m.png")
    assert geometry(capsys, folder, *scores(folder), *drawn)[0] == 0
    assert Image.open(tmp_path / "m.png").size == (760, 560)
    other = ("--with", first, "--methods", tmp_path / "n.png")
    code, _, error = geometry(capsys, folder, *scores(folder), *other, prompts="prompts.txt", aligned="base")
    assert code == 0, error
    (tmp_path / "shorter.txt").write_text("\n".join(CAPTIONS[:9]))
    command = (
        "geometry",
        folder / "base.safetensors",
        folder / "aligned.safetensors",
        tmp_path / "shorter.txt",
        "-k",
        3,
    )
    code, _, error = run(capsys, *command, "--embedding", "mean", "--quiet", *scores(folder), *other)
    assert code == 1 and "differ in prompts" in error


def test_an_answer_log_is_a_score(capsys, folder, tmp_path):
    for name, wrong in (("base", {}), ("aligned", {"food": 2})):
        lines = [
            {**row.to_dict(), "judge": "judge", "image_fingerprint": "x", "probabilities": [0.75, 0.25]}
            for row in result(name, wrong).questions
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_result(tmp_path / "aligned.jsonl").by_type == result("aligned", {"food": 2}).by_type
    logs = ("--scores", tmp_path / "base.jsonl", tmp_path / "aligned.jsonl")
    code, out, error = geometry(capsys, folder, *logs)
    assert code == 0, error
    assert "Spread ratio against TIFA lost: r = " in out


def test_a_report_of_scores_is_read_as_it_was_written(folder):
    found = read_result(folder / "aligned.json")
    assert found == result("aligned", {"food": 2, "color": 3, "counting": 7})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--types", "t.pdf"), "--types is 't.pdf'; expected a name that ends in .png or .csv"),
        (("--methods", "m.png"), "--methods draws TIFA; give --scores"),
        (("--with", "r.json"), "--with names further methods for a picture; give --methods"),
    ],
)
def test_options_that_miss_others(capsys, folder, monkeypatch, tmp_path, options, message):
    monkeypatch.chdir(tmp_path)
    code, _, error = geometry(capsys, folder, *options)
    assert code == 1 and message in error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds no scored questions"),
        ('{"questions": [{}]}', "name is null, expected text"),
        ('{"name": "a", "judge": "b", "matching": "c", "questions": [{}]}', "question 1: image is null, expected text"),
        ('{"name": "a", "judge": "b", "matching": "c", "questions": [3]}', "question 1: Found 3, expected an object"),
        (
            '{"name":"a","judge":"b","matching":"c","questions":[{"image":"i","free_answer":"x","chosen":"x"}]}',
            "question 1: It is missing id",
        ),
    ],
)
def test_files_that_are_no_scores_are_named(capsys, folder, tmp_path, content, message):
    (tmp_path / "bad.json").write_text(content)
    code, _, error = geometry(capsys, folder, "--scores", tmp_path / "bad.json", folder / "aligned.json")
    assert code == 1 and "bad.json" in error and message in error


def test_types_need_questions_and_enough_prompts(capsys, folder, tmp_path):
    code, _, error = geometry(capsys, folder, "--types", tmp_path / "t.csv", prompts="prompts.txt")
    assert code == 1 and "is a list of prompts. Give a file of TIFA questions" in error
    write_questions(tmp_path / "few.json", questions()[:20])
    few = ("geometry", folder / "base.safetensors", folder / "aligned.safetensors", tmp_path / "few.json", "-k", 2)
    code, out, error = run(capsys, *few, "--embedding", "mean", "--quiet", "--types", tmp_path / "t.csv")
    assert code == 1 and "no type of question has enough prompts" in error
    assert "Left out, for fewer than 12 prompts" in out


def test_scores_of_other_questions_are_refused(capsys, folder, tmp_path):
    shorter = TifaResult("short", "judge", "likelihood", result("short", {}).questions[:30])
    (tmp_path / "short.json").write_text(json.dumps(shorter.to_dict()))
    code, _, error = geometry(capsys, folder, "--scores", folder / "base.json", tmp_path / "short.json")
    assert code == 1 and "Score both on one question file" in error
