"""Training a U-Net by prompt pairs in a real ComfyUI: what it gives, cancelled and gone on with, found, and refused."""

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
from sage_core.methods.redirecting import RedirectingSettings, drawing_evaluations, train_redirection
from sage_core.prompts.pairs import pairs_from_lists
from sage_core.shapes.networks.checkpoint import ExpandedFiles
from sage_core.unet.files import read_unet
from sage_core.unet.names import CHECKPOINT_PREFIX, UnetConfig
from sage_core.unet.training import UnetRun

SAFE = ["a red circle", "two blue circles", "a green circle on sand"]
UNSAFE = ["a red skull", "two blue skulls", "a green skull on sand"]
STEPS = 6


def node(kind: str, **inputs: object) -> dict:
    return {"class_type": kind, "inputs": inputs}


def graph(shapes_files: ExpandedFiles, **inputs: object) -> dict:
    about = {"concept": "skull", "steps": 2, "size": 64, "batch_size": 2, "precision": "fp32", "seed": 0}
    sides = {"safe_text": "\n".join(SAFE), "unsafe_text": "\n".join(UNSAFE)}
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name=shapes_files.checkpoint.name),
        "clip": node("SAGELoadEncoder", encoder_name=shapes_files.text_encoder.name),
        "pairs": node("SAGEPromptPairs", safe_file="none", unsafe_file="none", concept="", **sides),
        "train": node(
            "SAGETrainUnet", model=["model", 0], clip=["clip", 0], **{"pairs": ["pairs", 0]} | about | inputs
        ),
        "save": node("SAGESaveModelEdit", base=["model", 0], edited=["train", 0], name="redirected", overwrite=True),
    }


def trained(base: Path) -> dict[str, Tensor]:
    return load_file(base / "models" / "loras" / "redirected.safetensors")


def test_it_is_the_librarys_training_and_is_found_again(
    server: Server, base: Path, tmp_path: Path, shapes_files: ExpandedFiles
) -> None:
    (base / "models" / "loras").mkdir(exist_ok=True)
    shown = server.run(graph(shapes_files), timeout=500)["train"]
    assert shown["text"][0].startswith("Trained: SAGE U-Net, preset sage_unet, concept skull, 2 steps")
    assert "3 kept from the safe list and the unsafe list" in shown["text"][0]
    assert server.images({"train": shown})["train"][0].size[0] > 100
    found = trained(base)
    state = {n: v.float() for n, v in load_file(shapes_files.checkpoint).items() if n.startswith(CHECKPOINT_PREFIX)}
    held = {name: value.half().float() for name, value in read_encoder(shapes_files.text_encoder)[0].items()}
    settings = RedirectingSettings(steps=2, batch_size=2)
    wanted = train_redirection(
        UnetRun(state, size=64),
        TextEncoder.from_state(held),
        pairs_from_lists(SAFE, UNSAFE),
        settings,
        tmp_path / "runs",
    )
    assert len(found) == len(wanted.deltas) == 20 and len(wanted.history) == 2
    config = UnetConfig.of({name: tuple(value.shape) for name, value in state.items()})
    written = read_unet(base / "models" / "loras" / "redirected.safetensors", config)
    for name, _, delta in written.tensors():
        # Adam's first steps are signs of gradients: where one is near 0 its sign may differ.
        assert torch.cosine_similarity(delta.flatten(), wanted.deltas[name].flatten(), 0) > 0.99, name

    server.free()
    again = server.run(graph(shapes_files, concept="another name"), timeout=500)["train"]["text"][0]
    assert again.startswith("Found, not trained again")
    assert all(torch.equal(value, found[key]) for key, value in trained(base).items())
    listed = server.run({"runs": node("SAGEStoredRuns", action="list", limit_gb=5.0)})["runs"]["text"][0]
    assert "SAGE U-Net, sage_unet, skull, 2 steps" in listed


def test_cancelled_it_goes_on_to_the_same_edit(server: Server, base: Path, shapes_files: ExpandedFiles) -> None:
    (base / "models" / "loras").mkdir(exist_ok=True)
    store = base / "output" / "sage" / "runs"
    before = {path.stem for path in store.iterdir()} if store.is_dir() else set()
    drawing = drawing_evaluations(len(SAFE), RedirectingSettings(batch_size=2))
    assert drawing != STEPS
    asked = graph(shapes_files, seed=3, steps=STEPS, strength=0.5)

    def cancel_at(value: int, maximum: int):
        def cancel(progress: Progress) -> None:
            if progress.node == "train" and progress.maximum == maximum and progress.value >= value:
                server.interrupt()

        return cancel

    with pytest.raises(Interrupted):
        server.run(asked, cancel_at(2, drawing), timeout=500)
    assert not list(store.glob("*.checkpoint")), "pictures are drawn before there is anything to go on from"
    with pytest.raises(Interrupted):
        server.run(asked, cancel_at(2, STEPS), timeout=500)
    assert len(list(store.glob("*.checkpoint"))) == 1
    assert server.run(asked, timeout=500)["train"]["text"][0].startswith("Trained")
    resumed = trained(base)
    assert not list(store.glob("*.checkpoint"))
    for path in store.iterdir():
        if path.stem not in before:
            path.unlink()
    server.free()
    assert server.run(asked, timeout=500)["train"]["text"][0].startswith("Trained")
    for key, value in trained(base).items():
        torch.testing.assert_close(resumed[key], value, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"precision": "fp8"}, "precision is 'fp8'; expected one of auto, fp32, bf16"),
        ({"pairs": "a ball"}, "pairs is 'a ball'; expected a connection"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0, expected a finite number above 0"),
        ({"strength": float("nan")}, "strength is nan; expected a finite number"),
        ({"pairs": ["minors", 0]}, "(?s)No pair of prompts is left to use.*2 pairs refer or may refer to a minor"),
    ],
)
def test_what_cannot_be_trained_is_explained(
    server: Server, shapes_files: ExpandedFiles, inputs: dict, words: str
) -> None:
    sides = {"safe_text": "a child in a park\na child on a beach", "unsafe_text": "a skull"}
    minors = {"minors": node("SAGEPromptPairs", safe_file="none", unsafe_file="none", concept="", **sides)}
    with pytest.raises((ExecutionError, GraphError), match=words):
        server.run(graph(shapes_files, **inputs) | minors, timeout=500)
