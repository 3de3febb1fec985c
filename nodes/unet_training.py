"""Trainings of a U-Net: concepts erased by ESD and RACE, and prompts redirected by pairs, the SAGE U-Net."""

from __future__ import annotations

from comfy_api.latest import io

from ..sage_core.methods.concepts import Concepts, split_texts
from ..sage_core.methods.erasing import PRESETS, train_erasure
from ..sage_core.methods.redirecting import RedirectingSettings, drawable, train_redirection
from ..sage_core.methods.table import told
from ..sage_core.unet.training import training_bytes
from .host import display, files, unet_training
from .host.inputs import ADVANCED, found_by, seed_input
from .host.sockets import Pairs

_DEFAULTS = RedirectingSettings()


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


class SAGETrainUnet(io.ComfyNode):
    """Trains a MODEL by prompt pairs, or finds the edit that the same inputs gave before."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGETrainUnet",
            display_name="SAGE Train U-Net",
            category="SAGE/unet",
            **found_by("redirect unet", "safe unet"),
            description="Trains an SD 1.x MODEL by prompt pairs: it learns to draw the safe prompt where the unsafe "
            "one is asked for, also behind an aligned text encoder. Cancel keeps a checkpoint, from which the same "
            "inputs go on; a finished edit is found again.",
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The MODEL to train; patches on it are part of it."),
                io.Clip.Input("clip", tooltip="The checkpoint's own CLIP, not an aligned one: it reads both prompts."),
                Pairs.Input("pairs", tooltip="From SAGE Prompt Pairs. Where the two sides differ is what goes."),
                io.String.Input(
                    "concept", default="", tooltip="Its name in reports, if the pairs have none. Changes no result."
                ),
                io.Int.Input("steps", default=0, min=0, max=100_000, tooltip="Of training. 0: the preset's."),
                unet_training.size_input(),
                io.Int.Input("batch_size", default=0, min=0, max=64, tooltip="Unsafe prompts a step. 0: the preset's."),
                unet_training.precision_input(),
                seed_input("Of everything random. The same seed gives the same edit."),
                *_setting_inputs(),
            ],
            outputs=unet_training.edit_outputs("The MODEL that draws the safe prompts instead."),
        )

    @classmethod
    def execute(cls, model, clip, pairs, concept, steps, size, batch_size, precision, seed, **knobs) -> io.NodeOutput:
        sizes = {"steps": steps or _DEFAULTS.steps, "batch_size": batch_size or _DEFAULTS.batch_size}
        settings = _DEFAULTS.replace(**knobs, **sizes, seed=seed)
        pairs = drawable(pairs)
        result, takes = unet_training.train(
            model,
            clip,
            size,
            precision,
            lambda state, dtype: training_bytes(state, settings.trained, dtype),
            lambda run, encoder: train_redirection(
                run,
                encoder,
                pairs,
                settings,
                files.store_folder(),
                title=concept,
                on_draw=display.Progress("drawing what the MODEL makes of the pairs, step"),
            ),
            "Choose precision bf16, a smaller size, or a smaller batch_size.",
        )
        return unet_training.edited(cls, model, result, takes, pairs.report.summary())


def _setting_inputs() -> list[io.Input]:
    def number(name: str, most: float, step: float, tooltip: str) -> io.Input:
        about = {"default": getattr(_DEFAULTS, name), "tooltip": tooltip, "optional": True}
        return io.Float.Input(name, min=0.0, max=most, step=step, round=1e-7, **about, **ADVANCED)

    return [
        number("strength", 100.0, 0.1, "How far past the safe prompt. 0: to it, which leaves a part of the concept."),
        number("keep_weight", 1000.0, 0.1, "Weight of drawing safe prompts, and none, as before."),
        number("learning_rate", 1.0, 1e-6, "Adam's first step size; it falls to 0 along a cosine."),
        io.Int.Input(
            "pictures",
            default=_DEFAULTS.pictures,
            min=1,
            max=4096,
            optional=True,
            tooltip="Pairs of which the MODEL draws both prompts before step 1; only what the steps use is drawn.",
            **ADVANCED,
        ),
    ]


NODES: list[type[io.ComfyNode]] = [SAGETrainErasure, SAGETrainUnet]
