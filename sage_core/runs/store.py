"""Runs on disk, named by their inputs: their files, one process a run, and how they are listed, limited and cleared."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from ..errors import TrainingError
from ..files import ZIP_ERRORS, remove_leftovers
from ..rows import read_json
from ..settings import NotNegative, checked

WEIGHTS, REPORT, CHECKPOINT = ".safetensors", ".json", ".checkpoint"
# What a training draws before its first step, so that one that is stopped need not draw again; safetensors inside.
PICTURES = ".pictures"
_UNFINISHED = (CHECKPOINT, PICTURES)
_KEY = re.compile(r"[0-9a-f]{16,64}")


@dataclass(frozen=True)
class StoredRun:
    """A run in a store.

    Attributes:
        key: the name of its files.
        files: all of them.
        bytes: their total size.
        modified: when the newest was written, in seconds since 1970.
        finished: whether its result is there, not only a checkpoint.
        metadata: from its report or, where it has none, from its weights; empty if neither says anything.
    """

    key: str
    files: tuple[Path, ...]
    bytes: int
    modified: float
    finished: bool
    metadata: dict[str, str]

    def summary(self) -> str:
        """One line for a person."""
        about = [self.metadata[name] for name in ("method", "preset", "concept") if name in self.metadata]
        if not self.finished:
            about.append("unfinished")
        elif "steps" in self.metadata:
            about.append(f"{self.metadata['steps']} steps")
        try:
            when = datetime.fromtimestamp(self.modified).strftime("%Y-%m-%d %H:%M")
        except (ValueError, OverflowError, OSError):
            # A file's time can lie after the year 9999.
            when = "at no known time"
        return f"{self.key[:8]}  {when}  {self.bytes / 2**20:7.1f} MiB  {', '.join(about) or 'finished'}"


class RunStore:
    """A folder of runs; each is a few files that share its key as their name."""

    def __init__(self, folder: Path, *others: Path) -> None:
        """Make and read nothing yet.

        Args:
            folder: of the runs.
            others: folders whose runs are listed and cleared with these.
        """
        self.folder, self.folders = folder, (folder, *others)

    def path(self, key: str, suffix: str) -> Path:
        """The file of a run that ends in `suffix`."""
        return self.folder / f"{key}{suffix}"

    def first_of(self, *keys: str) -> str:
        """The first of these runs that is finished, or else begun, or else the first."""
        there = (key for suffix in (WEIGHTS, CHECKPOINT) for key in keys if self.path(key, suffix).exists())
        return next(there, keys[0])

    @contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Keep other processes away from a run, as far as the system's locks reach.

        A lease, as evaluations have it where they do not reach, is another's only after it was watched for as long as
        it lasts, and who comes here looks once. What an evaluation trains and attacks is under its own claims as well.

        Raises:
            TrainingError: another process is at work on it.
        """
        lock = self.path(key, ".lock")
        try:
            with FileLock(lock, timeout=0):
                try:
                    yield
                finally:
                    # While it is held, so that nobody who waits for this file goes on next to a holder of the next one.
                    # Windows deletes no open file.
                    with suppress(PermissionError):
                        lock.unlink(missing_ok=True)
        except Timeout:
            raise TrainingError(
                f"Another process is training this very run (it holds {lock}). Wait for it: its result will be found."
            ) from None
        if os.name == "nt":
            with suppress(PermissionError):
                lock.unlink(missing_ok=True)

    def tidy(self, key: str) -> None:
        """Remove what a finished run needs no more and killed processes left: checkpoint, lock, half-written files."""
        remove_leftovers(self.folder)
        if any(self.path(key, suffix).exists() for suffix in (*_UNFINISHED, ".lock")):
            # If another process holds the lock, it will tidy up; a store may also be one to read only.
            with suppress(TrainingError, OSError), self.locked(key):
                self.finish(key)

    def finish(self, key: str) -> None:
        """Remove what a run goes on from: it is finished, and its result is there."""
        for suffix in _UNFINISHED:
            self.path(key, suffix).unlink(missing_ok=True)

    def runs(self) -> list[StoredRun]:
        """All runs, the newest first; files that do not say that this program wrote them are none, whatever their name.

        One file that says so is enough: the others may be damaged.
        """
        files: dict[Path, list[Path]] = {}
        for folder in self.folders:
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.suffix in _SAID and _KEY.fullmatch(path.stem) and path.is_file():
                    files.setdefault(path.with_suffix(""), []).append(path)
        found = []
        for paths in files.values():
            # Another process may delete a run meanwhile.
            with suppress(FileNotFoundError):
                if (run := _stored(sorted(paths))) is not None:
                    found.append(run)
        return sorted(found, key=lambda run: -run.modified)

    def remove(self, run: StoredRun) -> None:
        """Delete the files of a run, its result first: the result's presence says that the run is whole."""
        for path in sorted(run.files, key=lambda path: path.suffix != WEIGHTS):
            path.unlink(missing_ok=True)

    def clear(self, most: float = 0) -> list[StoredRun]:
        """Delete the oldest runs until all take at most `most` bytes, and return those.

        Raises:
            SettingsError: a limit below 0, which would delete all.
            TrainingError: a file cannot be deleted.
        """
        # More than any disk holds is no limit.
        checked(NotNegative, min(most, sys.maxsize), "the limit")
        runs = self.runs()
        total, gone = sum(run.bytes for run in runs), []
        for run in reversed(runs):
            if total <= most:
                break
            try:
                self.remove(run)
            except OSError as error:
                raise TrainingError(
                    f"A run in {run.files[0].parent} cannot be deleted ({error}). Close what uses it, or delete it by "
                    "hand."
                ) from error
            gone.append(run)
            total -= run.bytes
        return gone


