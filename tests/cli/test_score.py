"""`sage score`: which pictures belong to which captions."""

from __future__ import annotations

import json

import pytest
from command_line import run
from PIL import Image

from sage_core.tifa.judges.base import Answer
from sage_core.tifa.questions import Question, write_questions


class YesJudge:
    """Answers yes to everything."""

    name = "yes"

    def answer(self, images, questions, **_):
        return [[Answer("yes", None) for _ in asked] for asked in questions]


@pytest.fixture
def pictures(tmp_path):
    questions = [
        Question("a_1", "a cat", "is there a cat?", ("yes", "no"), "yes", "animal/human", "cat"),
        Question("b", "a dog", "is there a cat?", ("yes", "no"), "no", "animal/human", "cat"),
    ]
    write_questions(tmp_path / "questions.json", questions)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a_1.png", "a_1_2.png", "b.jpg"):
        Image.new("RGB", (8, 8)).save(folder / name)
    return folder, tmp_path / "questions.json"


def test_score_matches_pictures_to_captions_by_name(capsys, pictures, monkeypatch):
    monkeypatch.setattr("sage_core.tifa.judges.base.load_judge", lambda folder, device: YesJudge())
    code, out, _ = run(capsys, "score", *pictures, "--judge", "anywhere", "--json", "--quiet")
    found = json.loads(out)
    assert code == 0
    assert [row["image"] for row in found["questions"]] == ["a_1", "a_1_2", "b"]
    assert found["caption_scores"] == {"a_1": 1.0, "b": 0.0}
    assert found["tifa"] == 0.5


def test_score_tells_of_captions_without_a_picture(capsys, pictures, monkeypatch):
    monkeypatch.setattr("sage_core.tifa.judges.base.load_judge", lambda folder, device: YesJudge())
    folder, questions = pictures
    command = ("score", folder, questions, "--judge", "anywhere", "--json", "--quiet")
    _, out, error = run(capsys, *command)
    assert json.loads(out)["captions_without_picture"] == []
    assert "no picture" not in error
    (folder / "b.jpg").unlink()
    code, out, error = run(capsys, *command)
    found = json.loads(out)
    assert code == 0
    assert (found["captions_in_questions"], found["captions_without_picture"]) == (2, ["b"])
    assert "1 of 2 captions have no picture (the first: b)." in error


def test_score_names_pictures_that_belong_to_no_caption(capsys, pictures):
    folder, questions = pictures
    Image.new("RGB", (8, 8)).save(folder / "stranger.png")
    code, _, error = run(capsys, "score", folder, questions, "--judge", "anywhere")
    assert code == 1
    assert "a_1.png" in error
    assert "stranger.png and 0 more" in error
