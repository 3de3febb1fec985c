"""Pictures on their way to a judge: from files, PIL or ComfyUI tensors to bytes on a channel-first grid."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps

from .errors import JudgeError
from .files import readable

ImageLike: TypeAlias = Image.Image | torch.Tensor | np.ndarray | str | Path

# PIL tells formats by content and knows some that run interpreters; pictures to be judged come in these.
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
# PIL's own limit, which some programs switch off; with all that a conversion keeps it is 1.4 GB in RGB.
_MOST_PIXELS = 178_956_970
_TIFF_BITS, _TIFF_SAMPLE_FORMAT, _TIFF_SIGNED = 258, 339, 2
# Sharpening and resizing make floats overshoot 0..1. Up to here they count as that; above, the scale is another one.
_MOST_OVERSHOOT = 2.0


def open_picture(path: str | Path) -> Image.Image:
    """A picture file as it is meant to be seen: RGB, 8 bits, upright, the first frame, on white where transparent.

    Reads PNG, JPEG, WebP, TIFF, BMP and GIF, told by content, not by name. Grey pictures of 16 or 32 bits are scaled
    from their full range, floats from 0..1.

    Raises:
        JudgeError: there is no such file, or it has another format, is damaged, cut short or too large.
    """
    with readable(path, JudgeError):
        found = Path(path).is_file()
    if not found:
        raise JudgeError(f"{path} is not a picture file: it does not exist, or it is not a file. Check the name.")
    try:
        with Image.open(path, formats=_FORMATS) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise JudgeError(
                    f"{path} has {opened.width} x {opened.height} pixels, expected {_MOST_PIXELS:,} at most. Scale it "
                    "down."
                )
            return _to_rgb(opened)
    except JudgeError as error:
        raise JudgeError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error.__cause__
    except MemoryError as error:
        raise JudgeError(f"{path} does not fit into memory. Scale it down, or free memory.") from error
    except Exception as error:
        # PIL's readers fail in any way on damaged files: OSError, SyntaxError, struct.error and more.
        raise JudgeError(
            f"{path} is not a readable picture ({error}); expected PNG, JPEG, WebP, TIFF, BMP or GIF. It may be cut "
            "short: make or download it again."
        ) from error


def to_bytes(image: ImageLike) -> torch.Tensor:
    """One image as a uint8 tensor (3, H, W) on the CPU or, if it was a tensor, where it lies.

    A tensor or array is (H, W, C) with 1, 3 or 4 channels (alpha is dropped), float in 0..1 or uint8. Floats are cut
    to whole levels as ComfyUI's SaveImage cuts them, so that an image scores as the file that is saved of it.

    Raises:
        JudgeError: any other shape or type, values that are NaN or infinite, or a file that `open_picture` refuses.
    """
    if isinstance(image, str | Path):
        image = open_picture(image)
    elif isinstance(image, Image.Image):
        image = _loaded(image)
    if isinstance(image, Image.Image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if isinstance(image, np.ndarray):
        image = _array(image)
    if not isinstance(image, torch.Tensor) or image.layout != torch.strided or image.is_meta:
        kind = f"a {image.layout} tensor" if isinstance(image, torch.Tensor) else f"a {type(image).__name__}"
        raise JudgeError(f"An image is {kind}, expected a file, a picture of PIL, or an array or tensor with values.")
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise JudgeError(
            f"An image tensor has shape {tuple(image.shape)}, expected (height, width, 1, 3 or 4 channels)."
        )
    if image.dtype != torch.uint8:
        if not image.is_floating_point():
            raise JudgeError(f"An image tensor is {image.dtype}, expected floats in 0..1 or uint8.")
        if not image.isfinite().all():
            raise JudgeError("An image tensor holds values that are NaN or infinite, expected floats in 0..1.")
        image = (image.float() * 255).clamp(0, 255).to(torch.uint8)
    image = image[..., :3].permute(2, 0, 1)
    return image.expand(3, -1, -1) if image.shape[0] == 1 else image


def to_pil(image: ImageLike) -> Image.Image:
    """One image as an RGB image of PIL, with the same pixels as `to_bytes`."""
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


def _loaded(image: Image.Image) -> Image.Image:
    """`_to_rgb` of a PIL image, which may not have read its file yet."""
    try:
        return _to_rgb(image)
    except JudgeError:
        raise
    except Exception as error:
        name = getattr(image, "filename", "") or "An image of PIL"
        raise JudgeError(f"{name} is not a readable picture ({error}). Make or download it again.") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGB", "L") and "transparency" not in image.info:
        return _upright(image).convert("RGB")
    if image.mode == "F" or image.mode.startswith("I"):
        return _upright(Image.fromarray(_levels(image)), image).convert("RGB")
    if image.has_transparency_data:
        # This composites a palette's transparent colours as well, and hides what lies under full transparency.
        seen = _upright(image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return _upright(image).convert("RGB")


def _upright(image: Image.Image, tagged: Image.Image | None = None) -> Image.Image:
    """The image turned as the EXIF data of `tagged` (the image itself by default) says."""
    image.load()
    orientation = (tagged or image).getexif().get(0x0112, 1)
    if tagged is None:
        return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image
    exif = Image.Exif()
    exif[0x0112] = orientation if orientation in range(1, 9) else 1
    image.info["exif"] = exif.tobytes()
    return ImageOps.exif_transpose(image)


def _levels(image: Image.Image) -> np.ndarray:
    """Grey values of more than 8 bits as uint8 (H, W), from their full range; floats from 0..1.

    Whole numbers lose their low bits, as PIL cuts colours of 16 bits.
    """
    values = np.asarray(image)
    if image.mode == "F":
        if not np.isfinite(values).all() or values.min() < -_MOST_OVERSHOOT or values.max() > _MOST_OVERSHOOT:
            raise JudgeError(
                f"A picture of floats holds values from {values.min():g} to {values.max():g}, expected 0 to 1. Save it "
                "with 8 bits."
            )
        return (values.clip(0, 1) * 255).astype(np.uint8)
    tags = getattr(image, "tag_v2", {})
    bits = int(_first(tags.get(_TIFF_BITS, 16)))
    signed = _first(tags.get(_TIFF_SAMPLE_FORMAT, 1)) == _TIFF_SIGNED
    if bits not in (16, 32):
        raise JudgeError(f"A grey picture has {bits} bits, expected 8, 16 or 32. Save it with 8 bits.")
    # PIL holds unsigned numbers of 32 bits as signed ones.
    whole = values.astype(np.int64) % 2**32 if bits == 32 and not signed else values.astype(np.int64)
    top = 2 ** (bits - signed)
    if whole.min() < 0 or whole.max() >= top:
        raise JudgeError(
            f"A grey picture holds values from {whole.min()} to {whole.max()}, expected 0 to {top - 1}. Save it with 8 "
            "bits."
        )
    return (whole // (top // 256)).astype(np.uint8)


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


def _array(values: np.ndarray) -> torch.Tensor:
    try:
        return torch.from_numpy(np.ascontiguousarray(values))
    except TypeError as error:
        raise JudgeError(f"An image array is {values.dtype}, expected floats in 0..1 or uint8.") from error
