"""SAGE alignment for ComfyUI: the door through which ComfyUI loads the node pack."""

from __future__ import annotations

WEB_DIRECTORY = "./nodes/web"


async def comfy_entrypoint():
    """Return the extension; it is imported late so that only ComfyUI loads the nodes."""
    from .nodes import SageExtension

    return SageExtension()
