"""Geometry nodes and LoRAs in a real ComfyUI, against the library run here on the same weights."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from comfy_graphs import held, held_encoder, node
from sage_core.demo.comfyui.client import ExecutionError, Graph, Outputs
from sage_core.demo.comfyui.server import Server
from sage_core.encoders.lora import apply_lora
from sage_core.encoders.text_encoder import TextEncoder, embed, save_encoder, state_hash
from sage_core.geometry.comparison import GeometrySettings, compare_encoders
from sage_core.prompts.everyday import REFERENCE_PROMPTS
from sage_core.shapes.ask import ask
from sage_core.shapes.captions import write_captions
from sage_core.shapes.networks.checkpoint import ExpandedFiles
from sage_core.shapes.render import render
from sage_core.shapes.scenes import sample_scenes
from sage_core.tifa.comparison import compare
from sage_core.tifa.questions import Question, captions_by_type, write_questions
from sage_core.tifa.result_file import read_result
from training_graphs import prompt_pairs

Run = Callable[[Graph], Outputs]
State = dict[str, Tensor]

COLOURS, THINGS = ("red", "green", "blue", "white", "black"), ("circles", "squares", "stars")
PROMPTS = [f"two {colour} {thing}" for colour in COLOURS for thing in THINGS]
UNSAFE = [f"a skull beside {prompt}" for prompt in PROMPTS]
REPEATED = [*PROMPTS, *PROMPTS[:9]]
# As many as there are safe prompts with those that are given twice, so that no pair is.
MANY_UNSAFE = [f"skull number {number}" for number in range(len(REPEATED))]


@pytest.fixture(scope="module")
def encoders(base: Path) -> Path:
    return base / "models" / "text_encoders"


@pytest.fixture(scope="module")
def before(shapes_files: ExpandedFiles) -> State:
    return held_encoder(shapes_files)


@pytest.fixture(scope="module")
def after(encoders: Path, before: State) -> State:
    """Stands for an aligned encoder: its layers' matrices changed, which is all that a LoRA can hold."""
    draw = torch.Generator().manual_seed(0)
    state = dict(before)
    for name, tensor in before.items():
        if ".layers." in name and "norm" not in name and name.endswith("weight"):
            state[name] = tensor + 0.3 * tensor.std() * torch.randn(tensor.shape, generator=draw)
    save_encoder(encoders / "geometry-aligned.safetensors", state, {})
    return held(state)


@pytest.fixture(scope="module")
def nearly(encoders: Path, before: State, after: State) -> State:
    """One matrix of it alone, which costs a LoRA the least."""
    name = "text_model.encoder.layers.1.self_attn.q_proj.weight"
    state = before | {name: after[name]}
    save_encoder(encoders / "geometry-nearly.safetensors", state, {})
    return held(state)


@pytest.fixture
def clips(server: Server, shapes_files: ExpandedFiles, after: State, nearly: State) -> dict:
    return {
        "base": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
        "aligned": node("SAGELoadEncoder", encoder_name="geometry-aligned.safetensors"),
        "nearly": node("SAGELoadEncoder", encoder_name="geometry-nearly.safetensors"),
    }


def both(**inputs: object) -> dict:
    return {"base": ["base", 0], "aligned": ["aligned", 0]} | inputs


def geometry(**inputs: object) -> dict:
    defaults = {"prompts": "\n".join(PROMPTS), "embedding": "mean", "k": 4, "theme": "light"}
    return node("SAGEGeometry", **both(**defaults | inputs))


def shown(graph: dict, **links: list) -> dict:
    """`graph` with each linked value written out as text."""
    return graph | {name: node("PreviewAny", source=link) for name, link in links.items()}


def expected(before: State, after: State, unsafe: list[str] | None = None, k: int = 4) -> dict:
    encoders = TextEncoder.from_state(before), TextEncoder.from_state(after)
    settings = GeometrySettings(embedding="mean", k=k)
    return compare_encoders(*encoders, PROMPTS, unsafe or (), settings).to_dict()


