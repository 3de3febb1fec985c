"""Prompts of a list in batches, so that a sampler draws many pictures at a time."""

from __future__ import annotations

from comfy_api.latest import io

from ..sage_core.errors import PromptError, SettingsError
from .host import clips, display
from .host.batches import Noises, in_batches, together
from .host.inputs import found_by


class SAGEBatchPrompts(io.ComfyNode):
    """Encodes the prompts of a list and puts them together in batches, each picture with its own seed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEBatchPrompts",
            display_name="SAGE Batch Prompts",
            category="SAGE/score",
            **found_by("batch prompts", "many pictures at once", "clip text encode list"),
            description="CLIP Text Encode for a list of prompts that are drawn many at a time: each picture has its "
            "own prompt and the noise of its own seed, and is the same as drawn alone up to rounding.",
            is_input_list=True,
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP that reads the prompts."),
                io.String.Input("prompt", force_input=True, tooltip="From SAGE Prompt List."),
                io.Int.Input("seed", force_input=True, tooltip="From SAGE Prompt List, one per prompt."),
                io.Latent.Input("latent", tooltip="Empty Latent Image of batch size 1: the size of every picture."),
                io.Int.Input(
                    "size", default=8, min=1, max=4096, tooltip="Pictures at a time: as many as memory has room for."
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="positive", is_output_list=True, tooltip="For CFGGuider or SAGE Safe Guider."
                ),
                io.Noise.Output(display_name="noise", is_output_list=True, tooltip="For SamplerCustomAdvanced."),
                io.Latent.Output(display_name="latent", is_output_list=True, tooltip="For SamplerCustomAdvanced."),
            ],
        )

    @classmethod
    def execute(cls, clip, prompt, seed, latent, size) -> io.NodeOutput:
        if len(seed) != len(prompt):
            raise PromptError(
                f"{len(prompt)} prompts came with {len(seed)} seeds; expected one for each. Connect prompt and seed of "
                "the same SAGE Prompt List."
            )
        if len(latent) != 1 or len(latent[0]["samples"]) != 1:
            found = sum(len(each["samples"]) for each in latent)
            raise SettingsError(
                f"latent holds {found} pictures; expected one, whose size all have. Set batch_size to 1."
            )
        progress, encoded = display.Progress("encoding prompts"), []
        for number, text in enumerate(prompt, start=1):
            encoded.append(clips.encode(clip[0], text))
            progress(number, len(prompt))
        batches = in_batches(encoded, size[0])
        empty = latent[0]["samples"]
        return io.NodeOutput(
            [together([encoded[number] for number in batch]) for batch in batches],
            [Noises(tuple(seed[number] for number in batch)) for batch in batches],
            [latent[0] | {"samples": empty.repeat(len(batch), *[1] * (empty.ndim - 1))} for batch in batches],
        )


NODES: list[type[io.ComfyNode]] = [SAGEBatchPrompts]
