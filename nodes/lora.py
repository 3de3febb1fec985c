"""Save an alignment as a LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..sage_core import __version__
from ..sage_core.encoders.lora import Lora, apply_lora, decomposition_bytes, extract_lora, save_lora
from ..sage_core.encoders.text_encoder import state_hash
from ..sage_core.errors import EncoderError, SettingsError
from ..sage_core.geometry.comparison import GeometrySettings
from .geometry import compare_states
from .host import clips, display, files, memory
from .host.files import check_name, saved_metadata
from .host.inputs import encoder_inputs, found_by
from .host.sockets import Pairs


class SAGESaveLora(io.ComfyNode):
    """Saves an alignment as a LoRA file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGESaveLora",
            display_name="SAGE Save LoRA",
            category="SAGE/text",
            **found_by("extract lora", "safety lora"),
            description="Saves what changed from one CLIP to another as models/loras/<name>.safetensors, for any LoRA "
            "loader: tens of megabytes instead of a whole encoder.",
            is_output_node=True,
            inputs=[
                *encoder_inputs(),
                io.String.Input("name", default="sage-lora", tooltip="File name, without folder or extension."),
                io.Combo.Input(
                    "limit",
                    options=["rank", "energy"],
                    default="energy",
                    tooltip="rank: the same for every matrix. energy: the smallest file that keeps that share.",
                ),
                io.Int.Input("rank", default=64, min=1, max=768, tooltip="For limit rank."),
                io.Float.Input(
                    "energy",
                    default=0.95,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="For limit energy: share of the squared change that is kept.",
                ),
                io.Boolean.Input("overwrite", default=False, tooltip="Replace another file of this name."),
                Pairs.Input("pairs", optional=True, tooltip="Safe prompts to measure the loss on."),
            ],
            outputs=[
                io.String.Output(display_name="path", tooltip="Where the file is."),
                io.String.Output(display_name="report", tooltip="Size, what no LoRA can hold, and what is lost."),
            ],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        return check_name(name)

    @classmethod
    def execute(cls, base, aligned, name, limit, rank, energy, overwrite, pairs=None) -> io.NodeOutput:
        path = files.new_lora_path(name)
        before, after = (clips.private_copy(clips.patched_weights(clip)) for clip in (base, aligned))
        metadata = {
            "base_hash": state_hash(before),
            "aligned_hash": state_hash(after),
            "limit": f"{limit} {rank if limit == 'rank' else energy}",
            "software": f"sage-alignment {__version__}",
        }
        if path.exists() and not overwrite and not metadata.items() <= saved_metadata(path).items():
            raise SettingsError(f"{path} exists and holds another LoRA. Choose another name, or turn overwrite on.")
        lora = _extract(before, after, {"rank": rank} if limit == "rank" else {"energy": energy})
        # Saved before the cost is measured, which takes longer and may fail or be cancelled.
        save_lora(path, lora, metadata)
        text = f"{path}: {lora.summary()}"
        if pairs is not None:
            text += f"\n{_cost(before, after, lora, list(dict.fromkeys(pairs.safe)))}"
        return io.NodeOutput(str(path), text, ui=ui.PreviewText(text))


def _extract(before: Mapping[str, Tensor], after: Mapping[str, Tensor], limit: Mapping[str, Any]) -> Lora:
    needed = decomposition_bytes(before)
    advice = EncoderError(
        f"Out of memory: decomposing the change takes {needed / 2**30:.1f} GiB. Close other programs."
    )
    with memory.training_device(needed) as (device, free), memory.telling_memory(advice):
        place = device if needed < free else "cpu"
        return extract_lora(before, after, **limit, device=place, on_matrix=display.Progress("matrices"))


def _cost(before: Mapping[str, Tensor], after: Mapping[str, Tensor], lora: Lora, prompts: list[str]) -> str:
    """What the LoRA loses compared with the aligned encoder, in words."""
    settings = GeometrySettings()
    if len(prompts) <= settings.k:
        return (
            f"What it costs was not measured: that takes more than {settings.k} different safe prompts, and pairs hold "
            f"{len(prompts)}."
        )
    cost = compare_states(after, apply_lora(before, lora.tensors), prompts, [], settings)
    return f"The LoRA's space against the aligned encoder's:\n{cost.to_markdown()}"


NODES: list[type[io.ComfyNode]] = [SAGESaveLora]
