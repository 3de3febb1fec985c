"""Writing files whole: a reader sees the old content or the new, never a part."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import re
import shutil
import stat
import struct
import sys
import tempfile
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import FileError, SageError

if TYPE_CHECKING:
    from torch import Tensor

# Bytes that a name may have on the usual file systems.
_LONGEST_NAME = 255
# The folder that holds a file while it is written: `.name.<process id>.<hex digits>.part`; of 16 digits the first 8
# are `_here` of the process.
_LEFTOVER = re.compile(r"\..*\.([0-9]{1,10})\.([0-9a-f]{8})?[0-9a-f]{8}\.part", re.DOTALL)
# Seconds after which the leftovers of a process are removed that may be another machine's.
_ABANDONED = 3600
# The file's name within that folder. It has no suffix, so that no program lists it as a model or a picture.
_CONTENT = "content"
# Errors by which a disk or a file system refuses a file. Callers that raise OSErrors to stop use other codes.
_REFUSALS = {
    code
    for name in [
        "ENOSPC",
        "EDQUOT",
        "EFBIG",
        "EIO",
        "EROFS",
        "EACCES",
        "EPERM",
        "ENAMETOOLONG",
        "ENOTDIR",
        "EEXIST",
        "EISDIR",
        "EBUSY",
        "ENXIO",
    ]
    if (code := getattr(errno, name, None)) is not None
}
# The same refusals in the words of safetensors and of torch.save, whose errors are not OSErrors.
_REFUSAL_WORDS = re.compile(r"os error \d+|No space left|PytorchStreamWriter|basic_ios|iostream error|unexpected pos")
# What zipfile raises of a damaged archive: also of names that are no text (ValueError), of one that is encrypted, or
# packed in a way that Python does not know (RuntimeError).
ZIP_ERRORS = (OSError, ValueError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error)
_WAY_OUT = "Make room or choose another place; what was there before is unchanged."


@contextmanager
def whole_file(path: str | os.PathLike[str], *, own: bool = False) -> Iterator[Path]:
    """Yield a temporary path; on success its content takes the place of `path`, on any failure it is removed.

    The content is written into a hidden folder next to `path`: a rename is atomic only within one file system. If the
    process is killed, the folder holds all that it left. The next write into the same place removes such folders: at
    once where the process ran here, and an hour later where it may be another machine's. A link stays a link: its
    target is replaced. An existing file keeps its permissions. A pipe, a terminal or /dev/stdout receives the content
    once it is whole.

    Args:
        path: the file to come.
        own: whether it lies in a folder that this program fills by itself. There nobody has named the file, so that a
            link in its place is replaced and what it leads to stays.

    Raises:
        FileError: the place is a folder, a disk or a socket, or it cannot be written, for instance because the disk
            is full.
    """
    is_link = own and Path(path).is_symlink()
    final = Path(path) if is_link else _target(path)
    if (stream := None if is_link else _stream(final)) is not None:
        with tempfile.TemporaryDirectory() as elsewhere:
            temporary = Path(elsewhere) / _CONTENT
            temporary.touch()
            yield temporary
            _write_through(temporary, final, stream)
        return
    with _explained(final):
        folder = _temporary_folder(final)
    temporary = folder / _CONTENT
    try:
        with _explained(final):
            temporary.touch()
            permissions = stat.S_IMODE((final if final.exists() and not is_link else temporary).stat().st_mode)
            yield temporary
            # Some writers (tempfile, safetensors) make files that only their owner may read.
            temporary.chmod(permissions)
            _flush(temporary)
            _replace(temporary, final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str, *, own: bool = False) -> None:
    r"""Write UTF-8 text whole; `own` is as in `whole_file`.

    What UTF-8 cannot hold, such as a byte of a file's name that is no text, is spelled \udcff, as JSON spells it: hours
    of work are not lost over a name.
    """
    with whole_file(path, own=own) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike[str], value: Any, *, own: bool = False) -> None:
    """Write `value` as indented UTF-8 JSON, whole; `own` is as in `whole_file`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", own=own)


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors as safetensors, whole, in their own precision; metadata is stored as text, with `format`."""
    from safetensors.torch import save_file

    arrays = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    texts = {"format": "pt"} | {str(key): str(value) for key, value in metadata.items()}
    with whole_file(path) as temporary:
        save_file(arrays, temporary, metadata=texts)


def check_writable(path: str | os.PathLike[str], needed: int = 0) -> None:
    """Try to write at `path` before the hours of work whose result will go there; what is there stays as it is.

    Args:
        path: the file to come. Its folder is made.
        needed: bytes that the file will take.

    Raises:
        FileError: the place is a folder, a disk or a socket, it cannot be written, its name is too long, or less than
            `needed` bytes are free there.
    """
    final = _target(path)
    if _stream(final) is not None:
        return
    with _explained(final):
        folder = _temporary_folder(final)
    try:
        with _explained(final):
            # A final name that is too long fails here; the temporary one was cut and would not.
            final.exists()
            (folder / _CONTENT).write_bytes(b"\0")
            _flush(folder / _CONTENT)
            free = shutil.disk_usage(folder).free
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if free < needed:
        raise FileError(
            f"{final} needs {_size(needed)}, and {_size(free)} are free there. Make room or choose another place."
        )


def _size(count: float) -> str:
    """Bytes in the largest unit of which there are a hundred."""
    for unit in ("bytes", "kB"):
        if count < 100_000:
            return f"{count:,.0f} {unit}"
        count /= 1000
    return f"{count:,.0f} MB"


@contextmanager
def readable(path: str | os.PathLike[str], error: type[SageError]) -> Iterator[None]:
    """Raise `error`, naming `path`, where the system cannot open or list what is read, or the name cannot be one."""
    try:
        yield
    except SageError:
        raise
    except (OSError, ValueError) as problem:
        # Python refuses names that hold NUL or half a character with ValueError; other ValueErrors pass.
        name = os.fspath(path)
        if isinstance(problem, ValueError) and "\0" not in name and not isinstance(problem, UnicodeEncodeError):
            raise
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"{name!a} cannot be read ({reason}). Check its name and who may read it.") from problem


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths lead to one file, whatever the names or links; the file need not exist."""
    try:
        return first.samefile(second)
    except OSError:
        # One of them does not exist.
        return os.path.realpath(first) == os.path.realpath(second)


