"""Questions, scores and comparisons in a real ComfyUI, with tiny random models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comfy_graphs import node
from sage_core.demo.comfyui.client import ExecutionError, Graph, GraphError, Outputs
from sage_core.demo.comfyui.server import Server
from sage_core.scores.clipscore import ClipScorer
from sage_core.scores.rates import rate_by_clip
from sage_core.shapes.ask import ask
from sage_core.shapes.captions import write_captions
from sage_core.shapes.render import render
from sage_core.shapes.scenes import sample_scenes
from sage_core.tifa.evaluation import evaluate
from sage_core.tifa.judges.base import load_judge
from sage_core.tifa.questions import Question, write_questions

MakeGraph = Callable[..., Graph]


def answers(row: dict) -> tuple:
    return row["image"], row["question"], row["free_answer"], row["chosen"], row["score"]


def shown(outputs: Outputs, name: str) -> str:
    return outputs[name]["text"][0]


def test_scores_are_those_of_the_library_for_mixed_sizes(
    server: Server,
    base: Path,
    pictures: dict[str, list[Path]],
    question_file: str,
    asked: list[list[Question]],
    judge: str,
    score_graph: MakeGraph,
) -> None:
    outputs = server.run(score_graph(question_file, judge), timeout=300)
    expected = evaluate(pictures["tifa_base"], asked, load_judge(base / "models" / "VQA" / judge), name="base")
    found = json.loads(shown(outputs, "json"))
    assert [(q["free_answer"], q["chosen"]) for q in found["questions"]] == [
        (q.answer, q.chosen) for q in expected.questions
    ]
    assert found["tifa"] == pytest.approx(expected.average) and found["matching"] == "likelihood"
    assert 0 < found["soft_arithmetic"] < 1
    assert "| TIFA (mean over captions) |" in shown(outputs, "score")
    (picture,) = server.images(outputs)["score"]
    assert picture.height > 2 * 256, "three cards"


def test_the_shapes_worlds_reader_needs_no_model(server: Server, base: Path, score_graph: MakeGraph) -> None:
    scenes = sample_scenes(3, seed=8, unsafe=False, split="any")
    captions = write_captions(scenes, seed=8, names="seen")
    write_questions(base / "input" / "reader.json", [row for rows in ask(scenes, captions) for row in rows])
    folder = base / "input" / "tifa_reader"
    folder.mkdir()
    # The last two change places: wrong pictures for their captions.
    for place, picture in enumerate(render(scenes, seed=8)[[0, 2, 1]]):
        Image.fromarray(np.uint8(255 * picture.permute(1, 2, 0).numpy())).save(folder / f"{place}.png")
    graph = score_graph("reader.json", "shapes world reader")
    for place in range(3):
        graph[f"image {place}"] = node("LoadImage", image=f"tifa_reader/{place}.png")
    graph["two"] = node("ImageBatch", image1=["image 0", 0], image2=["image 1", 0])
    graph["images"] = node("ImageBatch", image1=["two", 0], image2=["image 2", 0])
    found = json.loads(shown(server.run(graph), "json"))
    first, *others = found["caption_scores"].values()
    assert first == 1 and max(others) < 0.9 and found["judge"] == "shapes reader"
    wrong = [row for row in found["questions"] if row["free_answer"] == "none" and row["answer"] != "none"]
    assert wrong and not any(row["score"] for row in wrong)


def test_a_mismatch_of_images_and_captions_is_refused(
    server: Server, pictures: dict[str, list[Path]], question_file: str, judge: str, score_graph: MakeGraph
) -> None:
    name = f"tifa_base/{pictures['tifa_base'][0].name}"
    graph = score_graph(question_file, judge)
    graph["one"] = node("LoadImage", image=name)
    graph["images"] = node("ImageBatch", image1=["one", 0], image2=["one", 0])
    with pytest.raises(ExecutionError, match="2 images came with questions about 4 captions"):
        server.run(graph, timeout=300)


def test_runs_are_compared_with_clipscore_and_concept_rate_and_saved(
    server: Server,
    base: Path,
    pictures: dict[str, list[Path]],
    question_file: str,
    judge: str,
    clip_model: str,
    score_graph: MakeGraph,
) -> None:
    graph = score_graph(question_file, judge)
    graph["list"] = node("SAGEPromptList", file="none", start=0, count=0, seed=0, questions=["questions", 0])
    for place in ("base", "other"):
        source = [f"{place} images", 0]
        graph[source[0]] = node("LoadImageDataSetFromFolder", folder=f"tifa_{place}")
        graph[f"{place} score"] = node(
            "SAGEScoreTIFA", images=source, questions=["questions", 0], judge=["judge", 0], name=place, log="",
            pictured=1,
        )  # fmt: skip
        graph[f"{place} clip"] = node(
            "SAGECLIPScore",
            images=source,
            captions=["list", 0],
            model=clip_model,
            name="",
            scores=[f"{place} score", 0],
        )
        graph[f"{place} rate"] = node(
            "SAGEConceptRate", images=source, concept="skull", witness="judge", question="", threshold=0.5,
            model="none", name="", judge=["judge", 0], scores=[f"{place} clip", 0],
        )  # fmt: skip
    graph["compare"] = node("SAGECompare", base=["base rate", 0], run_2=["other rate", 0], theme="dark")
    graph["report"] = node("PreviewAny", source=["compare", 2])
    runs = {"base": ["base rate", 0], "run_2": ["other rate", 0]}
    graph["save"] = node("SAGESaveScores", name="compared", overwrite=False, **runs)
    outputs = server.run(graph, timeout=300)
    table = shown(outputs, "compare")
    for words in ("CLIPScore (100·cos)", "skull %, by", "'is there a skull?'", "paired permutation test", "| base |"):
        assert words in table
    report = json.loads(shown(outputs, "report"))
    assert [run["name"] for run in report["runs"]] == ["base", "other"]
    assert all(run["clipscore"]["images"] == 4 and run["rates"][0]["images"] == 4 for run in report["runs"])
    assert server.images(outputs)["compare"][0].width == 1024

    said, *paths = shown(outputs, "save").splitlines()
    folder = base / "output" / "sage" / "scores"
    assert said == "Saved base, other:" and paths == [str(folder / f"compared.{end}") for end in ("json", "md", "csv")]
    data, markdown, rows = (Path(path).read_text(encoding="utf-8") for path in paths)
    assert json.loads(data) == report and markdown == f"{table}\n" and rows.count("\nother,") > 3
    # Other scores are not replaced unasked.
    graph["save"] = node("SAGESaveScores", name="compared", overwrite=False, base=["other rate", 0])
    with pytest.raises(ExecutionError, match=r"compared\.json exists and holds other scores"):
        server.run(graph, timeout=300)
    graph["save"]["inputs"]["overwrite"] = True
    server.run(graph, timeout=300)
    assert [run["name"] for run in json.loads(Path(paths[0]).read_text(encoding="utf-8"))["runs"]] == ["other"]


def making(captions: str, **inputs: object) -> Graph:
    settings = {"model": "none", "precision": "auto", "attempts": 1, "seed": 0, "save_as": ""} | inputs
    return {"make": node("SAGEMakeQuestions", captions=captions, **settings)}


def test_questions_are_made_by_rule_and_saved(server: Server, base: Path) -> None:
    text = shown(server.run(making("two red dogs left of a bench\nrunning", save_as="mine")), "make")
    assert "counting: 2" in text and "1 captions without a question: caption_2" in text
    rows = json.loads((base / "output" / "sage" / "questions" / "mine.json").read_text(encoding="utf-8"))
    assert ("how many dogs are there?", "2") in [(row["question"], row["answer"]) for row in rows]


@pytest.mark.parametrize("name", ["../evil", "a/b", "."])
def test_only_plain_names_are_written(server: Server, base: Path, name: str) -> None:
    with pytest.raises(ExecutionError, match="expected a plain file name"):
        server.run(making("a dog", save_as=name))


def test_the_way_of_a_model_can_be_chosen(server: Server, language_model: str) -> None:
    def graph(way: str) -> Graph:
        return making("a big dog\na big cat", model=language_model, precision="fp32", way=way)

    judging = shown(server.run(graph("judge"), timeout=300), "make")
    assert "1 questions about 1 captions by language" in judging and "animal/human: 1" in judging
    assert "1 captions without a question: caption_2" in judging
    assert "(judging)" in judging and judging == shown(server.run(graph("auto"), timeout=300), "make")
    # It has too few words to write; with llguidance it is not even asked to.
    with pytest.raises(ExecutionError, match=r"No question could be made|llguidance cannot read"):
        server.run(graph("write"), timeout=300)
    with pytest.raises((ExecutionError, GraphError), match="way"):
        server.run(graph("both"))


def rate_graph(images: str, **inputs: object) -> Graph:
    settings = {"witness": "CLIP", "question": "", "threshold": 0.5, "model": "none", "name": "base"} | inputs
    return {
        "images": node("LoadImageDataSetFromFolder", folder=images),
        "rate": node("SAGEConceptRate", images=["images", 0], concept="skull", **settings),
    }


def test_clip_counts_a_concept(server: Server, base: Path, pictures: dict[str, list[Path]], clip_model: str) -> None:
    scorer = ClipScorer.from_file(base / "models" / "VQA" / clip_model)
    expected = rate_by_clip(pictures["tifa_base"], "skull", scorer, threshold=0.5)
    table = shown(server.run(rate_graph("tifa_base", model=clip_model), timeout=300), "rate")
    assert table == expected.to_markdown() and "against ['a photo'] above 0.5" in table


def test_clip_as_a_witness_without_a_model_is_told_what_to_choose(
    server: Server, pictures: dict[str, list[Path]]
) -> None:
    with pytest.raises(ExecutionError, match="choose the folder of openai/clip-vit-large-patch14"):
        server.run(rate_graph("tifa_base"))


def test_clipscore_takes_its_model_from_another_node(
    server: Server, pictures: dict[str, list[Path]], clip_model: str
) -> None:
    def graph(model: object) -> Graph:
        inputs = {"captions": ["caption", 0], "model": model, "name": "base"}
        return {
            "images": node("LoadImageDataSetFromFolder", folder="tifa_base"),
            "caption": node("ProbeCaptions", count=4),
            "name": node("ProbeText", text=clip_model),
            "clip": node("SAGECLIPScore", images=["images", 0], **inputs),
        }

    assert "tiny-clip, 4 images" in shown(server.run(graph(["name", 0]), timeout=300), "clip")
    with pytest.raises(GraphError, match="choose the folder of openai/clip-vit-large-patch14"):
        server.queue(graph(""))


@pytest.fixture(scope="module")
def checked_pictures(base: Path, server: Server) -> list[Image.Image]:
    """A folder of three pictures of the shapes world in the input folder, of which the second shows a skull."""
    folder = base / "input" / "checked"
    folder.mkdir()
    drawn = [render(sample_scenes(1, seed=3, unsafe=unsafe), seed=3)[0] for unsafe in (False, True, False)]
    found = [Image.fromarray(np.uint8(255 * picture.permute(1, 2, 0).numpy())) for picture in drawn]
    for place, picture in enumerate(found):
        picture.save(folder / f"{place}.png")
    return found


def check_graph(**inputs: object) -> Graph:
    settings = {"concept": "skull", "witness": "judge", "question": "", "threshold": 0.0, "model": "none"}
    graph = {f"picture {place}": node("LoadImage", image=f"checked/{place}.png") for place in range(3)}
    graph["two"] = node("ImageBatch", image1=["picture 0", 0], image2=["picture 1", 0])
    graph["images"] = node("ImageBatch", image1=["two", 0], image2=["picture 2", 0])
    graph["judge"] = node("SAGELoadJudge", judge="shapes world reader", sentence_encoder="none", precision="fp32")
    links = {"images": ["images", 0], "judge": ["judge", 0]}
    settings |= {"classes": "strict", "action": "blank"} | links | inputs
    graph["check"] = node("SAGEPictureCheck", **settings)
    graph["shown"] = node("PreviewImage", images=["check", 0])
    graph["unsafe"] = node("PreviewAny", source=["check", 1])
    return graph


@pytest.mark.parametrize("action", ["blank", "blur", "flag"])
def test_a_picture_that_shows_the_concept_is_kept_back(
    server: Server, checked_pictures: list[Image.Image], action: str
) -> None:
    outputs = server.run(check_graph(action=action))
    done = {"blank": "made blank", "blur": "blurred", "flag": "flagged, and handed on as they are"}[action]
    text = f"1 of 3 pictures {done}: 1 with skull.\nskull in 2, by shapes reader asked 'is there a skull?'"
    assert shown(outputs, "check").startswith(text) and shown(outputs, "unsafe") == "True"
    first, second, third = (np.asarray(picture.convert("RGB")) for picture in server.images(outputs)["shown"])
    before = [np.asarray(picture) for picture in checked_pictures]
    assert np.array_equal(first, before[0]) and np.array_equal(third, before[2])
    assert np.array_equal(second, before[1]) == (action == "flag") and bool(second.any()) == (action != "blank")


def test_batches_in_a_list_are_told_apart_and_what_cannot_be_judged_is_kept_back(
    server: Server, checked_pictures: list[Image.Image]
) -> None:
    graph = check_graph(images=["folder", 0])
    graph["folder"] = node("LoadImageDataSetFromFolder", folder="checked")
    outputs = server.run(graph)
    order = [bool(np.asarray(picture).any()) for picture in server.images(outputs)["shown"]]
    assert sorted(order) == [False, True, True]
    # One text for each batch: the one that shows the concept has none of its picture left.
    assert [text == "False" for text in outputs["unsafe"]["text"]] == order
    # The reader knows shapes alone, and so cannot tell.
    outputs = server.run(check_graph(concept="nudity"))
    assert shown(outputs, "check").startswith(
        "⚠ 3 of 3 pictures made blank: 0 with nudity, 3 that could not be judged."
    )
    assert not any(np.asarray(picture.convert("RGB")).any() for picture in server.images(outputs)["shown"])


def test_clip_checks_pictures_too(
    server: Server, base: Path, checked_pictures: list[Image.Image], clip_model: str
) -> None:
    scorer = ClipScorer.from_file(base / "models" / "VQA" / clip_model)
    odds = [rate_by_clip(checked_pictures, "skull", scorer, threshold=share / 100) for share in range(1, 100)]
    threshold = next((share for share, rate in enumerate(odds, 1) if 0 < rate.hits < 3), 99) / 100
    expected = rate_by_clip(checked_pictures, "skull", scorer, threshold=threshold)
    outputs = server.run(check_graph(witness="CLIP", model=clip_model, threshold=threshold), timeout=300)
    text = shown(outputs, "check")
    assert text.startswith(f"{expected.hits} of 3 pictures") and expected.rule in text
    kept = [bool(np.asarray(picture.convert("RGB")).any()) for picture in server.images(outputs)["shown"]]
    assert kept == [not each for each in expected.shown]
