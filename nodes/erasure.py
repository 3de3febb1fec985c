"""Erasing concepts from a U-Net by training: ESD and RACE."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..sage_core.diffusion.concepts import Concepts, split_texts
from ..sage_core.diffusion.erasing import PRESETS
from ..sage_core.diffusion.erasing_store import train_erasure
from ..sage_core.diffusion.unet_runs import EditResult, UnetRun, training_bytes
from ..sage_core.encoders.text_encoder import TextEncoder
from ..sage_core.errors import TrainingError
from ..sage_core.plots import figure_to_image
from ..sage_core.runs.curves import training_curves
from .host import clips, display, files, memory, models
from .host.inputs import check_choices, seed_input


class SAGETrainErasure(io.ComfyNode):
    """Trains ESD or RACE on a MODEL, or finds the edit that the same inputs gave before."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGETrainErasure",
            display_name="Train Erasure (ESD, RACE)",
            category="SAGE/unet",
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
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="esd_x",
                    tooltip="esd_x: cross-attention, for what prompts name; esd_u: the rest, for nudity. _paper: 1,000 "
                    "steps as published. race: against adversarial words, ten times the work.",
                ),
                io.Int.Input("steps", default=0, min=0, max=100_000, tooltip="Of training. 0: the preset's."),
                io.Int.Input("size", default=512, min=64, max=1024, step=8, tooltip="Side of the pictures drawn."),
                io.Int.Input("batch_size", default=1, min=1, max=64, tooltip="Pictures a step; published: 1."),
                io.Combo.Input(
                    "precision",
                    options=["auto", "fp32", "bf16"],
                    default="auto",
                    tooltip="What the U-Net computes in. auto: bf16 where the device does, as published.",
                ),
                seed_input("Of everything random. The same seed gives the same edit."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The MODEL without the concepts."),
                io.String.Output(display_name="report", tooltip="What was done, and the loss at both ends."),
                io.LossMap.Output(display_name="loss_map", tooltip="Loss of each step, for Plot Loss Graph."),
                io.Image.Output(display_name="curves", tooltip="The losses over the steps."),
            ],
        )

    @classmethod
    def execute(
        cls, model, clip, concepts, erase_from, preset, steps, size, batch_size, precision, seed
    ) -> io.NodeOutput:
        check_choices(cls, preset=preset, precision=precision)
        settings = PRESETS[preset].replace(batch_size=batch_size, seed=seed)
        settings = settings.replace(steps=steps) if steps else settings
        wanted, sources = Concepts(split_texts(concepts)), split_texts(erase_from)
        models.require_noise_prediction(model)
        dtype = memory.precision(precision)
        state = models.patched_weights(model)
        needed = training_bytes(state, settings.trained, dtype)
        watch = display.LiveCurves()
        advice = TrainingError(
            f"Out of memory: the weights alone take {needed / 2**30:.1f} GiB, and a picture of {size} pixels comes in "
            "addition. Choose precision bf16, a smaller size, or preset esd_x."
        )
        with memory.training_device(needed) as (device, _), memory.telling_memory(advice):
            encoder = TextEncoder.from_state(clips.private_copy(clips.patched_weights(clip)), copy=False).to(device)
            # ComfyUI's own tensors belong to inference; copies of them are trained with.
            own = {name: value.detach().clone() if value.is_inference() else value for name, value in state.items()}
            run = UnetRun(own, size, device, dtype, watch.step, display.stop_if_cancelled)
            result = train_erasure(
                run,
                encoder.requires_grad_(False),
                wanted,
                settings,
                files.store_folder(),
                preset=preset,
                sources=sources,
            )
        return _output(cls, model, result)


def _output(cls: type[io.ComfyNode], model, result: EditResult) -> io.NodeOutput:
    curves = display.to_image(figure_to_image(training_curves(result.history)))
    report = result.summary()
    if patches := models.count_patches(model):
        report += f"\nNote: the MODEL carries {patches} patch(es), such as LoRAs, which the training saw."
    display.log.info("SAGE: %s", report)
    loss_map = {"loss": [step.losses["total"] for step in result.history]}
    shown = ui.PreviewImage(curves, cls=cls).as_dict() | ui.PreviewText(report).as_dict()
    edited = models.add_differences(model, result.deltas, 1.0)
    return io.NodeOutput(edited, report, loss_map, curves, ui=shown)


NODES: list[type[io.ComfyNode]] = [SAGETrainErasure]
