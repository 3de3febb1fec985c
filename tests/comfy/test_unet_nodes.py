"""Edits of a U-Net in a real ComfyUI: latents drawn with them, against those of checkpoints with the edited weights.

Everything is compared to the bit: on a CPU ComfyUI holds the U-Net in fp32, and the tests' edits are exact in it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from malformed import Hostile
from safetensors.torch import load_file, save_file
from torch import Tensor

from comfy_graphs import latents, node
from sage_core.demo.comfyui.client import ExecutionError, GraphError
from sage_core.demo.comfyui.server import Server
from sage_core.encoders.layouts import read_encoder
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.methods.closed_form.uce import UceSettings, edit
from sage_core.methods.concepts import Concepts
from sage_core.methods.table import of_kind
from sage_core.shapes.networks.checkpoint import ExpandedFiles
from sage_core.unet.names import CHECKPOINT_PREFIX, UnetConfig, reads_prompt, unet_names

FORMS = of_kind("closed form")
State = dict[str, Tensor]
Draw = Callable[..., dict[str, Tensor]]

PROMPT = "two dotted red rings left of one plain blue square in the snow"
FIRST = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def apply(file: str, strength: float = 1.0, model: str = "model", mode: str = "replace", base: str = "none") -> dict:
    return node("SAGEApplyModelEdit", model=[model, 0], file=file, strength=strength, mode=mode, base_file=base)


def erase(method: str, **inputs: object) -> dict:
    about = {"concepts": "skull", "guide": "star", "keep": "", "method": method, "strength": 1.0}
    knobs = {"erase_scale": 0.0, "hold": 0.0, "keep_scale": 0.0, "rounds": 0}
    return node("SAGEEraseConcept", model=["model", 0], clip=["clip", 0], **about | knobs | inputs)


def with_sampling(graph: dict, *models: str) -> dict:
    """`graph` with a drawing of PROMPT by each of its nodes that give a MODEL, saved as a latent."""
    graph["positive"] = node("CLIPTextEncode", clip=["clip", 0], text=PROMPT)
    graph["negative"] = node("CLIPTextEncode", clip=["clip", 0], text="")
    graph["empty"] = node("EmptyLatentImage", width=64, height=64, batch_size=1)
    for name in models:
        links = {key: [key, 0] for key in ("positive", "negative")}
        graph[f"sample {name}"] = node(
            "KSampler", model=[name, 0], latent_image=["empty", 0], seed=5, steps=1, cfg=4.0, sampler_name="euler",
            scheduler="normal", denoise=1.0, **links,
        )  # fmt: skip
        graph[f"save {name}"] = node("SaveLatent", samples=[f"sample {name}", 0], filename_prefix=f"unet/{name}")
    return graph


@pytest.fixture
def models(server: Server, shapes_files: ExpandedFiles) -> dict:
    """The nodes that every graph starts with."""
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name=shapes_files.checkpoint.name),
        "clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
    }


@pytest.fixture
def draw(server: Server, base: Path) -> Draw:
    """Run a graph with samplers for some models: their latents by name, and what the nodes showed in `draw.shown`."""

    def run(graph: dict, *names: str) -> dict[str, Tensor]:
        outputs = server.run(with_sampling(graph, *names), timeout=500)
        run.shown = {name: value["text"][0] for name, value in outputs.items() if "text" in value}
        found = {}
        for name in names:
            (found[name],) = latents(base, outputs, f"save {name}")
        return found

    return run


@pytest.fixture(scope="module")
def checkpoint(shapes_files: ExpandedFiles) -> State:
    """The U-Net of the shapes world's checkpoint, in fp32."""
    own = load_file(shapes_files.checkpoint).items()
    return {name: value.float() for name, value in own if name.startswith(CHECKPOINT_PREFIX)}


@pytest.fixture(scope="module")
def unet(checkpoint: State) -> State:
    """It under diffusers' names."""
    names = unet_names(UnetConfig.of({name: tuple(value.shape) for name, value in checkpoint.items()}))
    return {names.find(name): value for name, value in checkpoint.items()}


