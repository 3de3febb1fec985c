"""Images on their way to a judge: from files, PIL or ComfyUI tensors to bytes on a channel-first grid."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image

from .errors import JudgeError

ImageLike: TypeAlias = Image.Image | torch.Tensor | str | Path


def to_bytes(image: ImageLike) -> torch.Tensor:
    """One image as a uint8 tensor (3, H, W) on the CPU or, if it was a tensor, where it lies.

    A tensor is (H, W, C) with 1, 3 or 4 channels (alpha is dropped), float in 0..1 or uint8. Floats are cut to whole
    levels as ComfyUI's SaveImage cuts them, so that an image scores as the file that is saved of it.
    Raises JudgeError on any other shape or type, and if a file is no image.
    """
    if isinstance(image, str | Path):
        try:
            with Image.open(image) as opened:
                image = opened.convert("RGB")
        except OSError as error:
            raise JudgeError(f"{image}: not a readable image ({error})") from error
    if isinstance(image, Image.Image):
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise JudgeError(
            f"an image tensor has shape {tuple(image.shape)}, expected (height, width, 1, 3 or 4 channels)"
        )
    if image.dtype != torch.uint8:
        if not image.is_floating_point():
            raise JudgeError(f"an image tensor is {image.dtype}, expected floats in 0..1 or uint8")
        image = (image.float() * 255).clamp(0, 255).to(torch.uint8)
    image = image[..., :3].permute(2, 0, 1)
    return image.expand(3, -1, -1) if image.shape[0] == 1 else image


def to_pil(image: ImageLike) -> Image.Image:
    """One image as RGB PIL, by way of `to_bytes`."""
    return Image.fromarray(to_bytes(image).permute(1, 2, 0).cpu().numpy())


def all_to_bytes(images: Sequence[ImageLike]) -> list[torch.Tensor]:
    """`to_bytes` of each; files are decoded on several threads, since decoding releases the interpreter's lock."""
    if not any(isinstance(image, str | Path) for image in images):
        return [to_bytes(image) for image in images]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(to_bytes, images))


def fingerprint(image: torch.Tensor) -> str:
    """16 hex digits that name a uint8 image's size and content."""
    digest = hashlib.blake2b(repr(tuple(image.shape)).encode(), digest_size=8)
    digest.update(image.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
