"""Attacking a text encoder of one's own, to test it: prompts and embeddings that bring the concept back."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from ..sage_core.attacks.budgets import AttackBudget, success_curves
from ..sage_core.attacks.embeddings import save_embeddings
from ..sage_core.attacks.naming import NamedAttack, name_attack
from ..sage_core.attacks.plans import AttackPlan
from ..sage_core.attacks.store import AttackedModel, StoredAttack, attack_stored, summary
from ..sage_core.encoders.layouts import EncoderConfig, require_sd1
from ..sage_core.errors import SettingsError, TrainingError
from ..sage_core.methods.concepts import split_texts
from ..sage_core.plots import figure_to_image
from ..sage_core.prompts.concepts import ConceptList
from .host import clips, display, files, memory, models, unet_training
from .host.files import taken
from .host.inputs import ADVANCED, concepts_input, found_by, seed_input

_DEFAULTS = AttackPlan(("a",))
# Of two text encoders and what passes through, beside a U-Net.
_ROOM = 3 * 2**30


class SAGEAttack(io.ComfyNode):
    """Attacks a CLIP by prompts or embeddings, with the base CLIP as its control."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEAttack",
            display_name="SAGE Attack",
            category="SAGE/inspect",
            **found_by("red team", "jailbreak", "adversarial prompt"),
            description="Tests a CLIP of yours: looks for prompts, or an embedding, by which the aligned CLIP gives "
            "what the base gives for unsafe prompts, and attacks the base in the same way as a control. Prompts that "
            "refer to minors are refused before anything runs. Cancel keeps a checkpoint, from which the same inputs "
            "go on; a finished attack is found again.",
            is_output_node=True,
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP under attack, with everything that lies on it."),
                io.Clip.Input("base", tooltip="The CLIP before alignment: what is wanted, and the control."),
                io.String.Input("prompts", multiline=True, default="", tooltip="Unsafe prompts of yours, one a line."),
                io.String.Input("concept", default="nudity", tooltip="How the prompts name it."),
                io.Combo.Input(
                    "method",
                    options=["tokens", "genetic", "soft", "inversion"],
                    default="tokens",
                    tooltip="tokens, genetic: prompts. soft: an embedding for each prompt. inversion: one for all.",
                ),
                io.Combo.Input(
                    "goal",
                    options=["embedding", "direction", "noise", "pooled"],
                    default="embedding",
                    tooltip="embedding: the base CLIP's. direction: along the concept. noise: the U-Net's, needs it. "
                    "pooled: the end token's, as MMA-Diffusion.",
                ),
                *_setting_inputs(),
                io.Boolean.Input("control", default=True, tooltip="Attack the base as well. Costs as much again."),
                io.String.Input(
                    "name", default="sage-attack", tooltip="An embedding is saved as models/embeddings/<name>."
                ),
                seed_input("Of everything random. The same seed gives the same prompts."),
                io.Model.Input("model", optional=True, tooltip="For the goal noise: the MODEL under attack."),
                io.Model.Input(
                    "base_model", optional=True, tooltip="The MODEL before its edit, where the U-Net was edited, too."
                ),
                io.String.Input(
                    "without",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="Words that tokens may not use, such as the names that a training saw. One a line.",
                    **ADVANCED,
                ),
                concepts_input("its names; concept says which, if there are several"),
            ],
            outputs=[
                io.String.Output(display_name="prompts", tooltip="What was found, one a line, ready to draw."),
                io.String.Output(display_name="path", tooltip="The embedding's file; empty for tokens and genetic."),
                io.Image.Output(display_name="curve", tooltip="Prompts broken against tries, with the control."),
                io.String.Output(display_name="report", tooltip="What was reached, and whether it means anything."),
            ],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        return taken(files.new_embedding_path, name)

    @classmethod
    def execute(
        cls,
        clip,
        base,
        prompts,
        concept,
        method,
        goal,
        tokens,
        steps,
        restarts,
        candidates,
        below,
        learning_rate,
        size,
        precision,
        control,
        name,
        seed,
        model=None,
        base_model=None,
        without="",
        concept_list=None,
    ) -> io.NodeOutput:
        path = files.new_embedding_path(name)
        asked = _asked(prompts, concept, concept_list, method, goal)
        plan = AttackPlan(
            asked.prompts,
            asked.concept,
            method,
            goal,
            count=tokens,
            budget=AttackBudget(steps, restarts, below=below),
            candidates=candidates,
            without=asked.without + split_texts(without),
            learning_rate=learning_rate,
            seed=seed,
        )
        if plan.through_unet and model is None:
            raise SettingsError("The goal noise goes through the U-Net: connect a MODEL, or choose another goal.")
        display.say("reading both models")
        victim = _model(clip, model, plan)
        wanted = _model(base, base_model if base_model is not None else model, plan)
        display.say("preparing the attack")
        found = _attack(plan, victim, wanted, size, precision)
        if control:
            display.say("preparing the control, an attack on the base")
        checked = _attack(plan, wanted, wanted, size, precision) if control else None
        return _output(cls, plan, found, checked, save_embeddings(path, found.embeddings(), found.metadata))


