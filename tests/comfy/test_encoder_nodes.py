"""Loading, applying and saving text encoders in a real ComfyUI, against embeddings that transformers computes here.

ComfyUI keeps text encoders in fp16 and computes in fp32; the expected embeddings do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from malformed import Hostile
from safetensors.torch import load_file, save_file
from torch import Tensor

from comfy_graphs import held, held_encoder, node
from node_entries import ENTRIES
from sage_core.demo.comfyui.client import ExecutionError, Graph, GraphError, Outputs
from sage_core.demo.comfyui.server import Server
from sage_core.encoders.layouts import read_encoder
from sage_core.encoders.text_encoder import TextEncoder, embed, save_encoder
from sage_core.shapes.networks.checkpoint import ExpandedFiles

Run = Callable[[Graph], Outputs]
State = dict[str, Tensor]

PROMPT = "two dotted red rings left of one plain blue square in the snow"


def apply(clip: str, strength: float, name: str = "none", mode: str = "replace", **links: list) -> dict:
    return node("SAGEApplyEncoder", clip=[clip, 0], encoder_name=name, strength=strength, mode=mode, **links)


def with_probes(graph: dict, clips: Mapping[str, str]) -> dict:
    """`graph` with each clip's encoding of PROMPT written to a file: file name -> node id of the clip."""
    for name, clip in clips.items():
        graph[f"encode {name}"] = node("CLIPTextEncode", clip=[clip, 0], text=PROMPT)
        graph[f"probe {name}"] = node("ProbeSaveParts", conditioning=[f"encode {name}", 0], name=name)
    return graph


def expected(state: Mapping[str, Tensor]) -> Tensor:
    return embed(TextEncoder.from_state(held(state)), [PROMPT]).view(1, 77, -1)


def mix(base: State, other: State, strength: float) -> State:
    return {name: base[name] + strength * (other[name] - base[name]) for name in base}


def perturbed(state: State, seed: int, scale: float = 0.1) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + scale * tensor.abs().mean() * torch.randn(tensor.shape, generator=generator)
        for name, tensor in state.items()
    }


@pytest.fixture(scope="module")
def encoders(base: Path) -> Path:
    return base / "models" / "text_encoders"


@pytest.fixture(scope="module")
def small(shapes_files: ExpandedFiles) -> State:
    """The small encoder, as ComfyUI holds it."""
    return held_encoder(shapes_files)


@pytest.fixture(scope="module")
def aligned(server: Server, encoders: Path, small: State) -> State:
    """Stands for an aligned encoder, in the file aligned.safetensors."""
    state = perturbed(small, seed=1)
    save_encoder(encoders / "aligned.safetensors", state, {})
    return state


@pytest.fixture(scope="module")
def embedding(base: Path) -> Callable[[str], Tensor]:
    return lambda name: load_file(base / "output" / f"{name}.safetensors")["embedding 0"]


def assert_close(found: Tensor, wanted: Tensor) -> None:
    # Embeddings go up to 10, where one rounding of ComfyUI's fp16 weights shows in the fifth digit.
    torch.testing.assert_close(found, wanted, rtol=5e-5, atol=1e-4)


def test_pack_registers_exactly_its_nodes(server: Server) -> None:
    info = server.object_info()
    assert {name for name in info if name.startswith("SAGE")} == set(ENTRIES)
    for name in ENTRIES:
        assert info[name]["category"] == ENTRIES[name].category
        inputs = info[name]["input"]["required"] | info[name]["input"].get("optional", {})
        assert all(options.get("tooltip") for _, options in inputs.values()), name


