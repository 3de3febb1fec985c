"""Safe guidance and SAFREE in a real ComfyUI, by identities with ordinary guidance and against the library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from comfy_graphs import held_encoder, node
from comfy_graphs import latents as latents_of
from sage_core.demo.comfyui.client import ExecutionError, GraphError
from sage_core.demo.comfyui.server import Server
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.methods.safree import ConceptSpace, SafreeSettings
from sage_core.shapes.networks.checkpoint import ExpandedFiles

Latents = Callable[..., dict[str, Tensor]]

PROMPT, SAFETY, OTHER = "two red rings left of one blue square", "a skull in the snow", "a green star"
STEPS = 3
CUSTOM = {"warmup": 0, "scale": 1e5, "threshold": 100.0, "momentum_scale": 0.0, "momentum_beta": 0.0}


def safe(safety: str, preset: str = "medium", model: str = "model", **numbers: float) -> dict:
    values = {"warmup": 10, "scale": 1000.0, "threshold": 0.01, "momentum_scale": 0.3, "momentum_beta": 0.4} | numbers
    return node("SAGEGuidance", model=[model, 0], safety=[safety, 0], preset=preset, **values)


def guider(safety: str, preset: str = "medium", cfg: float = 4.0, **numbers: float) -> dict:
    inputs = safe(safety, preset, **numbers)["inputs"]
    return node("SAGEGuider", positive=["prompt", 0], negative=["nothing", 0], cfg=cfg, **inputs)


def sampled(model: str, *, seed: int = 5, cfg: float = 4.0, sampler: str = "euler", **links: str) -> dict:
    texts = {"positive": "prompt", "negative": "nothing"} | links
    return node(
        "KSampler", model=[model, 0], seed=seed, steps=STEPS, cfg=cfg, sampler_name=sampler, scheduler="normal",
        denoise=1.0, latent_image=["empty", 0], **{name: [link, 0] for name, link in texts.items()},
    )  # fmt: skip


def by_guider(name: str, sampler: str = "euler") -> dict:
    """The nodes around a guider that do what KSampler does."""
    return {
        "noise": node("RandomNoise", noise_seed=5),
        f"select {sampler}": node("KSamplerSelect", sampler_name=sampler),
        "sigmas": node("BasicScheduler", model=["model", 0], scheduler="normal", steps=STEPS, denoise=1.0),
        f"drawn by {name}": node(
            "SamplerCustomAdvanced", noise=["noise", 0], guider=[name, 0], sampler=[f"select {sampler}", 0],
            sigmas=["sigmas", 0], latent_image=["empty", 0],
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def common(shapes_files: ExpandedFiles) -> dict:
    texts = {"prompt": PROMPT, "nothing": "", "safety": SAFETY, "empty text": "", "other": OTHER}
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name=shapes_files.checkpoint.name),
        "clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
        "empty": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        **{name: node("CLIPTextEncode", clip=["clip", 0], text=text) for name, text in texts.items()},
    }


@pytest.fixture
def latents(server: Server, base: Path, common: dict) -> Latents:
    """Run nodes together with the common ones: the latents of the named ones."""

    def run(graph: dict, *names: str) -> dict[str, Tensor]:
        graph = common | graph
        for name in names:
            graph[f"save {name}"] = node("SaveLatent", samples=[name, 0], filename_prefix=f"guidance/{name}")
        outputs = server.run(graph, timeout=500)
        found = {}
        for name in names:
            (found[name],) = latents_of(base, outputs, f"save {name}")
        return found

    return run


@pytest.mark.parametrize(
    "sampler", ["euler", *(pytest.param(name, marks=pytest.mark.full) for name in ("heun", "dpmpp_2m"))]
)
def test_guider_and_patch_are_equal_to_the_bit_and_do_something(latents: Latents, sampler: str) -> None:
    graph = {"patched": safe("safety", "strong"), "guider": guider("safety", "strong")}
    graph |= {"patch": sampled("patched", sampler=sampler), "plain": sampled("model", sampler=sampler)}
    found = latents(graph | by_guider("guider", sampler), "patch", "plain", "drawn by guider")
    assert torch.equal(found["patch"], found["drawn by guider"])
    assert (found["patch"] - found["plain"]).abs().max() > 0.1


def test_a_safety_text_that_is_the_negative_prompt_is_ordinary_guidance_exactly(latents: Latents) -> None:
    graph = {"patched": safe("empty text", "max"), "guider": guider("empty text", "max")}
    graph |= {"patch": sampled("patched"), "plain": sampled("model")}
    found = latents(graph | by_guider("guider"), "plain", "drawn by guider", "patch")
    assert torch.equal(found["drawn by guider"], found["plain"]) and torch.equal(found["patch"], found["plain"])


def test_limits_of_the_formula_are_ordinary_guidance(latents: Latents) -> None:
    """With mu = 1 everywhere ε = ε_0 + w (ε_c − ε_S); with ε_c = ε_0 that is guidance by w + 1 away from S."""
    graph = {
        "all": safe("safety", "custom", **CUSTOM),
        "none": safe("safety", "custom", **CUSTOM | {"threshold": -100.0}),
        "late": safe("safety", "custom", **CUSTOM | {"warmup": 50}),
        "away": sampled("all", positive="other", negative="other", cfg=3.0),
        "wanted away": sampled("model", positive="other", negative="safety", cfg=4.0),
        "untouched": sampled("none"),
        "not yet": sampled("late"),
        "plain": sampled("model"),
    }
    found = latents(graph, "away", "wanted away", "untouched", "not yet", "plain")
    torch.testing.assert_close(found["away"], found["wanted away"], rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(found["untouched"], found["plain"], rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(found["not yet"], found["plain"], rtol=1e-3, atol=2e-3)
    assert (found["away"] - found["plain"]).abs().max() > 0.5


def test_each_run_starts_without_the_last_ones_momentum(server: Server, latents: Latents) -> None:
    graph = {"patched": safe("safety", "max"), "guider": guider("safety", "max")}
    runs = {"first": sampled("patched"), "between": sampled("patched", seed=9), "third": sampled("patched", seed=5)}
    # The same values are found in ComfyUI's cache; another denoise that means the same is not.
    runs["third"]["inputs"]["denoise"] = 0.99995
    found = latents(graph | runs, *runs)
    assert torch.equal(found["first"], found["third"]) and not torch.equal(found["first"], found["between"])
    again = by_guider("guider")
    for name in ("once", "twice"):
        again[name] = {**again["drawn by guider"], "inputs": {**again["drawn by guider"]["inputs"]}}
        again[f"noise {name}"] = node("RandomNoise", noise_seed=5)
        again[name]["inputs"]["noise"] = [f"noise {name}", 0]
    found = latents(graph | again, "once", "twice")
    assert torch.equal(found["once"], found["twice"])


def test_two_safe_guidances_in_a_chain_each_do_their_part(latents: Latents) -> None:
    graph = {
        "one": safe("safety", "strong"),
        "with nothing": safe("empty text", "strong", "one"),
        "with another": safe("other", "strong", "one"),
    }
    # Every patch on top clones the MODEL.
    graph["cloned"] = node("FreeU_V2", model=["one", 0], b1=1.0, b2=1.0, s1=1.0, s2=1.0)
    names = {name: f"drawn {name}" for name in graph}
    found = latents(graph | {drawn: sampled(name) for name, drawn in names.items()}, *names.values())
    assert torch.equal(found["drawn one"], found["drawn with nothing"])
    torch.testing.assert_close(found["drawn one"], found["drawn cloned"], rtol=1e-3, atol=1e-3)
    assert not torch.equal(found["drawn one"], found["drawn with another"])


@pytest.mark.parametrize(
    ("inputs", "cfg", "words"),
    [
        ({}, 1.0, "cfg is 1; safe guidance is a part of guidance"),
        ({"preset": "custom", "scale": 0.5}, 4.0, "scale is 0.5; at 1 or less nothing is guided"),
    ],
)
def test_what_cannot_guide_is_explained(latents: Latents, inputs: dict, cfg: float, words: str) -> None:
    with pytest.raises((ExecutionError, GraphError), match=words):
        latents({"patched": safe("safety", **inputs), "drawn": sampled("patched", cfg=cfg)}, "drawn")
    with pytest.raises((ExecutionError, GraphError), match=words):
        latents({"guider": guider("safety", cfg=cfg, **inputs)} | by_guider("guider"), "drawn by guider")


def test_a_guider_that_goes_its_own_way_is_refused(latents: Latents) -> None:
    graph = {
        "patched": safe("safety"),
        "dual": node("DualCFGGuider", model=["patched", 0], cond1=["prompt", 0], cond2=["other", 0],
                     negative=["nothing", 0], cfg_conds=4.0, cfg_cond2_negative=4.0, style="regular"),
    }  # fmt: skip
    with pytest.raises(ExecutionError, match="does not ask the MODEL for prompt and negative prompt"):
        latents(graph | by_guider("dual"), "drawn by dual")


# -- SAFREE ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder(shapes_files: ExpandedFiles) -> TextEncoder:
    """The small encoder as ComfyUI holds it."""
    return TextEncoder.from_state(held_encoder(shapes_files))


def safree(text: str, concepts: str = "skull; bones", **inputs: object) -> dict:
    return node(
        "SAGESafree", clip=["clip", 0], text=text, concepts=concepts, **{"alpha": 0.01, "steps": "filtered"} | inputs
    )


def test_safree_is_the_librarys(server: Server, base: Path, common: dict, encoder: TextEncoder) -> None:
    text = "a white skull on a red square"
    graph = {
        "clip": common["clip"],
        "filtered": safree(text),
        "all": safree(text, steps="all"),
        "artists": safree(text, steps="filtered, artists"),
        "negative": node("ProbeSaveParts", conditioning=["all", 1], name="safree negative"),
        "text": node("PreviewAny", source=["all", 2]),
        "encode": node("CLIPTextEncode", clip=["clip", 0], text="skull, bones"),
        "expected": node("ProbeSaveParts", conditioning=["encode", 0], name="safree expected"),
    }
    kinds = {"filtered": {}, "all": {"filtered": False}, "artists": {"steepness": 3.5, "middle": 5.5}}
    for name in kinds:
        graph[f"save {name}"] = node("ProbeSaveParts", conditioning=[name, 0], name=f"safree {name}")
    outputs = server.run(graph, timeout=300)
    space = ConceptSpace(encoder, ["skull", "bones"])
    for name, settings in kinds.items():
        wanted = space.project(text, SafreeSettings(**settings))
        found = load_file(base / "output" / f"safree {name}.safetensors")
        torch.testing.assert_close(found["embedding 0"][0], wanted.states, rtol=1e-4, atol=1e-4)
        assert wanted.triggers and f"{len(wanted.triggers)} of 7 tokens are moved" in outputs[name]["text"][0]
        if name == "all":
            assert len(found) == 2 and found["times 0"].tolist() == [0, 1]
            continue
        torch.testing.assert_close(found["embedding 1"][0], wanted.original, rtol=1e-4, atol=1e-4)
        assert found["times 0"].tolist() == pytest.approx([0, wanted.share])
        assert found["times 1"].tolist() == pytest.approx([wanted.share, 1])
    assert outputs["text"]["text"][0] == "skull, bones"
    negative, plain = (load_file(base / "output" / f"safree {name}.safetensors") for name in ("negative", "expected"))
    assert torch.equal(negative["embedding 0"], plain["embedding 0"])


def test_the_original_part_is_core_text_encode(server: Server, base: Path, common: dict) -> None:
    text = "a (green:1.2) ring"
    graph = {
        "clip": common["clip"],
        "safree": safree(text),
        "save": node("ProbeSaveParts", conditioning=["safree", 0], name="safree plain"),
        "encode": node("CLIPTextEncode", clip=["clip", 0], text="a green ring"),
        "expected": node("ProbeSaveParts", conditioning=["encode", 0], name="core plain"),
    }
    outputs = server.run(graph, timeout=300)
    found, core = (load_file(base / "output" / f"{name}.safetensors") for name in ("safree plain", "core plain"))
    last = max(int(key.split()[1]) for key in found if key.startswith("embedding"))
    torch.testing.assert_close(found[f"embedding {last}"], core["embedding 0"], rtol=1e-4, atol=1e-4)
    assert "Weights and brackets, as in (red:1.2), were taken out" in outputs["safree"]["text"][0]


def test_safree_draws(latents: Latents) -> None:
    graph = {"safree": safree("a white skull on a red square"), "drawn": sampled("model", positive="safree")}
    graph["drawn"]["inputs"]["negative"] = ["safree", 1]
    assert torch.isfinite(latents(graph, "drawn")["drawn"]).all()


@pytest.mark.parametrize(
    ("text", "inputs", "words"),
    [
        ("a ring", {"concepts": " ; "}, "SAFREE needs concepts"),
        ("a ring, embedding:thing", {}, "text names an embedding"),
    ],
)
def test_what_safree_cannot_take_is_explained(
    server: Server, common: dict, text: str, inputs: dict, words: str
) -> None:
    graph = {"clip": common["clip"], "safree": safree(text, **inputs)}
    graph["show"] = node("PreviewAny", source=["safree", 2])
    with pytest.raises((ExecutionError, GraphError), match=words):
        server.run(graph)


def test_safree_refuses_clip_skip(server: Server, common: dict) -> None:
    graph = {"own": common["clip"], "clip": node("CLIPSetLastLayer", clip=["own", 0], stop_at_clip_layer=-2)}
    graph |= {"safree": safree("a ring"), "show": node("PreviewAny", source=["safree", 2])}
    with pytest.raises(ExecutionError, match="stops at layer -2"):
        server.run(graph)


def test_an_empty_prompt_is_left_as_it_is(server: Server, common: dict) -> None:
    graph = {"clip": common["clip"], "safree": safree(""), "show": node("PreviewAny", source=["safree", 2])}
    assert "0 of 0 tokens are moved" in server.run(graph)["safree"]["text"][0]
