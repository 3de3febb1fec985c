"""The base of a plan: a file, a folder or the shapes world; and the hashes of all files that decide a picture."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from ..drawing import models
from ..drawing.models import Model
from ..encoders.text_encoder import TextEncoder
from ..errors import FileError, SettingsError
from ..files import write_json
from ..rows import read_json
from ..settings import checked
from .plan import SHAPES

# What of a diffusers folder decides a picture.
_PARTS = ("unet", "vae", "text_encoder")


def world(name: str = SHAPES) -> Any:
    """A world that is named in place of a file, as a module like `shapes.world`; imported when it is first needed."""
    return import_module(f"..{models.NAMED[name]}", __package__)


def load(base: Path | None) -> Model:
    """The model of a plan's base, on the CPU in fp32; None is the shapes world.

    Raises:
        UnetError, EncoderError, SettingsError: see `models.load`.
    """
    return world().load() if base is None else models.load(base)


def load_encoder(base: Path | None) -> TextEncoder:
    """The base's text encoder alone."""
    return world().load_encoder() if base is None else models.load_encoder(base)


def _hashes(file: Path) -> dict[str, str]:
    """What is kept of earlier runs; nothing of a damaged file, since all in it can be computed again."""
    try:
        return checked(dict[str, str], read_json(file), "hashes")
    except (OSError, ValueError, SettingsError):
        return {}


class Fingerprints:
    """SHA-256 of files, kept in a file of their own so that large ones are read once."""

    def __init__(self, kept: Path) -> None:
        self.kept = kept
        self._known = _hashes(kept)

    def of(self, path: Path | None) -> str:
        """The hash of a file, of what decides a picture in a folder, or, for None, of the shapes world."""
        if path is None:
            return world().weights_hash()
        if path.is_file():
            return self._file(path)
        files = sorted(
            file
            for file in path.rglob("*")
            if file.suffix in (".safetensors", ".bin", ".json") and (file.parent == path or file.parent.name in _PARTS)
        )
        names = "".join(f"{file.relative_to(path)} {self._file(file)}\n" for file in files)
        return hashlib.sha256(names.encode()).hexdigest()

    def _file(self, path: Path) -> str:
        found = path.stat()
        key = f"{path.resolve()} {found.st_size} {found.st_mtime_ns}"
        if key not in self._known:
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while block := file.read(1 << 24):
                    digest.update(block)
            self._known[key] = digest.hexdigest()
            # A finished evaluation may lie on a disk that is read alone.
            with suppress(FileError):
                write_json(self.kept, self._known, own=True)
        return self._known[key]
