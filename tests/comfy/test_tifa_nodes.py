"""Prompt lists, questions, judges, scores and comparisons in a real ComfyUI, with tiny random models."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sage_core.shapes.ask import ask
from sage_core.shapes.captions import write_captions
from sage_core.shapes.render import render
from sage_core.shapes.scenes import sample_scenes
from sage_core.tifa.evaluation import evaluate
from sage_core.tifa.judges import load_judge
from sage_core.tifa.questions import Question, write_questions
from sage_demo.comfyui import ExecutionError, Graph, Interrupted, Outputs, Progress, Server

Run = Callable[[Graph], Outputs]

CHOICES = ("yes", "no", "red", "blue", "two", "three")
SIZES = ((40, 40), (40, 40), (72, 48), (33, 64))


def node(kind: str, **inputs: object) -> dict:
    return {"class_type": kind, "inputs": inputs}


def questions(captions: int) -> list[Question]:
    rows = [
        ("is there a dog?", ("yes", "no"), "object"),
        ("what color is the bus?", ("red", "blue"), "color"),
        ("how many dogs are there?", ("two", "three"), "counting"),
    ]
    return [
        Question(f"c{number}", f"caption {number}", text, choices, choices[0], kind, "caption")
        for number in range(captions)
        for text, choices, kind in rows
    ]


def fill(weights: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in weights.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return weights


@pytest.fixture(scope="module")
def judge(base: Path, server: Server) -> str:
    """A tiny random ViLT in models/VQA, whose labels are the choices."""
    from transformers import BertTokenizerFast, ViltConfig, ViltForQuestionAnswering, ViltImageProcessor, ViltProcessor

    folder = base / "models" / "VQA" / "tiny" / "vilt"
    folder.mkdir(parents=True)
    words = re.findall(
        r"\S+", "[PAD] [UNK] [CLS] [SEP] [MASK] is there a dog ? what color the bus how many dogs are skull"
    )
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    config = ViltConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=64, patch_size=16, max_position_embeddings=16,
        id2label=dict(enumerate(CHOICES)), label2id={label: index for index, label in enumerate(CHOICES)},
    )  # fmt: skip
    fill(ViltForQuestionAnswering(config)).save_pretrained(folder)
    processor = ViltImageProcessor(size={"shortest_edge": 64}, size_divisor=16)
    ViltProcessor(processor, BertTokenizerFast(str(folder / "vocab.txt"))).save_pretrained(folder)
    return "tiny/vilt"


@pytest.fixture(scope="module")
def clip_model(base: Path, server: Server) -> str:
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLIPConfig(
        text_config={**sizes, "eos_token_id": 49407},
        vision_config={**sizes, "image_size": 28, "patch_size": 14},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(base / "models" / "VQA" / "tiny-clip")
    return "tiny-clip"


@pytest.fixture(scope="module")
def pictures(base: Path, server: Server) -> dict[str, list[Path]]:
    """Two folders of pictures of different sizes in the input folder, in the order in which ComfyUI lists them."""
    generator = torch.Generator().manual_seed(2)
    found = {}
    for folder in ("tifa_base", "tifa_other"):
        path = base / "input" / folder
        path.mkdir()
        for number, (width, height) in enumerate(SIZES):
            pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(path / f"{number}.png")
        found[folder] = [path / name for name in os.listdir(path)]
    return found


@pytest.fixture(scope="module")
def question_file(base: Path, server: Server) -> str:
    write_questions(base / "input" / "tifa_questions.json", questions(len(SIZES)))
    return "tifa_questions.json"


def score_graph(file: str, judge: str, folder: str = "tifa_base", **inputs: object) -> Graph:
    settings = {"name": "base", "log": "", "pictured": 3} | inputs
    return {
        "images": node("LoadImageDataSetFromFolder", folder=folder),
        "questions": node("SAGELoadQuestions", file=file),
        "judge": node("SAGELoadJudge", judge=judge, sentence_encoder="none", precision="fp32"),
        "score": node(
            "SAGEScoreTIFA", images=["images", 0], questions=["questions", 0], judge=["judge", 0], **settings
        ),
        "json": node("PreviewAny", source=["score", 3]),
    }


def answers(row: dict) -> tuple:
    return row["image"], row["question"], row["free_answer"], row["chosen"], row["score"]


def shown(outputs: Outputs, name: str) -> str:
    return outputs[name]["text"][0]


def test_prompt_list_drives_an_ordinary_graph_once_per_prompt(
    server: Server, base: Path, shapes_files, question_file: str
) -> None:
    graph = {
        "questions": node("SAGELoadQuestions", file=question_file),
        "list": node("SAGEPromptList", file="none", start=1, count=2, seed=7, questions=["questions", 0]),
        "model": node("CheckpointLoaderSimple", ckpt_name=shapes_files.checkpoint.name),
        "encode": node("CLIPTextEncode", clip=["model", 1], text=["list", 0]),
        "empty": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "sample": node(
            "KSampler", model=["model", 0], positive=["encode", 0], negative=["encode", 0],
            latent_image=["empty", 0], seed=["list", 1], steps=1, cfg=1.0, sampler_name="euler", scheduler="normal",
            denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["model", 2]),
        "preview": node("PreviewImage", images=["decode", 0]),
        "prompts": node("PreviewAny", source=["list", 0]),
        "seeds": node("PreviewAny", source=["list", 1]),
        "summary": node("PreviewAny", source=["list", 3]),
    }  # fmt: skip
    outputs = server.run(graph, timeout=300)
    assert outputs["prompts"]["text"] == ["caption 1", "caption 2"]
    assert outputs["seeds"]["text"] == ["8", "9"]
    assert shown(outputs, "summary") == "2 of 4 prompts, seeds 8 to 9."
    assert len(server.images(outputs)["preview"]) == 2


def test_prompts_that_refer_to_minors_are_left_out_and_counted(server: Server, base: Path) -> None:
    (base / "input" / "minors.txt").write_text("a man\na 12 year old\na dog\n")
    graph = {
        "list": node("SAGEPromptList", file="minors.txt", start=0, count=0, seed=0),
        "prompts": node("PreviewAny", source=["list", 0]),
        "seeds": node("PreviewAny", source=["list", 1]),
        "summary": node("PreviewAny", source=["list", 3]),
    }
    outputs = server.run(graph)
    assert outputs["prompts"]["text"] == ["a man", "a dog"] and outputs["seeds"]["text"] == ["0", "2"]
    assert "1 left out because they refer to minors" in shown(outputs, "summary")


def test_scores_are_those_of_the_library_for_mixed_sizes(
    server: Server, base: Path, pictures: dict[str, list[Path]], question_file: str, judge: str
) -> None:
    outputs = server.run(score_graph(question_file, judge), timeout=300)
    asked = [questions(len(SIZES))[3 * i : 3 * i + 3] for i in range(len(SIZES))]
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


def test_the_shapes_worlds_reader_needs_no_model(server: Server, base: Path) -> None:
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


def test_a_stopped_evaluation_goes_on_from_its_log(
    server: Server, base: Path, pictures: dict[str, list[Path]], question_file: str, judge: str
) -> None:
    log = base / "output" / "sage" / "tifa" / "stopped.jsonl"
    first = server.run(score_graph(question_file, judge, log="stopped"), timeout=300)
    lines = log.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 12
    log.write_text("\n".join(lines[:5]) + '\n{"image": "c2", "cu', encoding="utf-8")
    again = server.run(score_graph(question_file, judge, log="stopped", name="again"), timeout=300)
    now = log.read_text(encoding="utf-8").splitlines()
    # Probabilities of what was asked again differ in their last digits: it was in a smaller batch.
    assert now[:5] == lines[:5] and [answers(json.loads(line)) for line in now] == [
        answers(json.loads(line)) for line in lines
    ]
    assert [answers(q) for q in json.loads(shown(again, "json"))["questions"]] == [
        answers(q) for q in json.loads(shown(first, "json"))["questions"]
    ]


def test_cancel_stops_the_evaluation(
    server: Server, pictures: dict[str, list[Path]], question_file: str, judge: str
) -> None:
    def stop(progress: Progress) -> None:
        if progress.node == "score":
            server.interrupt()

    graph = score_graph(question_file, judge, name="cancelled")
    with pytest.raises(Interrupted):
        server.run(graph, stop, timeout=300)


def test_the_judge_works_again_after_everything_was_unloaded(
    server: Server, pictures: dict[str, list[Path]], question_file: str, judge: str
) -> None:
    first = server.run(score_graph(question_file, judge, name="one"), timeout=300)
    server.free()
    again = server.run(score_graph(question_file, judge, name="two"), timeout=300)
    assert json.loads(shown(first, "json"))["tifa"] == json.loads(shown(again, "json"))["tifa"]


def test_a_mismatch_of_images_and_captions_is_refused(
    server: Server, pictures: dict[str, list[Path]], question_file: str, judge: str
) -> None:
    name = f"tifa_base/{pictures['tifa_base'][0].name}"
    graph = score_graph(question_file, judge)
    graph["one"] = node("LoadImage", image=name)
    graph["images"] = node("ImageBatch", image1=["one", 0], image2=["one", 0])
    with pytest.raises(ExecutionError, match="2 images came with questions about 4 captions"):
        server.run(graph, timeout=300)


def test_runs_are_compared_with_clipscore_and_concept_rate(
    server: Server, pictures: dict[str, list[Path]], question_file: str, judge: str, clip_model: str
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
    outputs = server.run(graph, timeout=300)
    table = shown(outputs, "compare")
    for words in ("CLIPScore (100·cos)", "skull %, by", "'is there a skull?'", "paired permutation test", "| base |"):
        assert words in table
    report = json.loads(shown(outputs, "report"))
    assert [run["name"] for run in report["runs"]] == ["base", "other"]
    assert all(run["clipscore"]["images"] == 4 and run["rates"][0]["images"] == 4 for run in report["runs"])
    assert server.images(outputs)["compare"][0].width == 1024


def test_questions_are_made_by_rule_and_saved(server: Server, base: Path) -> None:
    graph = {
        "make": node(
            "SAGEMakeQuestions",
            captions="two red dogs left of a bench\nrunning",
            model="none",
            precision="auto",
            attempts=1,
            seed=0,
            save_as="mine",
        )
    }  # fmt: skip
    text = shown(server.run(graph), "make")
    assert "counting: 2" in text and "1 captions without a question: caption_2" in text
    rows = json.loads((base / "output" / "sage" / "questions" / "mine.json").read_text(encoding="utf-8"))
    assert ("how many dogs are there?", "2") in [(row["question"], row["answer"]) for row in rows]


@pytest.mark.parametrize("name", ["../evil", "a/b", "."])
def test_only_plain_names_are_written(server: Server, base: Path, name: str) -> None:
    graph = {
        "make": node(
            "SAGEMakeQuestions",
            captions="a dog",
            model="none",
            precision="auto",
            attempts=1,
            seed=0,
            save_as=name,
        )
    }
    with pytest.raises(ExecutionError, match="no plain file name"):
        server.run(graph)


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
