"""Writing files whole: a reader sees the old content or the new, never a part."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on any failure it is removed.

    The temporary file lives in the same folder, since a rename is atomic only within one file system.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.parent / f".{final.name}.{uuid.uuid4().hex}.part"
    temporary.open("xb").close()
    permissions = temporary.stat().st_mode
    try:
        yield temporary
        # Some writers (tempfile, safetensors) make files that only their owner may read.
        temporary.chmod(permissions)
        _flush(temporary)
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text whole."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, whole."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _flush(path: Path) -> None:
    # Without this a crash of the machine can leave a renamed but empty file.
    with open(path, "rb+") as handle:
        os.fsync(handle.fileno())