def test_strengths_in_one_graph_are_exact_and_leave_each_other_alone(
    run_graph: Run, shapes_files: ExpandedFiles, small: State, aligned: State, embedding: Callable[[str], Tensor]
) -> None:
    strengths = {"none": 0.0, "half": 0.5, "full": 1.0, "over": 1.5, "reverse": -1.0}
    graph = {"clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name)}
    graph |= {name: apply("clip", strength, "aligned.safetensors") for name, strength in strengths.items()}
    run_graph(with_probes(graph, {name: name for name in strengths} | {"untouched": "clip"}))

    assert_close(embedding("untouched"), expected(small))
    assert torch.equal(embedding("none"), embedding("untouched"))
    for name, strength in strengths.items():
        assert_close(embedding(name), expected(mix(small, aligned, strength)))
    assert (embedding("full") - embedding("half")).abs().max() > 0.1


def test_connected_encoder_equals_its_file(
    run_graph: Run, shapes_files: ExpandedFiles, aligned: State, embedding: Callable[[str], Tensor]
) -> None:
    graph = {
        "clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
        "aligned": node("SAGELoadEncoder", encoder_name="aligned.safetensors"),
        "applied": apply("clip", 1.0, encoder=["aligned", 0]),
    }
    run_graph(with_probes(graph, {"by itself": "aligned", "applied": "applied"}))
    assert_close(embedding("by itself"), expected(aligned))
    assert_close(embedding("applied"), expected(aligned))


def test_delta_moves_a_fine_tune_by_what_alignment_changed(
    server: Server,
    run_graph: Run,
    shapes_files: ExpandedFiles,
    encoders: Path,
    small: State,
    aligned: State,
    embedding: Callable[[str], Tensor],
) -> None:
    tuned = held(perturbed(small, seed=2))
    save_encoder(encoders / "tuned.safetensors", tuned, {})
    graph = {
        "base": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
        "tuned": node("SAGELoadEncoder", encoder_name="tuned.safetensors"),
        "by base": apply("tuned", 1.0, "aligned.safetensors", "delta", encoder_base=["base", 0]),
        # Alignment lies on this one as a patch, so its base is known.
        "patched": apply("base", 1.0, "aligned.safetensors"),
        "by patch": apply("tuned", 1.0, mode="delta", encoder=["patched", 0]),
    }
    run_graph(with_probes(graph, {"by base": "by base", "by patch": "by patch"}))
    wanted = expected({name: tuned[name] + aligned[name] - small[name] for name in small})
    assert_close(embedding("by base"), wanted)
    assert_close(embedding("by patch"), wanted)

    graph = {key: graph[key] for key in ("base", "tuned")}
    graph["unknown"] = apply("tuned", 1.0, "aligned.safetensors", "delta")
    with pytest.raises(ExecutionError, match="encoder_base"):
        run_graph(with_probes(graph, {"unknown": "unknown"}))


def test_lora_and_clip_skip_on_top(
    run_graph: Run,
    base: Path,
    shapes_files: ExpandedFiles,
    small: State,
    aligned: State,
    embedding: Callable[[str], Tensor],
) -> None:
    target = "text_model.encoder.layers.0.mlp.fc1.weight"
    up, down = 0.1 * torch.randn(small[target].shape[0], 4), 0.1 * torch.randn(4, small[target].shape[1])
    (base / "models" / "loras").mkdir(exist_ok=True)
    stem = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    save_file({f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down}, base / "models/loras/words.safetensors")

    def lora(clip: str) -> dict:
        strengths = {"strength_model": 0.0, "strength_clip": 0.8}
        return node("LoraLoader", model=["model", 0], clip=[clip, 0], lora_name="words.safetensors", **strengths)

    graph = {
        "model": node("CheckpointLoaderSimple", ckpt_name=shapes_files.checkpoint.name),
        "clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
        "sage": apply("clip", 0.5, "aligned.safetensors"),
        "sage, lora": lora("sage"),
        "lora": lora("clip"),
        "lora, sage": apply("lora", 0.5, "aligned.safetensors"),
        "sage, skip": node("CLIPSetLastLayer", clip=["sage", 0], stop_at_clip_layer=-2),
    }
    # LoraLoader's CLIP is its second output.
    relays = {"sage, lora": ["sage, lora", 1], "sage, skip": ["sage, skip", 0], "lora, sage": ["lora, sage", 0]}
    graph["lora, sage"]["inputs"]["clip"] = ["lora", 1]
    graph = with_probes(graph, {name: name for name in relays})
    for name, link in relays.items():
        graph[f"encode {name}"]["inputs"]["clip"] = link
    run_graph(graph)

    half = mix(small, aligned, 0.5)
    with_lora = half | {target: half[target] + 0.8 * up @ down}
    assert_close(embedding("sage, lora"), expected(with_lora))
    assert_close(embedding("lora, sage"), expected(with_lora))
    skipped = {name: tensor for name, tensor in half.items() if ".layers.1." not in name}
    assert_close(embedding("sage, skip"), expected(skipped))


def test_saved_encoder_holds_its_patches_and_is_not_overwritten(
    run_graph: Run, encoders: Path, shapes_files: ExpandedFiles, small: State, aligned: State
) -> None:
    def graph(strength: float, overwrite: bool = False) -> dict:
        return {
            "clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
            "applied": apply("clip", strength, "aligned.safetensors"),
            "save": node("SAGESaveEncoder", clip=["applied", 0], name="half way", overwrite=overwrite),
        }

    outputs = run_graph(graph(0.5))
    path = encoders / "half way.safetensors"
    assert str(path) in outputs["save"]["text"][0]
    state, metadata = read_encoder(path)
    assert metadata["software"].startswith("sage-alignment")
    for name, tensor in mix(small, aligned, 0.5).items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-6, atol=1e-7)

    before = path.read_bytes()
    with pytest.raises(ExecutionError, match="exists and holds another encoder"):
        run_graph(graph(1.0))
    assert path.read_bytes() == before
    run_graph(graph(1.0, overwrite=True))
    assert path.read_bytes() != before