def test_the_report_is_the_librarys(server: Server, clips: dict, before: State, after: State) -> None:
    asked = geometry(prompts="\n".join(REPEATED))
    graph = shown(clips | {"geometry": asked}, json=["geometry", 6], verdict=["geometry", 0], ratio=["geometry", 1])
    outputs = server.run(graph)
    found, wanted = json.loads(outputs["json"]["text"][0]), expected(before, after)
    assert found["prompts"] == len(PROMPTS), "each prompt counts once"
    assert (found["base_sha256"], found["aligned_sha256"]) == (state_hash(before), state_hash(after))
    assert found["prompts_sha256"] == wanted["prompts_sha256"]
    for name in ("spread_ratio", "local_correlation", "mean_displacement"):
        assert found[name]["value"] == pytest.approx(wanted[name]["value"], rel=1e-3)
    assert found["jaccard"]["4"]["value"] == pytest.approx(wanted["jaccard"]["4"]["value"], abs=0.02)
    assert outputs["verdict"]["text"][0] == found["verdict"]["level"] == wanted["verdict"]["level"]
    assert float(outputs["ratio"]["text"][0]) == pytest.approx(found["spread_ratio"]["value"])
    assert "| spread ratio |" in outputs["geometry"]["text"][0]
    assert server.images(outputs)["geometry"][0].width == 1024


def test_pairs_give_safe_and_unsafe_prompts_and_one_clip_may_be_in_use(
    run_graph: Run, clips: dict, before: State, after: State
) -> None:
    """One CLIP has just encoded and is loaded, the other one lies where ComfyUI put it away."""
    pairs = prompt_pairs(safe_text="\n".join(REPEATED), unsafe_text="\n".join(MANY_UNSAFE))
    encode = node("CLIPTextEncode", clip=["base", 0], text="a circle")
    encoded = {"encode": encode, "probe": node("ProbeSaveParts", conditioning=["encode", 0], name="in use")}
    run_graph(clips | encoded)
    asked = geometry(prompts="", pairs=["pairs", 0], theme="dark")
    outputs = run_graph(shown(clips | encoded | {"pairs": pairs, "geometry": asked}, json=["geometry", 6]))
    found, wanted = json.loads(outputs["json"]["text"][0]), expected(before, after, MANY_UNSAFE)
    assert (found["prompts"], found["unsafe_prompts"]) == (len(PROMPTS), len(MANY_UNSAFE))
    for space in ("base", "aligned"):
        assert found[space]["separation"] == pytest.approx(wanted[space]["separation"], rel=1e-2)


def test_neighbours_of_chosen_prompts(server: Server, clips: dict) -> None:
    texts = {"of": f"{PROMPTS[3]}\n{PROMPTS[7]}", "prompts": "\n".join(PROMPTS), "embedding": "mean", "k": 4}
    graph = clips | {"neighbours": node("SAGENeighbours", **both(**texts, theme="light"))}
    outputs = server.run(shown(graph, json=["neighbours", 1]))
    rows = json.loads(outputs["json"]["text"][0])
    assert [row["prompt"] for row in rows] == [PROMPTS[3], PROMPTS[7]]
    assert all(len(row["lost"]) == len(row["gained"]) for row in rows)
    assert server.images(outputs)["neighbours"][0].width == 1024


def test_drift_warns_and_lets_clip_and_prompt_pass(run_graph: Run, base: Path, clips: dict, after: State) -> None:
    prompt = "two red circles\nin the snow"
    graph = clips | {"drift": drift(prompt=prompt, threshold=0.0), "still": drift(prompt=prompt, threshold=10.0)}
    graph["encode"] = node("CLIPTextEncode", clip=["drift", 0], text=["drift", 1])
    graph["probe"] = node("ProbeSaveParts", conditioning=["encode", 0], name="drift")
    outputs = run_graph(graph)
    texts = [outputs[name]["text"][0] for name in ("drift", "still")]
    assert ["⚠" in text for text in texts] == [True, False]
    assert all("among 60 prompts" in text for text in texts)
    found = load_file(base / "output" / "drift.safetensors")["embedding 0"]
    wanted = embed(TextEncoder.from_state(after), [prompt]).view(1, 77, -1)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def drift(**inputs: object) -> dict:
    return node("SAGEPromptDrift", **both(**{"prompt": "", "threshold": 0.2, "embedding": "mean"} | inputs))


