"""Who works at what: a claim on a file in the output folder, held by a lock of the system or by a lease.

A lock of the system (flock) is the quick way, and is free at once however its process ends. But some network file
systems hold it on one machine alone, and processes of two machines would not see each other's. There a lease takes its
place: a file that names its holder, made where none is, and dated anew while the holder works. It is another's once the
holder's process has ended on this machine, or once the file has kept its date for LEASE seconds. A holder that stood
still for longer may find that its work was taken over; it asks its claim before it writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FileError, SettingsError

if TYPE_CHECKING:
    from filelock import FileLock, SoftFileLease

# A plan's choices; "auto" looks at how the output's file system is mounted.
AUTO, SYSTEM, LEASES = "auto", "system", "leases"
KINDS = (AUTO, SYSTEM, LEASES)
# What the claimed files of each end in.
_SUFFIXES = {SYSTEM: ".lock", LEASES: ".lease"}
# Seconds for which a lease is valid without being renewed, more than network file systems keep a file's date in memory;
# and between renewals. Every process of a plan must have the same.
LEASE = 90.0
_RENEWED = 15.0
# Seconds between tries of one that waits.
_POLL = {".lock": 0.05, ".lease": 0.5}
_MOUNTS = Path("/proc/self/mountinfo")
# Leases that are others': how long each has kept its date is seen by looking at it again and again.
_watched: dict[Path, FileLock | SoftFileLease] = {}


class Claim:
    """Whether this process holds a file; for a lease the answer is looked up anew each time."""

    def __init__(self, is_held: bool, lease: SoftFileLease | None = None) -> None:
        self._is_held, self._lease = is_held, lease

    def __bool__(self) -> bool:
        if self._lease is None:
            return self._is_held
        owner = self._lease.owner
        return owner is not None and owner.token is not None and owner.token == self._lease.token


@contextmanager
def claim(file: Path, *, wait: bool = False) -> Iterator[Claim]:
    """Claim a file of `Layout.lock` for as long as the context lasts; with `wait` it always is this process's.

    Raises:
        FileError: the file system refuses.
        SettingsError: the installed filelock has no leases.
    """
    from filelock import FileLock, Timeout

    lock = _watched.pop(file, None) or _lock(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=-1 if wait else 0, poll_interval=_POLL[file.suffix])
    except Timeout:
        if file.suffix == _SUFFIXES[LEASES]:
            _watched[file] = lock
        yield Claim(False)
        return
    except (OSError, ValueError, NotImplementedError) as error:
        raise FileError(
            f"{file} cannot be locked ({getattr(error, 'strerror', None) or error}). Make room, choose another output, "
            f"or, if the file system has no locks, set locks = {LEASES!r} in the plan."
        ) from error
    try:
        yield Claim(True, None if isinstance(lock, FileLock) else lock)
    finally:
        lock.release()


def _lock(file: Path) -> FileLock | SoftFileLease:
    try:
        from filelock import FileLock

        if file.suffix != _SUFFIXES[LEASES]:
            return FileLock(file)
        from filelock import SoftFileLease
    except ImportError as error:
        raise SettingsError(
            f"The plan's locks are leases ({file.parent}), which filelock has from version 3.30 on. Run pip install "
            f"'filelock>=3.30', or set locks = {SYSTEM!r} if this file system's locks hold between machines."
        ) from error
    return SoftFileLease(file, lease_duration=LEASE, heartbeat_interval=_RENEWED)


def lock_suffix(kind: str, folder: Path) -> str:
    """What names of claimed files end in, for a plan's choice of KINDS and its output folder."""
    if kind == AUTO:
        text = ""
        with suppress(OSError):
            text = _MOUNTS.read_text(encoding="utf-8", errors="replace")
        kind = SYSTEM if locks_are_shared(folder, text) else LEASES
    return _SUFFIXES[kind]


def locks_are_shared(folder: Path, mounts: str) -> bool:
    """Whether the system's locks on files in a folder hold on other machines too, as far as its mount's options say.

    Only of NFS and Lustre do the options say it: NFS with "nolock" or a "local_lock" of flock keeps them to the
    machine, and Lustre does unless its options have "flock". Of any other file system it is taken to be so.

    Args:
        folder: it need not exist yet.
        mounts: the text of /proc/self/mountinfo; see proc_pid_mountinfo(5).
    """
    place, depth, found = folder.resolve(), -1, ("", frozenset[str]())
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields, after = left.split(), right.split()
        if len(fields) < 6 or len(after) < 3:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))
        # Of two mounts at one place the later one is seen.
        if place.is_relative_to(point) and len(point.parts) >= depth:
            depth, found = len(point.parts), (after[0], frozenset(f"{fields[5]},{after[2]}".split(",")))
    kind, options = found
    if kind in ("nfs", "nfs4"):
        return not options & {"nolock", "local_lock=all", "local_lock=flock"}
    return kind != "lustre" or "flock" in options
