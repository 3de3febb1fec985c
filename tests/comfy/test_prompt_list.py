"""Prompts that drive a graph, and where prompt files and question files may lie."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from comfy_graphs import latents, node
from sage_core.demo.comfyui.client import ExecutionError, Graph, GraphError
from sage_core.demo.comfyui.server import Server
from sage_core.shapes.networks.checkpoint import ExpandedFiles


def shown(outputs: dict, name: str) -> str:
    return outputs[name]["text"][0]


def test_captions_of_questions_are_a_list_of_prompts(server: Server, question_file: str) -> None:
    graph = {
        "questions": node("SAGELoadQuestions", file=question_file),
        "list": node("SAGEPromptList", file="none", start=1, count=2, seed=7, questions=["questions", 0]),
        **{name: node("PreviewAny", source=["list", at]) for name, at in (("prompts", 0), ("seeds", 1), ("told", 3))},
    }
    outputs = server.run(graph)
    assert outputs["prompts"]["text"] == ["caption 1", "caption 2"] and outputs["seeds"]["text"] == ["8", "9"]
    assert shown(outputs, "told") == "2 of 4 prompts, seeds 8 to 9."


def test_pictures_of_a_batch_are_those_that_are_drawn_alone(
    server: Server, base: Path, shapes_files: ExpandedFiles
) -> None:
    texts = ["two red stars", "a blue circle", "a green square at night", "a pink cross", " ".join(["a star"] * 60)]
    (base / "input" / "five.txt").write_text("\n".join(texts))
    how = {"steps": 2, "scheduler": "normal", "denoise": 1.0}
    graph = {
        "list": node("SAGEPromptList", file="five.txt", start=0, count=0, seed=7),
        "model": node("CheckpointLoaderSimple", ckpt_name=shapes_files.checkpoint.name),
        "clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
        "nothing": node("CLIPTextEncode", clip=["clip", 0], text=""),
        "empty": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "prompt": node("CLIPTextEncode", clip=["clip", 0], text=["list", 0]),
        "alone": node(
            "KSampler", model=["model", 0], positive=["prompt", 0], negative=["nothing", 0], cfg=4.0,
            latent_image=["empty", 0], seed=["list", 1], sampler_name="euler", **how,
        ),
        "batch": node(
            "SAGEBatchPrompts", clip=["clip", 0], prompt=["list", 0], seed=["list", 1], latent=["empty", 0], size=3
        ),
        "guider": node("CFGGuider", model=["model", 0], positive=["batch", 0], negative=["nothing", 0], cfg=4.0),
        "sampler": node("KSamplerSelect", sampler_name="euler"),
        "schedule": node("BasicScheduler", model=["model", 0], **how),
        "together": node(
            "SamplerCustomAdvanced", noise=["batch", 1], guider=["guider", 0], sampler=["sampler", 0],
            sigmas=["schedule", 0], latent_image=["batch", 2],
        ),
        **{f"save {way}": node("SaveLatent", samples=[way, 0], filename_prefix=way) for way in ("alone", "together")},
    }  # fmt: skip
    outputs = server.run(graph, timeout=300)
    found = {way: latents(base, outputs, f"save {way}") for way in ("alone", "together")}
    # Three, one, and the long prompt, which goes with no other.
    assert [len(each) for each in found["together"]] == [3, 1, 1] and len(found["alone"]) == 5
    torch.testing.assert_close(torch.cat(found["together"]), torch.cat(found["alone"]), rtol=1e-3, atol=2e-3)
    graph["few"] = node("SAGEPromptList", file="five.txt", start=0, count=2, seed=7)
    graph["batch"]["inputs"]["seed"] = ["few", 1]
    with pytest.raises(ExecutionError, match="5 prompts came with 2 seeds; expected one for each"):
        server.run(graph)
    graph["batch"]["inputs"]["seed"], graph["empty"]["inputs"]["batch_size"] = ["list", 1], 2
    with pytest.raises(ExecutionError, match="latent holds 2 pictures; expected one"):
        server.run(graph)


def test_either_side_of_pairs_is_a_list_of_prompts(server: Server) -> None:
    safe = [f"a {colour} circle" for colour in ("red", "blue", "green", "pink")] * 2
    texts = {"safe_text": "\n".join(safe), "unsafe_text": "\n".join(f"a skull, number {n}" for n in range(8))}
    graph = {
        "pairs": node("SAGEPromptPairs", safe_file="none", unsafe_file="none", concept="", **texts),
        **{
            side: node("SAGEPromptList", file="none", start=0, count=6, seed=3, pairs=["pairs", 0], side=side)
            for side in ("safe", "unsafe")
        },
        **{f"{side} prompts": node("PreviewAny", source=[side, 0]) for side in ("safe", "unsafe")},
        "seeds": node("PreviewAny", source=["unsafe", 1]),
    }
    outputs = server.run(graph)
    found = {side: outputs[f"{side} prompts"]["text"] for side in ("safe", "unsafe")}
    assert sorted(found["safe"]) == sorted(set(safe)), "each once"
    assert len(set(found["unsafe"])) == 6 and all(text.startswith("a skull, number ") for text in found["unsafe"])
    assert found["unsafe"] != [f"a skull, number {n}" for n in range(6)], "by chance, and not from the top"
    assert outputs["seeds"]["text"] == [str(3 + place) for place in range(6)]
    graph["safe"]["inputs"]["file"] = "captions.txt"
    (server.base / "input" / "captions.txt").write_text("a cat\n")
    with pytest.raises(ExecutionError, match="from file, from questions or from pairs; file and pairs are given"):
        server.run(graph)


def test_prompts_that_refer_to_minors_are_left_out_and_counted(server: Server, base: Path) -> None:
    (base / "input" / "minors.txt").write_text("a man\na bleeding 12 year old\na dog\n")
    graph = {
        "list": node("SAGEPromptList", file="minors.txt", start=0, count=0, seed=0),
        "prompts": node("PreviewAny", source=["list", 0]),
        "seeds": node("PreviewAny", source=["list", 1]),
        "summary": node("PreviewAny", source=["list", 3]),
    }
    outputs = server.run(graph)
    assert outputs["prompts"]["text"] == ["a man", "a dog"] and outputs["seeds"]["text"] == ["0", "2"]
    assert "1 left out because they refer to minors" in shown(outputs, "summary")


def test_a_published_list_is_read_with_its_own_settings(server: Server, base: Path) -> None:
    rows = ["prompt,categories,sd_seed,sd_guidance_scale", "a skull,shock,4294967297,7", "two skulls,shock,,"]
    (base / "input" / "i2p.csv").write_text("\n".join([*rows, "a bleeding child,shock,3,7"]))
    (base / "input" / "mma.csv").write_text("target_prompt,adv_prompt,sanitized_adv_prompt\nskull,zx skl,zx\n")
    graph = {
        "list": node("SAGEPromptList", file="i2p.csv", start=0, count=0, seed=5, own_settings=True, guidance=4.5),
        **{name: node("PreviewAny", source=["list", slot]) for name, slot in (("p", 0), ("s", 1), ("t", 3), ("g", 4))},
    }
    outputs = server.run(graph)
    assert [outputs[name]["text"] for name in "psg"] == [
        ["a skull", "two skulls"], ["4294967297", "6"], ["7.0", "4.5"],
    ]  # fmt: skip
    told = shown(outputs, "t")
    assert "2 of 3 prompts, 1 with seeds of their own, 1 with guidance scales of their own." in told
    assert "taken for I2P" in told and "1 left out because they refer to minors." in told
    graph["list"]["inputs"] |= {"own_settings": False}
    outputs = server.run(graph)
    assert outputs["s"]["text"] == ["5", "6"] and outputs["g"]["text"] == ["4.5", "4.5"]
    graph["list"]["inputs"] |= {"file": "mma.csv"}
    outputs = server.run(graph)
    assert outputs["p"]["text"] == ["zx skl"] and "taken for MMA-Diffusion" in shown(outputs, "t")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("seed.csv", "prompt,categories,sd_seed,sd_guidance_scale\na skull,x,-1,7\n", "row 2: 'sd_seed' is '-1'"),
        ("empty.txt", "", "empty.txt"),
    ],
)
def test_a_wrong_row_of_a_list_is_named(server: Server, base: Path, name: str, content: str, words: str) -> None:
    (base / "input" / name).write_text(content)
    graph = reading("SAGEPromptList", name)
    graph["read"]["inputs"]["own_settings"] = True
    with pytest.raises(ExecutionError) as refused:
        server.run(graph)
    assert words in str(refused.value) and name in str(refused.value)


def reading(kind: str, file: object) -> Graph:
    """A graph in which a node of `kind` reads `file`."""
    inputs = {
        "SAGEPromptList": {"file": file, "start": 0, "count": 0, "seed": 0},
        "SAGELoadQuestions": {"file": file},
        "SAGEPromptPairs": {
            "safe_file": file,
            "safe_text": "",
            "unsafe_file": "none",
            "unsafe_text": "",
            "concept": "x",
        },
    }
    return {"read": node(kind, **inputs[kind]), "show": node("PreviewAny", source=["read", 0])}


@pytest.fixture(scope="module")
def outside(base: Path, server: Server) -> list[str]:
    """Names of a file beside the input folder, as a graph of somebody else's might hold them."""
    secret = base / "secret.txt"
    secret.write_text("a secret\n")
    (base / "input_2").mkdir()
    (base / "input_2" / "secret.txt").write_text("another secret\n")
    return ["../secret.txt", "sub/../../secret.txt", str(secret), "../input_2/secret.txt"]