def test_a_list_of_prompts_is_ranked_and_passes_through(
    server: Server, base: Path, clips: dict, before: State, after: State
) -> None:
    own = [PROMPTS[4], PROMPTS[11], PROMPTS[7]]
    (base / "input" / "drift.json").write_text(json.dumps(own))
    graph = clips | {
        "list": node("SAGEPromptList", file="drift.json", start=0, count=0, seed=0),
        "drift": drift(prompt=["list", 0], threshold=0.0),
        "encode": node("CLIPTextEncode", clip=["drift", 0], text=["drift", 1]),
        "zero": node("ConditioningZeroOut", conditioning=["encode", 0]),
    }
    work: set[float] = set()
    outputs = server.run(
        shown(graph, prompts=["drift", 1], drifts=["drift", 2], last=["zero", 0]),
        lambda now: work.add(now.maximum) if now.node == "drift" else None,
    )
    everyone = list(dict.fromkeys([*own, *REFERENCE_PROMPTS]))
    assert max(work) == 2 * len(everyone), "each prompt is embedded once by either encoder"
    settings = GeometrySettings(embedding="mean")
    report = compare_encoders(TextEncoder.from_state(before), TextEncoder.from_state(after), everyone, (), settings)
    wanted = {prompt: report.prompt_row(place)["drift"] for place, prompt in enumerate(everyone)}
    assert outputs["prompts"]["text"] == own
    assert [float(text) for text in outputs["drifts"]["text"]] == pytest.approx([wanted[p] for p in own], rel=1e-3)
    assert len(outputs["last"]["text"]) == len(own), "what is behind runs once per prompt"
    lines = outputs["drift"]["text"][0].splitlines()
    assert lines[0] == "⚠ Alignment moved 3 of 3 prompts beyond the threshold of 0."
    assert lines[1] == "Drift and neighbour overlap of 3 prompts, most hurt first, each among 62:"
    ranked = sorted(own, key=lambda prompt: -wanted[prompt])
    assert [line.split("  ")[2] for line in lines[2:5]] == ranked and lines[5].startswith("The first lost: ")


def test_drift_among_few_pairs_and_of_a_long_prompt(run_graph: Run, clips: dict) -> None:
    pairs = prompt_pairs(safe_text="\n".join(PROMPTS[:5]), unsafe_text="\n".join(UNSAFE[:5]))
    long = ", ".join(2 * PROMPTS)
    graph = clips | {"pairs": pairs, "drift": drift(prompt=long, pairs=["pairs", 0])}
    text = run_graph(graph)["drift"]["text"][0]
    assert "among 5 prompts" in text
    assert text.endswith("The prompt is longer than 75 tokens: what comes after these was not measured.")
    graph["drift"] = drift(prompt=PROMPTS[0], pairs=["pairs", 0])
    assert "among 4 prompts" in (text := run_graph(graph)["drift"]["text"][0]) and "tokens" not in text
    graph["pairs"] = prompt_pairs(safe_text=PROMPTS[0], unsafe_text=UNSAFE[0])
    with pytest.raises(ExecutionError, match="pairs hold no other prompt to measure this one among"):
        run_graph(graph)


def save_lora(**inputs: object) -> dict:
    defaults = {"name": "sage-lora", "limit": "rank", "rank": 4, "energy": 0.9, "overwrite": False}
    return node("SAGESaveLora", **both(**{"aligned": ["nearly", 0]} | defaults | inputs))


def with_cost(clips: dict, safe: list[str], **inputs: object) -> dict:
    """A graph that saves a LoRA and says what it costs over pairs."""
    pairs = prompt_pairs(safe_text="\n".join(safe), unsafe_text="\n".join(MANY_UNSAFE))
    return clips | {"pairs": pairs, "save": save_lora(pairs=["pairs", 0], **inputs)}


def test_the_stock_loader_makes_the_aligned_encoder_of_the_lora(
    server: Server, base: Path, shapes_files: ExpandedFiles, clips: dict, before: State, after: State
) -> None:
    asked = with_cost(clips, REPEATED, aligned=["aligned", 0], rank=768)
    text = server.run(asked)["save"]["text"][0]
    path = base / "models" / "loras" / "sage-lora.safetensors"
    assert str(path) in text
    states = after, apply_lora(before, load_file(path))
    cost = compare_encoders(*map(TextEncoder.from_state, states), PROMPTS).to_dict()
    assert f"flattened embedding, {len(PROMPTS)} prompts ({cost['prompts_sha256'][:10]})" in text
    assert f"| spread ratio | {cost['spread_ratio']['value']:.3f} [" in text
    strengths = {"strength_model": 0.0, "strength_clip": 1.0}
    graph = clips | {
        "model": node("CheckpointLoaderSimple", ckpt_name=shapes_files.checkpoint.name),
        "lora": node("LoraLoader", model=["model", 0], clip=["base", 0], lora_name=path.name, **strengths),
        "encode": node("CLIPTextEncode", clip=["lora", 1], text=PROMPTS[0]),
        "probe": node("ProbeSaveParts", conditioning=["encode", 0], name="lora"),
    }
    server.run(graph)
    found = load_file(base / "output" / "lora.safetensors")["embedding 0"]
    encoder = TextEncoder.from_state(held(apply_lora(before, load_file(path))))
    torch.testing.assert_close(found, embed(encoder, PROMPTS[:1]).view(1, 77, -1), rtol=0, atol=1e-4)
    wanted = embed(TextEncoder.from_state(after), PROMPTS[:1]).view(1, 77, -1)
    assert torch.nn.functional.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) > 1 - 1e-5


