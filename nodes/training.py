"""Training settings, and the training of an aligned encoder inside ComfyUI."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..sage_core.alignment.memory import MemoryPlan, estimate_memory, plan_memory
from ..sage_core.alignment.report import run_summary
from ..sage_core.alignment.settings import PRESETS, TrainingSettings
from ..sage_core.alignment.training import TrainingResult, train_stored
from ..sage_core.alignment.verdict import verdict_lines
from ..sage_core.encoders.layouts import EncoderConfig, require_sd1
from ..sage_core.encoders.precision import choose_precision
from ..sage_core.encoders.text_encoder import save_encoder
from ..sage_core.errors import TrainingError
from ..sage_core.methods.table import told
from ..sage_core.prompts.concepts import ConceptList
from ..sage_core.prompts.pairs import PromptPairs
from .host import clips, display, files, memory
from .host.files import check_name, saved_metadata
from .host.inputs import ADVANCED, concepts_input, found_by, seed_input
from .host.sockets import Pairs, Settings

_DEFAULTS = PRESETS["sage_plus"]
# Farthest and neutral targets are moved by this, and the others by nothing as long as the widget stays there.
_SHIFT = 1.0
# What a first training may want to change; the other settings are folded away where ComfyUI can.
_MAIN_SETTINGS = {
    "learning_rate", "epochs", "steps", "batch_size", "keep_weight", "spread_weight", "local_weight", "keep_mse"
}  # fmt: skip
_LATER_SETTINGS = {"redirect_weight", "spread_form", "local_form", "supervision", "neutralise", "until"}


class SAGETrainingSettings(io.ComfyNode):
    """Sets every knob of the training, for SAGE Train Text Encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGETrainingSettings",
            display_name="SAGE Training Settings",
            category="SAGE/train",
            **found_by("hyperparameters", "learning rate"),
            description="Every knob of the training, in place of a preset. The defaults are those of sage_plus.",
            inputs=_setting_inputs(),
            outputs=[Settings.Output(display_name="settings", tooltip="For SAGE Train Text Encoder.")],
        )

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        # A widget cannot be empty: 0 stands for "not set".
        unset = {name: values[name] or None for name in ("steps", "chunk_size", "redirect_weight") if name in values}
        if values["target"] != "farthest" and values["target_shift"] == _SHIFT:
            unset["target_shift"] = None
        return io.NodeOutput(TrainingSettings(**values | unset))