def _target(path: str | os.PathLike[str]) -> Path:
    """What a link leads to, or the path itself."""
    final = Path(path)
    with _explained(final):
        if final.is_symlink():
            final.parent.mkdir(parents=True, exist_ok=True)
            # The links of /dev/fd lead to names that do not exist for pipes.
            final = Path(os.path.realpath(final)) if final.is_file() or not final.exists() else final
        kind = final.stat().st_mode if final.exists() else stat.S_IFREG
    for test, name in ((stat.S_ISDIR, "a folder"), (stat.S_ISBLK, "a disk"), (stat.S_ISSOCK, "a socket")):
        if test(kind):
            raise FileError(f"{path} is {name}, expected a file to write. Give the name of a file.")
    return final


def _stream(final: Path) -> int | None:
    """How to write to a stream: a descriptor of this process, or -1 to open `final`; None if it is a regular file."""
    try:
        found = final.stat()
    except OSError:
        return None
    for descriptor in (1, 2):
        # Standard output may have been sent to a file, which goes on after what is written here.
        with suppress(OSError):
            if found.st_ino and os.path.samestat(found, os.fstat(descriptor)):
                return descriptor
    return None if stat.S_ISREG(found.st_mode) else -1


def _write_through(temporary: Path, final: Path, descriptor: int) -> None:
    for output in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):
            output.flush()
    with (
        _explained(final),
        open(temporary, "rb") as source,
        open(final if descriptor < 0 else os.dup(descriptor), "wb") as sink,
    ):
        shutil.copyfileobj(source, sink)


def _temporary_folder(final: Path) -> Path:
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        # Systems' own folders, such as /proc, take no others.
        raise FileError(f"{final} cannot be written: {error.strerror}. {_WAY_OUT}") from error
    remove_leftovers(final.parent)
    end = f".{os.getpid()}.{_here()}{uuid.uuid4().hex[:8]}.part"
    name = os.fsencode(final.name)[: _LONGEST_NAME - 1 - len(end)].decode("utf-8", errors="ignore")
    folder = final.parent / f".{name}{end}"
    folder.mkdir()
    return folder


def remove_leftovers(parent: Path, *, below: bool = False) -> None:
    """Remove the folders of killed processes, never one whose process may be alive or one of another name.

    Args:
        parent: where to look.
        below: whether to look in all folders under it, too. A process may be killed when its file is in place and its
            own folder not yet gone. Where such a file is the last of its folder, no write comes that would tidy up.
    """
    if below:
        for folder, _, _ in os.walk(parent):
            remove_leftovers(Path(folder))
        return
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            match = _LEFTOVER.fullmatch(entry.name)
            if match is None or not entry.is_dir(follow_symlinks=False) or _is_alive(int(match[1])):
                continue
            newest = max(path.stat().st_mtime for path in (Path(entry.path), *Path(entry.path).iterdir()))
            if (match[2] and match[2] == _here()) or time.time() - newest > _ABANDONED:
                shutil.rmtree(entry.path, ignore_errors=True)


@functools.cache
def _here() -> str:
    """Where a process's number means that process and no other: 8 hex digits; "" where that is not known.

    Machines and containers that share a folder count their processes each from 1, and so does a machine that starts.
    """
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        place = f"{os.uname().nodename} {started} {os.readlink('/proc/self/ns/pid')}"
    except (OSError, AttributeError):
        return ""
    return hashlib.sha256(place.encode()).hexdigest()[:8]


def _is_alive(process: int) -> bool:
    if os.name == "nt":
        # There signal 0 would end or interrupt the process, so that age alone decides.
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _replace(temporary: Path, final: Path) -> None:
    # On Windows a file that a virus scanner or an indexer has open for a moment cannot be replaced.
    for wait in (0.05, 0.2, 1.0) if os.name == "nt" else ():
        try:
            os.replace(temporary, final)
            return
        except PermissionError:
            time.sleep(wait)
    os.replace(temporary, final)


def _flush(path: Path) -> None:
    # Without this a crash of the machine can leave a renamed but empty file.
    with open(path, "rb+") as handle:
        os.fsync(handle.fileno())


@contextmanager
def _explained(final: Path) -> Iterator[None]:
    """Raise FileError, naming `final`, for what the file system refuses; pass every other exception on."""
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        raise FileError(f"{final} cannot be written: {error.strerror}. {_WAY_OUT}") from error
    except Exception as error:
        if not _REFUSAL_WORDS.search(str(error)):
            raise
        raise FileError(f"{final} cannot be written: {error}. {_WAY_OUT}") from error
