"""The log of answers as a whole: what it says is done, and its score."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sage_core.errors import JudgeError, QuestionError
from sage_core.tifa.answer_log import AnswerLog, answered_captions, read_log
from sage_core.tifa.evaluation import evaluate, score_log
from sage_core.tifa.judges.base import Answer
from sage_core.tifa.questions import Question

CHOICES = ("a dog", "a cat", "two")


class Brightness:
    """A judge whose answer depends on the picture and the question alone."""

    name = "brightness"

    def __init__(self) -> None:
        self.asked = 0

    def answer(self, images, questions, *, likelihoods=True, on_batch=None):
        self.asked += sum(map(len, questions))
        return [[self._answer(image, q) for q in some] for image, some in zip(images, questions, strict=True)]

    def _answer(self, image: torch.Tensor, question: Question) -> Answer:
        place = (int(image[0, 0, 0]) + len(question.question)) % 3
        return Answer(CHOICES[place], tuple(0.7 if place == i else 0.15 for i in range(3)))


def grey(level: int) -> torch.Tensor:
    return torch.full((2, 2, 3), level, dtype=torch.uint8)


def ask(caption: int) -> list[Question]:
    return [
        Question(f"c{caption}", f"caption {caption}", "what?" + "?" * number, CHOICES, "a dog", kind, "caption")
        for number, kind in enumerate(("object", "color", "counting")[: 1 + caption % 3])
    ]


IMAGES, ASKED = [grey(level) for level in range(9)], [ask(caption) for caption in range(9)]


@pytest.mark.parametrize("stopped", [False, True])
def test_parts_in_one_log_score_as_one_run(tmp_path: Path, stopped: bool) -> None:
    log = tmp_path / "parts.jsonl"
    whole = evaluate(IMAGES, ASKED, Brightness(), name="run", log=tmp_path / "whole.jsonl")
    for start in (0, 3, 6):
        part = slice(start, start + 3)
        evaluate(IMAGES[part], ASKED[part], Brightness(), log=log)
        if stopped:
            with open(log, "a") as file:
                file.write('{"image": "c7", "cut of')
    found = score_log(log, "brightness", name="run")
    assert found == whole and found.to_dict() == whole.to_dict()
    assert found.average != evaluate(IMAGES[:3], ASKED[:3], Brightness()).average


def test_a_picture_asked_about_again_counts_once_as_it_is_now(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    evaluate(IMAGES, ASKED, Brightness(), log=log)
    changed = [*IMAGES[:4], grey(200), *IMAGES[5:]]
    evaluate(changed[4:5], ASKED[4:5], Brightness(), log=log)
    assert score_log(log, "brightness") == evaluate(changed, ASKED, Brightness())


def test_captions_are_answered_when_every_question_is(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    everything = [question for some in ASKED for question in some]
    assert answered_captions(everything, log) == set() and not log.exists()
    evaluate(IMAGES[:2], [ASKED[0], ASKED[2][:2]], Brightness(), log=log)
    assert answered_captions(everything, log) == {"c0"}
    # Other words for the prompt, other choices: another question.
    assert answered_captions([replace(ASKED[0][0], caption="another caption")], log) == set()
    assert answered_captions([replace(ASKED[0][0], choices=("a dog", "two"))], log) == set()
    with open(log, "a") as file:
        file.write(json.dumps({"image": "c4"})[:-1])
    before = log.read_bytes()
    assert answered_captions(everything, log) == {"c0"} and len(read_log(log)) == 3
    assert log.read_bytes() == before, "another evaluation may just be writing that line"


def test_a_log_of_another_judge_or_of_nothing_has_no_score(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with pytest.raises(QuestionError, match="no scored question"):
        score_log(log, "brightness")
    evaluate(IMAGES, ASKED, Brightness(), log=log)
    with pytest.raises(JudgeError, match="line 1: answers of the judge 'brightness', expected 'other'"):
        score_log(log, "other")
    for line in ("{}", "[]", "3", '{"image": "c0"}'):
        log.write_text(line + "\n")
        for read in (read_log, lambda path: answered_captions([], path), lambda path: score_log(path, "brightness")):
            with pytest.raises(JudgeError, match="line 1: not a line of an answer log"):
                read(log)


_WRITER = """
import sys, time
from sage_core.errors import JudgeError
from sage_core.tifa.answer_log import AnswerLog
from sage_core.tifa.judges.base import Answer
from sage_core.tifa.questions import Question
from sage_core.tifa.scoring import ScoredQuestion

