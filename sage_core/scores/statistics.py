"""Mean and covariance of features, read and written as the known FID tools do: an .npz with `mu` and `sigma`."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import JudgeError, SettingsError
from ..files import ZIP_ERRORS, readable, whole_file
from .features import Features

# What a covariance may be off by and still be one: rounding in float32, relative to its largest value.
_ROUNDING = 1e-4
# What a damaged archive raises, and one that claims more numbers than there is memory.
_UNREADABLE = (*ZIP_ERRORS, TypeError, KeyError, MemoryError)
# How an array that is alone in a file begins.
_ARRAY = b"\x93NUMPY"
# Bytes of an array that may be packed as well as it can be, and how much smaller larger ones may be packed: features
# hardly pack at all.
_SMALL, _MOST_PACKED = 2**26, 4
_WORDS = ("extractor", "resizing", "kind")
_KINDS = ("inception", "dinov2", "clip")


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of a set's features.

    Attributes:
        mu: (D,) in float64.
        sigma: (D, D) in float64, by N - 1, symmetric.
        count: number of pictures; None if unknown, as in files of other tools. So are the rest.
        extractor: name and content hash of the model.
        resizing: how the pictures came to the model's size.
        kind: of the extractor.
    """

    mu: np.ndarray
    sigma: np.ndarray
    count: int | None = None
    extractor: str | None = None
    resizing: str | None = None
    kind: str | None = None

    @classmethod
    def of(cls, features: Features) -> Statistics:
        """Those of features; raises JudgeError for a single picture, which has no covariance."""
        if features.count < 2:
            raise JudgeError("A single picture has no covariance; expected two or more.")
        mu = features.values.mean(0)
        centred = features.values - mu
        sigma = centred.T @ centred / (features.count - 1)
        return cls(mu, sigma, features.count, features.extractor, features.resizing, features.kind)


def write_statistics(path: str | os.PathLike[str], statistics: Statistics) -> None:
    """Write an .npz whole: `mu` and `sigma` for any FID tool, and what was known of where they come from.

    Raises:
        SettingsError: the name does not end in .npz.
        FileError: the file cannot be written.
    """
    if Path(path).suffix.lower() != ".npz":
        raise SettingsError(f"Statistics are written to '{path}'; expected a file name that ends in .npz.")
    known = {
        "count": statistics.count,
        "extractor": statistics.extractor,
        "resizing": statistics.resizing,
        "kind": statistics.kind,
    }
    arrays: dict[str, Any] = {"mu": statistics.mu, "sigma": statistics.sigma}
    arrays |= {name: np.array(value) for name, value in known.items() if value is not None}
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def read_statistics(path: str | os.PathLike[str]) -> Statistics:
    """Read an .npz with `mu` and `sigma`, of this or another tool; nothing in it is run.

    Raises:
        JudgeError: there is no such file, it is damaged, or the two are no mean and covariance.
    """
    path = Path(path)
    found = read_arrays(path, ("mu", "sigma", "count", *_WORDS))
    mu, sigma = (_numbers(path, found, name) for name in ("mu", "sigma"))
    _check(path, mu, sigma)
    count = _count(path, found)
    words = {name: _text(path, found, name) for name in _WORDS}
    if words["kind"] not in (None, *_KINDS):
        raise JudgeError(f"{path}: kind is {words['kind']!r}, expected one of {', '.join(_KINDS)}.")
    return Statistics(mu, (sigma + sigma.T) / 2, count, words["extractor"], words["resizing"], words["kind"])


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of these names in an .npz, those that are there; no other is unpacked, and nothing is run.

    Raises:
        JudgeError: there is no such file, it is damaged, or an array would take far more memory than the file.
    """
    with readable(path, JudgeError):
        if path.is_dir():
            raise JudgeError(f"{path} is a folder, expected an .npz file with {' and '.join(names[:2])}.")
        if not path.is_file():
            raise JudgeError(f"{path} does not exist: there is no such file. Check the name.")
        with open(path, "rb") as file:
            if file.read(len(_ARRAY)) == _ARRAY:
                raise JudgeError(f"{path} is a single array, expected an .npz with {' and '.join(names[:2])}.")
        try:
            with zipfile.ZipFile(path) as archive:
                there = {info.filename: info for info in archive.infolist()}
                return {name: _array(archive, info) for name in names if (info := there.get(f"{name}.npy"))}
        except _UNREADABLE as error:
            raise JudgeError(
                f"{path} is not readable as .npz ({error}); nothing in it was run. Make or download it again."
            ) from error


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array of an .npz. Raises one of _UNREADABLE unless the file holds as many numbers as it claims to."""
    if info.file_size > max(_SMALL, _MOST_PACKED * info.compress_size):
        raise ValueError(f"{info.filename} is packed {info.file_size / max(info.compress_size, 1):,.0f} times smaller")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        try:
            shape, by_columns, dtype = read_header(member)
        except Exception as error:
            # numpy takes it for Python, whose parser and tokenizer raise errors of all kinds.
            raise ValueError(f"the header of {info.filename} is damaged ({type(error).__name__})") from error
        content = member.read()
    if dtype.hasobject or len(content) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{info.filename} holds {len(content):,} bytes, and claims {shape} of {dtype}")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")


def _numbers(path: Path, found: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in found:
        names = ", ".join(sorted(found)) or "nothing"
        raise JudgeError(f"{path} lacks '{name}'; found {names}. Expected statistics with 'mu' and 'sigma'.")
    value = found[name]
    if value.dtype.kind not in "fiu" or not np.isfinite(value).all():
        raise JudgeError(f"{path}: '{name}' holds no finite numbers ({value.dtype}). Make it again.")
    return value.astype(np.float64, copy=False)


def _check(path: Path, mu: np.ndarray, sigma: np.ndarray) -> None:
    if mu.ndim != 1 or not len(mu) or sigma.shape != (len(mu), len(mu)):
        raise JudgeError(f"{path}: 'mu' has the shape {mu.shape} and 'sigma' {sigma.shape}, expected (D,) and (D, D).")
    largest = float(np.abs(sigma).max())
    wrong = np.abs(sigma - sigma.T).max() > _ROUNDING * largest
    if not wrong:
        try:
            # Scaled, so that no number is too large for the solver.
            variances = np.linalg.eigvalsh((sigma + sigma.T) / (2 * (largest or 1)))
        except np.linalg.LinAlgError as error:
            raise JudgeError(f"{path}: 'sigma' is no covariance that can be computed with ({error}).") from error
        wrong = variances[0] < -_ROUNDING * variances[-1]
    if wrong:
        raise JudgeError(
            f"{path}: 'sigma' is no covariance: not symmetric, or with negative variances. Make the file again."
        )


def _count(path: Path, found: dict[str, np.ndarray]) -> int | None:
    if "count" not in found:
        return None
    value = found["count"]
    if value.shape != () or value.dtype.kind not in "iu" or value < 2:
        raise JudgeError(f"{path}: 'count' is {str(value)[:40]}, expected the number of pictures, 2 or more.")
    return int(value)


def _text(path: Path, found: dict[str, np.ndarray], name: str) -> str | None:
    if name not in found:
        return None
    value = found[name]
    if value.shape != () or value.dtype.kind != "U":
        raise JudgeError(f"{path}: '{name}' is no text. Make the file again.")
    return str(value)
