"""Training a text encoder to unlearn concepts under attack, with the U-Net in the loop: AdvUnlearn."""

from __future__ import annotations

from comfy_api.latest import io

from ..sage_core.encoders.layouts import EncoderConfig, require_sd1
from ..sage_core.errors import PromptError, TrainingError
from ..sage_core.methods.adv_unlearn import AdvUnlearnSettings
from ..sage_core.methods.adv_unlearn_store import plan_unlearning, train_adv_unlearn
from ..sage_core.methods.concepts import Concepts, split_texts
from ..sage_core.unet.training import UnetRun
from .host import clips, display, files, memory, models, unet_training
from .host.files import check_name
from .host.inputs import ADVANCED, found_by, seed_input
from .host.sockets import Pairs
from .training import encoder_outputs, keep_encoder

_DEFAULTS = AdvUnlearnSettings()


class SAGETrainAdvUnlearn(io.ComfyNode):
    """Trains AdvUnlearn on a CLIP through a MODEL, or finds the encoder that the same inputs gave before."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGETrainAdvUnlearn",
            display_name="SAGE Train AdvUnlearn",
            category="SAGE/train",
            **found_by("machine unlearning", "adversarial training"),
            description="Trains an SD 1.x CLIP by AdvUnlearn, fast form: through the MODEL's U-Net it unlearns "
            "concepts while an attack on their words tries to bring them back. Cancel keeps a checkpoint, from which "
            "the same inputs go on; a finished training is found again.",
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The MODEL that draws; it stays as it is. Patches on it count."),
                io.Clip.Input("clip", tooltip="The CLIP to start from. LoRAs on it stay, but are not trained with."),
                io.String.Input("concepts", multiline=True, default="nudity", tooltip="One a line, or between ;."),
                io.String.Input(
                    "name", default="advunlearn-encoder", tooltip="Saved as models/text_encoders/<name>.safetensors."
                ),
                *_setting_inputs(),
                unet_training.size_input(),
                unet_training.precision_input("bf16 where the device does. The encoder is fp32."),
                seed_input("Of everything random. The same seed gives the same encoder."),
                Pairs.Input("pairs", optional=True, tooltip="From SAGE Prompt Pairs: the safe side is retained."),
                io.String.Input(
                    "retain_prompts",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="Prompts to retain, one a line, in place of pairs. Neither: 60 everyday prompts.",
                ),
                io.String.Input(
                    "guide",
                    default="",
                    optional=True,
                    tooltip="What the concepts become. Empty: nothing in particular, as published.",
                    **ADVANCED,
                ),
            ],
            outputs=encoder_outputs(
                "The CLIP that has unlearned the concepts.", "What was done, and the losses at both ends."
            ),
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        return check_name(name)

    @classmethod
    def execute(
        cls, model, clip, concepts, name, size, precision, pairs=None, retain_prompts="", guide="", **knobs
    ) -> io.NodeOutput:
        settings = AdvUnlearnSettings(**knobs)
        path = files.new_trained_path(name)
        wanted = Concepts(split_texts(concepts), (guide.strip(),))
        retain = _retained(pairs, retain_prompts)
        models.require_noise_prediction(model)
        result, needed, unlearned = _train(model, clip, wanted, retain, settings, size, precision)
        keep_encoder(path, result.state, result.metadata)
        notes = [f"Saved: {path}", f"Memory: {needed}", *models.patch_notes(model), *clips.patch_notes(clip)]
        report = "\n".join([result.summary(), *notes])
        return display.trained(cls, unlearned, report, result.history, str(path))


def _setting_inputs() -> list[io.Input]:
    def number(name: str, most: float, step: float, tooltip: str) -> io.Input:
        about = {"default": getattr(_DEFAULTS, name), "tooltip": tooltip}
        return io.Float.Input(name, min=0.0, max=most, step=step, round=1e-7, **about)

    def count(name: str, least: int, most: int, tooltip: str, **options: bool) -> io.Input:
        return io.Int.Input(name, min=least, max=most, default=getattr(_DEFAULTS, name), tooltip=tooltip, **options)

    return [
        count("steps", 1, 100_000, "Of training; published: 1,000."),
        number("learning_rate", 1.0, 1e-6, "Adam's step size; published: 1e-5."),
        number("retain_weight", 1000.0, 0.1, "γ: weight of the retained prompts; published: 0.3 for nudity."),
        count("retain_batch", 0, 64, "Retained prompts a step; published: 5.", **ADVANCED),
        number("radius", 100.0, 0.1, "How far the attack moves the concepts' words, in their own size. 0: no attack."),
        count("attack_steps", 1, 100, "Of the attack. 1: the fast form; each more costs a pass.", **ADVANCED),
        count("layers", 0, 100, "How many of the first layers are trained. 0: all.", **ADVANCED),
        count("batch_size", 1, 64, "Pictures of concepts a step; published: 1.", **ADVANCED),
    ]


def _retained(pairs, text: str) -> tuple[str, ...]:
    if pairs is not None and text.strip():
        raise PromptError("Prompts to retain come from pairs or from retain_prompts; both are given.")
    if pairs is not None:
        return tuple(pairs.safe)
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _train(
    model, clip, concepts: Concepts, retain: tuple[str, ...], settings: AdvUnlearnSettings, size: int, precision: str
):
    """The result, the announced memory, and the trained CLIP."""
    base = clips.private_copy(clips.own_weights(clip))
    require_sd1(EncoderConfig.of(base), "This CLIP")
    dtype = memory.precision(precision)
    # Of the sizes alone: what is held while ComfyUI makes room stays where it is.
    plan = plan_unlearning(models.own_weights(model), base, settings, size=size, dtype=dtype)
    with memory.training_device(plan.bytes) as (device, free):
        held = models.patched_weights(model)
        plan = plan_unlearning(held, base, settings, size=size, dtype=dtype, free=free)
        needed = f"{plan.summary()}, on {device}"
        display.log.info("SAGE: training takes %s.", needed)
        advice = TrainingError(
            f"Out of memory on {device}; {needed} was expected. Choose precision bf16, a smaller size, or a smaller "
            "retain_batch."
        )
        with memory.telling_memory(advice):
            run = UnetRun(held, size, device, dtype, display.LiveCurves().step, display.stop_if_cancelled)
            store = files.store_folder()
            result = train_adv_unlearn(run, base, concepts, settings, store, retain=retain, free_memory=free)
        return result, needed, clips.add_difference(clip, result.state, base, 1.0)


NODES: list[type[io.ComfyNode]] = [SAGETrainAdvUnlearn]