path, name = sys.argv[1:]
print("ready", flush=True)
for round in range(int(sys.stdin.readline())):
    question = Question(f"{name} {round}", "a dog", "is it?", ("yes", "no"), "yes", "object", "dog")
    while True:
        try:
            with AnswerLog(path, "judge") as log:
                for number in range(5):
                    row = ScoredQuestion(f"{name} {round} {number}", question, "yes", "yes", None)
                    log.add([row], ["mark"], [Answer("yes")])
            break
        except JudgeError as error:
            assert "another evaluation is writing" in str(error), error
            time.sleep(0.002)
"""


def test_two_processes_lose_no_answer(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(log), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("first", "second")
    ]
    # Both have imported everything before either begins.
    assert [writer.stdout.readline() for writer in writers if writer.stdout] == ["ready\n"] * 2
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("20\n")
        writer.stdin.flush()
    assert [writer.communicate(timeout=300)[0] for writer in writers] == ["", ""]
    assert [writer.returncode for writer in writers] == [0, 0]
    found = [line.image for line in read_log(log)]
    expected = {f"{name} {n} {i}" for name in ("first", "second") for n in range(20) for i in range(5)}
    assert len(found) == 200 and set(found) == expected


def test_a_log_in_use_is_refused_and_free_again_however_its_evaluation_ends(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with AnswerLog(log, "brightness"), pytest.raises(JudgeError, match="another evaluation is writing to this log"):
        evaluate(IMAGES, ASKED, Brightness(), log=log)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(IMAGES, ASKED, Brightness(), log=log, on_progress=stop)
    other = Brightness()
    other.name = "other"
    evaluate(IMAGES, ASKED, Brightness(), log=log)
    with pytest.raises(JudgeError, match="answers of the judge"):
        evaluate(IMAGES, ASKED, other, log=log)
    assert evaluate(IMAGES, ASKED, Brightness(), log=log) == score_log(log, "brightness")
    (tmp_path / "file").write_text("")
    with pytest.raises(JudgeError, match="no log can be written there"):
        AnswerLog(tmp_path / "file" / "log.jsonl", "brightness")


def test_a_log_line_that_no_parser_takes_is_named(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    for line in ("[" * 100_000, "9" * 5000, "\x00"):
        log.write_text(line + "\n")
        with pytest.raises(JudgeError, match="line 1: not a line of an answer log"):
            read_log(log)


GOOD = {**ASKED[0][0].to_row(), "image": "a", "image_fingerprint": "f", "judge": "brightness", "free_answer": "two"}


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("image", ["a"], r'image is \["a"\], expected text'),
        ("image_fingerprint", {}, r"image_fingerprint is \{\}, expected text"),
        ("free_answer", 2, "free_answer is 2, expected text"),
        ("free_answer", "\ud83d", "free_answer holds"),
        ("judge", None, "judge is null, expected text"),
        ("probabilities", "abc", "probabilities are 'abc', expected a list"),
        ("probabilities", [0.5, 0.5], "expected 3 numbers from 0 to 1"),
        ("probabilities", [0.5, 0.5, "x"], "expected 3 numbers from 0 to 1"),
        ("probabilities", [0.5, 0.5, True], "expected 3 numbers from 0 to 1"),
        ("probabilities", [0.5, -0.5, 1.0], "expected 3 numbers from 0 to 1"),
        ("probabilities", [0.5, 10**400, 0.1], "holds 1000.*, which is beyond every number"),
        ("probabilities", [0.5, 1e999, 0.1], "holds Infinity, which JSON does not know"),
        ("probabilities", [0.5, float("nan"), 0.1], "holds NaN, which JSON does not know"),
    ],
)
def test_every_field_of_a_line_is_checked_before_it_is_scored(
    tmp_path: Path, field: str, value: object, reason: str
) -> None:
    log = tmp_path / "log.jsonl"
    whole = {**GOOD, "probabilities": None}
    log.write_text(json.dumps(whole) + "\n" + json.dumps(whole | {field: value}) + "\n")
    for read in (read_log, lambda path: score_log(path, "brightness"), lambda path: AnswerLog(path, "brightness")):
        with pytest.raises(JudgeError, match=rf"log\.jsonl, line 2: not a line of an answer log \(.*{reason}"):
            read(log)


def test_names_that_no_log_can_have_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    for name in ("", "a\0.jsonl", "half \ud83d.jsonl", "x" * 300):
        with pytest.raises(JudgeError, match=r"is a folder|no log can be written there"):
            AnswerLog(f"{tmp_path}/{name}", "brightness")
    assert list(tmp_path.iterdir()) == [] and not tmp_path.with_name(f"{tmp_path.name}.lock").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that can be read without an end")
@pytest.mark.timeout(20)
@pytest.mark.parametrize("device", ["/dev/full", "/dev/zero", "/dev/null"])
def test_a_device_is_no_log(device: str) -> None:
    with pytest.raises(JudgeError, match=f"{device} is a folder or device"):
        AnswerLog(device, "brightness")