def test_core_loads_a_saved_vit_l(
    run_graph: Run, shapes_files: ExpandedFiles, embedding: Callable[[str], Tensor]
) -> None:
    checkpoint = node("CheckpointLoaderSimple", ckpt_name=shapes_files.checkpoint.name)
    # The checkpoint's CLIP is its second output.
    graph = with_probes({"model": checkpoint}, {"vit-l": "model"})
    graph["encode vit-l"]["inputs"]["clip"] = ["model", 1]
    graph["save"] = node("SAGESaveEncoder", clip=["model", 1], name="vit-l", overwrite=False)
    run_graph(graph)
    loaders = {
        "core": node("CLIPLoader", clip_name="vit-l.safetensors", type="stable_diffusion"),
        "sage": node("SAGELoadEncoder", encoder_name="vit-l.safetensors"),
    }
    run_graph(with_probes(loaders, {"by core": "core", "by sage": "sage"}))
    assert torch.equal(embedding("by core"), embedding("vit-l"))
    assert torch.equal(embedding("by sage"), embedding("vit-l"))


@pytest.mark.full
def test_published_layout_of_full_size_is_applied_saved_and_loaded_by_core(
    run_graph: Run, encoders: Path, shapes_files: ExpandedFiles, embedding: Callable[[str], Tensor]
) -> None:
    """A stand-in for SAGE.pt: a nested pickle of a fp32 ViT-L/14, 492 MB."""
    state = perturbed(read_encoder(shapes_files.checkpoint)[0], seed=3)
    content = {"model_state_dict": state, "epoch": 2, "args": {"lr": 1e-5, "concept": "nudity"}}
    torch.save(content, encoders / "full_size.pt")
    assert (encoders / "full_size.pt").stat().st_size > 480 * 10**6

    graph = {"model": node("CheckpointLoaderSimple", ckpt_name=shapes_files.checkpoint.name)}
    graph["sage"] = apply("model", 1.0, "full_size.pt")
    graph["sage"]["inputs"]["clip"] = ["model", 1]
    graph["save"] = node("SAGESaveEncoder", clip=["sage", 0], name="full_size", overwrite=True)
    run_graph(with_probes(graph, {"full size": "sage"}))
    assert_close(embedding("full size"), expected(state))
    saved, _ = read_encoder(encoders / "full_size.safetensors")
    for name, tensor in state.items():
        torch.testing.assert_close(saved[name], tensor, rtol=1e-5, atol=1e-7)

    core = {"clip": node("CLIPLoader", clip_name="full_size.safetensors", type="stable_diffusion")}
    run_graph(with_probes(core, {"full size by core": "clip"}))
    assert_close(embedding("full size by core"), embedding("full size"))


