"""Mean and covariance of features, read and written as the known FID tools do: an .npz with `mu` and `sigma`."""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import JudgeError, SettingsError
from ..files import readable, whole_file
from .features import Features

# What a covariance may be off by and still be one: rounding in float32, relative to its largest value.
_ROUNDING = 1e-4
# What numpy raises of a damaged archive: also of one that is encrypted (RuntimeError), packed in a way that Python does
# not know (NotImplementedError, a RuntimeError), or that claims more numbers than there is memory.
_UNREADABLE = (ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
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
    with readable(path, JudgeError):
        if path.is_dir():
            raise JudgeError(f"{path} is a folder, expected an .npz file with 'mu' and 'sigma'.")
        if not path.is_file():
            raise JudgeError(f"{path} does not exist: there is no such file. Check the name.")
        try:
            archive = np.load(path, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise JudgeError(f"{path} is a single array, expected an .npz with 'mu' and 'sigma'.")
            with archive:
                found = {name: archive[name] for name in archive.files}
        except _UNREADABLE as error:
            raise JudgeError(
                f"{path} is not readable as .npz ({error}); nothing in it was run. Make or download it again."
            ) from error
    mu, sigma = (_numbers(path, found, name) for name in ("mu", "sigma"))
    _check(path, mu, sigma)
    count = _count(path, found)
    words = {name: _text(path, found, name) for name in ("extractor", "resizing", "kind")}
    if words["kind"] not in (None, *_KINDS):
        raise JudgeError(f"{path}: kind is {words['kind']!r}, expected one of {', '.join(_KINDS)}.")
    return Statistics(mu, (sigma + sigma.T) / 2, count, words["extractor"], words["resizing"], words["kind"])


def _numbers(path: Path, found: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in found:
        names = ", ".join(sorted(found)) or "nothing"
        raise JudgeError(f"{path} lacks '{name}'; found {names}. Expected statistics with 'mu' and 'sigma'.")
    value = found[name]
    if value.dtype.kind not in "fiu" or not np.isfinite(value).all():
        raise JudgeError(f"{path}: '{name}' holds no finite numbers ({value.dtype}). Make it again.")
    return value.astype(np.float64)


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
