"""Features against the libraries' own models and plain resizing; wrong models are told apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sage_core.errors import JudgeError, SettingsError
from sage_core.scores.features import Features, load_extractor, to_inception_size
from sage_core.scores.inception import Inception, read_inception
from small_worlds import tiny_clip


def pictures() -> list[Image.Image]:
    generator = torch.Generator().manual_seed(1)
    return [
        Image.fromarray(torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8).numpy())
        for width, height in ((30, 44), (299, 299), (410, 70))
    ]


# The middle of each of them.
SQUARES = ((0, 7, 30, 37), (0, 0, 299, 299), (170, 0, 240, 70))


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Random weights of FID's Inception, whose activations neither vanish nor grow."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in Inception().state_dict().items()}
    found = {}
    for name, shape in shapes.items():
        if name.endswith("conv.weight"):
            found[name] = torch.randn(shape, generator=generator) * (2 / np.prod(shape[1:])) ** 0.5
        elif name.endswith("running_var"):
            found[name] = torch.rand(shape, generator=generator) + 0.5
        elif not name.endswith("num_batches_tracked"):
            found[name] = torch.randn(shape, generator=generator) * 0.1 + name.endswith("bn.weight")
    return found | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}


@pytest.fixture(scope="module")
def inception(state, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "pt_inception.pth"
    torch.save(state, path)
    return path


def test_inception_is_torchvisions_layers_with_fids_pools(state, inception, monkeypatch) -> None:
    models = pytest.importorskip("torchvision.models.inception", reason="torchvision is not installed")
    functional = torch.nn.functional
    average = functional.avg_pool2d

    def without_border(x, kernel_size, stride, padding):
        # The last block, the only one of 2,048 channels, takes a maximum.
        if x.shape[1] == 2048:
            return functional.max_pool2d(x, kernel_size, stride, padding)
        return average(x, kernel_size, stride, padding, count_include_pad=False)

    theirs = models.Inception3(num_classes=1008, aux_logits=False, transform_input=False, init_weights=False).eval()
    theirs.load_state_dict(state, strict=False)
    theirs.fc = torch.nn.Identity()
    pixels = torch.rand(2, 3, 299, 299, generator=torch.Generator().manual_seed(3)) * 255
    with torch.no_grad():
        ours = read_inception(inception)(pixels)
        plain = theirs((pixels - 128) / 128)
        monkeypatch.setattr(models.F, "avg_pool2d", without_border)
        expected = theirs((pixels - 128) / 128)
    assert ours.shape == (2, 2048) and expected.std() > 0.01
    assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    # torchvision's own pools give something else: the test could not pass by chance.
    assert (plain - expected).abs().max() > 0.01 * expected.abs().max()


def test_a_state_dict_gives_features_with_name_and_resizing(state, inception) -> None:
    done: list[int] = []
    extractor = load_extractor(inception)
    found = extractor.embed(pictures()[:2], done.append)
    assert found.values.shape == (2, 2048) and found.values.dtype == np.float64 and sum(done) == 2
    assert found.kind == "inception" and found.extractor.startswith("Inception, pt_inception.pth, ")
    assert "as clean-fid" in found.resizing
    other = load_extractor(inception, resizing="bilinear")
    assert "as pytorch-fid" in other.resizing and other.name == extractor.name
    network = read_inception(inception)
    with torch.no_grad():
        expected = [network(to_inception_size(picture, "clean")[None])[0] for picture in pictures()[:2]]
    assert np.allclose(found.values, torch.stack(expected).double(), rtol=1e-4, atol=1e-5)


def test_clean_resizing_is_bicubic_on_floats_channel_by_channel() -> None:
    for picture in pictures():
        found = to_inception_size(picture, "clean")
        assert found.shape == (3, 299, 299) and found.dtype == torch.float32
        for place, channel in enumerate(picture.split()):
            scaled = channel.convert("F").resize((299, 299), Image.Resampling.BICUBIC)
            assert np.array_equal(found[place].numpy(), np.asarray(scaled).clip(0, 255))
    # Floats, which are not rounded, and cut after all: at an edge bicubic goes past black and white.
    edge = Image.fromarray(np.repeat(np.array([[0] * 32 + [255] * 32], np.uint8), 64, 0)).convert("RGB")
    found = to_inception_size(edge, "clean")
    assert (found.min(), found.max()) == (0, 255) and (found % 1).any()
    past = np.asarray(edge.split()[0].convert("F").resize((299, 299), Image.Resampling.BICUBIC))
    assert past.max() > 265 and past.min() < -10


def test_bilinear_resizing_is_pytorch_fids_by_hand() -> None:
    picture = pictures()[0]
    values = np.asarray(picture, dtype=np.float64) / 255
    height, width = values.shape[:2]

    def weights(size: int) -> np.ndarray:
        found = np.zeros((299, size))
        for row in range(299):
            place = max((row + 0.5) * size / 299 - 0.5, 0)
            low = min(int(place), size - 1)
            found[row, low] += 1 - (place - low)
            found[row, min(low + 1, size - 1)] += place - low
        return found

    expected = np.einsum("ah,hwc,bw->cab", weights(height), values, weights(width))
    # What the network makes of it, (x - 128) / 128, is their 2 x - 1.
    found = (to_inception_size(picture, "bilinear").double().numpy() - 128) / 128
    assert np.abs(found - (2 * expected - 1)).max() < 1e-5


def test_torchvisions_inception_and_other_files_are_refused(state, tmp_path) -> None:
    # A part is enough where the rest would not be looked at, and saves 95 MB.
    part = {name: value for name, value in state.items() if "_1a_" in name}
    wrong = {
        "torchvision": (part | {"fc.weight": torch.zeros(1000, 2048)}, "1,000 classes, expected FID's.*torchvision's"),
        "cut": (part, "of its 470 tensors are missing"),
        "more": (part | {"head.weight": torch.zeros(3)}, r"1 are foreign \(head.weight\)"),
        "shape": (state | {"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 1, 3, 3)}, r"1 of its 470.*Conv2d_1a_3x3.conv"),
        "nan": (state | {"Mixed_7c.branch1x1.bn.bias": torch.full((320,), torch.nan)}, "NaN or infinite"),
        "list": ([1, 2], "holds no state dict"),
    }
    for name, (content, words) in wrong.items():
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(JudgeError, match=words) as refused:
            load_extractor(tmp_path / f"{name}.pth")
        assert f"{name}.pth" in str(refused.value)
    (tmp_path / "words.pth").write_text("words")
    (tmp_path / "words.safetensors").write_text("words")
    for name in ("words.pth", "words.safetensors"):
        with pytest.raises(JudgeError, match=name):
            load_extractor(tmp_path / name)
    with pytest.raises(JudgeError, match=r"no model here, expected FID's Inception"):
        load_extractor(tmp_path / "nothing")
    with pytest.raises(SettingsError, match="resizing is 'nearest'"):
        load_extractor(tmp_path / "words.pth", resizing="nearest")


class Means(torch.nn.Module):
    """Stands for the published TorchScript, which gives classes unless features are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        means = img.mean((2, 3)) * self.weight
        return means if return_features else means[:, :1]


