"""The node pack: one file for each topic, ending in NODES; only `host` knows ComfyUI's memory and folders."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import (
    adversarial,
    attack,
    batching,
    checking,
    distances,
    encoder,
    erasure,
    gate,
    geometry,
    guidance,
    judges,
    lora,
    making,
    prompts,
    redirecting,
    runs,
    scores,
    tifa,
    training,
    unet,
)
from .host.inputs import guarded


class SageExtension(ComfyExtension):
    """Everything this pack adds to ComfyUI."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        topics = (
            encoder,
            training,
            adversarial,
            attack,
            runs,
            prompts,
            batching,
            making,
            judges,
            tifa,
            scores,
            checking,
            distances,
            geometry,
            lora,
            unet,
            guidance,
            gate,
            erasure,
            redirecting,
        )
        return [guarded(node) for topic in topics for node in topic.NODES]
