"""Features of pictures, from models that lie on this machine: FID's Inception, a DINOv2 or a CLIP.

A distance of two sets of pictures is one of their features. Whose features they are and how the pictures were resized
moves it by more than most methods do, so both travel with the numbers.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..batches import in_batches
from ..errors import JudgeError, SettingsError
from ..files import ZIP_ERRORS, readable
from ..images import ImageLike, to_bytes, to_pil
from ..model_folders import load_model, loading, read_model_config, running
from .clipscore import ClipScorer, preprocess
from .inception import PUBLISHED, SIZE, WIDTH, read_inception

# How pictures come to Inception's size: as clean-fid does it, and as pytorch-fid does.
RESIZINGS = ("clean", "bilinear")
_RESIZING_WORDS = {
    "clean": "299 x 299, bicubic with antialias on floats, cut to 0..255 (as clean-fid)",
    "bilinear": "299 x 299, bilinear without antialias (as pytorch-fid)",
}
_DINO = "facebook/dinov2-large"
_CLIP = "openai/clip-vit-large-patch14-336"
_DINO_SIZE = 224
_DINO_KINDS = ("dinov2", "dinov2_with_registers")
# ImageNet's mean and deviation of each channel, by which DINOv2 normalises.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Raised when the same pictures no longer give the same features: part of what kept ones are named by.
RECIPES = {"inception": 2, "dinov2": 1, "clip": 2}
WEIGHTS = (".pt", ".pth", ".safetensors")
# What a file of a folder of pictures ends in.
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Features:
    """The features of a set of pictures.

    Attributes:
        values: (N, D) in float64, finite.
        kind: "inception", "dinov2" or "clip".
        extractor: name and content hash of the model.
        resizing: how the pictures came to the model's size, in words.
    """

    values: np.ndarray
    kind: str
    extractor: str
    resizing: str

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or not len(self.values):
            raise JudgeError(f"Features have the shape {self.values.shape}, expected (pictures, width).")
        if not np.isfinite(self.values).all():
            raise JudgeError(f"{self.extractor}: features are NaN or infinite. Use the model's own, whole weights.")

    @property
    def count(self) -> int:
        """Number of pictures."""
        return len(self.values)


class Extractor:
    """A model that turns pictures into features; batches halve when memory runs out.

    Args:
        kind: "inception", "dinov2" or "clip".
        name: what reports call it.
        resizing: in words.
        model: a module whose device says where the pixels go.
        prepare: a picture to its (3, height, width) pixels.
        compute: (B, 3, height, width) pixels to (B, D) features.
    """

    per_batch = 32

    def __init__(
        self,
        kind: str,
        name: str,
        resizing: str,
        model: torch.nn.Module,
        prepare: Callable[[ImageLike], Tensor],
        compute: Callable[[Tensor], Tensor],
    ) -> None:
        self.kind, self.name, self.resizing = kind, name, resizing
        self.model = model
        self._prepare, self._compute = prepare, compute

    def embed(self, images: Sequence[ImageLike], on_batch: Callable[[int], None] | None = None) -> Features:
        """The pictures' features; `on_batch(n)` is told of n more finished pictures.

        Raises:
            JudgeError: there is no picture, one cannot be read, or the model fails or gives no finite vectors.
        """
        if not len(images):
            raise JudgeError("There are no pictures to compare; expected two or more.")

        def embed(batch: Sequence[ImageLike]) -> list[Tensor]:
            found = list(self._embed(batch))
            if on_batch is not None:
                on_batch(len(batch))
            return found

        rows, self.per_batch = in_batches(embed, images, self.per_batch)
        return Features(torch.stack(rows).double().numpy(), self.kind, self.name, self.resizing)

    @torch.inference_mode()
    def _embed(self, batch: Sequence[ImageLike]) -> Tensor:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        device = tensors[0].device if tensors else torch.device("cpu")
        pixels = torch.stack([self._prepare(image) for image in batch]).to(device)
        # TensorFloat-32 keeps 10 bits of a product, which would move a distance with the graphics card.
        with running(self.name), torch.backends.cudnn.flags(allow_tf32=False):
            found = self._compute(pixels)
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(batch):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise JudgeError(f"{self.name} gave {shape} for {len(batch)} pictures, expected a vector for each.")
        return found.float().cpu()


def load_extractor(
    path: str | Path, *, resizing: str = "clean", device: str | torch.device = "cpu", trusted: bool = False
) -> Extractor:
    """The extractor in a file or folder.

    A file is FID's Inception: a state dict (.pth, .pt or .safetensors, the one of pytorch-fid and torch-fidelity), or a
    TorchScript. A folder is a DINOv2 or a CLIP of transformers.

    Args:
        path: the model.
        resizing: one of RESIZINGS, for Inception alone; the others have one way each.
        device: where to compute.
        trusted: whether a TorchScript, which is a program, may be run.

    Raises:
        JudgeError: there is no such model, or it is another one, such as torchvision's Inception.
        SettingsError: the resizing is unknown.
    """
    path = Path(path)
    if resizing not in RESIZINGS:
        raise SettingsError(f"resizing is {resizing!r}; expected one of {', '.join(RESIZINGS)}.")
    kind, _ = described(path, trusted=trusted)
    if kind == "inception":
        return _inception(path, resizing, device)
    return (_clip if kind == "clip" else _dino)(path, device)


def described(path: str | Path, *, trusted: bool = False) -> tuple[str, int]:
    """Kind and width of a model's features, as far as they are known without loading it.

    Raises:
        JudgeError: there is no such model, or a TorchScript that is not `trusted`.
    """
    path = Path(path)
    if path.is_dir():
        config = read_model_config(path, "picture", [_DINO, _CLIP])
        kind = config.get("model_type")
        # Configurations leave out what is transformers' default.
        if kind == "clip":
            return "clip", int(config.get("projection_dim", 512))
        if kind in _DINO_KINDS:
            return "dinov2", int(config.get("hidden_size", 768))
        raise JudgeError(
            f"{path}: config.json is of a {kind!r} model, expected 'dinov2' ({_DINO}) or 'clip' ({_CLIP})."
        )
    if not path.is_file() or path.suffix.lower() not in WEIGHTS:
        raise JudgeError(
            f"{path}: no model here, expected FID's Inception ({PUBLISHED}, or inception-2015-12-05.pt), or a folder "
            f"of {_DINO} or {_CLIP}, for instance from 'hf download {_DINO} --local-dir {path}'."
        )
    if _is_torchscript(path) and not trusted:
        raise JudgeError(
            f"{path} is a TorchScript, a program that this machine would run. If you trust where it comes from, "
            f"say so; or use the state dict {PUBLISHED}, which is data alone."
        )
    return "inception", WIDTH


def pictures_in(folder: str | Path, take: int = 0) -> list[Path]:
    """The picture files of a folder in the order of their names, the first `take` of them unless it is 0.

    Raises:
        JudgeError: it is no folder, or it holds no picture, or fewer than `take`.
    """
    folder = Path(folder)
    with readable(folder, JudgeError):
        if not folder.is_dir():
            raise JudgeError(f"{folder} is no folder. Give a folder of pictures, or statistics in an .npz file.")
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)
    if not found or len(found) < take:
        wanted = f"{take:,} or more" if take else "one or more"
        raise JudgeError(f"{folder} holds {len(found):,} pictures ({', '.join(_PICTURES)}), expected {wanted}.")
    return found[:take] if take else found


def to_inception_size(image: ImageLike, resizing: str) -> Tensor:
    """(3, 299, 299) pixels of 0..255; bicubic overshoots at edges, by up to 40, and is cut as in clean-fid."""
    if resizing == "clean":
        picture = np.asarray(to_pil(image), dtype=np.float32)
        channels = [
            np.asarray(Image.fromarray(picture[..., place]).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
            for place in range(3)
        ]
        return torch.from_numpy(np.stack(channels)).clamp(0, 255)
    pixels = to_bytes(image).cpu().float()[None] / 255
    resized = torch.nn.functional.interpolate(pixels, (SIZE, SIZE), mode="bilinear", align_corners=False)[0]
    # pytorch-fid hands over 2 x - 1, the network takes (pixels - 128) / 128.
    return resized * 256


def _inception(path: Path, resizing: str, device: str | torch.device) -> Extractor:
    model: Any
    if _is_torchscript(path):
        model, compute = _torchscript(path, device)
    else:
        model = compute = read_inception(path).to(device)
    name = f"Inception, {path.name}, {_fingerprint(model)}"
    return Extractor(
        "inception", name, _RESIZING_WORDS[resizing], model, lambda image: to_inception_size(image, resizing), compute
    )


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except ZIP_ERRORS:
        return False


def _torchscript(path: Path, device: str | torch.device) -> tuple[Any, Callable[[Tensor], Tensor]]:
    """A TorchScript and how to call it: the published one gives classes unless features are asked for."""
    with loading(path, "a TorchScript"):
        model = torch.jit.load(str(path), map_location=device).eval()
        names = [argument.name for argument in model.forward.schema.arguments]
    if "return_features" in names:
        return model, lambda pixels: model(pixels, return_features=True)
    return model, lambda pixels: model(pixels)


def _dino(folder: Path, device: str | torch.device) -> Extractor:
    from transformers import AutoModel

    with loading(folder, "a DINOv2"):
        # Only its pre-training has a use for the token that stands for hidden patches.
        model = load_model(AutoModel, folder, torch.float32).to(device).eval()
    name = f"DINOv2, {folder.name}, {_fingerprint(model)}"
    resizing = f"{_DINO_SIZE} x {_DINO_SIZE}, bicubic on bytes (PIL), normalised by ImageNet"
    return Extractor(
        "dinov2", name, resizing, model, _to_dino, lambda pixels: model(pixel_values=pixels).last_hidden_state[:, 0]
    )


def _to_dino(image: ImageLike) -> Tensor:
    picture = to_pil(image).resize((_DINO_SIZE, _DINO_SIZE), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_DEVIATION)[:, None, None]


def _clip(folder: Path, device: str | torch.device) -> Extractor:
    scorer = ClipScorer.from_file(folder, device=device)
    vision: Any = scorer.model
    size = vision.config.vision_config.image_size

    def compute(pixels: Tensor) -> Tensor:
        pooled = vision.vision_model(pixel_values=pixels).pooler_output
        return torch.nn.functional.normalize(vision.visual_projection(pooled).float(), dim=-1)

    name = f"CLIP, {folder.name}, {_fingerprint(vision)}"
    resizing = f"the central square to {size} x {size}, bicubic on bytes (PIL)"
    return Extractor("clip", name, resizing, vision, lambda image: preprocess(central_square(image), size), compute)


def central_square(image: ImageLike) -> Image.Image:
    """The largest square in a picture's middle: CMMD cuts it out before it resizes, and CLIP's own processor after."""
    picture = to_pil(image)
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    return picture.crop((left, top, left + side, top + side))


def _fingerprint(model: torch.nn.Module) -> str:
    """12 hex digits that name a model's weights."""
    digest = hashlib.blake2b(digest_size=6)
    state: Mapping[str, Tensor] = model.state_dict()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
