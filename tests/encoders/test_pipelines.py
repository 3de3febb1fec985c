"""An aligned encoder in a pipeline of diffusers: exact, and refused where it would not fit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sage_core.encoders.pipelines import to_diffusers
from sage_core.encoders.text_encoder import TextEncoder, embed, save_encoder
from sage_core.encoders.tokens import tokenize
from sage_core.errors import EncoderError
from tiny_pipelines import pipeline, text_encoder

PROMPTS = ["two red hearts above a skull", "a cat"]


@pytest.fixture
def pipe(tmp_path: Path) -> Any:
    return pipeline(tmp_path)


@pytest.fixture
def aligned() -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in TextEncoder.from_state(text_encoder(7).state_dict()).state().items()}


def draw(pipe: Any, prompt: str = PROMPTS[0]) -> np.ndarray:
    generator = torch.Generator().manual_seed(3)
    return np.asarray(pipe(prompt, num_inference_steps=2, generator=generator, output_type="np").images[0])


@pytest.mark.parametrize("kind", ["file", "state", "encoder", "transformers"])
def test_the_pipeline_encodes_exactly_as_the_encoder(pipe: Any, aligned: dict, tmp_path: Path, kind: str) -> None:
    save_encoder(tmp_path / "sage.safetensors", aligned, {})
    # The states of transformers' own model may be named with or without a prefix.
    given = {"file": tmp_path / "sage.safetensors", "state": aligned, "encoder": TextEncoder.from_state(aligned),
             "transformers": text_encoder(7).state_dict()}[kind]  # fmt: skip
    before, old = draw(pipe), pipe.text_encoder
    kept = {name: value.clone() for name, value in old.state_dict().items()}
    assert to_diffusers(pipe, given) is pipe
    assert pipe.text_encoder is not old and pipe.config["text_encoder"][1] == "CLIPTextModel"
    with torch.no_grad():
        found = pipe.text_encoder(tokenize(PROMPTS)).last_hidden_state
    expected = TextEncoder.from_state(aligned)(tokenize(PROMPTS))
    assert torch.equal(found, expected.detach())
    assert torch.allclose(found.flatten(1), embed(TextEncoder.from_state(aligned), PROMPTS), atol=1e-5)
    assert not np.array_equal(draw(pipe), before)
    # What other pipelines share stays as it was.
    assert all(torch.equal(value, kept[name]) for name, value in old.state_dict().items())
    reference = text_encoder(7)
    pipe.register_modules(text_encoder=reference)
    after = draw(pipe)
    assert np.array_equal(draw(to_diffusers(pipe, given)), after)


def test_its_own_encoder_changes_nothing_and_a_saved_pipeline_holds_the_new_one(
    pipe: Any, aligned: dict, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    before = draw(pipe)
    assert np.array_equal(draw(to_diffusers(pipe, pipe.text_encoder.state_dict())), before)
    to_diffusers(pipe, aligned).save_pretrained(tmp_path / "saved")
    again = StableDiffusionPipeline.from_pretrained(tmp_path / "saved", local_files_only=True)
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(draw(again), draw(pipe)) and not np.array_equal(draw(pipe), before)


def test_precision_stays_the_pipelines(pipe: Any, aligned: dict) -> None:
    pipe.text_encoder.to(torch.bfloat16)
    found = to_diffusers(pipe, aligned).text_encoder
    assert {value.dtype for value in found.parameters()} == {torch.bfloat16}
    wanted = {name.removeprefix("text_model."): value for name, value in aligned.items()}
    for name, value in found.state_dict().items():
        if not name.endswith("position_ids"):
            assert torch.equal(value, wanted[name.removeprefix("text_model.")].bfloat16())


def refused(pipe: Any, encoder: Any, words: str) -> None:
    own = getattr(pipe, "text_encoder", None)
    with pytest.raises(EncoderError, match=words):
        to_diffusers(pipe, encoder)
    assert getattr(pipe, "text_encoder", None) is own


def test_what_does_not_fit_is_refused_and_changes_nothing(pipe: Any, aligned: dict, tmp_path: Path) -> None:
    refused(SimpleNamespace(unet=1), aligned, "A SimpleNamespace has no text encoder")
    wide = TextEncoder.from_state(text_encoder(1, width=64).state_dict()).state()
    refused(pipe, wide, r"the state does not fit the pipeline's text encoder: \d+ tensors")
    fewer = {name: value for name, value in aligned.items() if ".layers.1." not in name}
    refused(pipe, fewer, "does not fit the pipeline's text encoder: 16 tensors")
    refused(pipe, aligned | {"text_model.final_layer_norm.bias": torch.full((32,), torch.nan)}, "NaN or infinite")
    refused(pipe, tmp_path / "nothing.safetensors", "nothing.safetensors")
    pipe.text_encoder.half()
    refused(pipe, aligned | {"text_model.final_layer_norm.bias": torch.full((32,), 1e6)}, "do not fit the pipeline's")


def test_pipelines_of_other_kinds_are_refused(pipe: Any, aligned: dict, tmp_path: Path) -> None:
    own = pipe.text_encoder
    pipe.register_modules(text_encoder=text_encoder(1, activation="gelu"))
    refused(pipe, aligned, "with the activation gelu, expected CLIP's of SD 1.x")
    pipe.register_modules(text_encoder=own)
    own.final = torch.nn.Module()
    own.final.lora_A = torch.nn.Parameter(torch.ones(2))
    refused(pipe, aligned, "carries a LoRA")
    del own.final
    own._hf_hook = object()
    refused(pipe, aligned, "offloads its parts")
    del own._hf_hook
    pipe.text_encoder_2 = own
    refused(pipe, aligned, "has two text encoders, as SDXL has")