def _asked(prompts: str, concept: str, concepts: ConceptList | None, method: str, goal: str) -> NamedAttack:
    """The prompts and the concept as typed, or as a list of concepts has them."""
    lines = tuple(line.strip() for line in prompts.splitlines() if line.strip())
    if concepts is None:
        return NamedAttack(lines, concept.strip(), ())
    # In a list of one, whatever the widget says of another concept is left from before.
    chosen = concept if len(concepts) > 1 else ""
    return name_attack(concepts, chosen, lines, along=goal == "direction", one_name=method == "inversion")


def _setting_inputs() -> list[io.Input]:
    count = io.Int.Input
    return [
        count("tokens", default=0, min=0, max=75, tooltip="Free tokens of each prompt. 0: the method's own."),
        count("steps", default=100, min=1, max=100_000, tooltip="Of each restart."),
        count("restarts", default=1, min=1, max=100, tooltip="From random starts of their own."),
        count("candidates", default=32, min=2, max=4096, tooltip="Tokens tried for each prompt a step.", **ADVANCED),
        io.Float.Input(
            "below",
            default=0.0,
            min=0.0,
            max=10.0,
            step=1e-4,
            round=1e-4,
            tooltip="Distance that counts as broken. 0: the goal's own.",
            **ADVANCED,
        ),
        io.Float.Input(
            "learning_rate",
            default=_DEFAULTS.learning_rate,
            min=1e-4,
            max=10.0,
            # Its digits are those that are shown.
            step=1e-4,
            round=1e-4,
            tooltip="Of embeddings, in their own size.",
            **ADVANCED,
        ),
        unet_training.size_input("Side of the pictures, for the goal noise."),
        unet_training.precision_input("bf16 where the device does. Encoders are fp32."),
    ]


def _model(clip, model, plan: AttackPlan) -> AttackedModel:
    """Weights with all patches in them."""
    state = clips.private_copy(clips.patched_weights(clip))
    require_sd1(EncoderConfig.of(state), "This CLIP")
    clips.require_last_layer(clip)
    if not plan.through_unet:
        return AttackedModel(state)
    models.require_noise_prediction(model)
    return AttackedModel(state, models.patched_weights(model))


def _attack(plan: AttackPlan, victim: AttackedModel, base: AttackedModel, size: int, precision: str) -> StoredAttack:
    dtype = memory.precision(precision)
    weights = sum(value.numel() for value in (victim.unet or {}).values()) * dtype.itemsize
    advice = TrainingError(
        "Out of memory. Choose precision bf16, smaller pictures, fewer candidates, or the goal embedding."
    )
    with memory.training_device(_ROOM + 2 * weights) as (device, _), memory.telling_memory(advice):
        return attack_stored(
            plan,
            victim,
            base,
            files.store_folder(),
            size=size,
            device=device,
            dtype=dtype,
            on_step=_Watch(),
            on_evaluation=display.stop_if_cancelled,
        )


class _Watch:
    """Shows the steps of an attack on the node."""

    def __init__(self) -> None:
        self._progress = display.Progress("step")

    def __call__(self, step) -> None:
        self._progress(step.step, step.steps, note=f", distance {step.losses['distance']:.3g}")


def _output(
    cls: type[io.ComfyNode], plan: AttackPlan, found: StoredAttack, control: StoredAttack | None, paths: list[Path]
) -> io.NodeOutput:
    curves = {"under attack": found.outcome.curve()}
    curves |= {"control: the base": control.outcome.curve()} if control else {}
    curve = display.to_image(figure_to_image(success_curves(curves)))
    # As ComfyUI calls them in a prompt, so that what comes out draws.
    texts = "\n".join(found.texts([f"embedding:{path.stem}" for path in paths]))
    path, text = "\n".join(map(str, paths)), summary(plan, found, control)
    text += f"\nSaved: {path}" if path else ""
    display.log.info("SAGE: %s", text)
    return io.NodeOutput(texts, path, curve, text, ui=display.preview(curve, f"{text}\n\n{texts}", cls))


NODES: list[type[io.ComfyNode]] = [SAGEAttack]
