"""Training an erasure in a real ComfyUI: what it draws, cancelled and gone on with, found again, and refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sage_core.demo.comfyui.client import ExecutionError, GraphError, Interrupted, Progress
from sage_core.demo.comfyui.server import Server
from sage_core.encoders.layouts import read_encoder
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.methods.concepts import Concepts
from sage_core.methods.erasing import PRESETS, train_erasure
from sage_core.shapes.networks.checkpoint import ExpandedFiles
from sage_core.unet.files import read_unet
from sage_core.unet.names import CHECKPOINT_PREFIX, UnetConfig
from sage_core.unet.training import UnetRun


def node(kind: str, **inputs: object) -> dict:
    return {"class_type": kind, "inputs": inputs}


def train(**inputs: object) -> dict:
    about = {"concepts": "skull", "erase_from": "", "preset": "esd_x", "steps": 3, "size": 64, "batch_size": 1}
    return node("SAGETrainErasure", model=["model", 0], clip=["clip", 0],
                **about | {"precision": "fp32", "seed": 0} | inputs)  # fmt: skip


def graph(shapes_files: ExpandedFiles, **inputs: object) -> dict:
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name=shapes_files.checkpoint.name),
        "clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
        "train": train(**inputs),
        "save": node("SAGESaveModelEdit", base=["model", 0], edited=["train", 0], name="erasure", overwrite=True),
    }


def trained(base: Path) -> dict[str, Tensor]:
    return load_file(base / "models" / "loras" / "erasure.safetensors")


def test_it_is_the_librarys_training_and_is_found_again(
    server: Server, base: Path, tmp_path: Path, shapes_files: ExpandedFiles
) -> None:
    (base / "models" / "loras").mkdir(exist_ok=True)
    shown = server.run(graph(shapes_files), timeout=500)["train"]
    assert shown["text"][0].startswith("Trained: ESD-x, preset esd_x, concept skull, 3 steps")
    assert server.images({"train": shown})["train"][0].size[0] > 100
    found = trained(base)
    state = {n: v.float() for n, v in load_file(shapes_files.checkpoint).items() if n.startswith(CHECKPOINT_PREFIX)}
    held = {name: value.half().float() for name, value in read_encoder(shapes_files.text_encoder)[0].items()}
    settings = PRESETS["esd_x"].replace(steps=3)
    wanted = train_erasure(
        UnetRun(state, size=64), TextEncoder.from_state(held), Concepts(("skull",)), settings, tmp_path / "runs"
    )
    assert len(found) == len(wanted.deltas) == 20 and len(wanted.history) == 3
    config = UnetConfig.of({name: tuple(value.shape) for name, value in state.items()})
    written = read_unet(base / "models" / "loras" / "erasure.safetensors", config)
    for name, _, delta in written.tensors():
        # Adam's first steps are signs of gradients: where one is near 0 its sign may differ.
        assert torch.cosine_similarity(delta.flatten(), wanted.deltas[name].flatten(), 0) > 0.99, name

    server.free()
    again = server.run(graph(shapes_files), timeout=500)["train"]["text"][0]
    assert again.startswith("Found, not trained again")
    assert all(torch.equal(value, found[key]) for key, value in trained(base).items())
    listed = server.run({"runs": node("SAGEStoredRuns", action="list", limit_gb=5.0)})["runs"]["text"][0]
    assert "ESD-x, esd_x, skull, 3 steps" in listed


def test_cancelled_it_goes_on_to_the_same_edit(server: Server, base: Path, shapes_files: ExpandedFiles) -> None:
    (base / "models" / "loras").mkdir(exist_ok=True)
    store = base / "output" / "sage" / "runs"

    def cancel(progress: Progress) -> None:
        if progress.node == "train" and progress.value >= 2:
            server.interrupt()

    with pytest.raises(Interrupted):
        server.run(graph(shapes_files, seed=3, steps=6), cancel, timeout=500)
    assert len(list(store.glob("*.checkpoint"))) == 1
    assert server.run(graph(shapes_files, seed=3, steps=6), timeout=500)["train"]["text"][0].startswith("Trained")
    resumed = trained(base)
    assert not list(store.glob("*.checkpoint"))
    for path in store.iterdir():
        path.unlink()
    server.free()
    server.run(graph(shapes_files, seed=3, steps=6), timeout=500)
    for key, value in trained(base).items():
        torch.testing.assert_close(resumed[key], value, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"concepts": " "}, "No concept to erase was given"),
        ({"erase_from": "a\nb"}, "2 texts to erase 1 concepts from"),
        ({"preset": "paint"}, "preset is 'paint'; expected one of esd_x"),
        ({"precision": "fp8"}, "precision is 'fp8'; expected one of auto, fp32, bf16"),
    ],
)
def test_what_cannot_be_trained_is_explained(
    server: Server, shapes_files: ExpandedFiles, inputs: dict, words: str
) -> None:
    with pytest.raises((ExecutionError, GraphError), match=words):
        server.run(graph(shapes_files, **inputs), timeout=500)
