"""CLIPScore against transformers' own CLIP, one image and one caption at a time."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from sage_core.errors import JudgeError
from sage_core.scores.clipscore import ClipScorer, ClipScores, preprocess

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
OPEN_CLIP = (0.04795254394412041, -0.3376239240169525, 0.2775774300098419)
CAPTIONS = ["two dogs left of a red bus", "a cat", "two dogs left of a red bus", "very " * 90 + "long"]


def pictures() -> list[Image.Image]:
    generator = torch.Generator().manual_seed(1)
    sizes = [(30, 44), (64, 64), (28, 28), (50, 33)]
    return [
        Image.fromarray(torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8).numpy())
        for width, height in sizes
    ]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1}
    config = CLIPConfig(
        text_config={**sizes, "eos_token_id": 49407},
        vision_config={**sizes, "image_size": 28, "patch_size": 14},
        projection_dim=16,
    )
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "token_embedding" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    return model, folder


def reference_cosine(model, image: Image.Image, caption: str) -> float:
    from torchvision.transforms import v2

    from sage_core.encoders.tokens import tokenize

    steps = [
        v2.Resize(28, interpolation=v2.InterpolationMode.BICUBIC),
        v2.CenterCrop(28),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, DEVIATION),
    ]
    with torch.no_grad():
        out = model(input_ids=tokenize([caption]), pixel_values=v2.Compose(steps)(image)[None])
    return float((out.image_embeds[0].double() * out.text_embeds[0].double()).sum())


@pytest.mark.parametrize("size", [(28, 28), (30, 44), (91, 28), (50, 333), (29, 57), (224, 225)])
def test_pictures_are_prepared_as_clips_processor_does(size):
    import numpy as np
    from PIL.Image import Resampling

    pixels = torch.randint(0, 256, (*size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    picture = Image.fromarray(pixels)
    # Its documented steps with PIL alone, in float64.
    height, width = size
    scaled = (28, int(28 * height / width)) if width <= height else (int(28 * width / height), 28)
    resized = np.asarray(picture.resize(scaled, Resampling.BICUBIC), dtype=np.float64)
    top, left = (resized.shape[0] - 28) // 2, (resized.shape[1] - 28) // 2
    expected = (resized[top : top + 28, left : left + 28] / 255 - MEAN) / DEVIATION
    assert np.abs(preprocess(picture, 28).permute(1, 2, 0).numpy() - expected).max() < 1e-6
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    theirs = processor(picture, return_tensors="pt").pixel_values[0]
    # A level of 255 at most, where theirs resizes with torchvision.
    assert (preprocess(picture, 28) - theirs).abs().max() < 1.01 / 255 / min(DEVIATION)


def test_scores_are_those_of_transformers_clip(clip):
    model, folder = clip
    scorer = ClipScorer.from_file(folder)
    done = []
    found = scorer.score(pictures(), CAPTIONS, done.append)
    expected = [reference_cosine(model, *pair) for pair in zip(pictures(), CAPTIONS, strict=True)]
    assert found.cosines == pytest.approx(expected, abs=2e-5)
    assert max(expected) - min(expected) > 0.02 and sum(done) == 4
    assert found.truncated == 1 and "1 captions were cut" in found.to_markdown()


def test_scores_are_those_of_open_clips_implementation(clip):
    """Measured with the same weights in open_clip, on the square pictures, when CLIPScore ran there."""
    square = [pictures()[1], pictures()[2], pictures()[1]]
    found = ClipScorer.from_file(clip[1]).score(square, [CAPTIONS[0], CAPTIONS[1], CAPTIONS[3]]).cosines
    assert found == pytest.approx(OPEN_CLIP, abs=2e-6)


def test_small_batches_give_the_same(clip):
    scorer, again = ClipScorer.from_file(clip[1]), ClipScorer.from_file(clip[1] / "model.safetensors")
    again.per_batch = 1
    assert again.score(pictures(), CAPTIONS).cosines == pytest.approx(
        scorer.score(pictures(), CAPTIONS).cosines, abs=1e-6
    )


def test_lack_of_memory_halves_the_batch(clip, monkeypatch):
    scorer = ClipScorer.from_file(clip[1])
    whole = scorer.score(pictures(), CAPTIONS)
    forward = scorer.model.vision_model.forward

    def small(pixel_values):
        if len(pixel_values) > 1:
            raise torch.cuda.OutOfMemoryError("injected")
        return forward(pixel_values=pixel_values)

    monkeypatch.setattr(scorer.model.vision_model, "forward", small)
    assert scorer.score(pictures(), CAPTIONS).cosines == pytest.approx(whole.cosines, abs=1e-6)


def test_both_scales_by_hand():
    scores = ClipScores("m", (0.3, -0.1), 0)
    assert scores.mean_100 == pytest.approx(10) and scores.mean_2_5 == pytest.approx(2.5 * 0.15)
    assert scores.to_dict()["mean of 2.5*max(cos, 0)"] == scores.mean_2_5
    assert "| 100 · cos | 10.00 |" in scores.to_markdown() and "cut" not in scores.to_markdown()


def copy_of(folder, tmp_path, weights=None, **config):
    """A folder of that model with other weights or another config."""
    import json
    import shutil

    from safetensors.torch import load_file, save_file

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    known = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**known, **config}))
    state = load_file(folder / "model.safetensors")
    save_file(state if weights is None else weights(state), copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def test_wrong_inputs_are_named(clip, tmp_path):
    with pytest.raises(
        JudgeError, match=r"absent: no CLIP model here.*openai/clip-vit-large-patch14 config\.json model"
    ):
        ClipScorer.from_file(tmp_path / "absent")
    with pytest.raises(JudgeError, match="is of a 'blip' model, expected 'clip'"):
        ClipScorer.from_file(copy_of(clip[1], tmp_path, model_type="blip"))
    (tmp_path / "copy" / "config.json").write_text((clip[1] / "config.json").read_text())
    (tmp_path / "copy" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(JudgeError, match="damaged or cut short"):
        ClipScorer.from_file(tmp_path / "copy")
    with pytest.raises(JudgeError, match="1 images came with 2 captions"):
        ClipScorer.from_file(clip[1]).score(pictures()[:1], CAPTIONS[:2])


@pytest.mark.parametrize("part", ["vision", "text"])
def test_one_tower_alone_is_refused(clip, tmp_path, part):
    folder = copy_of(
        clip[1], tmp_path, lambda state: {n: t for n, t in state.items() if n.startswith(part + "_model.")}
    )
    with pytest.raises(JudgeError, match=r"its weights are not those of its model: \d+ missing"):
        ClipScorer.from_file(folder)


def test_weights_that_are_not_finite_are_refused(clip, tmp_path):
    folder = copy_of(clip[1], tmp_path, lambda state: {**state, "logit_scale": torch.tensor(float("nan"))})
    with pytest.raises(JudgeError, match="NaN or infinite"):
        ClipScorer.from_file(folder)