def _setting_inputs() -> list[io.Input]:
    defaults = _DEFAULTS.to_dict() | {"target_shift": _SHIFT, "redirect_weight": 0.0}

    def few(name: str) -> dict[str, bool]:
        # What came after release 0.1 is optional: a saved graph of its has none of it.
        later = {"optional": True} if name in _LATER_SETTINGS else {}
        return later | ({} if name in _MAIN_SETTINGS else ADVANCED)

    def number(name: str, most: float, step: float, tooltip: str, least: float = 0.0) -> io.Input:
        about = {"default": defaults[name], "tooltip": tooltip, **few(name)}
        return io.Float.Input(name, min=least, max=most, step=step, round=1e-7, **about)

    def count(name: str, least: int, most: int, tooltip: str) -> io.Input:
        about = {"default": defaults[name] or 0, "tooltip": tooltip, **few(name)}
        return io.Int.Input(name, min=least, max=most, **about)

    def choice(name: str, options: list[str], tooltip: str) -> io.Input:
        return io.Combo.Input(name, options=options, default=defaults[name], tooltip=tooltip, **few(name))

    units = ["absolute", "norm", "concept"]
    unit_tooltip = "absolute; norm: multiples of safe embeddings' mean norm (about 240); concept: of the concept's."
    return [
        number("learning_rate", 1.0, 1e-6, "AdamW's step size. The paper has 1e-5; 1e-4 removes the concept further."),
        count("epochs", 1, 1000, "Passes over the pairs."),
        count("steps", 0, 1_000_000, "Exact number of steps, whatever epochs says. 0: epochs decide."),
        count("batch_size", 2, 4096, "Pairs a step. The losses compare the prompts of a batch: part of the result."),
        count("chunk_size", 0, 8192, "Prompts through the encoder at once: memory only. 0: as many as fit."),
        number("keep_weight", 1.0, 0.01, "λ: share of keeping safe prompts; removing the concept gets the rest."),
        number("spread_weight", 1000.0, 0.1, "λ_ESP: against the embedding space's collapse. DES has 0."),
        number("local_weight", 1000.0, 0.05, "λ_LSA: keeps which prompts are alike. DES has 0."),
        number("keep_mse", 10_000.0, 1.0, "Keeps safe embeddings in length as well as direction. The paper has 0."),
        io.Boolean.Input(
            "keep_concept",
            default=_DEFAULTS.keep_concept,
            tooltip="Keep safe prompts moved along the concept, too.",
            **ADVANCED,
        ),
        choice(
            "target",
            ["farthest", "paired", "nearest", "fitting"],
            "Which safe prompt an unsafe one is led to. fitting: its pair's for a colour, pattern or other quality of "
            "which the list of concepts says what it becomes, else a neutral one.",
        ),
        number(
            "target_shift",
            100.0,
            0.1,
            "Multiples of concept_scale that the target is moved off the concept. 1 holds for farthest and neutral "
            "ones only: paired and nearest ones stay, unless another number is set.",
            -100.0,
        ),
        number("concept_scale", 10_000.0, 1.0, "s: how far along the concept direction."),
        choice("scale_unit", units, "Unit of concept_scale: " + unit_tooltip),
        count("neighbours", 1, 1000, "K: nearest prompts that local_weight compares; batch_size must exceed K + 1."),
        number("perturbation", 10_000.0, 0.1, "α: push along the concept within the local term."),
        choice("perturbation_unit", units, "Unit of perturbation: " + unit_tooltip),
        number("weight_decay", 10.0, 0.001, "AdamW's weight decay."),
        count("warmup", 0, 100_000, "Steps over which the learning rate rises to its value."),
        choice(
            "precision",
            ["fp32", "tf32", "bf16", "auto"],
            "auto: bf16 where this machine computes in it natively and faster, else fp32. fp32 is exact.",
        ),
        count("held_out", 0, 4096, "Safe prompts kept out of training to measure the embedding space on."),
        choice(
            "schedule",
            ["constant", "linear", "cosine"],
            "constant: one learning rate, as in the paper. linear, cosine: it falls to 0 over the run.",
        ),
        number("redirect_weight", 1000.0, 0.05, "Weight of removing the concept. 0: 1 - keep_weight. The paper has 1."),
        choice("spread_form", ["hinge", "symmetric"], "hinge: only lost spread costs. symmetric: gained spread, too."),
        choice(
            "local_form",
            ["pearson", "product"],
            "pearson: correlation of the neighbours' cosines. product: mean of their products, as the paper prints it.",
        ),
        choice(
            "supervision",
            ["tokens", "pooled"],
            "What is compared: tokens, all 77 states as the U-Net reads them, or pooled, the end-of-text state.",
        ),
        io.Boolean.Input(
            "neutralise",
            default=_DEFAULTS.neutralise,
            tooltip="Lead the concept itself to the empty prompt.",
            **few("neutralise"),
        ),
        choice(
            "until",
            ["steps", "removed"],
            "steps: the run has its epochs or steps. removed: it ends when held-out prompts say that the concept is "
            "gone, after as long again and 40 steps at least; its limit is steps, or else the epochs', 400 or more.",
        ),
    ]