def _stored(files: Sequence[Path]) -> StoredRun | None:
    """The run of these files; None if none of them says that it is one."""
    said = [about for path in files if (about := _SAID[path.suffix](path)) is not None]
    if not said:
        return None
    status = [path.stat() for path in files]
    return StoredRun(
        key=files[0].stem,
        files=tuple(files),
        bytes=sum(each.st_size for each in status),
        modified=max(each.st_mtime for each in status),
        finished=any(path.suffix == WEIGHTS for path in files),
        # Of a report before that of weights, since that is how the files are sorted.
        metadata=next(filter(None, said), {}),
    )


def _in_report(path: Path) -> dict[str, str] | None:
    with suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
        content = read_json(path)
        metadata = {str(name): str(value) for name, value in content["metadata"].items()}
        return metadata if isinstance(content["history"], list) else None
    return None


def _in_weights(path: Path) -> dict[str, str] | None:
    with suppress(OSError, SafetensorError), safe_open(path, framework="np") as file:
        metadata: dict[str, str] = file.metadata() or {}
        if "sage_gate_1" in metadata:
            return {"method": "gate", **metadata}
        if "sage_method" in metadata or metadata.get("software", "").startswith("sage-alignment"):
            return metadata
    return None


def _in_checkpoint(path: Path) -> dict[str, str] | None:
    with suppress(StopIteration, *ZIP_ERRORS), zipfile.ZipFile(path) as archive:
        # The names that a checkpoint of `runs.loop` holds stand in the pickle as they are: nothing is unpickled, and
        # nothing is packed.
        entry = next(each for each in archive.infolist() if each.filename.endswith("/data.pkl"))
        pickle = archive.read(entry) if entry.compress_type == zipfile.ZIP_STORED else b""
        return {} if all(name in pickle for name in (b"history", b"seconds", b"optimi")) else None
    return None


# What the files of a run say of it, by their kind: None where a file is not of a run.
_SAID: dict[str, Callable[[Path], dict[str, str] | None]] = {
    REPORT: _in_report,
    WEIGHTS: _in_weights,
    CHECKPOINT: _in_checkpoint,
    PICTURES: _in_weights,
}
