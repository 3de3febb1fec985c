"""What nodes that train a U-Net share: inputs, outputs, private copies of weights, and advice when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from comfy_api.latest import io
from torch import Tensor

from ...sage_core.encoders.text_encoder import TextEncoder
from ...sage_core.errors import TrainingError
from ...sage_core.unet.training import EditResult, UnetRun
from . import clips, display, memory, models


def size_input(tooltip: str = "Side of the pictures drawn.") -> io.Input:
    """The side of the pictures."""
    return io.Int.Input("size", default=512, min=64, max=1024, step=8, tooltip=tooltip)


def precision_input(auto: str = "bf16 where the device does, as published.") -> io.Input:
    """What the U-Net computes in, for `memory.precision`; `auto` says what "auto" is."""
    tooltip = f"What the U-Net computes in. auto: {auto}"
    return io.Combo.Input("precision", options=["auto", "fp32", "bf16"], default="auto", tooltip=tooltip)


def edit_outputs(model: str) -> list[io.Output]:
    """The outputs that `edited` fills; `model` says what the MODEL is."""
    return [
        io.Model.Output(display_name="model", tooltip=model),
        io.String.Output(display_name="report", tooltip="What was done, and the loss at both ends."),
        io.LossMap.Output(display_name="loss_map", tooltip="Loss of each step, for Plot Loss Graph."),
        io.Image.Output(display_name="curves", tooltip="The losses over the steps."),
    ]


def train(
    model,
    clip,
    size: int,
    precision: str,
    needed: Callable[[Mapping[str, Tensor], torch.dtype], int],
    work: Callable[[UnetRun, TextEncoder], EditResult],
    advice: str,
) -> tuple[EditResult, str]:
    """Train on copies of a MODEL's and a CLIP's weights, patches among them; shows the losses, and notices Cancel.

    Returns:
        The result, and a line on the memory that it takes, which is said before the first step, too.

    Args:
        needed: bytes that a training of these weights takes in this type, without activations.
        work: the training, of a run and the encoder of the prompts, on the run's device.
        advice: what to do when memory runs out, a sentence.

    Raises:
        UnetError: the MODEL is not a plain SD 1.x one that predicts noise.
        TrainingError: memory ran out; see also `UnetRun.train`.
    """
    models.require_noise_prediction(model)
    dtype = memory.precision(precision)
    # Of the sizes alone: weights that are held while ComfyUI makes room stay where they are.
    room = needed(models.own_weights(model), dtype)
    weights = f"the weights alone take {room / 2**30:.1f} GiB, and a picture of {size} pixels comes in addition"
    without = TrainingError(f"Out of memory: {weights}. {advice}")
    with memory.training_device(room) as (device, free), memory.telling_memory(without):
        takes = f"Memory: {weights}; {free / 2**30:.1f} GiB are free on {device}."
        display.log.info("SAGE: %s", takes)
        display.say(takes)
        encoder = TextEncoder.from_state(clips.private_copy(clips.patched_weights(clip)), copy=False).to(device)
        watch = display.LiveCurves().step, display.stop_if_cancelled
        run = UnetRun(models.patched_weights(model), size, device, dtype, *watch)
        return work(run, encoder.requires_grad_(False)), takes


def edited(cls: type[io.ComfyNode], model, result: EditResult, *notes: str) -> io.NodeOutput:
    """What the node shows and hands on: the MODEL with the edit as patches, and how the training went."""
    report = "\n".join([result.summary(), *notes, *models.patch_notes(model)])
    return display.trained(cls, models.add_differences(model, result.deltas, 1.0), report, result.history)
