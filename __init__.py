"""SAGE alignment for ComfyUI: the door through which ComfyUI loads the node pack."""

from __future__ import annotations

import sys
from pathlib import Path

WEB_DIRECTORY = "./nodes/web"


def _refuse_a_second_copy() -> None:
    # ComfyUI would take nodes of one id from whichever copy comes last, and both copies' scripts for the browser.
    mappings = getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {})
    first = sys.modules.get(getattr(mappings.get("SAGEApplyEncoder"), "__module__", ""))
    if first is None or not first.__file__:
        return
    here, other = Path(__file__).parent, Path(first.__file__).parents[1]
    if here != other:
        raise ImportError(
            f"SAGE alignment is in ComfyUI twice: {other} is loaded, {here} is not. Keep the newer of the two, move "
            "the other out of custom_nodes, and start ComfyUI again."
        )


_refuse_a_second_copy()


async def comfy_entrypoint():
    """Return the extension; it is imported late so that only ComfyUI loads the nodes."""
    from .nodes import SageExtension

    return SageExtension()
