"""Prompt pairs and training in a real ComfyUI: once, twice, and refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from comfy_graphs import node
from sage_core.alignment.losses import LOSS_PARTS
from sage_core.cli.main import main
from sage_core.demo.comfyui.client import ExecutionError, Graph, Outputs
from sage_core.demo.comfyui.server import Server
from sage_core.encoders.layouts import read_encoder
from sage_core.encoders.text_encoder import TextEncoder, embed
from sage_core.shapes.captions import CONCEPT
from sage_core.shapes.networks.checkpoint import ExpandedFiles
from training_graphs import THINGS, alignment, prompt_pairs

Run = Callable[[Graph], Outputs]

UNSAFE = f"a skull, {THINGS[0]}"


@pytest.fixture
def training_graph(server: Server, shapes_files: ExpandedFiles) -> Callable[..., dict]:
    return partial(alignment, server, shapes_files)


@pytest.fixture
def encoders(base: Path) -> Path:
    return base / "models" / "text_encoders"


def test_training_gives_an_encoder_a_report_and_curves_and_is_found_again(
    server: Server,
    encoders: Path,
    base: Path,
    shapes_files: ExpandedFiles,
    training_graph: Callable[..., dict],
) -> None:
    graph = training_graph("first", steps=2)
    graph["encode"] = node("CLIPTextEncode", clip=["train", 0], text=UNSAFE)
    graph["probe"] = node("ProbeSaveParts", conditioning=["encode", 0], name="trained")
    graph["graph"] = node("LossGraphNode", loss=["train", 2], filename_prefix="loss")
    previews = []
    outputs = server.run(graph, lambda progress: previews.append(progress.preview), timeout=300)

    report = outputs["train"]["text"][0]
    path = encoders / "first.safetensors"
    for words in ("Trained: ", str(path), "2 steps", "8 pairs", "Memory: about", "on cpu", *LOSS_PARTS):
        assert words in report
    assert "SAGE: training takes about" in server.log.read_text(encoding="utf-8")
    assert any(previews)
    pictures = server.images(outputs)
    assert min(pictures["train"][0].size) > 200
    assert pictures["graph"]

    _, metadata = read_encoder(path)
    assert (metadata["method"], metadata["concept"], metadata["steps"]) == ("SAGE", CONCEPT, "2")

    # The CLIP that training hands on is the encoder in its file, and the one that came in is what it was.
    check = {"clip": graph["clip"], "file": node("SAGELoadEncoder", encoder_name="first.safetensors")}
    for name in ("clip", "file"):
        check[f"encode {name}"] = node("CLIPTextEncode", clip=[name, 0], text=UNSAFE)
        check[f"probe {name}"] = node("ProbeSaveParts", conditioning=[f"encode {name}", 0], name=name)
    server.run(check)
    trained, file, clip = (
        load_file(base / f"output/{name}.safetensors")["embedding 0"] for name in ("trained", "file", "clip")
    )
    torch.testing.assert_close(trained, file, rtol=0, atol=1e-4)
    before = {name: tensor.half() for name, tensor in read_encoder(shapes_files.text_encoder)[0].items()}
    wanted = embed(TextEncoder.from_state(before), [UNSAFE]).view(1, 77, -1)
    torch.testing.assert_close(clip, wanted, rtol=0, atol=1e-4)

    # Another name makes ComfyUI run the node again, but not the training.
    again = server.run(training_graph("second", steps=2), timeout=300)["train"]["text"][0]
    assert "\nFound, not trained again" in again
    assert read_encoder(encoders / "second.safetensors")[1]["hash"] == metadata["hash"]


def test_preset_counts_without_settings(run_graph: Run, training_graph: Callable[..., dict]) -> None:
    graph = training_graph("by preset")
    del graph["settings"], graph["train"]["inputs"]["settings"]
    # Fewer pairs than the preset's 15 neighbours need, which shows that it is the preset's settings that count.
    with pytest.raises(ExecutionError, match="8 prompt pairs to train on"):
        run_graph(graph)


def test_training_does_not_replace_a_file_of_another_origin(
    run_graph: Run, encoders: Path, training_graph: Callable[..., dict]
) -> None:
    save_file({"some": torch.zeros(1)}, encoders / "precious.safetensors")
    with pytest.raises(ExecutionError, match="was not trained here"):
        run_graph(training_graph("precious"))


def test_settings_that_make_no_sense_are_explained(run_graph: Run, training_graph: Callable[..., dict]) -> None:
    with pytest.raises(ExecutionError, match="batch_size is 4 and neighbours is 4"):
        run_graph(training_graph("senseless", neighbours=4))


def test_clip_of_another_model_is_explained(
    run_graph: Run, encoders: Path, training_graph: Callable[..., dict]
) -> None:
    weights = {"encoder.block.0.layer.0.SelfAttention.k.weight": torch.zeros(768, 768)}
    save_file(weights, encoders / "t5_for_training.safetensors")
    graph = training_graph("from t5")
    graph["clip"] = node("CLIPLoader", clip_name="t5_for_training.safetensors", type="stable_audio")
    with pytest.raises(ExecutionError, match="SAGE works on the text encoder of SD 1"):
        run_graph(graph)


@pytest.mark.full
def test_one_step_on_a_whole_vit_l(
    run_graph: Run, encoders: Path, shapes_files: ExpandedFiles, training_graph: Callable[..., dict]
) -> None:
    graph = training_graph("one step", steps=1, batch_size=4, neighbours=2)
    for side in ("safe_text", "unsafe_text"):
        graph["pairs"]["inputs"][side] = "\n".join(graph["pairs"]["inputs"][side].splitlines()[:8])
    graph["model"] = node("CheckpointLoaderSimple", ckpt_name=shapes_files.checkpoint.name)
    # The checkpoint's CLIP is its second output.
    graph["train"]["inputs"]["clip"] = ["model", 1]
    report = run_graph(graph)["train"]["text"][0]
    assert "1 steps, 8 pairs" in report
    state, _ = read_encoder(encoders / "one step.safetensors")
    assert len({name.split(".")[3] for name in state if ".layers." in name}) == 12


# The library's training is the graph's in test_concepts_nodes.py, and the command's in tests/cli/test_cli.py.
@pytest.mark.full
def test_the_command_line_trains_the_same_encoder_as_the_graph(
    run_graph: Run, encoders: Path, shapes_files: ExpandedFiles, training_graph: Callable[..., dict], tmp_path: Path
) -> None:
    # A node has no number for "as the target asks", which the preset says; for farthest targets it is 1.
    few = {"batch_size": 4, "neighbours": 2, "steps": 2, "held_out": 0, "target_shift": 1.0}
    graph = training_graph("by-graph", seed=5, **few)
    run_graph(graph)
    for side in ("safe", "unsafe"):
        (tmp_path / f"{side}.txt").write_text(graph["pairs"]["inputs"][f"{side}_text"], encoding="utf-8")
    out = tmp_path / "by-command.safetensors"
    command = ["train", shapes_files.text_encoder, tmp_path / "safe.txt", "--unsafe", tmp_path / "unsafe.txt"]
    command += ["--out", out, "--concept", CONCEPT, "--seed", 5, "--fp16-base", "--device", "cpu", "--quiet"]
    command += [part for name, value in few.items() for part in ("--set", f"{name}={value}")]
    assert main([str(part) for part in command]) == 0
    (nodes, by_graph), (mine, by_command) = read_encoder(encoders / "by-graph.safetensors"), read_encoder(out)
    assert all(torch.equal(nodes[name], mine[name]) for name in nodes)
    assert by_command == by_graph


PAIR_SOURCES = {
    "two columns": ({"safe_file": "pairs.csv"}, "2 kept"),
    "two files": ({"safe_file": "safe.txt", "unsafe_file": "sub/unsafe.jsonl"}, "2 kept"),
    "concept": ({"safe_file": "safe.txt", "concept": "a skull"}, "a skull"),
    "text": ({"safe_text": "a cat\n\na dog\n", "unsafe_text": "a skull\nb\nbones"}, "kept"),
}
BAD_SOURCES = {
    "no safe": ({"concept": "a skull"}, "neither is given"),
    "two safe": ({"safe_file": "safe.txt", "safe_text": "a", "concept": "b"}, "both are given"),
    "no unsafe": ({"safe_text": "a cat"}, "Unsafe prompts are missing"),
    "two unsafe": ({"safe_text": "a cat", "unsafe_text": "b", "concept": "c"}, "unsafe_text and concept are given"),
    "wrong columns": ({"safe_file": "wrong.csv"}, "safe"),
}


@pytest.fixture(scope="module")
def prompt_files(base: Path, server: Server) -> None:
    folder = base / "input"
    (folder / "sub").mkdir()
    (folder / "pairs.csv").write_text("safe,unsafe\na cat,a skull\na dog,bones\n", encoding="utf-8")
    (folder / "wrong.csv").write_text("text\na cat\n", encoding="utf-8")
    (folder / "safe.txt").write_text("a cat\na dog\n", encoding="utf-16")
    (folder / "sub" / "unsafe.jsonl").write_text('{"prompt": "a skull"}\n{"prompt": "bones"}\n', encoding="utf-8")


@pytest.mark.parametrize("source", PAIR_SOURCES)
def test_pairs_from_every_source(run_graph: Run, prompt_files: None, source: str) -> None:
    inputs, words = PAIR_SOURCES[source]
    outputs = run_graph({"pairs": prompt_pairs(**inputs), "show": node("PreviewAny", source=["pairs", 1])})
    assert words in outputs["pairs"]["text"][0]
    assert outputs["show"]["text"][0] == outputs["pairs"]["text"][0]


@pytest.mark.parametrize("source", BAD_SOURCES)
def test_unclear_or_wrong_prompts_are_explained(run_graph: Run, prompt_files: None, source: str) -> None:
    inputs, words = BAD_SOURCES[source]
    with pytest.raises(ExecutionError, match=words) as refused:
        run_graph({"pairs": prompt_pairs(**inputs), "show": node("PreviewAny", source=["pairs", 1])})
    assert refused.value.exception.endswith("PromptError")
