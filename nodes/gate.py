"""A gate before the sampler: prompts that it takes for unsafe go through an aligned CLIP, or are refined."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from comfy_api.latest import io, ui

from ..sage_core.encoders.text_encoder import TextEncoder, state_hash
from ..sage_core.errors import SettingsError, TrainingError
from ..sage_core.methods.gate import GateSettings, gate_name, refine, train_gate
from ..sage_core.methods.gate_file import Gate, load_gate, save_gate
from ..sage_core.prompts.pairs import PromptPairs
from ..sage_core.runs.keeping import kept
from ..sage_core.runs.record import StepReport
from .host import clips, display, files, memory
from .host.inputs import found_by, seed_input
from .host.sockets import GateType, Pairs

_ROUTE, _REFINE = "route", "refine"
_DEFAULTS = GateSettings()
_NO_USE = (
    "⚠ aligned holds the same weights as base: flagged prompts are drawn as without a gate. Connect an aligned CLIP; "
    "perhaps SAGE Apply is bypassed, or at strength 0."
)
# Bytes of a gate and its checkpoint, generously.
_STORED = 2**24


class SAGETrainGate(io.ComfyNode):
    """Trains a gate for a CLIP, or finds the one that the same inputs gave before."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGETrainGate",
            display_name="SAGE Train Gate",
            category="SAGE/train",
            **found_by("cgce", "prompt classifier"),
            description="Trains a small classifier that tells unsafe prompts by a CLIP's states, with a threshold set "
            "for a stated rate of false alarms. A finished gate is found again in output/sage/gates.",
            is_output_node=True,
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP whose prompts are judged: that of the checkpoint."),
                Pairs.Input("pairs", tooltip="Safe and unsafe prompts to learn from; some 200 pairs at least."),
                io.Float.Input(
                    "false_alarms",
                    default=_DEFAULTS.false_alarms,
                    min=0.001,
                    max=0.5,
                    step=0.005,
                    round=1e-4,
                    tooltip="At most this share of held-out safe prompts is taken for unsafe.",
                ),
                io.Int.Input("steps", default=_DEFAULTS.steps, min=1, max=100_000, tooltip="Of training."),
                seed_input("Of the split, the first weights and the batches."),
            ],
            outputs=[
                GateType.Output(display_name="gate", tooltip="For SAGE Gate."),
                io.String.Output(display_name="report", tooltip="What it detects, and its false alarms."),
            ],
        )

    @classmethod
    def execute(cls, clip, pairs, false_alarms, steps, seed) -> io.NodeOutput:
        settings = GateSettings(steps=steps, false_alarms=false_alarms, seed=seed)
        state, folder = clips.private_copy(clips.patched_weights(clip)), files.gate_folder()
        name = gate_name(state_hash(state), pairs.safe, pairs.unsafe, settings)
        # ComfyUI runs nodes in inference mode, in which weights are made that gradients cannot pass.
        with torch.inference_mode(False):
            encoder = TextEncoder.from_state(state, copy=False)
            gate, found = kept(
                folder,
                name,
                make=lambda checkpoint: _train(encoder, pairs, settings, checkpoint),
                save=save_gate,
                read=lambda path: load_gate(path, encoder),
                needed=_STORED,
            )
        report = "\n".join(
            [
                f"{'Found' if found else 'Trained'}: {folder / name}.safetensors",
                gate.card.summary(),
                pairs.report.summary(),
            ]
        )
        display.log.info("SAGE: %s", report)
        return io.NodeOutput(gate, report, ui=ui.PreviewText(report))


def _train(encoder: TextEncoder, pairs: PromptPairs, settings: GateSettings, checkpoint: Path) -> Gate:
    width, prompts = encoder.config.width, len(set(pairs.safe)) + len(set(pairs.unsafe))
    needed = 4 * sum(weight.numel() for weight in encoder.parameters()) + 2 * 77 * width * prompts
    advice = TrainingError(
        f"Out of memory: training a gate takes {needed / 2**30:.1f} GiB and the encoder's activations. Use fewer pairs."
    )
    progress, embedding = display.Progress("step"), display.Progress("embedding prompts")

    def watch(step: StepReport) -> None:
        progress(step.step, step.steps)

    with memory.training_device(needed) as (device, _), memory.telling_memory(advice):
        encoder.to(device)
        gate = train_gate(
            encoder, pairs.safe, pairs.unsafe, settings, checkpoint=checkpoint, on_step=watch, on_batch=embedding
        )
        # As it is when it is found.
        gate.network.cpu()
        return gate


class SAGEGate(io.ComfyNode):
    """CLIP Text Encode behind a gate."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEGate",
            display_name="SAGE Gate",
            category="SAGE/text",
            **found_by("cgce", "nsfw prompt filter"),
            description="CLIP Text Encode behind a gate: harmless prompts are encoded by the base CLIP, untouched; "
            "flagged ones by an aligned CLIP (route), or changed until the gate lets them pass (refine).",
            inputs=[
                GateType.Input("gate", tooltip="From SAGE Train Gate, trained for base."),
                io.Clip.Input("base", tooltip="The checkpoint's CLIP, which the gate was trained for."),
                io.String.Input("text", multiline=True, default="", tooltip="The prompt."),
                io.Combo.Input(
                    "action",
                    options=[_ROUTE, _REFINE],
                    default=_ROUTE,
                    tooltip="What is done with a flagged prompt: route encodes it by aligned; refine moves its states "
                    "along the gate's gradient, after CGCE.",
                ),
                io.Clip.Input("aligned", optional=True, tooltip="For route: an aligned CLIP, such as SAGE's."),
            ],
            outputs=[
                io.Conditioning.Output(display_name="conditioning", tooltip="For KSampler."),
                io.Boolean.Output(display_name="touched", tooltip="Whether the prompt was flagged."),
                io.String.Output(display_name="report", tooltip="How far from the threshold, and what was done."),
            ],
        )

    @classmethod
    def execute(cls, gate: Gate, base, text, action, aligned=None) -> io.NodeOutput:
        if action == _ROUTE and aligned is None:
            raise SettingsError("action is route, but aligned is not connected: connect an aligned CLIP, or refine.")
        if action == _REFINE:
            clips.require_last_layer(base)
        gate.card.require(clips.encoder_hash(base))
        start = time.monotonic()
        states = clips.last_layer_states(base, text).cpu()
        margin = float(gate.margins(states).detach())
        touched = not margin <= 0
        if not touched:
            found, done = clips.encode(base, text), "untouched: encoded by base"
        elif action == _ROUTE:
            found, done = clips.encode(aligned, text), "flagged: encoded by aligned"
        else:
            refined = refine([gate], states)
            found = [[refined.states, extras] for _, extras in clips.encode(base, text)]
            end = "now passes" if bool(refined.safe.all()) else "is still flagged"
            done = f"flagged: refined in {int(refined.iterations.sum())} steps, and {end}"
        report = (
            f"{done}; {abs(margin):.2f} {'above' if touched else 'below'} the threshold "
            f"({time.monotonic() - start:.2f} s)."
        )
        report = f"{report[0].upper()}{report[1:]}\n{gate.card.summary()}"
        if action == _ROUTE and clips.encode_alike(base, aligned):
            display.log.warning("SAGE Gate: %s", _NO_USE)
            report = f"{_NO_USE}\n{report}"
        return io.NodeOutput(found, touched, report, ui=ui.PreviewText(report))


NODES: list[type[io.ComfyNode]] = [SAGETrainGate, SAGEGate]
