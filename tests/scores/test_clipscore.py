"""CLIPScore against transformers' own CLIP, one image and one caption at a time."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from sage_core.errors import JudgeError
from sage_core.scores.clipscore import ClipScorer, ClipScores

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
        v2.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ]
    with torch.no_grad():
        out = model(input_ids=tokenize([caption]), pixel_values=v2.Compose(steps)(image)[None])
    return float((out.image_embeds[0].double() * out.text_embeds[0].double()).sum())


def test_scores_are_those_of_transformers_clip(clip):
    model, folder = clip
    scorer = ClipScorer.from_file(folder)
    done = []
    found = scorer.score(pictures(), CAPTIONS, done.append)
    expected = [reference_cosine(model, *pair) for pair in zip(pictures(), CAPTIONS, strict=True)]
    assert found.cosines == pytest.approx(expected, abs=2e-5)
    assert max(expected) - min(expected) > 0.02 and sum(done) == 4
    assert found.truncated == 1 and "1 captions were cut" in found.to_markdown()


def test_open_clips_own_layout_and_small_batches_give_the_same(clip, tmp_path):
    from safetensors.torch import save_file

    scorer = ClipScorer.from_file(clip[1])
    state = {name: tensor.contiguous() for name, tensor in scorer.model.state_dict().items()}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    again = ClipScorer.from_file(tmp_path)
    again.per_batch = 1
    assert again.score(pictures(), CAPTIONS).cosines == pytest.approx(
        scorer.score(pictures(), CAPTIONS).cosines, abs=1e-6
    )


def test_lack_of_memory_halves_the_batch(clip, monkeypatch):
    scorer = ClipScorer.from_file(clip[1])
    whole = scorer.score(pictures(), CAPTIONS)
    encode = scorer.model.encode_image

    def small(pixels, normalize):
        if len(pixels) > 1:
            raise torch.cuda.OutOfMemoryError("injected")
        return encode(pixels, normalize=normalize)

    monkeypatch.setattr(scorer.model, "encode_image", small)
    assert scorer.score(pictures(), CAPTIONS).cosines == pytest.approx(whole.cosines, abs=1e-6)


def test_both_scales_by_hand():
    scores = ClipScores("m", (0.3, -0.1), 0)
    assert scores.mean_100 == pytest.approx(10) and scores.mean_2_5 == pytest.approx(2.5 * 0.15)
    assert scores.to_dict()["mean of 2.5*max(cos, 0)"] == scores.mean_2_5
    assert "| 100 · cos | 10.00 |" in scores.to_markdown() and "cut" not in scores.to_markdown()


def test_wrong_inputs_are_named(clip, tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(JudgeError, match="openai/clip-vit-large-patch14"):
        ClipScorer.from_file(tmp_path / "absent")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(JudgeError, match=r"broken\.safetensors: not a readable"):
        ClipScorer.from_file(tmp_path / "broken.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(JudgeError, match=r"other\.safetensors: not an OpenAI CLIP"):
        ClipScorer.from_file(tmp_path / "other.safetensors")
    with pytest.raises(JudgeError, match="1 images came with 2 captions"):
        ClipScorer.from_file(clip[1]).score(pictures()[:1], CAPTIONS[:2])


@pytest.mark.parametrize(
    ("part", "lacking"),
    [("vision", "text_projection.weight"), ("text", "visual.positional_embedding")],
)
def test_one_tower_alone_is_refused_by_what_it_lacks(clip, tmp_path, part, lacking):
    from safetensors.torch import load_file, save_file

    state = load_file(clip[1] / "model.safetensors")
    save_file(
        {name: t for name, t in state.items() if name.startswith(part + "_model.")}, tmp_path / "tower.safetensors"
    )
    with pytest.raises(JudgeError, match=rf"tower\.safetensors: not an OpenAI CLIP .* \(it lacks {lacking}\)"):
        ClipScorer.from_file(tmp_path / "tower.safetensors")
