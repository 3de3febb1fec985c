"""Run ComfyUI's main.py in this process, for as long as the parent's end of standard input stays open.

    python host.py COMFYUI_FOLDER [ComfyUI's own arguments]

A parent that is killed outright cannot stop its children, but its end of the pipe closes, on every system.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
from pathlib import Path


def _end_with_parent() -> None:
    # Not sys.stdin: its buffer's lock, held here, would stop the interpreter from closing down.
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    tree = Path(sys.argv[1])
    # This file's own folder would otherwise come first, and its modules would hide ComfyUI's.
    sys.path[0] = str(tree)
    sys.argv = [str(tree / "main.py"), *sys.argv[2:]]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runpy.run_path(sys.argv[0], run_name="__main__")
