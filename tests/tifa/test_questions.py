"""Question files: the official format kept exactly, every kind of malformed row told apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sage_core.errors import QuestionError
from sage_core.tifa.questions import (
    ELEMENT_TYPES,
    Question,
    count_types,
    group_by_caption,
    read_questions,
    write_questions,
)

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
ROW = {
    "id": "c1",
    "caption": "two dogs, one red",
    "question": "how many dogs are there?",
    "choices": ["1", "2", "3", "4"],
    "answer": "2",
    "element_type": "counting",
    "element": "two",
}


def write(path: Path, rows) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_rows_keep_the_official_keys_in_order():
    question = Question.from_row(ROW)
    assert list(question.to_row().items()) == list(ROW.items())
    assert Question.from_row({**ROW, "coco_val_id": "380711"}).to_row() == {**ROW, "coco_val_id": "380711"}
    for given, kept in (
        ({"element_type": "human"}, "animal/human"), ({"element_type": "animal"}, "animal/human"),
        ({"choices": ["2", "1", "2"]}, ("2", "1")),
    ):  # fmt: skip
        assert getattr(Question.from_row({**ROW, **given}), *given) == kept


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is not here")
def test_the_official_sample_comes_back_as_it_was(tmp_path):
    source = SHARED / "tifa_sample_question_answers.json"
    questions, report = read_questions(source)
    assert report.kept == 19 and report.captions == 2 and not report.skipped
    write_questions(tmp_path / "copy.json", questions)
    assert json.loads((tmp_path / "copy.json").read_text()) == json.loads(source.read_text())


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
def test_every_format_reads_what_it_wrote(tmp_path, suffix):
    questions = (
        Question.from_row(
            {**ROW, "caption": 'said "hi", and\nleft\u2028again', "choices": ["a, b", "c|d"], "answer": "c|d"}
        ),
        Question.from_row({**ROW, "id": "é", "coco_val_id": "17"}),
    )
    path = tmp_path / f"questions{suffix}"
    write_questions(path, questions)
    assert read_questions(path)[0] == questions


def test_csv_choices_may_be_separated_by_bars_and_start_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "q.csv"
    header = "id,caption,question,choices,answer,element_type,element\n"
    path.write_text("\ufeff" + header + "c1,a dog,what is it?,dog | cat,dog,animal,dog\n", encoding="utf-8")
    (question,), report = read_questions(path)
    assert question.choices == ("dog", "cat") and question.element_type == "animal/human"
    assert report.renamed_types == 1


MALFORMED = [
    ("a list", "Found 'a list', expected an object"),
    ({k: v for k, v in ROW.items() if k != "answer"}, "missing answer"),
    ({**ROW, "question": None, "element": None}, "missing question, element"),
    ({**ROW, "answer": "5"}, "answer '5' is not among the choices"),
    ({**ROW, "answer": " 2"}, "answer ' 2' is not among the choices"),
    ({**ROW, "question": "  "}, "question is empty"),
    ({**ROW, "id": 7}, "id is 7, expected text"),
    ({**ROW, "choices": []}, "nothing to choose"),
    ({**ROW, "choices": ["2", "2"]}, "nothing to choose"),
    ({**ROW, "choices": ["2", ""]}, "none of them empty"),
    ({**ROW, "choices": ["2", 3]}, "expected texts"),
    ({**ROW, "choices": 2}, "expected a list"),
    ({**ROW, "choices": "[2,"}, "not a JSON list"),
    ({**ROW, "element_type": "colour"}, "element_type 'colour' is unknown, expected one of object"),
    (ROW, "asks c1 the same as row 1"),
    ({**ROW, "question": "is it red?", "caption": "another caption"}, "id 'c1' already stands for another caption"),
]


def test_jsonl_and_csv_rows_are_numbered_by_line(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(ROW) + "\n\n{broken\n")
    assert [s.row for s in read_questions(path)[1].skipped] == [3]
    path = tmp_path / "q.csv"
    write_questions(path, [Question.from_row(ROW)])
    path.write_text(path.read_text() + "c2,a, dog,is it?,yes|no,yes,object,dog,17\n")
    (skipped,) = read_questions(path)[1].skipped
    assert skipped.row == 3 and "in double quotes" in skipped.reason


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.json", b"{}", "expected a list"),
        ("q.json", b"[]", "holds no rows"),
        ("q.json", b'[{"id": "a"}]', "Row 1: It is missing caption"),
        ("q.csv", b"", "header lacks id"),
        ("q.csv", b"id,caption\n", "header lacks question"),
        ("q.txt", b"[]", "expected one of .json, .jsonl, .csv"),
    ],
)
def test_unusable_files_are_refused_by_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(QuestionError, match=message) as caught:
        read_questions(tmp_path / name)
    assert name in str(caught.value)


def test_counts_and_groups():
    first = Question.from_row(ROW)
    questions = [
        first,
        replace(first, id="c2"),
        replace(first, question="is it red?", element_type="object"),
        replace(first, id="c2", question="is it red?", element_type="object"),
        replace(first, id="c2", question="where?", element_type="object"),
    ]
    assert count_types(questions) == {"object": 3, "counting": 2}
    groups = group_by_caption(questions)
    assert list(groups) == ["c1", "c2"] and [len(g) for g in groups.values()] == [2, 3]


def test_the_papers_eleven_types_come_before_other():
    assert len(ELEMENT_TYPES) == 12 and ELEMENT_TYPES[-1] == "other"
