"""Judges in a real ComfyUI: with a sentence encoder, unloaded, damaged, ComfyUI's own, and what their answers are filed
under."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_graphs import node
from sage_core.demo.comfyui.client import ExecutionError, Graph, GraphError, Outputs
from sage_core.demo.comfyui.server import Server
from sage_core.tifa.evaluation import evaluate
from sage_core.tifa.judges.base import load_judge
from sage_core.tifa.questions import Question
from sage_core.tifa.sentences import SentenceEncoder

MakeGraph = Callable[..., Graph]


def found(outputs: Outputs) -> dict:
    return json.loads(outputs["json"]["text"][0])


def test_a_sentence_encoder_matches_answers_and_comes_to_the_device_with_its_judge(
    server: Server,
    base: Path,
    pictures: dict[str, list[Path]],
    question_file: str,
    asked: list[list[Question]],
    judge: str,
    sentence_encoder: str,
    score_graph: MakeGraph,
) -> None:
    loads = {
        "before": node("ProbeLoads", after="", mark="sentences"),
        "first": node("PreviewAny", source=["before", 0]),
    }
    server.run(loads)
    graph = score_graph(question_file, judge, sentences=sentence_encoder, name="sentences")
    graph["loads"] = node("ProbeLoads", after=["score", 1], mark="")
    outputs = server.run({**graph, "show loads": node("PreviewAny", source=["loads", 0])}, timeout=300)
    # Loaded one by one, the second could push parts of the first out of a graphics card's memory.
    assert outputs["show loads"]["text"] == ["2"]

    folder = base / "models" / "VQA"
    sentences = SentenceEncoder.from_folder(folder / sentence_encoder)
    expected = evaluate(pictures["tifa_base"], asked, load_judge(folder / judge), sentences=sentences)
    assert found(outputs)["matching"] == "sentence embedding"
    assert [row["chosen"] for row in found(outputs)["questions"]] == [row.chosen for row in expected.questions]
    free = [row for row in found(outputs)["questions"] if row["free_answer"] not in row["choices"]]
    assert free and all(row["chosen"] in row["choices"] for row in free)


def test_the_judge_works_again_after_everything_was_unloaded(
    server: Server, pictures: dict[str, list[Path]], question_file: str, judge: str, score_graph: MakeGraph
) -> None:
    first = server.run(score_graph(question_file, judge, name="one"), timeout=300)
    # Models alone: without their cached results the judge would be loaded from its folder anew.
    server.post("/free", {"unload_models": True})
    ran: set[str] = set()
    again = server.run(score_graph(question_file, judge, name="two"), lambda now: ran.add(now.node), timeout=300)
    assert "score" in ran and "judge" not in ran
    assert found(first)["tifa"] == found(again)["tifa"]


def test_a_log_tells_judges_of_one_name_and_precisions_of_one_judge_apart(
    server: Server, base: Path, pictures: dict[str, list[Path]], question_file: str, judge: str, score_graph: MakeGraph
) -> None:
    folder = base / "models" / "VQA"
    shutil.copytree(folder / judge, folder / "other" / Path(judge).name)
    outputs = server.run(score_graph(question_file, judge, log="one judge"), timeout=300)
    assert found(outputs)["judge"] == f"{judge}, fp32"
    with pytest.raises(ExecutionError, match="answers of the judge 'tiny/vilt, fp32', expected 'other/vilt, fp32'"):
        server.run(score_graph(question_file, "other/vilt", log="one judge"), timeout=300)
    graph = score_graph(question_file, judge, log="one judge")
    graph["judge"]["inputs"]["precision"] = "bf16"
    with pytest.raises(ExecutionError, match="expected 'tiny/vilt, bf16'"):
        server.run(graph, timeout=300)


def with_vision_clip(graph: Graph, seed: int) -> Graph:
    judge = graph["judge"]["inputs"] | {"judge": "none", "vision_clip": ["vision", 0]}
    return {**graph, "vision": node("ProbeVisionClip", seed=seed), "judge": node("SAGELoadJudge", **judge)}


def test_comfyuis_own_vision_models_are_told_apart(
    server: Server,
    pictures: dict[str, list[Path]],
    question_file: str,
    sentence_encoder: str,
    score_graph: MakeGraph,
) -> None:
    graph = score_graph(question_file, "none", sentences=sentence_encoder, log="vision")
    outputs = server.run(with_vision_clip(graph, seed=1), timeout=300)
    assert found(outputs)["judge"].startswith("ComfyUI Sequential, 0.000 GB, ")
    assert {row["free_answer"] for row in found(outputs)["questions"]} <= {"yes", "red", "two dogs"}
    with pytest.raises(ExecutionError, match="answers of the judge 'ComfyUI Sequential"):
        server.run(with_vision_clip(graph, seed=2), timeout=300)


def test_a_vision_clip_without_a_sentence_encoder_is_refused_before_anything_is_asked(
    server: Server, pictures: dict[str, list[Path]], question_file: str, score_graph: MakeGraph
) -> None:
    with pytest.raises(ExecutionError, match="choose a sentence encoder, for instance sentence-transformers") as raised:
        server.run(with_vision_clip(score_graph(question_file, "none"), seed=1))
    assert raised.value.node == "judge"


def test_an_old_comfyui_names_the_way_out_for_vision_clips(server: Server, shapes_files) -> None:
    graph = {
        "clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
        "judge": node(
            "SAGELoadJudge", judge="none", sentence_encoder="none", precision="fp32", vision_clip=["clip", 0]
        ),
        "show": node("PreviewAny", source=["judge", 0]),
    }
    with pytest.raises(ExecutionError, match="update to 0"):
        server.run(graph)


@pytest.mark.parametrize("place", ["judge", "sentence_encoder"])
@pytest.mark.parametrize("name", ["../../../etc", "/etc", "..", "."])
def test_a_model_outside_its_folders_is_refused(server: Server, base: Path, judge: str, place: str, name: str) -> None:
    inputs = {"judge": judge, "sentence_encoder": "none", "precision": "fp32", place: name}
    graph = {"judge": node("SAGELoadJudge", **inputs), "show": node("PreviewAny", source=["judge", 0])}
    with pytest.raises(GraphError, match="There is no model folder") as refused:
        server.queue(graph)
    assert str(base / "models" / "VQA") in str(refused.value)


def test_a_model_linked_into_its_folder_is_found(
    server: Server, base: Path, tmp_path: Path, pictures: dict[str, list[Path]], question_file: str, judge: str,
    score_graph: MakeGraph,
) -> None:  # fmt: skip
    shutil.copytree(base / "models" / "VQA" / judge, tmp_path / "vilt")
    (base / "models" / "VQA" / "linked").symlink_to(tmp_path / "vilt", target_is_directory=True)
    outputs = server.run(score_graph(question_file, "linked"), timeout=300)
    assert found(outputs)["judge"] == "linked, fp32"