def test_a_torchscript_is_run_only_if_it_is_trusted_and_asked_for_features(tmp_path) -> None:
    path = tmp_path / "inception-2015-12-05.pt"
    torch.jit.script(Means()).save(str(path))
    with pytest.raises(JudgeError, match="a TorchScript, a program that this machine would run"):
        load_extractor(path)
    found = load_extractor(path, trusted=True).embed(pictures())
    expected = [to_inception_size(picture, "clean").double().mean((1, 2)).numpy() for picture in pictures()]
    assert np.allclose(found.values, expected, rtol=1e-5)

    class Plain(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.sum()

    torch.jit.script(Plain()).save(str(path))
    with pytest.raises(JudgeError, match=r"gave \(\) for 3 pictures, expected a vector for each"):
        load_extractor(path, trusted=True).embed(pictures())


@pytest.fixture(scope="module")
def dino(tmp_path_factory) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 518, "patch_size": 14}
    folder = tmp_path_factory.mktemp("dino")
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(folder)
    return folder


def test_dinov2_gives_its_class_token_of_224_pixels(dino: Path) -> None:
    from transformers import Dinov2Model

    extractor = load_extractor(dino)
    found = extractor.embed(pictures())
    model = Dinov2Model.from_pretrained(dino).eval()
    for row, picture in zip(found.values, pictures(), strict=True):
        pixels = np.asarray(picture.resize((224, 224), Image.Resampling.BICUBIC), dtype=np.float64) / 255
        pixels = (pixels - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        with torch.no_grad():
            expected = model(pixel_values=torch.tensor(pixels).permute(2, 0, 1)[None].float()).pooler_output[0]
        assert np.allclose(row, expected.double(), atol=1e-5)
    assert found.kind == "dinov2" and "224 x 224, bicubic" in found.resizing
    extractor.per_batch = 1
    assert np.allclose(extractor.embed(pictures()).values, found.values, atol=1e-6)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


def test_clip_gives_embeddings_of_length_1(clip: Path) -> None:
    from sage_core.scores.clipscore import ClipScorer

    found = load_extractor(clip).embed(pictures())
    # As CMMD is published: the square in the middle is cut out first, then resized.
    scorer = ClipScorer.from_file(clip)
    squares = [picture.crop(box) for picture, box in zip(pictures(), SQUARES, strict=True)]
    assert np.allclose(found.values, scorer.embed_images(squares).double(), atol=1e-6)
    assert not np.allclose(found.values, scorer.embed_images(pictures()).double(), atol=1e-4)
    assert np.allclose(np.linalg.norm(found.values, axis=1), 1, atol=1e-6)
    assert found.kind == "clip" and "the central square to 28 x 28" in found.resizing


def test_models_with_other_weights_have_other_names(clip: Path, dino: Path, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(dino, tmp_path / dino.name)
    assert load_extractor(tmp_path / dino.name).name == load_extractor(dino).name
    weights = load_file(dino / "model.safetensors")
    weights["embeddings.cls_token"] += 1
    save_file(weights, tmp_path / dino.name / "model.safetensors", metadata={"format": "pt"})
    assert load_extractor(tmp_path / dino.name).name != load_extractor(dino).name


def test_folders_of_other_models_and_no_pictures_are_refused(clip: Path, tmp_path) -> None:
    shutil.copytree(clip, tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(JudgeError, match="of a 'vit' model, expected 'dinov2'"):
        load_extractor(tmp_path / "other")
    with pytest.raises(JudgeError, match="There are no pictures"):
        load_extractor(clip).embed([])
    with pytest.raises(JudgeError, match=r"expected \(pictures, width\)"):
        Features(np.zeros(3), "clip", "x", "y")
