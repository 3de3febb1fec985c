"""Runs on disk, named by their inputs: found again, listed, limited to a size, and cleared."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import TrainingError
from ..files import check_writable, remove_leftovers

WEIGHTS, REPORT, CHECKPOINT = ".safetensors", ".json", ".checkpoint"
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
        metadata: from its report; empty if the run is unfinished.
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
        steps = f"{self.metadata['steps']} steps" if "steps" in self.metadata else "unfinished"
        try:
            when = datetime.fromtimestamp(self.modified).strftime("%Y-%m-%d %H:%M")
        except (ValueError, OverflowError, OSError):
            # A file's time can lie after the year 9999.
            when = "at no known time"
        return f"{self.key[:8]}  {when}  {self.bytes / 2**20:7.1f} MiB  {', '.join([*about, steps])}"


class RunStore:
    """A folder of runs; each is a few files that share its key as their name."""

    def __init__(self, folder: Path) -> None:
        """Make and read nothing yet."""
        self.folder = folder

    def path(self, key: str, suffix: str) -> Path:
        """The file of a run that ends in `suffix`."""
        return self.folder / f"{key}{suffix}"

    def make_ready(self, key: str, needed: int) -> None:
        """Try to write before hours of work whose result and checkpoints, `needed` bytes, will go into the store.

        Raises:
            FileError: nothing can be stored there.
        """
        check_writable(self.path(key, WEIGHTS), needed)

    @contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Keep other processes away from a run.

        Raises:
            TrainingError: another process is at work on it.
        """
        try:
            with FileLock(self.path(key, ".lock"), timeout=0):
                yield
                # While it is held, so that nobody who waits for this file goes on next to a holder of the next one.
                # Windows deletes no open file.
                with suppress(PermissionError):
                    self.path(key, ".lock").unlink(missing_ok=True)
        except Timeout:
            raise TrainingError(
                f"Another process is training this very run (it holds {self.path(key, '.lock')}). "
                "Wait for it: its result will be found."
            ) from None
        if os.name == "nt":
            with suppress(PermissionError):
                self.path(key, ".lock").unlink(missing_ok=True)

    def tidy(self, key: str) -> None:
        """Remove what a finished run needs no more and killed processes left: checkpoint, lock, half-written files."""
        remove_leftovers(self.folder)
        if any(self.path(key, suffix).exists() for suffix in (CHECKPOINT, ".lock")):
            # If another process holds the lock, it will tidy up; a store may also be one to read only.
            with suppress(TrainingError, OSError), self.locked(key):
                self.path(key, CHECKPOINT).unlink(missing_ok=True)

    def runs(self) -> list[StoredRun]:
        """All runs, the newest first."""
        files: dict[str, list[Path]] = {}
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.suffix in (WEIGHTS, REPORT, CHECKPOINT) and _KEY.fullmatch(path.stem) and path.is_file():
                files.setdefault(path.stem, []).append(path)
        found = []
        for key, paths in files.items():
            # Another process may delete a run meanwhile.
            with suppress(FileNotFoundError):
                found.append(self._run(key, paths))
        return sorted(found, key=lambda run: -run.modified)

    def remove(self, run: StoredRun) -> None:
        """Delete the files of a run, its result first: the result's presence says that the run is whole."""
        for path in sorted(run.files, key=lambda path: path.suffix != WEIGHTS):
            path.unlink(missing_ok=True)

    def clear(self, most: float = 0, *, keep: str | None = None) -> list[StoredRun]:
        """Delete the oldest runs until all take at most `most` bytes, and return those; the run `keep` stays.

        Raises:
            TrainingError: a file cannot be deleted.
        """
        runs = self.runs()
        total, gone = sum(run.bytes for run in runs), []
        for run in reversed(runs):
            if total <= most:
                break
            if run.key == keep:
                continue
            try:
                self.remove(run)
            except OSError as error:
                raise TrainingError(
                    f"A run in {self.folder} cannot be deleted ({error}). Close what uses it, or delete it by hand."
                ) from error
            gone.append(run)
            total -= run.bytes
        return gone

    def _run(self, key: str, paths: list[Path]) -> StoredRun:
        status = [path.stat() for path in paths]
        report = self.path(key, REPORT)
        return StoredRun(
            key=key,
            files=tuple(sorted(paths)),
            bytes=sum(each.st_size for each in status),
            modified=max(each.st_mtime for each in status),
            finished=self.path(key, WEIGHTS) in paths or (report in paths and self.path(key, CHECKPOINT) not in paths),
            metadata=_metadata(report) if report in paths else {},
        )


def _metadata(report: Path) -> dict[str, str]:
    try:
        content: Any = json.loads(report.read_text(encoding="utf-8"))
        return {str(name): str(value) for name, value in content.get("metadata", {}).items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        # A damaged report does not keep its run from being listed and deleted.
        return {}
