"""Training AdvUnlearn in a real ComfyUI: what it gives, found, and refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from comfy_graphs import held_encoder, node
from sage_core.demo.comfyui.client import ExecutionError, GraphError
from sage_core.demo.comfyui.server import Server
from sage_core.encoders.layouts import read_encoder
from sage_core.encoders.text_encoder import state_hash
from sage_core.methods.adv_unlearn import AdvUnlearnSettings
from sage_core.methods.adv_unlearn_store import train_adv_unlearn
from sage_core.methods.concepts import Concepts
from sage_core.shapes.networks.checkpoint import ExpandedFiles
from sage_core.unet.names import CHECKPOINT_PREFIX
from sage_core.unet.training import UnetRun
from training_graphs import RETAIN, UNLEARNING_SEED, adv_unlearn, prompt_pairs


@pytest.mark.full
def test_it_is_the_librarys_training_and_is_found_again(
    server: Server, base: Path, tmp_path: Path, shapes_files: ExpandedFiles
) -> None:
    outputs = server.run(adv_unlearn(shapes_files), timeout=500)
    shown = outputs["train"]["text"][0]
    path = base / "models" / "text_encoders" / "unlearned.safetensors"
    for words in ("Trained: AdvUnlearn, fast, concept skull, 2 steps", "2 retain prompts", f"Saved: {path}"):
        assert words in shown
    assert "Memory: about" in shown and "pictures at a time, on cpu" in shown
    assert "SAGE: training takes about" in server.log.read_text(encoding="utf-8")
    assert server.images(outputs)["train"][0].size[0] > 100

    state, metadata = read_encoder(path)
    held = held_encoder(shapes_files)
    assert (metadata["method"], metadata["concept"]) == ("AdvUnlearn", "skull")
    assert metadata["base_hash"] == state_hash(held) and metadata["hash"] == state_hash(state)
    unet = {n: v.float() for n, v in load_file(shapes_files.checkpoint).items() if n.startswith(CHECKPOINT_PREFIX)}
    settings = AdvUnlearnSettings(seed=UNLEARNING_SEED, steps=2, learning_rate=1e-3, retain_batch=1)
    wanted = train_adv_unlearn(UnetRun(unet, 64), held, Concepts(("skull",)), settings, tmp_path, retain=RETAIN)
    for name, value in wanted.state.items():
        if ".layers." in name and name.endswith("weight") and value.dim() == 2:
            # Adam's first steps are signs of gradients: where one is near 0 its sign may differ.
            old, new = (each - held[name] for each in (value, state[name]))
            assert torch.cosine_similarity(old.flatten(), new.flatten(), 0) > 0.99, name

    # The CLIP that training hands on is the encoder in its file.
    check = adv_unlearn(shapes_files) | {"file": node("SAGELoadEncoder", encoder_name="unlearned.safetensors")}
    for name in ("train", "file"):
        check[f"encode {name}"] = node("CLIPTextEncode", clip=[name, 0], text="two skulls")
        check[f"probe {name}"] = node("ProbeSaveParts", conditioning=[f"encode {name}", 0], name=name)
    server.free()
    again = server.run(check, timeout=500)["train"]["text"][0]
    assert again.startswith("Found, not trained again")
    trained, file = (load_file(base / f"output/{name}.safetensors")["embedding 0"] for name in ("train", "file"))
    torch.testing.assert_close(trained, file, rtol=0, atol=5e-3)
    listed = server.run({"runs": node("SAGEStoredRuns", action="list", limit_gb=5.0)})["runs"]["text"][0]
    assert "AdvUnlearn, fast, skull, 2 steps" in listed


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"concepts": " "}, "No concept to erase was given"),
        ({"guide": "Skull"}, "is its own guide"),
        ({"retain_prompts": "a star\na skull on sand"}, "Retain prompt 2 of 2, 'a skull on sand', names the concept"),
        ({"pairs": ["pairs", 0]}, "pairs or from retain_prompts; both are given"),
        ({"layers": 9}, "layers is 9, and the text encoder has 2"),
        ({"clip": ["t5", 0]}, "SAGE works on the text encoder of SD 1"),
        ({"name": "precious"}, "was not trained here"),
        ({"name": "a/b"}, "expected a plain file name"),
    ],
)
def test_what_cannot_be_trained_is_explained(
    server: Server, base: Path, shapes_files: ExpandedFiles, inputs: dict, words: str
) -> None:
    encoders = base / "models" / "text_encoders"
    save_file({"some": torch.zeros(1)}, encoders / "precious.safetensors")
    t5 = {"encoder.block.0.layer.0.SelfAttention.k.weight": torch.zeros(768, 768)}
    save_file(t5, encoders / "t5_for_unlearning.safetensors")
    asked = adv_unlearn(shapes_files, **inputs)
    if "pairs" in inputs:
        asked["pairs"] = prompt_pairs(safe_text="a star", unsafe_text="a skull")
    if "clip" in inputs:
        asked["t5"] = node("CLIPLoader", clip_name="t5_for_unlearning.safetensors", type="stable_audio")
    with pytest.raises((ExecutionError, GraphError), match=words):
        server.run(asked, timeout=500)


def test_the_safe_side_of_pairs_is_retained(server: Server, shapes_files: ExpandedFiles) -> None:
    asked = adv_unlearn(shapes_files, pairs=["pairs", 0], retain_prompts="", steps=1, name="by pairs")
    asked["pairs"] = prompt_pairs(safe_text="\n".join(RETAIN), concept="skull")
    assert "2 retain prompts" in server.run(asked, timeout=500)["train"]["text"][0]
