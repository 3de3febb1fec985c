"""Prompt pairs for a concept of one's own, made from its name."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui

from ..sage_core.encoders.layouts import EncoderConfig, require_sd1
from ..sage_core.encoders.text_encoder import TextEncoder
from ..sage_core.errors import PromptError
from ..sage_core.prompts.concept_files import concepts_text
from ..sage_core.prompts.making.settings import MakingSettings
from ..sage_core.prompts.pairs import read_prompts
from ..sage_core.rows import split_lines
from .host import clips, display, files, memory
from .host.inputs import concepts_input, exactly_one, found_by, seed_input
from .host.sockets import Concepts, Pairs

_DEFAULTS = MakingSettings()
# Room for a batch of prompts on the GPU.
_EMBEDDING_BYTES = 2**29
_SAMPLES = 8


class SAGEMakePairs(io.ComfyNode):
    """Makes pairs to train on from a concept's name, captions and the CLIP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEMakePairs",
            display_name="SAGE Make Pairs",
            category="SAGE/train",
            **found_by("own concept", "training data"),
            description="Makes safe and unsafe prompts to train on from the name of a concept: finds other names that "
            "the CLIP takes for it and what lies near it, and changes harmless captions by as little as can be. Needs "
            "no list of prompts; nothing leaves this machine.",
            is_output_node=True,
            # What it finds has been measured in the world of shapes alone.
            is_experimental=True,
            inputs=[
                io.Clip.Input("clip", tooltip="The checkpoint's own CLIP, which knows what its words mean."),
                io.String.Input(
                    "concepts", multiline=True, default="", tooltip="What is to be removed, one a line: a word or two."
                ),
                io.Combo.Input(
                    "captions_file",
                    options=[files.NONE, *files.prompt_files()],
                    default=files.NONE,
                    tooltip="Harmless captions of what you draw, in ComfyUI's input folder: they decide what is kept. "
                    "'none' for captions_text, or for the pack's own everyday captions.",
                ),
                io.String.Input(
                    "captions_text", multiline=True, default="", tooltip="Harmless captions, one a line, or nothing."
                ),
                io.Int.Input(
                    "count", default=_DEFAULTS.pairs, min=32, max=100_000, tooltip="Pairs to make, for each concept."
                ),
                io.Float.Input(
                    "short",
                    default=_DEFAULTS.short,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of short prompts: names alone, after an opener, repeated, two together.",
                ),
                seed_input("Of every choice. The same seed makes the same pairs."),
                concepts_input("concepts; its names are used and its 'near' stays"),
            ],
            outputs=[
                Pairs.Output(display_name="pairs", tooltip="For SAGE Train Text Encoder, and the other trainings."),
                Concepts.Output(
                    display_name="concept_list", tooltip="The concepts with the names that were found and what stays."
                ),
                io.String.Output(
                    display_name="concepts_text",
                    tooltip="The same as text: strike out, add, and paste it into SAGE Load Concepts.",
                ),
                io.String.Output(display_name="report", tooltip="Names with figures, near misses, samples to read."),
            ],
        )

    @classmethod
    def validate_inputs(cls, captions_file: str | None = None) -> bool | str:
        return files.taken(files.prompt_path, *files.chosen(captions_file))

    @classmethod
    def fingerprint_inputs(cls, captions_file: str | None, **_: Any) -> Any:
        return [files.fingerprint(files.prompt_path(name)) for name in files.chosen(captions_file)]

    @classmethod
    def execute(
        cls, clip, concepts, captions_file, captions_text, count, short, seed, concept_list=None
    ) -> io.NodeOutput:
        what = "Concepts come from concepts or from concept_list"
        exactly_one(concepts.strip(), concept_list is not None, what, PromptError)
        # Here, so that a pack without its dictionary of English still has all other nodes.
        from ..sage_core.prompts.making.make import make_pairs

        captions, notes = _captions(captions_file, captions_text)
        base = clips.private_copy(clips.own_weights(clip))
        require_sd1(EncoderConfig.of(base), "This CLIP")
        progress = display.Progress("making pairs, per cent")
        needed = sum(value.nbytes for value in base.values()) + _EMBEDDING_BYTES
        with memory.training_device(needed) as (device, _), torch.inference_mode(False):
            made = make_pairs(
                concept_list or concepts,
                captions,
                TextEncoder.from_state(base, copy=False).to(device),
                MakingSettings(pairs=count, short=short, seed=seed),
                on_progress=lambda share, what: progress(round(100 * share), 100, note=f" ({what})"),
            )
        samples = [f"  {safe}  →  {unsafe}" for safe, unsafe in made.samples(_SAMPLES, seed=seed)]
        report = "\n".join([made.summary(), *notes, "Samples, safe → unsafe:", *samples])
        display.log.info("SAGE: %s", report)
        return io.NodeOutput(made.pairs, made.concepts, concepts_text(made.concepts), report, ui=ui.PreviewText(report))


def _captions(file: str, text: str) -> tuple[tuple[str, ...], list[str]]:
    """The captions, none for the pack's own, and notes on how they were read."""
    if file == files.NONE:
        return tuple(split_lines(text.strip())) if text.strip() else (), []
    if text.strip():
        raise PromptError("Captions come from captions_file or from captions_text; both are given.")
    captions, report = read_prompts(files.prompt_path(file))
    return captions, [report.summary()]


NODES: list[type[io.ComfyNode]] = [SAGEMakePairs]
