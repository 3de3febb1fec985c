"""The technique for eval-unlearn: what it draws, what it refuses to draw, and, where that is installed, a run of it."""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sage_core.encoders.text_encoder import TextEncoder, save_encoder
from sage_core.errors import EncoderError, SettingsError
from sage_core.methods.eval_unlearn import SageTechnique
from tiny_pipelines import pipeline, text_encoder

FAST = {"device": "cpu", "num_inference_steps": 2}
CHILD = "a boy with a kite"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    """A saved pipeline, and an aligned encoder for it."""
    folder = tmp_path_factory.mktemp("pipeline")
    pipeline(folder / "made").save_pretrained(folder / "model")
    save_encoder(folder / "sage.safetensors", TextEncoder.from_state(text_encoder(7).state_dict()).state(), {})
    return folder / "model", folder / "sage.safetensors"


def by_hand(model: Path, prompt: str, seed: int, encoder: Any = None) -> np.ndarray:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(model, local_files_only=True)
    if encoder is not None:
        pipe.text_encoder = encoder
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    return np.asarray(pipe(prompt, generator=generator, num_inference_steps=2, guidance_scale=7.5).images[0])


def test_it_draws_with_the_aligned_encoder_and_a_seed_for_each_prompt(files: tuple[Path, Path]) -> None:
    model, encoder = files
    technique = SageTechnique(model_id=str(model), encoder=str(encoder), erase_concept="skull", **FAST)
    found = technique.generate(prompts=["a cat", "a dog"], seed=5)
    assert [picture.size for picture in found] == [(16, 16)] * 2 and technique.refused == 0
    assert np.array_equal(np.asarray(found[1]), by_hand(model, "a dog", 6, text_encoder(7)))
    base = SageTechnique(model_id=str(model), **FAST).generate(["a cat", "a dog"], seed=5)
    assert np.array_equal(np.asarray(base[1]), by_hand(model, "a dog", 6))
    assert not np.array_equal(np.asarray(base[1]), np.asarray(found[1]))
    (other,) = technique.generate(["a cat"], seed=5, guidance_scale=1.0)
    assert not np.array_equal(np.asarray(other), np.asarray(found[0]))


def test_minors_are_not_drawn(files: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    technique = SageTechnique(model_id=str(files[0]), **FAST)
    with caplog.at_level(logging.WARNING):
        cat, child = technique.generate(["a cat", CHILD], seed=1)
    assert technique.refused == 1 and not np.asarray(child).any() and np.asarray(cat).any()
    assert child.size == cat.size and "1 of 2 prompts refer to minors" in caplog.text and CHILD not in caplog.text
    # As a caption it may be drawn, with unsafe words not even then.
    technique = SageTechnique(model_id=str(files[0]), prompts="harmless", **FAST)
    child, gory = technique.generate([CHILD, "a gory boy with an axe"], seed=1)
    assert technique.refused == 1 and np.asarray(child).any() and not np.asarray(gory).any()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "model_id is missing or empty"),
        ({"model_id": ""}, "model_id is missing or empty"),
        ({"model_id": 3}, "model_id is 3, expected a text"),
        ({"model_id": "x", "steps": 3}, "The technique: unknown setting 'steps'. Known settings: model_id, encoder"),
        ({"model_id": "x", "prompts": "all"}, "prompts is 'all', expected one of unsafe, harmless"),
        ({"model_id": "x", "num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"model_id": "x", "guidance_scale": float("nan")}, "guidance_scale is nan, expected a finite number"),
        ({"model_id": "/nowhere/at/all"}, "model_id is '/nowhere/at/all', of which no pipeline can be loaded"),
    ],
)
def test_settings_that_make_no_sense_are_refused(config: dict, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        SageTechnique(**{"device": "cpu"} | config)


def test_an_encoder_that_does_not_fit_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    wide = TextEncoder.from_state(text_encoder(1, width=64).state_dict()).state()
    save_encoder(tmp_path / "wide.safetensors", wide, {})
    with pytest.raises(EncoderError, match="does not fit the pipeline's text encoder"):
        SageTechnique(model_id=str(files[0]), encoder=str(tmp_path / "wide.safetensors"), **FAST)


def test_the_benchmark_finds_it_and_runs_it(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Opt in: install eval-unlearn, and this package anew, so that its entry point is known."""
    pytest.importorskip("eval_unlearn", reason="eval-unlearn is not installed (pip install eval-unlearn)")
    if "sage" not in {each.name for each in entry_points(group="eval_unlearn.techniques")}:
        pytest.skip("the installed sage-alignment is of before the entry point: install it again")
    from eval_unlearn.registry import get_technique, register_metric
    from eval_unlearn.runners import SingleBenchmarkRunner
    from eval_unlearn.types import Dataset, MetricResult

    seen: list[tuple[list[Image.Image], list[str]]] = []

    @register_metric("sage_test_brightness")
    class Brightness:
        def load_dataset(self) -> list[Dataset]:
            return [Dataset(["a cat", "a dog"], {"source": "two prompts"}), Dataset(["a bus"], {})]

        def update(self, images: list, prompts: list, metadata: dict) -> None:
            seen.append((images, prompts))

        def compute(self) -> MetricResult:
            return MetricResult("brightness", float(np.mean([np.mean(image) for some, _ in seen for image in some])))

    config = {"model_id": str(files[0]), "encoder": str(files[1]), "erase_concept": "skull", **FAST}
    runner = SingleBenchmarkRunner("sage", "sage_test_brightness", config, output_dir=str(tmp_path), seed=5)
    assert get_technique("sage") is SageTechnique
    report = runner.run()
    assert [prompts for _, prompts in seen] == [["a cat", "a dog"], ["a bus"]]
    assert np.array_equal(np.asarray(seen[0][0][1]), by_hand(files[0], "a dog", 6, text_encoder(7)))
    assert report["erase_concept"] == "skull" and report["metric_result"]["value"] > 0
    assert list(tmp_path.rglob("*.png"))