@pytest.mark.parametrize(
    ("name", "matrices", "message", "saved"),
    [("too large", 1, "decomposing the change takes 0", False), ("saved", 13, "Out of memory with 15 prompts", True)],
)
def test_a_lora_without_memory_says_what_is_too_large_and_keeps_what_is_done(
    server: Server, base: Path, clips: dict, name: str, matrices: int, message: str, saved: bool
) -> None:
    # Two layers of six matrices each, and then the cost.
    graph = clips | {"full": node("ProbeOutOfMemory", clip=["nearly", 0], after=matrices)}
    with pytest.raises(ExecutionError, match=message):
        server.run(with_cost(graph, PROMPTS, name=name, aligned=["full", 0]))
    assert (base / "models" / "loras" / f"{name}.safetensors").is_file() == saved


def test_another_lora_is_not_replaced_unasked(run_graph: Run, clips: dict) -> None:
    text = run_graph(with_cost(clips, PROMPTS[:5], name="kept"))["save"]["text"][0]
    assert "takes more than 10 different safe prompts, and pairs hold 5" in text
    with pytest.raises(ExecutionError, match=r"kept\.safetensors exists"):
        run_graph(clips | {"save": save_lora(name="kept", rank=8)})
    run_graph(clips | {"save": save_lora(name="kept", rank=8, overwrite=True)})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (geometry(prompts=""), "neither is given"),
        (geometry(k=15), "k = 15 needs more than 15 prompts; found 15"),
        (node("SAGENeighbours", **both(of="", prompts="a\nb", embedding="mean", k=1, theme="light")), "1 to 6 prompts"),
        (drift(prompt=" "), "prompt is empty, number 1 of 1"),
        (save_lora(aligned=["base", 0], name="nothing"), "same weights"),
    ],
)
def test_unusable_inputs_are_named(run_graph: Run, clips: dict, asked: dict, message: str) -> None:
    with pytest.raises(ExecutionError, match=message):
        run_graph(clips | {"asked": asked, "shown": node("PreviewAny", source=["asked", 0])})


# -- by type of question ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes(base: Path, server: Server) -> list[list[Question]]:
    """Questions about 24 scenes of the shapes world, and three folders of pictures: right, and with many changed."""
    found = sample_scenes(24, seed=8, unsafe=False, split="any")
    # Every scene has nearly every type of question there; the types' prompts must differ here.
    first = {"location": 2, "color": 4, "material": 6, "attribute": 8, "counting": 10, "shape": 12}
    asked = [
        [question for question in some if row >= first.get(question.element_type, 0)]
        for row, some in enumerate(ask(found, write_captions(found, seed=8, names="seen")))
    ]
    write_questions(base / "input" / "by-type.json", [question for some in asked for question in some])
    pictures = [np.uint8(255 * picture.permute(1, 2, 0).numpy()) for picture in render(found, seed=8)]
    for name, changed in (("right", 0), ("half", 8), ("wrong", 20)):
        folder = base / "input" / f"by_type_{name}"
        folder.mkdir()
        for number in range(len(pictures)):
            (folder / f"{number}.png").touch()
        # ComfyUI takes pictures in the order in which the system lists them. Of the changed ones each is the next's.
        order = [*range(1, changed), 0][:changed] + list(range(changed, len(pictures)))
        for place, file in zip(order, os.listdir(folder), strict=True):
            Image.fromarray(pictures[place]).save(folder / file)
    return asked


def by_type(*runs: str) -> dict:
    """Questions, and the scores of these runs by the shapes world's reader."""
    graph = {
        "questions": node("SAGELoadQuestions", file="by-type.json"),
        "judge": node("SAGELoadJudge", judge="shapes world reader", sentence_encoder="none", precision="fp32"),
    }
    for name in runs:
        links = {"images": [f"images {name}", 0], "questions": ["questions", 0], "judge": ["judge", 0]}
        graph[f"images {name}"] = node("LoadImageDataSetFromFolder", folder=f"by_type_{name}")
        graph[name] = node("SAGEScoreTIFA", **links, name=name, log="", pictured=1)
        graph[f"json {name}"] = node("PreviewAny", source=[name, 3])
    return graph


