"""The node pack: one file for each topic, ending in NODES; only `host` knows ComfyUI's memory and folders."""

from __future__ import annotations

from importlib import import_module

from comfy_api.latest import ComfyExtension, io

from .host.inputs import guarded

_TOPICS = [
    import_module(f".{name}", __name__)
    for name in (
        "encoder", "training", "adversarial", "attack", "runs", "prompts", "batching", "making", "judges", "tifa",
        "scores", "checking", "distances", "geometry", "lora", "unet", "guidance", "gate", "unet_training",
    )
]  # fmt: skip


class SageExtension(ComfyExtension):
    """Everything this pack adds to ComfyUI."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [guarded(node) for topic in _TOPICS for node in topic.NODES]