@pytest.mark.parametrize("name", ["", "../outside", "/tmp/outside", "a/b", "a\\b", "C:evil", ".hidden", "x" * 101])
def test_a_name_cannot_leave_its_folder(server: Server, shapes_files: ExpandedFiles, name: str) -> None:
    graph = {
        "clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
        "save": node("SAGESaveEncoder", clip=["clip", 0], name=name, overwrite=False),
    }
    with pytest.raises(GraphError, match="expected a plain file name"):
        server.queue(graph)


@pytest.mark.parametrize("name", ["missing.safetensors", "../../../etc/passwd", ""])
def test_a_missing_file_names_the_folder(server: Server, encoders: Path, name: str) -> None:
    graph = with_probes({"clip": node("SAGELoadEncoder", encoder_name=name)}, {"missing": "clip"})
    with pytest.raises(GraphError) as refused:
        server.queue(graph)
    assert str(encoders) in str(refused.value)


def test_depth_that_does_not_fit_is_named(run_graph: Run, shapes_files: ExpandedFiles, aligned: State) -> None:
    checkpoint = node("CheckpointLoaderSimple", ckpt_name=shapes_files.checkpoint.name)
    graph = with_probes({"model": checkpoint, "sage": apply("model", 1.0, "aligned.safetensors")}, {"misfit": "sage"})
    graph["sage"]["inputs"]["clip"] = ["model", 1]
    with pytest.raises(ExecutionError, match=r"does not fit this CLIP: layers 2 where the CLIP has 12"):
        run_graph(graph)


def test_a_hostile_file_is_refused_in_words_and_not_run(run_graph: Run, encoders: Path) -> None:
    torch.save({"model_state_dict": Hostile(encoders / "executed")}, encoders / "hostile.pt")
    with pytest.raises(ExecutionError, match=r"hostile\.pt is a pickle that asks to run") as refused:
        run_graph(with_probes({"clip": node("SAGELoadEncoder", encoder_name="hostile.pt")}, {"bad": "clip"}))
    assert refused.value.exception.endswith("EncoderError") and not (encoders / "executed").exists()


def test_clip_of_another_model_is_refused(run_graph: Run, encoders: Path, aligned: State) -> None:
    save_file(
        {"encoder.block.0.layer.0.SelfAttention.k.weight": torch.zeros(768, 768)}, encoders / "t5_base.safetensors"
    )
    graph = {
        "clip": node("CLIPLoader", clip_name="t5_base.safetensors", type="stable_audio"),
        "save": node("SAGESaveEncoder", clip=["clip", 0], name="t5", overwrite=False),
    }
    with pytest.raises(ExecutionError, match=r"holds t5base; SAGE works on the text encoder of SD 1\.x"):
        run_graph(graph)


def test_both_or_no_encoder_is_a_clear_error(run_graph: Run, shapes_files: ExpandedFiles, aligned: State) -> None:
    clip = {"clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name)}
    with pytest.raises(ExecutionError, match="neither is given"):
        run_graph(with_probes(clip | {"applied": apply("clip", 1.0)}, {"unclear": "applied"}))
    both = apply("clip", 1.0, "aligned.safetensors", encoder=["clip", 0])
    with pytest.raises(ExecutionError, match="both are given"):
        run_graph(with_probes(clip | {"applied": both}, {"unclear": "applied"}))


def test_a_file_is_read_again_only_when_it_changed(
    server: Server, encoders: Path, shapes_files: ExpandedFiles, small: State
) -> None:
    def executed() -> set[str]:
        graph = {
            "clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
            "other": node("SAGELoadEncoder", encoder_name="changing.safetensors"),
            "applied": apply("clip", 1.0, "changing.safetensors"),
        }
        nodes: set[str] = set()
        server.run(with_probes(graph, {"applied": "applied", "other": "other"}), lambda now: nodes.add(now.node))
        return nodes

    save_encoder(encoders / "changing.safetensors", small, {})
    executed()
    assert executed() == set()
    save_encoder(encoders / "changing.safetensors", perturbed(small, seed=4), {})
    assert {"applied", "other"} <= executed()
    assert "clip" not in executed()