class SAGETrainEncoder(io.ComfyNode):
    """Trains an aligned encoder from a CLIP, or finds the one that the same inputs gave earlier."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGETrainEncoder",
            display_name="SAGE Train Text Encoder",
            category="SAGE/train",
            **found_by("remove concept", "unlearn concept", "alignment", "finetune clip"),
            description="Trains a safe version of an SD 1.x CLIP: the concept goes, counts, colours and relations "
            "stay. Cancel keeps a checkpoint, from which the same inputs go on; a finished training is found again.",
            is_output_node=True,
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP to start from. LoRAs on it stay, but are not trained with."),
                Pairs.Input("pairs", tooltip="From SAGE Make Pairs or SAGE Prompt Pairs."),
                io.String.Input("concept", default="nudity", tooltip="What is to be removed, in a word or two."),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="own_concept",
                    tooltip="own_concept: sage_plus until the concept is removed, for pairs of your own; "
                    f"{told('alignment')}",
                ),
                io.String.Input(
                    "name", default="sage-encoder", tooltip="Saved as models/text_encoders/<name>.safetensors."
                ),
                seed_input("Order of the prompts. The same seed gives the same encoder."),
                Settings.Input("settings", optional=True, tooltip="Knobs of your own; the preset is then not used."),
                concepts_input("concept; the pairs must be made with it"),
            ],
            outputs=encoder_outputs("The aligned CLIP.", "What was done, and what it did to the embedding space."),
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        return check_name(name)

    @classmethod
    def execute(cls, clip, pairs, concept, preset, name, seed, settings=None, concept_list=None) -> io.NodeOutput:
        path = files.new_trained_path(name)
        settings = (settings or PRESETS[preset]).replace(seed=seed)
        result, found, needed, aligned, verdict = _train(clip, pairs, concept_list or concept, settings)
        keep_encoder(path, result.state, result.metadata)
        report = run_summary(result, str(path), found=found, pairs=len(pairs), notes=[f"Memory: {needed}"])
        lines = [*verdict, *report.split("\n"), *clips.patch_notes(clip), *pairs.report.summary().split("\n")]
        # What stands on the node begins with what came of it, and with what is wrong.
        report = "\n".join(sorted(lines, key=lambda line: not line.startswith("⚠")))
        return display.trained(cls, aligned, report, result.history, str(path))


def encoder_outputs(clip: str, report: str) -> list[io.Output]:
    """What `display.trained` hands on of a trained encoder; `clip` and `report` say what these two are."""
    return [
        io.Clip.Output(display_name="clip", tooltip=clip),
        io.String.Output(display_name="report", tooltip=report),
        io.LossMap.Output(display_name="loss_map", tooltip="Total loss of each step, for Plot Loss Graph."),
        io.Image.Output(display_name="curves", tooltip="Every loss over the steps."),
        io.String.Output(display_name="path", tooltip="Where the encoder is saved."),
    ]


def keep_encoder(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Save a trained encoder, unless it is the one that lies there."""
    if saved_metadata(path).get("hash") != metadata["hash"]:
        save_encoder(path, state, metadata)


def _train(
    clip, pairs: PromptPairs, concept: str | ConceptList, settings: TrainingSettings
) -> tuple[TrainingResult, bool, str, Any, list[str]]:
    """The result, whether it was found, the announced memory, the aligned CLIP, and what embeddings say of it."""
    base = clips.private_copy(clips.own_weights(clip))
    config = EncoderConfig.of(base)
    require_sd1(config, "This CLIP")
    # What "auto" comes to is settled first: with the largest, other models would be unloaded for nothing.
    settled = settings.replace(precision=choose_precision(settings.precision, memory.device()))
    with memory.training_device(estimate_memory(config, settled, len(pairs))) as (device, free):
        watch = _Watch(plan_memory(config, settled, len(pairs), free), device)
        try:
            result, found = train_stored(
                base,
                pairs,
                concept,
                settings,
                files.store_folder(),
                device=device,
                free_memory=free,
                on_plan=watch.plan,
                on_prepare=watch.prepare,
                on_begin=watch.begin,
                on_step=watch.step,
                on_layer=display.stop_if_cancelled,
            )
        except memory.OUT_OF_MEMORY as error:
            raise TrainingError(
                f"Out of memory on {device} with batch_size {settings.batch_size} and chunk_size "
                f"{settings.chunk_size or 'automatic'}; {watch.needed} was expected. Lower chunk_size, then batch_size."
            ) from error
        told = display.Progress("looking at the result")
        verdict = verdict_lines(base, result.state, pairs, concept, device=device, on_batch=told)
        return result, found, watch.needed, clips.add_difference(clip, result.state, base, 1.0), verdict


class _Watch(display.LiveCurves):
    """Live curves, after a word on the memory that the training takes, and on its steps before there is one."""

    def __init__(self, plan: MemoryPlan, device: torch.device) -> None:
        """With the plan of a run that is found, and so makes none."""
        super().__init__()
        self._preparation = display.Progress("embedding prompts")
        self._device, self.needed = device, f"{plan.summary()}, on {device}"

    def plan(self, plan: MemoryPlan) -> None:
        self.needed = f"{plan.summary()}, on {self._device}"
        display.log.info("SAGE: training takes %s.", self.needed)

    def prepare(self, done: int, total: int) -> None:
        self._preparation(done, total, note=f"; training takes {self.needed}")


NODES: list[type[io.ComfyNode]] = [SAGETrainingSettings, SAGETrainEncoder]
