"""A test set that is drawn and scored in parts, stopped, and gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_graphs import node
from sage_core.demo.comfyui.client import ExecutionError, Graph, GraphError, Interrupted, Outputs, Progress
from sage_core.demo.comfyui.server import Server
from sage_core.tifa.questions import Question, write_questions

MakeGraph = Callable[..., Graph]

# Answers are written down after every 32 pictures.
STEP, MANY = 32, 44


def found(outputs: Outputs) -> dict:
    return json.loads(outputs["json"]["text"][0])


@pytest.fixture(scope="module")
def questions(base: Path, server: Server) -> Callable[[int], str]:
    """The name of a file with three questions about each of so many captions."""

    def write(captions: int) -> str:
        rows = (
            ("is there a dog?", "yes", "no"),
            ("what color is the bus?", "red", "blue"),
            ("how many?", "two", "three"),
        )
        kinds = ("object", "color", "counting")
        write_questions(
            base / "input" / f"parts_{captions}.json",
            [
                Question(f"c{number}", f"{number} red stars", text, choices, choices[0], kind, "stars")
                for number in range(captions)
                for (text, *some), kind in zip(rows, kinds, strict=True)
                for choices in [tuple(some)]
            ],
        )
        return f"parts_{captions}.json"

    return write


@pytest.fixture
def make(judge: str) -> MakeGraph:
    """The graph that draws and scores a list; `listed` and `scored` are inputs of its two ends."""

    def graph(file: str, seconds: float = 0.0, listed: dict | None = None, **scored: object) -> Graph:
        about = {"images": ["draw", 0], "questions": ["list", 2], "judge": ["slow", 0], "name": "run", "pictured": 1}
        prompts = {"file": "none", "start": 0, "count": 0, "seed": 5, "questions": ["file", 0]}
        return {
            "file": node("SAGELoadQuestions", file=file),
            "list": node("SAGEPromptList", **prompts | (listed or {})),
            "summary": node("PreviewAny", source=["list", 3]),
            "draw": node("ProbeDraw", prompt=["list", 0], seed=["list", 1]),
            "judge": node("SAGELoadJudge", judge=judge, sentence_encoder="none", precision="fp32"),
            # One picture at a time, so that probabilities are the same whatever is asked beside it.
            "slow": node("ProbeSlowJudge", judge=["judge", 0], seconds=seconds),
            "score": node("SAGEScoreTIFA", **about | {"log": ""} | scored),
            "json": node("PreviewAny", source=["score", 3]),
        }

    return graph


def test_three_parts_in_one_log_score_as_one_run(
    server: Server, questions: Callable[[int], str], make: MakeGraph
) -> None:
    file = questions(6)
    whole = found(server.run(make(file), timeout=300))
    graph = make(file, listed={"log": "three parts", "count": 2}, log="three parts", whole_log=True)
    summaries, captions, last = [], [], {}
    for _ in range(4):
        outputs = server.run(graph, timeout=300)
        last = found(outputs)
        summaries.append(outputs["summary"]["text"][0].splitlines())
        captions.append(len(last["caption_scores"]))
    # Everything, intervals and probabilities too; and once all are scored the score is there for the asking.
    assert captions == [2, 4, 6, 6] and last == whole
    assert summaries[1] == [
        "2 of 6 prompts, seeds 7 to 8.",
        "2 left out because their questions are answered in three parts; 2 to come.",
    ]
    assert summaries[3][0] == "1 of 6 prompts, seeds 10 to 10."
    assert summaries[3][1].startswith(
        "Every prompt's questions are answered in three parts. The last prompt comes once"
    )


def test_a_cancelled_evaluation_stops_at_once_and_goes_on_to_the_same_score(
    server: Server, base: Path, questions: Callable[[int], str], make: MakeGraph
) -> None:
    file, log = questions(MANY), base / "output" / "sage" / "tifa" / "cancelled.jsonl"
    whole = found(server.run(make(file), timeout=300))
    graph = make(file, 0.1, listed={"log": "cancelled"}, log="cancelled", whole_log=True)

    def cancel(progress: Progress) -> None:
        if progress.node == "score" and progress.value > 3 * STEP:
            server.interrupt()

    with pytest.raises(Interrupted):
        server.run(graph, cancel, timeout=300)
    assert len(log.read_text(encoding="utf-8").splitlines()) == 3 * STEP, "the second step was not asked to its end"
    # As if the process had been killed while it wrote.
    with open(log, "a", encoding="utf-8") as file_:
        file_.write('{"image": "c32", "cu')
    outputs = server.run(graph, timeout=300)
    assert f"{MANY - STEP} of {MANY} prompts" in outputs["summary"]["text"][0]
    assert found(outputs) == whole
    assert len(log.read_text(encoding="utf-8").splitlines()) == 3 * MANY


def test_without_a_log_for_the_list_all_is_drawn_and_only_the_rest_is_asked(
    server: Server, base: Path, questions: Callable[[int], str], make: MakeGraph
) -> None:
    log = base / "output" / "sage" / "tifa" / "rest.jsonl"
    file = questions(6)
    server.run(make(file, listed={"count": 4}, log="rest"), timeout=300)
    before = log.read_text(encoding="utf-8").splitlines()
    outputs = server.run(make(file, log="rest"), timeout=300)
    after = log.read_text(encoding="utf-8").splitlines()
    assert len(before) == 12 and len(after) == 18 and after[:12] == before
    assert len(found(outputs)["caption_scores"]) == 6


def test_a_prompt_comes_until_every_lane_has_its_answers(
    server: Server, questions: Callable[[int], str], make: MakeGraph
) -> None:
    file = questions(6)
    server.run(make(file, listed={"count": 3}, log="lane 1"), timeout=300)
    server.run(make(file, listed={"count": 2}, log="lane 2"), timeout=300)
    graph = make(file, listed={"log": "lane 1, lane 2", "count": 2})
    outputs = server.run({name: graph[name] for name in ("file", "list", "summary")})
    assert outputs["summary"]["text"][0].splitlines() == [
        "2 of 6 prompts, seeds 7 to 8.",
        "2 left out because their questions are answered in lane 1 and lane 2; 2 to come.",
    ]


@pytest.mark.parametrize(
    ("listed", "scored", "message"),
    [
        ({}, {"whole_log": True}, "whole_log is on, but log is empty"),
        ({"log": "../evil"}, {}, r"log is '\.\./evil'; expected a plain file name"),
        ({}, {"log": "a/b"}, "log is 'a/b'; expected a plain file name"),
    ],
)
def test_logs_that_make_no_sense_are_explained(
    server: Server, questions: Callable[[int], str], make: MakeGraph, listed: dict, scored: dict, message: str
) -> None:
    with pytest.raises((ExecutionError, GraphError), match=message):
        server.run(make(questions(6), listed=listed, **scored), timeout=300)


def test_a_log_without_questions_is_explained(server: Server, base: Path) -> None:
    (base / "input" / "no_questions.txt").write_text("a dog\n")
    graph = {
        "list": node("SAGEPromptList", file="no_questions.txt", start=0, count=0, seed=0, log="some"),
        "show": node("PreviewAny", source=["list", 0]),
    }
    with pytest.raises(ExecutionError, match="no questions are connected"):
        server.run(graph)
