"""A ComfyUI server of one's own: started on a base folder of its own, and stopped with its owner.

    with Server(provision(), Path("base"), models={"checkpoints": [Path("sd15.safetensors")]}) as server:
        outputs = server.run(graph, on_progress=lambda progress: ...)
        pictures = server.images(outputs)

ComfyUI's folder is only read: models, custom nodes, pictures, settings and the database all live in the base folder.
So does its interpreter, which finds this pack nowhere but in custom nodes, as every user's does.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .client import Client
from .provision import ComfyError

PACK = Path(__file__).resolve().parents[3]
PACK_NAME = "sage-alignment"


class Server(Client):
    """One ComfyUI process with this pack, its models and nothing else of the user's. A context manager."""

    def __init__(
        self,
        tree: Path,
        base: Path,
        *,
        pack: Path = PACK,
        models: Mapping[str, Iterable[Path]] | None = None,
        port: int = 0,
        arguments: Iterable[str] = (),
        start_limit: float = 180.0,
    ):
        """Say what to start; `start`, or entering, starts it.

        Args:
            tree: ComfyUI's folder, see `provision`.
            base: this server's own folder, made if missing; what an earlier server left in it is kept.
            pack: this pack's folder, linked into ComfyUI's custom nodes.
            models: files to link into `base/models/<folder name>`.
            port: 0 takes a free one.
            arguments: more of ComfyUI's own command line.
            start_limit: seconds to wait for the first answer.
        """
        self.tree = tree
        self.base = base.resolve()
        self.pack = pack.resolve()
        self.port = port
        self.log = self.base / "server.log"
        self.python: Path | None = None
        self._models = models or {}
        self._arguments = tuple(arguments)
        self._start_limit = start_limit
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        if self._process is None:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it answers.

        Raises:
            ComfyError: the port is taken, or ComfyUI ends or does not answer in time; with the log's last lines.
        """
        self.port = _usable_port(self.port)
        self._fill_base()
        self.python = make_interpreter(self.base / "python")
        command = [str(self.python), str(Path(__file__).with_name("host.py")), str(self.tree)]
        command += ["--base-directory", str(self.base), "--database-url", f"sqlite:///{self.base / 'comfyui.db'}"]
        command += ["--listen", "127.0.0.1", "--port", str(self.port), "--disable-auto-launch", "--disable-api-nodes"]
        # A checkout's extra_model_paths.yaml may bring the user's other packs along.
        command += ["--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK_NAME]
        command += [*([] if _accelerated() else ["--cpu"]), *self._arguments]
        own_group: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        atexit.register(self.stop)
        try:
            with open(self.log, "wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.base,
                    env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
                    | {"PYTHONUTF8": "1"},
                    **own_group,
                )
            self._wait_until_up(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self, grace: float = 10.0) -> None:
        """Ask the process and whatever it started to end, and kill them after `grace` seconds. May be repeated."""
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if process is None:
            return
        _end_group(process, force=False)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _end_group(process, force=True)
            process.wait()
            if process.stdin:
                process.stdin.close()

    def is_up(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of the server's log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def _fill_base(self) -> None:
        # ComfyUI lists these without asking whether they are there.
        for name in ("custom_nodes", "input", "output", "models", "user"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        _link(self.pack, self.base / "custom_nodes" / PACK_NAME)
        for folder, files in self._models.items():
            (self.base / "models" / folder).mkdir(parents=True, exist_ok=True)
            for file in files:
                _link(file.resolve(), self.base / "models" / folder / file.name)

    def _wait_until_up(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + self._start_limit
        while time.monotonic() < end:
            if process.poll() is not None:
                raise ComfyError(f"ComfyUI ended with code {process.returncode} on starting:\n{self.log_tail()}")
            with suppress(OSError):
                self.get("/system_stats", timeout=5)
                return
            time.sleep(0.2)
        raise ComfyError(f"ComfyUI did not answer within {self._start_limit:.0f} s:\n{self.log_tail()}")


def make_interpreter(folder: Path) -> Path:
    """Make a virtual environment in `folder` and return its Python.

    It has what is installed here, but for what an editable install refers to: this package, run from a clone, cannot
    be imported by its name there, as in a user's ComfyUI.
    """
    venv.EnvBuilder(symlinks=sys.platform != "win32").create(folder)
    scheme = "nt" if sys.platform == "win32" else "posix_prefix"
    packages = Path(sysconfig.get_path("purelib", scheme, {"base": str(folder)}))
    found = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    # A .pth file adds folders, whose own .pth files, editable installs among them, are not read.
    (packages / "installed.pth").write_text("\n".join(found) + "\n", encoding="utf-8")
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _usable_port(port: int) -> int:
    if not 0 <= port <= 65535:
        raise ComfyError(f"Port {port} does not exist: choose one from 1 to 65535, or 0 for any free one.")
    with socket.socket() as probe:
        if sys.platform != "win32":
            # A port that a server has just left is usable, as ComfyUI will find; on Windows this means another thing.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ComfyError(
                f"Port {port} cannot be used ({error.strerror}): choose another, or 0 for any free one."
            ) from error
        return probe.getsockname()[1]


def _accelerated() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _link(source: Path, target: Path) -> None:
    if target.is_symlink() or target.exists():
        return
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:
        # Windows asks for a privilege to link; some file systems cannot.
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*", "__pycache__", "tests"))
        else:
            shutil.copyfile(source, target)


def _end_group(process: subprocess.Popen[bytes], force: bool) -> None:
    if sys.platform == "win32":
        if force and process.poll() is None:
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True)
        elif not force:
            process.send_signal(signal.CTRL_BREAK_EVENT)
        return
    # A group outlives its first process while anything that it started is left. macOS refuses when only a zombie is.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL if force else signal.SIGTERM)
