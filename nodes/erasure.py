"""Erasing concepts from a U-Net by training: ESD and RACE."""

from __future__ import annotations

from comfy_api.latest import io

from ..sage_core.methods.concepts import Concepts, split_texts
from ..sage_core.methods.erasing import PRESETS, train_erasure
from ..sage_core.methods.table import told
from ..sage_core.unet.training import training_bytes
from .host import files, unet_training
from .host.inputs import found_by, seed_input


class SAGETrainErasure(io.ComfyNode):
    """Trains ESD or RACE on a MODEL, or finds the edit that the same inputs gave before."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGETrainErasure",
            display_name="SAGE Train Erasure (ESD, RACE)",
            category="SAGE/unet",
            **found_by("erase concept", "erased stable diffusion"),
            description="Trains a concept out of an SD 1.x MODEL, by ESD as its authors have it now, as in the paper, "
            "or by RACE. Cancel keeps a checkpoint, from which the same inputs go on; a finished edit is found again.",
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The MODEL to erase from; patches on it are part of it."),
                io.Clip.Input("clip", tooltip="The CLIP that prompts will go through."),
                io.String.Input("concepts", multiline=True, default="nudity", tooltip="One a line, or between ;."),
                io.String.Input(
                    "erase_from",
                    multiline=True,
                    default="",
                    tooltip="What the concepts are erased from, one a line for each. Empty: the concepts themselves.",
                ),
                io.Combo.Input("preset", options=list(PRESETS), default="esd_x", tooltip=told("erasing")),
                io.Int.Input("steps", default=0, min=0, max=100_000, tooltip="Of training. 0: the preset's."),
                unet_training.size_input(),
                io.Int.Input("batch_size", default=1, min=1, max=64, tooltip="Pictures a step; published: 1."),
                unet_training.precision_input(),
                seed_input("Of everything random. The same seed gives the same edit."),
            ],
            outputs=unet_training.edit_outputs("The MODEL without the concepts."),
        )

    @classmethod
    def execute(
        cls, model, clip, concepts, erase_from, preset, steps, size, batch_size, precision, seed
    ) -> io.NodeOutput:
        settings = PRESETS[preset].replace(batch_size=batch_size, seed=seed)
        settings = settings.replace(steps=steps) if steps else settings
        wanted, sources = Concepts(split_texts(concepts)), split_texts(erase_from)
        result, takes = unet_training.train(
            model,
            clip,
            size,
            precision,
            lambda state, dtype: training_bytes(state, settings.trained, dtype),
            lambda run, encoder: train_erasure(
                run, encoder, wanted, settings, files.store_folder(), preset=preset, sources=sources
            ),
            "Choose precision bf16, a smaller size, or preset esd_x.",
        )
        return unet_training.edited(cls, model, result, takes)


NODES: list[type[io.ComfyNode]] = [SAGETrainErasure]