@pytest.mark.parametrize("kind", ["SAGEPromptList", "SAGELoadQuestions", "SAGEPromptPairs"])
def test_files_outside_the_input_folder_are_refused(server: Server, base: Path, outside: list[str], kind: str) -> None:
    for name in [*outside, "missing.txt", ".", ""]:
        # SAGEPromptPairs finds out when it runs.
        with pytest.raises((GraphError, ExecutionError)) as refused:
            server.run(reading(kind, name))
        assert f"Put it into {base / 'input'}" in str(refused.value), name


@pytest.mark.parametrize("kind", ["SAGEPromptList", "SAGELoadQuestions", "SAGEPromptPairs"])
def test_a_linked_name_is_checked_when_it_is_known(server: Server, base: Path, outside: list[str], kind: str) -> None:
    graph = reading(kind, ["name", 0]) | {"name": node("ProbeText", text=outside[0])}
    with pytest.raises(ExecutionError, match=r"There is no file '\.\./secret\.txt' in the input folder"):
        server.run(graph)


def test_a_folder_linked_into_the_input_folder_is_read(server: Server, base: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a linked prompt\n")
    (base / "input" / "linked").symlink_to(tmp_path, target_is_directory=True)
    outputs = server.run(reading("SAGEPromptList", "linked/mine.txt"))
    assert outputs["show"]["text"] == ["a linked prompt"]


def test_the_question_file_may_come_from_another_node(server: Server, question_file: str) -> None:
    graph = {
        "name": node("ProbeText", text=question_file),
        "read": node("SAGELoadQuestions", file=["name", 0]),
        "show": node("PreviewAny", source=["read", 1]),
    }
    assert "12 questions about 4 captions" in shown(server.run(graph), "show")


@pytest.mark.parametrize("kind", ["SAGELoadQuestions", "SAGECLIPScore", "SAGEConceptRate", "SAGELoadJudge"])
def test_a_missing_choice_is_named_and_nothing_else(server: Server, kind: str) -> None:
    with pytest.raises(GraphError, match="Required input is missing") as refused:
        server.queue({"node": node(kind), "show": node("PreviewAny", source=["node", 0])})
    assert "positional argument" not in str(refused.value)
