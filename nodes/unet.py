"""Edits of an SD 1.x U-Net by any published system: applied, saved for stock loaders, and made in closed form."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..sage_core import __version__
from ..sage_core.encoders.text_encoder import TextEncoder
from ..sage_core.errors import SettingsError, UnetError
from ..sage_core.methods.closed_form.common import Edit, with_warning
from ..sage_core.methods.concepts import Concepts, split_texts
from ..sage_core.methods.table import of_kind, settings_of, told
from ..sage_core.prompts.concepts import ConceptList, texts_to_erase, texts_to_keep
from ..sage_core.prompts.everyday import REFERENCE_PROMPTS
from ..sage_core.unet.changes import changes, save_changes
from ..sage_core.unet.files import UnetFile, read_unet
from ..sage_core.unet.names import UnetConfig, reads_prompt
from .host import clips, display, files, memory, models
from .host.files import saved_metadata
from .host.inputs import concepts_input, found_by
from .host.sockets import Pairs

_CATEGORY = "SAGE/unet"
_FORMS = of_kind("closed form")
# Room for a batch of texts on the GPU.
_EMBEDDING_BYTES = 2**29


class SAGEApplyModelEdit(io.ComfyNode):
    """A U-Net edit out of a file of any published layout, as patches on a MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEApplyModelEdit",
            display_name="SAGE Apply U-Net Edit",
            category=_CATEGORY,
            **found_by("load esd", "load uce", "load rece", "stereo", "salun", "alignguard", "erased unet"),
            description="Puts an erased U-Net into an SD 1.x MODEL, at any strength: whole U-Nets and checkpoints, "
            "parts of them, pipeline folders, LoRAs of every spelling. Says what it changes.",
            inputs=[
                io.Model.Input("model", tooltip="The MODEL of an SD 1.x checkpoint."),
                io.Combo.Input(
                    "file",
                    options=files.edit_files(),
                    tooltip="A file in models/diffusion_models, unet, loras or checkpoints, or a pipeline folder in "
                    "models/diffusers.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-2.0,
                    max=2.0,
                    step=0.05,
                    tooltip="0 is the MODEL as it came, 1 the edit, between them a mix; above 1 overdoes it.",
                ),
                io.Combo.Input(
                    "mode",
                    options=["replace", "delta"],
                    default="replace",
                    tooltip="replace: at strength 1 the weights are the file's. delta: add only what the edit changed "
                    "in its own base, which keeps what a fine-tuned MODEL has learnt.",
                ),
                io.Combo.Input(
                    "base_file",
                    options=[files.NONE, *files.edit_files()],
                    default=files.NONE,
                    tooltip="For delta: the U-Net or checkpoint that the edit was made from, such as SD 1.4. Not "
                    "needed for LoRAs and files of changes.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The MODEL with the edit on it."),
                io.String.Output(display_name="report", tooltip="What the edit changes, and what looks wrong."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None, base_file: str | None = None) -> bool | str:
        return files.taken(files.edit_path, file, *files.chosen(base_file))

    @classmethod
    def fingerprint_inputs(cls, file: str | None, base_file: str | None = None, **_: Any) -> Any:
        paths = map(files.edit_path, files.chosen(file, base_file))
        # A pipeline's U-Net lies in a folder of its own.
        return [files.fingerprint(path if path.is_file() else path / "unet") for path in paths]

    @classmethod
    def execute(cls, model, file, strength, mode, base_file=files.NONE) -> io.NodeOutput:
        path = files.edit_path(file)
        config = models.unet_config(model)
        if strength == 0:
            return _shown(model.clone(), f"{file}: strength is 0, so the MODEL is as it came; the file was not read.")
        edit = read_unet(path, config)
        base, notes = _base_of(edit, model, mode, base_file, config)
        found = changes(edit, base, on_tensor=display.Progress("tensors"))
        edited = models.add_differences(model, found.deltas, strength)
        report = replace(found.report, source=file)
        if patches := models.count_patches(model):
            notes.append(_chained(patches, mode))
        if models.holds_8_bits(model):
            notes.append(
                "⚠ This MODEL's weights are in 8 bits, to which ComfyUI rounds the edited ones: much of a small change "
                "is lost. Load the checkpoint with weight_dtype 'default'."
            )
        if report.not_applied or report.warnings or notes:
            doubtful = report.not_applied or report.warnings or any("⚠" in note for note in notes)
            level = logging.WARNING if doubtful else logging.INFO
            display.log.log(level, "SAGE: %s: %s", file, " ".join([*report.warnings, *notes]))
        return _shown(
            edited, "\n".join([report.summary(), f"Applied with strength {strength:g}, mode {mode}.", *notes])
        )


def _shown(model, text: str) -> io.NodeOutput:
    return io.NodeOutput(model, text, ui=ui.PreviewText(text))


def _base_of(
    edit: UnetFile, model, mode: str, base_file: str, config: UnetConfig
) -> tuple[Mapping[str, Tensor], list[str]]:
    """The weights that the file is compared with, and what the user should know of the choice."""
    holds_weights = any(stored.how == "weight" for stored in edit.stored.values())

    def unused(why: str) -> list[str]:
        given = base_file != files.NONE
        return [f"Note: base_file is not used: {why}, so {base_file} was not read."] if given else []

    if mode == "replace":
        return models.own_weights(model), unused("mode is replace")
    if not holds_weights:
        return models.own_weights(model), unused("the file holds changes already")
    if base_file == files.NONE:
        raise SettingsError(
            "mode is delta, but what the file was made from is not known. Choose that U-Net or checkpoint as "
            "base_file, such as SD 1.4's, or use mode replace."
        )
    base = read_unet(files.edit_path(base_file), config)
    if lacking := [name for name in edit.stored if name not in base.stored]:
        raise UnetError(f"{base_file} lacks {lacking[0]}, which {edit.source} changes: choose a whole U-Net.")
    if any(base.stored[name].how != "weight" for name in edit.stored):
        raise UnetError(f"{base_file} is a file of changes, not of weights: choose a whole U-Net as base_file.")
    return {name: base.stored[name].load() for name in edit.stored}, []


def _chained(patches: int, mode: str) -> str:
    if mode == "delta":
        return f"Note: this MODEL carries {patches} patch(es), such as LoRAs or another edit: all of them add up."
    return (
        f"⚠ This MODEL carries {patches} patch(es), such as LoRAs or another edit, and mode replace measures "
        "the file against the checkpoint's own weights, not against what the patches make of them. Both changes add "
        "up, and the result is not the file's U-Net. Of two edits, apply the second in mode delta, with its own base."
    )


class SAGESaveModelEdit(io.ComfyNode):
    """What was changed in a MODEL, and in a CLIP, as a file for ComfyUI's own LoRA loaders."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGESaveModelEdit",
            display_name="SAGE Save U-Net Edit",
            category=_CATEGORY,
            **found_by("unet to lora"),
            description="Saves what changed from one MODEL to another, and from one CLIP to another, as models/loras/"
            "<name>.safetensors, which Load LoRA applies without this pack, with a strength.",
            is_output_node=True,
            inputs=[
                io.Model.Input("base", tooltip="The MODEL before the edit: the checkpoint's own."),
                io.Model.Input("edited", tooltip="The MODEL after it, with all of its patches."),
                io.String.Input("name", default="unet-edit", tooltip="File name, without folder or extension."),
                io.Boolean.Input("overwrite", default=False, tooltip="Replace another file of this name."),
                io.Clip.Input("base_clip", optional=True, tooltip="The CLIP before alignment; with aligned_clip."),
                io.Clip.Input("aligned_clip", optional=True, tooltip="The CLIP after it: its change goes in as well."),
            ],
            outputs=[
                io.String.Output(display_name="path", tooltip="Where the file is."),
                io.String.Output(display_name="report", tooltip="What is in it, and its size."),
            ],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        return files.taken(files.new_lora_path, name)

    @classmethod
    def execute(cls, base, edited, name, overwrite, base_clip=None, aligned_clip=None) -> io.NodeOutput:
        path = files.new_lora_path(name)
        if (base_clip is None) != (aligned_clip is None):
            raise SettingsError("One CLIP is connected; connect base_clip and aligned_clip, or neither.")
        deltas = models.differences(base, edited, display.Progress("tensors"))
        words = {} if base_clip is None else _clip_change(base_clip, aligned_clip)
        if not deltas and not words:
            # Not an error: whoever bypasses an edit wants to look at the base.
            text = (
                f"⚠ base and edited are the same: nothing was written to {path}. Connect the edited MODEL; perhaps the "
                "edit before this node is bypassed."
            )
            display.log.warning("SAGE: %s", text)
            return io.NodeOutput(display.missing(text), text, ui=ui.PreviewText(text))
        content = _content_hash({**deltas, **words})
        if path.exists() and not overwrite and saved_metadata(path).get("hash") != content:
            raise SettingsError(f"{path} exists and holds something else. Choose another name, or turn overwrite on.")
        metadata = {"hash": content, "software": f"sage-alignment {__version__}"}
        save_changes(path, deltas, metadata, text_encoder=words, config=models.unet_config(base))
        text = (
            f"{path}: {len(deltas)} tensors of the U-Net and {len(words)} of the text encoder, "
            f"{path.stat().st_size / 2**20:.1f} MiB. Load LoRA applies it to the same base, with a strength."
        )
        return io.NodeOutput(str(path), text, ui=ui.PreviewText(text))


def _content_hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()


def _clip_change(base, aligned) -> dict[str, Tensor]:
    before, after = (clips.private_copy(clips.patched_weights(clip)) for clip in (base, aligned))
    if {name: value.shape for name, value in before.items()} != {name: value.shape for name, value in after.items()}:
        raise SettingsError("base_clip and aligned_clip are of different sizes: connect two CLIPs of one checkpoint.")
    moved = {name: after[name] - before[name] for name in before}
    return {name: delta for name, delta in moved.items() if delta.any()}


class SAGEEraseConcept(io.ComfyNode):
    """Erases concepts from a MODEL in closed form."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def knob(name: str, tooltip: str) -> io.Input:
            return io.Float.Input(name, default=0.0, min=0.0, max=100_000.0, step=0.1, round=1e-6, tooltip=tooltip)

        return io.Schema(
            node_id="SAGEEraseConcept",
            display_name="SAGE Erase Concept (UCE, RECE)",
            category=_CATEGORY,
            **found_by("speed", "oce", "cure", "mace", "closed form", "remove concept", "unlearn concept"),
            description="Erases concepts from an SD 1.x MODEL in seconds, without training: UCE, RECE, SPEED, OCE, "
            "CURE-style and the closed-form part of MACE. SAGE Save U-Net Edit keeps the result.",
            # Its report shows again when the result is found in the cache.
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The MODEL to edit; patches on it are part of what is edited."),
                io.Clip.Input("clip", tooltip="The CLIP that prompts will go through; an aligned one is allowed."),
                io.String.Input("concepts", multiline=True, default="nudity", tooltip="One a line, or between ;."),
                io.String.Input(
                    "guide",
                    multiline=True,
                    default="",
                    tooltip="What concepts become: one for all, or one a line for each. Empty: the empty prompt.",
                ),
                io.String.Input(
                    "keep", multiline=True, default="", tooltip="Words that are to keep their meaning, one a line."
                ),
                io.Combo.Input("method", options=list(_FORMS), default="uce", tooltip=told("closed form")),
                io.Float.Input(
                    "strength", default=1.0, min=-2.0, max=2.0, step=0.05, tooltip="1 is the edit, 0 the MODEL."
                ),
                knob("erase_scale", "More erases more (cure: its alpha). 0: the method's own, which the report says."),
                knob("hold", "More changes less (lam; speed: retain_scale). 0: the method's own."),
                knob("keep_scale", "Weight of the words in keep. 0: the method's own."),
                io.Int.Input("rounds", default=0, min=0, max=20, tooltip="Of rece. 0: the method's own, 3."),
                Pairs.Input(
                    "pairs",
                    optional=True,
                    tooltip="Their safe prompts show what prompts are like in general: for mace, oce and speed.",
                ),
                concepts_input("concepts and guide; each of its names is erased, and what is near them is kept"),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The MODEL without the concepts."),
                io.String.Output(display_name="report", tooltip="Size, accuracy and seconds of the edit."),
            ],
        )

    @classmethod
    def execute(
        cls, model, clip, concepts, guide, keep, method, strength, pairs=None, concept_list=None, **knobs
    ) -> io.NodeOutput:
        start = time.monotonic()
        given = tuple(pairs.safe) if pairs is not None else ()
        settings = settings_of(method, knobs)
        captions = given or (REFERENCE_PROMPTS if "captions" in _FORMS[method].needed(settings) else ())
        kept = (*split_texts(keep), *(texts_to_keep(concept_list) if concept_list is not None else ()))
        wanted = Concepts(*_erased(concepts, guide, concept_list), tuple(dict.fromkeys(kept)), tuple(captions))
        edit = _edit(model, clip, method, wanted, settings)
        edited = models.add_differences(model, edit.deltas, strength)
        lines = [
            edit.summary(),
            f"Erased: {'; '.join(wanted.erase)}. Guides: {'; '.join(text or '(empty)' for text in wanted.guides)}. "
            f"Kept: {'; '.join(wanted.preserve) or 'nothing named'}. Captions: {len(wanted.captions)}.",
            f"Settings: {edit.knobs()}.",
            f"{time.monotonic() - start:.1f} s, applied with strength {strength:g}.",
            *_FORMS[method].unread(wanted),
        ]
        if strength == 0:
            lines.append("⚠ At strength 0 the MODEL is as it came: nothing is erased.")
        for what, patches in (("MODEL", models.count_patches(model)), ("CLIP", clips.count_patches(clip))):
            if patches:
                lines.append(
                    f"Note: the {what} carries {patches} patch(es): the edit was solved for what they make of it."
                )
        if warnings := [line for line in lines if "⚠" in line]:
            display.log.warning("SAGE: %s", " ".join(warnings))
        return _shown(edited, "\n".join(lines))


def _erased(concepts: str, guide: str, listed: ConceptList | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is erased, and the guides: as typed, or of a list."""
    if listed is None:
        return split_texts(concepts), split_texts(guide) or ("",)
    if guide.strip():
        raise SettingsError("Guides come from guide or from 'becomes' in concept_list; both are given.")
    return texts_to_erase(listed)


def _edit(model, clip, method: str, concepts: Concepts, settings: Any) -> Edit:
    weights = models.patched_weights(model, reads_prompt)
    encoder = TextEncoder.from_state(clips.private_copy(clips.patched_weights(clip)), copy=False)
    # Before each batch of texts: with many concepts or captions, embedding them is nearly all of the time.
    encoder.register_forward_pre_hook(lambda *_: display.stop_if_cancelled())
    needed = sum(value.nbytes for value in encoder.state().values()) + _EMBEDDING_BYTES
    with memory.training_device(needed) as (device, _):
        edit = _FORMS[method].load()[1](weights, encoder.to(device), concepts, settings)
        return with_warning(edit, weights, encoder)


NODES: list[type[io.ComfyNode]] = [SAGEApplyModelEdit, SAGESaveModelEdit, SAGEEraseConcept]