def coarse(shape: tuple[int, ...], seed: int) -> Tensor:
    """Changes that add to fp16 weights without rounding in fp32, at half strength too."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-8, 9, shape, generator=generator).float() / 256


@pytest.fixture(scope="module")
def edits(unet: State) -> dict[str, State]:
    """Changes of two kinds by diffusers' names."""
    attention = [name for name in unet if ".attn2." in name]
    return {
        "values": {name: coarse(unet[name].shape, 1) for name in unet if name.endswith("attn2.to_v.weight")},
        "attention": {name: coarse(unet[name].shape, 2) for name in attention},
    }


def compvis(unet: State) -> dict[str, str]:
    names = unet_names(UnetConfig.of({name: tuple(value.shape) for name, value in unet.items()}))
    return dict(names.compvis)


@pytest.fixture(scope="module")
def files(server: Server, base: Path, checkpoint: State, unet: State, edits: dict[str, State]) -> Path:
    """Edited U-Nets in every layout, and those that the edits are to give."""
    root = base / "models"
    for folder in ("diffusion_models", "unet", "loras", "diffusers/pipe/unet"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    theirs = compvis(unet)
    added = {kind: {name: unet[name] + delta for name, delta in some.items()} for kind, some in edits.items()}
    save_file(added["values"], root / "diffusion_models" / "part.safetensors")
    torch.save(unet | added["attention"], root / "unet" / "whole.pt")
    flat = {f"{CHECKPOINT_PREFIX}{theirs[name]}": value for name, value in (unet | added["attention"]).items()}
    ema = {name.replace("model.diffusion_model", "model_ema.diffusion_model"): value for name, value in flat.items()}
    torch.save({"state_dict": flat | ema}, root / "checkpoints" / "compvis.ckpt")
    nested: dict[str, State] = {}
    for name, value in added["attention"].items():
        nested.setdefault(f"unet.{name.rpartition('.')[0]}", {})[name.rpartition(".")[2]] = value
    torch.save(nested, root / "diffusion_models" / "nested.pt")
    save_file(unet | added["attention"], root / "diffusers/pipe/unet/diffusion_pytorch_model.safetensors")
    (root / "diffusers/pipe/unet/config.json").write_text("{}")
    save_file(
        {f"diffusion_model.{theirs[n].rpartition('.')[0]}.diff{'_b' * n.endswith('.bias')}": delta
         for n, delta in edits["attention"].items()},
        root / "loras" / "changes.safetensors",
    )  # fmt: skip
    # Compared with fp16 weights, fp32 ones would be rounded to fp16.
    save_file(checkpoint, root / "checkpoints" / "fp32.safetensors")
    for kind, strength in (("attention", 1.0), ("attention", 0.5), ("values", 1.0)):
        moved = {f"{CHECKPOINT_PREFIX}{theirs[n]}": unet[n] + strength * delta for n, delta in edits[kind].items()}
        save_file(checkpoint | moved, root / "diffusion_models" / f"expected {kind} {strength}.safetensors")
    return root


def expected(kind: str, strength: float) -> dict:
    return node("UNETLoader", unet_name=f"expected {kind} {strength}.safetensors", weight_dtype="default")


LAYOUTS = ("diffusion_models/whole.pt", "checkpoints/compvis.ckpt", "diffusion_models/nested.pt", "diffusers/pipe",
           "loras/changes.safetensors")  # fmt: skip


def test_every_layout_gives_the_edited_checkpoint_at_each_strength(
    models: dict, draw: Draw, files: Path, edits: dict[str, State]
) -> None:
    graph = models | {"one": expected("attention", 1.0), "half": expected("attention", 0.5)}
    graph |= {file: apply(file) for file in LAYOUTS} | {"at half": apply("diffusion_models/nested.pt", 0.5)}
    graph["at nothing"] = apply("diffusion_models/whole.pt", 0.0)
    found = draw(graph, "model", "one", "half", *LAYOUTS, "at half", "at nothing")
    changed = len(edits["attention"])
    for file in LAYOUTS:
        assert torch.equal(found[file], found["one"]), file
        assert f"{changed} of 168 tensors changed" in draw.shown[file] and "ESD-x" in draw.shown[file]
    assert torch.equal(found["at half"], found["half"])
    assert torch.equal(found["at nothing"], found["model"])
    assert "strength is 0, so the MODEL is as it came" in draw.shown["at nothing"]
    assert "averaged copy (EMA)" in draw.shown["checkpoints/compvis.ckpt"]
    distance = (found["one"] - found["model"]).abs().max()
    assert distance > 0.01 and not torch.equal(found["half"], found["one"])


def test_two_edits_add_up_in_delta_mode_and_are_warned_of_in_replace_mode(
    models: dict, draw: Draw, files: Path
) -> None:
    own = "checkpoints/fp32.safetensors"
    tuned = "diffusion_models/expected values 1.0.safetensors"
    graph = models | {
        "tuned": expected("values", 1.0),
        "first": apply("diffusion_models/part.safetensors", mode="delta", base=own),
        "second": apply("diffusion_models/nested.pt", model="first", mode="delta", base=own),
        "on tuned": apply("diffusion_models/nested.pt", model="tuned", mode="delta", base=own),
        "replaced": apply("diffusion_models/nested.pt", model="first"),
        "unused base": apply("loras/changes.safetensors", model="tuned", mode="delta", base=tuned),
    }
    found = draw(graph, "tuned", "first", "second", "on tuned", "replaced", "unused base")
    assert torch.equal(found["first"], found["tuned"])
    assert torch.equal(found["second"], found["on tuned"]) and torch.equal(found["unused base"], found["on tuned"])
    assert not torch.equal(found["second"], found["first"])
    assert "all of them add up" in draw.shown["second"]
    assert "base_file is not used: the file holds changes already" in draw.shown["unused base"]
    assert "measures the file against the checkpoint's own weights" in draw.shown["replaced"]
    assert "carries 1 patch(es)" in draw.shown["replaced"]


def test_core_lora_loader_draws_the_same_from_a_saved_edit(models: dict, draw: Draw, files: Path) -> None:
    graph = models | {
        "edit": apply("diffusion_models/nested.pt", 0.5),
        "erased": erase("uce"),
        "save": node("SAGESaveModelEdit", base=["model", 0], edited=["edit", 0], name="kept edit", overwrite=False),
        "keep erased": node("SAGESaveModelEdit", base=["model", 0], edited=["erased", 0], name="kept", overwrite=True),
    }
    first = draw(graph, "edit", "erased")
    assert "U-Net and 0 of the text encoder" in draw.shown["save"]
    loaded = models | {
        name: node("LoraLoaderModelOnly", model=["model", 0], lora_name=f"{file}.safetensors", strength_model=1.0)
        for name, file in (("by core", "kept edit"), ("erased by core", "kept"))
    }
    loaded["by us"] = apply("loras/kept edit.safetensors")
    second = draw(loaded, "by core", "erased by core", "by us")
    assert torch.equal(second["by core"], first["edit"]) and torch.equal(second["by us"], first["edit"])
    assert torch.equal(second["erased by core"], first["erased"])


def test_an_aligned_clip_goes_into_the_same_file(
    server: Server, models: dict, draw: Draw, files: Path, base: Path, shapes_files: ExpandedFiles
) -> None:
    state, _ = read_encoder(shapes_files.text_encoder)
    moved = {name: value.float() for name, value in state.items()}
    name = "text_model.encoder.layers.0.mlp.fc1.weight"
    moved[name] = moved[name] + coarse(moved[name].shape, 7)
    save_file(moved, base / "models" / "text_encoders" / "moved.safetensors")
    graph = models | {
        "edit": apply("diffusion_models/part.safetensors"),
        "aligned": node("SAGEApplyEncoder", clip=["clip", 0], encoder_name="moved.safetensors", strength=1.0,
                        mode="replace"),
    }  # fmt: skip
    clips = {"base_clip": ["clip", 0], "aligned_clip": ["aligned", 0]}
    graph["save"] = node(
        "SAGESaveModelEdit", base=["model", 0], edited=["edit", 0], name="both", overwrite=False, **clips
    )
    graph["half"] = node(
        "SAGESaveModelEdit", base=["model", 0], edited=["edit", 0], name="half", overwrite=False, base_clip=["clip", 0]
    )
    with pytest.raises(ExecutionError, match="connect base_clip and aligned_clip, or neither"):
        server.run(graph)
    del graph["half"]
    server.run(graph)
    written = load_file(base / "models" / "loras" / "both.safetensors")
    assert [key for key in written if key.startswith("text_encoders")] == [
        "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.diff"
    ]
    loader = node("LoraLoader", model=["model", 0], clip=["clip", 0], lora_name="both.safetensors",
                  strength_model=1.0, strength_clip=1.0)  # fmt: skip
    with_clip = {"positive": node("CLIPTextEncode", clip=["aligned", 0], text=PROMPT)}
    wanted = draw(graph | {"relay": with_clip["positive"]}, "edit")["edit"]
    found = server.run(_with_clip(models | {"lora": loader}, ["lora", 1], "lora"), timeout=500)
    own = server.run(_with_clip(graph, ["aligned", 0], "edit"), timeout=500)
    (by_core,), (by_us,) = (latents(base, outputs, "save latent") for outputs in (found, own))
    torch.testing.assert_close(by_core, by_us, rtol=1e-5, atol=1e-5)
    assert not torch.equal(by_us, wanted)


def _with_clip(graph: dict, clip: list, model: str) -> dict:
    graph = with_sampling(dict(graph), model)
    graph["positive"] = node("CLIPTextEncode", clip=clip, text=PROMPT)
    graph["save latent"] = graph.pop(f"save {model}")
    return graph


def test_a_saved_edit_is_not_overwritten_and_nothing_is_not_saved(
    server: Server, models: dict, files: Path, draw: Draw
) -> None:
    def save(strength: float, overwrite: bool = False, edited: str = "edit") -> dict:
        names = {"base": ["model", 0], "edited": [edited, 0], "name": "mine", "overwrite": overwrite}
        edit_node = apply("diffusion_models/part.safetensors", strength)
        return models | {"edit": edit_node, "save": node("SAGESaveModelEdit", **names)}

    server.run(save(1.0))
    path = files / "loras" / "mine.safetensors"
    before = path.read_bytes()
    server.run(save(1.0))
    with pytest.raises(ExecutionError, match="exists and holds something else"):
        server.run(save(0.5))
    assert path.read_bytes() == before
    server.run(save(0.5, overwrite=True))
    assert path.read_bytes() != before
    written = path.read_bytes()
    assert (
        "base and edited are the same: nothing was written" in server.run(save(1.0, edited="model"))["save"]["text"][0]
    )
    assert path.read_bytes() == written


# -- closed forms ------------------------------------------------------------------------------------------------------


def test_uce_in_the_graph_is_the_librarys(
    models: dict, draw: Draw, unet: State, checkpoint: State, files: Path, shapes_files: ExpandedFiles
) -> None:
    encoder = TextEncoder.from_state({n: v.float() for n, v in read_encoder(shapes_files.text_encoder)[0].items()})
    weights = {name: value for name, value in unet.items() if reads_prompt(name)}
    wanted = edit(weights, encoder, Concepts(("skull",), ("star",), ("red ring",)), UceSettings(erase_scale=2.0))
    theirs = compvis(unet)
    moved = {f"{CHECKPOINT_PREFIX}{theirs[name]}": unet[name] + delta for name, delta in wanted.deltas.items()}
    save_file(checkpoint | moved, files / "diffusion_models" / "expected uce.safetensors")
    graph = models | {
        "uce": erase("uce", keep="red ring", erase_scale=2.0),
        "expected": node("UNETLoader", unet_name="expected uce.safetensors", weight_dtype="default"),
        "nothing": erase("uce", strength=0.0),
    }
    found = draw(graph, "model", "uce", "expected", "nothing")
    torch.testing.assert_close(found["uce"], found["expected"], rtol=1e-4, atol=1e-4)
    assert torch.equal(found["nothing"], found["model"])
    assert (found["uce"] - found["model"]).abs().max() > 100 * (found["uce"] - found["expected"]).abs().max()
    assert "UCE: " in draw.shown["uce"] and "solved to" in draw.shown["uce"] and " s, applied" in draw.shown["uce"]


def test_every_method_of_the_list_erases(server: Server, models: dict) -> None:
    offered = server.object_info()["SAGEEraseConcept"]["input"]["required"]["method"]
    assert (offered[1]["options"] if offered[0] == "COMBO" else offered[0]) == list(FORMS)
    before = len(server.log_tail(10**6))
    found = server.run(models | {method: erase(method, keep="red ring") for method in FORMS}, timeout=500)
    for method in FORMS:
        assert " matrices changed by " in found[method]["text"][0], method
        assert "Erased: skull. Guides: star. Kept: red ring." in found[method]["text"][0], method
    assert "Traceback" not in server.log_tail(10**6)[before:]


def test_a_second_erasure_is_solved_for_the_edited_weights(models: dict, draw: Draw) -> None:
    graph = models | {"first": erase("uce"), "second": erase("uce", concepts="ring", guide="")}
    graph["second"]["inputs"]["model"] = ["first", 0]
    draw(graph, "second")
    assert "MODEL carries 1 patch(es): the edit was solved for what they make of it" in draw.shown["second"]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"concepts": " ; \n"}, "No concept to erase was given"),
        ({"guide": "skull"}, "is its own guide"),
        ({"guide": "a\nb"}, "1 concepts but 2 guides"),
        ({"method": "speed", "rounds": 3}, "rounds is 3, but SPEED has no such setting: leave it out"),
        ({"concepts": "naked child"}, "refers or may refer to a minor"),
    ],
)
def test_what_cannot_be_erased_is_explained(server: Server, models: dict, inputs: dict, words: str) -> None:
    with pytest.raises((ExecutionError, GraphError), match=words):
        server.run(with_sampling(models | {"erase": erase(inputs.pop("method", "uce"), **inputs)}, "erase"))