def asked_geometry(**inputs: object) -> dict:
    return geometry(**{"prompts": "", "questions": ["questions", 0]} | inputs)


def test_questions_give_the_figures_by_type(
    server: Server, clips: dict, scenes: list[list[Question]], before: State, after: State
) -> None:
    graph = clips | by_type() | {"geometry": asked_geometry(), "picture": node("PreviewImage", images=["geometry", 7])}
    outputs = server.run(shown(graph, json=["geometry", 6]))
    found = json.loads(outputs["json"]["text"][0])
    encoders = TextEncoder.from_state(before), TextEncoder.from_state(after)
    captions, groups = captions_by_type(question for some in scenes for question in some)
    settings = GeometrySettings(embedding="mean", k=4)
    wanted = compare_encoders(*encoders, captions, (), settings, groups=groups).to_dict()["by_type"]
    assert found["prompts"] == len(captions) and found["by_type"]["left_out"] == wanted["left_out"]
    assert len(wanted["types"]) >= 3
    for kind, row in wanted["types"].items():
        assert found["by_type"]["types"][kind]["prompts"] == row["prompts"] == len(groups[kind])
        ratio = found["by_type"]["types"][kind]["spread_ratio"]["value"]
        assert ratio == pytest.approx(row["spread_ratio"]["value"], rel=1e-3)
    assert "By type of question" in outputs["geometry"]["text"][0]
    pictures = server.images(outputs)
    assert len(pictures["geometry"]) == 2 and pictures["picture"][0].tobytes() == pictures["geometry"][1].tobytes()


def test_scored_runs_add_the_loss_and_a_point_to_those_that_came(
    server: Server, clips: dict, scenes: list[list[Question]], tmp_path: Path
) -> None:
    graph = clips | by_type("right", "half", "wrong")
    runs = {"base_scores": ["right", 0], "aligned_scores": ["wrong", 0]}
    graph["first"] = asked_geometry(**runs | {"aligned_scores": ["half", 0]})
    graph["second"] = asked_geometry(**runs, methods=["first", 9])
    graph["picture"] = node("PreviewImage", images=["second", 8])
    outputs = server.run(shown(graph, json=["second", 6]), timeout=300)
    found = json.loads(outputs["json"]["text"][0])["by_type"]
    for name in ("right", "wrong"):
        (tmp_path / f"{name}.json").write_text(outputs[f"json {name}"]["text"][0], encoding="utf-8")
    change = compare(*(read_result(tmp_path / f"{name}.json") for name in ("right", "wrong")))
    assert change.tifa.base == 1 > change.tifa.other
    for kind, row in found["types"].items():
        assert row["tifa"]["change"] == pytest.approx(change.by_type[kind].change)
    assert found["correlation_with_tifa_lost"]["jaccard"]["n"] == len(found["types"]) >= 4
    pictures = server.images(outputs)
    assert len(pictures["second"]) == 3 and pictures["picture"][0].size == (760, 560)
    assert "TIFA lost, points" in outputs["second"]["text"][0]


def test_pictures_that_need_more_say_so_and_stop_nothing_else(server: Server, clips: dict) -> None:
    for output, message in ((7, "questions with 12 or more captions of a type"), (8, "base_scores and aligned_scores")):
        graph = clips | {"geometry": geometry(), "picture": node("PreviewImage", images=["geometry", output])}
        with pytest.raises(ExecutionError, match=message):
            server.run(graph)


def test_what_does_not_belong_together_is_refused(run_graph: Run, clips: dict, scenes: list[list[Question]]) -> None:
    same = asked_geometry(base_scores=["right", 0], aligned_scores=["right", 0])
    graph = clips | by_type("right") | {"first": same}
    for wrong, message in (
        (asked_geometry(prompts="two red cats"), "come from questions, from the text or from pairs"),
        (asked_geometry(base_scores=["right", 0]), "belong together: connect both, or none"),
        (node("SAGEGeometry", **same["inputs"], methods=["first", 9]), "Two methods are called 'right'"),
    ):
        with pytest.raises(ExecutionError, match=message):
            run_graph(graph | {"geometry": wrong})
