"""Guidance away from a safety text (Safe Latent Diffusion), and prompts moved out of a space of concepts (SAFREE)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..sage_core.drawing.guidance import PRESETS, SafeGuidanceSettings
from ..sage_core.encoders.text_encoder import TextEncoder
from ..sage_core.encoders.tokens import MAX_PROMPT_TOKENS, count_tokens
from ..sage_core.errors import PromptError
from ..sage_core.methods.concepts import split_texts
from ..sage_core.methods.safree import ConceptSpace, SafePrompt, SafreeSettings
from ..sage_core.prompts.weights import names_embedding, without_weights
from .host import clips, guidance
from .host.inputs import found_by

_CATEGORY = "SAGE/unet"
_CUSTOM = "custom"
_MEDIUM = PRESETS["medium"]


def _guidance_inputs() -> list[io.Input]:
    def number(name: str, most: float, step: float, tooltip: str, least: float = 0.0) -> io.Input:
        value = getattr(_MEDIUM, name)
        return io.Float.Input(name, default=value, min=least, max=most, step=step, round=1e-6, tooltip=tooltip)

    return [
        io.Conditioning.Input("safety", tooltip="The safety text from CLIP Text Encode: what is to be avoided."),
        io.Combo.Input(
            "preset",
            options=[*PRESETS, _CUSTOM],
            default="medium",
            tooltip="The published strengths. custom takes the numbers below, which the others do not.",
        ),
        io.Int.Input(
            "warmup", default=_MEDIUM.warmup, min=0, max=50, tooltip="For custom: steps of 50 that are left alone."
        ),
        number("scale", 100_000.0, 10.0, "For custom: s_S, how soon a difference counts fully. More than 1."),
        number("threshold", 100.0, 0.005, "For custom: λ; values beyond it are left alone.", -100.0),
        number("momentum_scale", 1.0, 0.05, "For custom: s_m, how much of what was added is added again."),
        number("momentum_beta", 0.99, 0.05, "For custom: β, how long that is remembered."),
    ]


def _settings(preset: str, **values: Any) -> SafeGuidanceSettings:
    return PRESETS[preset] if preset != _CUSTOM else SafeGuidanceSettings(**values)


class SAGEGuidance(io.ComfyNode):
    """A MODEL that samplers draw with away from a safety text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEGuidance",
            display_name="SAGE Safe Guidance (SLD)",
            category=_CATEGORY,
            **found_by("safe latent diffusion", "safety guidance"),
            description="Safe Latent Diffusion for KSampler and CFGGuider: guidance also leads away from a safety "
            "text, from the presets' step on. Takes half as much time again.",
            inputs=[io.Model.Input("model", tooltip="The MODEL to draw with."), *_guidance_inputs()],
            outputs=[io.Model.Output(display_name="model", tooltip="For KSampler, with cfg above 1.")],
        )

    @classmethod
    def execute(cls, model, safety, preset, **values) -> io.NodeOutput:
        settings = _settings(preset, **values)
        return io.NodeOutput(guidance.guide_safely(model, safety, settings))


class SAGEGuider(io.ComfyNode):
    """The same guidance as a guider."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEGuider",
            display_name="SAGE Safe Guider (SLD)",
            category=_CATEGORY,
            **found_by("safe latent diffusion", "safety guidance"),
            description="Safe Latent Diffusion as a guider for SamplerCustomAdvanced; the same as SAGE Safe Guidance.",
            inputs=[
                io.Model.Input("model", tooltip="The MODEL to draw with."),
                io.Conditioning.Input("positive", tooltip="The prompt."),
                io.Conditioning.Input("negative", tooltip="The negative prompt, empty or not."),
                io.Float.Input(
                    "cfg", default=7.5, min=0.0, max=100.0, step=0.1, round=0.01, tooltip="Guidance, above 1."
                ),
                *_guidance_inputs(),
            ],
            outputs=[io.Guider.Output(display_name="guider", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, model, positive, negative, cfg, safety, preset, **values) -> io.NodeOutput:
        settings = _settings(preset, **values)
        return io.NodeOutput(guidance.guider(guidance.guide_safely(model, safety, settings), positive, negative, cfg))


class SAGESafree(io.ComfyNode):
    """A prompt moved out of a space of concepts, without training."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGESafree",
            display_name="SAGE SAFREE Prompt",
            category="SAGE/text",
            **found_by("training free", "safe prompt"),
            description="Moves a prompt's risky words out of the space that some concepts span, for the first steps "
            "of the sampler, and gives the concepts as negative prompt. No training, no change of the MODEL.",
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP of an SD 1.x checkpoint, aligned or not, without clip skip."),
                io.String.Input("text", multiline=True, default="", tooltip="The prompt."),
                io.String.Input(
                    "concepts",
                    multiline=True,
                    default="nudity",
                    tooltip="What to keep away from: one a line, or between ;. The paper has 17 phrases.",
                ),
                io.Float.Input(
                    "alpha",
                    default=SafreeSettings.alpha,
                    min=0.0,
                    max=10.0,
                    step=0.005,
                    round=1e-6,
                    tooltip="How much farther than the others' mean a risky word lies. The paper has 0.01.",
                ),
                io.Combo.Input(
                    "steps",
                    options=["filtered", "filtered, artists", "all"],
                    default="filtered",
                    tooltip="For how many steps the moved prompt holds: by the paper's filter, its form for artists, "
                    "or for all.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The moved prompt, then the original."),
                io.Conditioning.Output(display_name="negative", tooltip="The concepts, as the negative prompt."),
                io.String.Output(display_name="negative_text", tooltip="The concepts, joined by commas."),
                io.String.Output(display_name="report", tooltip="Which words were moved, and for how many steps."),
            ],
        )

    @classmethod
    def execute(cls, clip, text, concepts, alpha, steps) -> io.NodeOutput:
        form = {"steepness": 3.5, "middle": 5.5} if "artists" in steps else {}
        settings = SafreeSettings(alpha=alpha, filtered=steps != "all", **form)
        clips.require_last_layer(clip)
        words = without_weights(text).strip()
        if names_embedding(words):
            raise PromptError("text names an embedding, which SAFREE cannot judge: write in words what it stands for.")
        encoder = TextEncoder.from_state(clips.private_copy(clips.patched_weights(clip)), copy=False)
        space = ConceptSpace(encoder, split_texts(concepts))
        found = space.project(words, settings)
        report = _safree_report(words, text, found)
        negative = clips.encode(clip, space.negative_prompt)
        return io.NodeOutput(
            clips.timed([(found.states, found.share), (found.original, 1.0)], found.original[len(found.distances) + 1]),
            negative,
            space.negative_prompt,
            report,
            ui=ui.PreviewText(report),
        )


def _safree_report(words: str, text: str, found: SafePrompt) -> str:
    (count,) = count_tokens([words])
    lines = [
        f"{len(found.triggers)} of {len(found.distances)} tokens are moved (positions "
        f"{', '.join(map(str, found.triggers)) or 'none'}), for the first {found.share:.0%} of the steps; beta is "
        f"{found.beta:.3f}."
    ]
    if not found.triggers:
        lines.append("No token lies near the concepts: the prompt is as it was.")
    if count > MAX_PROMPT_TOKENS:
        lines.append(f"The prompt has {count} tokens; those after the first {MAX_PROMPT_TOKENS} are cut off.")
    if words != text.strip():
        lines.append("Weights and brackets, as in (red:1.2), were taken out: SAFREE reads the words alone.")
    return "\n".join(lines)


NODES: list[type[io.ComfyNode]] = [SAGEGuidance, SAGEGuider, SAGESafree]