# -- bad files ---------------------------------------------------------------------------------------------------------


def test_a_hostile_file_is_refused_in_words_and_not_run(server: Server, models: dict, files: Path) -> None:
    torch.save({"state_dict": Hostile(files / "executed")}, files / "diffusion_models" / "hostile.pt")
    with pytest.raises(ExecutionError, match=r"hostile\.pt") as refused:
        server.run(with_sampling(models | {"edit": apply("diffusion_models/hostile.pt")}, "edit"))
    assert refused.value.exception.endswith("UnetError") and not (files / "executed").exists()


@pytest.mark.parametrize(
    "name",
    ["", "missing.safetensors", "diffusion_models/missing.pt", "loras/../../../etc/passwd", "diffusers/../checkpoints",
     "/etc/passwd", "text_encoders/shapes_text_encoder.safetensors"],
)  # fmt: skip
def test_names_outside_the_folders_are_refused_before_the_run(server: Server, models: dict, name: str) -> None:
    with pytest.raises(GraphError, match="Put the file into"):
        server.queue(with_sampling(models | {"edit": apply(name)}, "edit"))


def test_bad_settings_are_explained(server: Server, models: dict, files: Path) -> None:
    for graph, words in (
        (apply("diffusion_models/part.safetensors", mode="delta"), "what the file was made from is not known"),
        (
            apply("diffusion_models/part.safetensors", mode="delta", base="loras/changes.safetensors"),
            "is a file of changes, not of weights",
        ),
        (
            apply("diffusion_models/nested.pt", mode="delta", base="diffusion_models/part.safetensors"),
            "lacks .* choose a whole U-Net",
        ),
    ):
        with pytest.raises((ExecutionError, GraphError), match=words):
            server.run(with_sampling(models | {"edit": graph}, "edit"))
