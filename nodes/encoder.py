"""Load, apply and save an aligned SD 1.x text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..sage_core import __version__
from ..sage_core.encoders import text_encoder
from ..sage_core.encoders.doctor import quick_line
from ..sage_core.encoders.layouts import read_encoder
from ..sage_core.encoders.text_encoder import save_encoder, state_hash
from ..sage_core.errors import SettingsError
from .host import clips, display, files
from .host.files import check_name, saved_metadata
from .host.inputs import exactly_one, found_by

# The share of an alignment that rounding may take without a word. Of a change of a hundredth, which is what trainings
# make, bf16 takes a sixth and fp16 a fiftieth.
_MOST_LOST = 0.1


class SAGELoadEncoder(io.ComfyNode):
    """Loads a text encoder file as a CLIP of its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGELoadEncoder",
            display_name="SAGE Load Text Encoder",
            category="SAGE/text",
            **found_by("load sage.pt", "safe clip", "safeclip"),
            description="Loads an SD 1.x text encoder from models/text_encoders as a CLIP of its own. Reads SAGE.pt "
            "and other published layouts, of any depth.",
            inputs=[
                io.Combo.Input(
                    "encoder_name",
                    options=files.encoder_files(),
                    tooltip="File in models/text_encoders: SAGE.pt, safetensors, a CLIPTextModel, or a whole SD 1.x "
                    "checkpoint.",
                )
            ],
            outputs=[
                io.Clip.Output(display_name="clip", tooltip="The encoder, ready for CLIP Text Encode."),
                io.String.Output(display_name="report", tooltip="Whether it is SD 1.4's encoder, in a line."),
            ],
        )

    @classmethod
    def validate_inputs(cls, encoder_name: str | None = None) -> bool | str:
        return files.taken(files.encoder_path, encoder_name)

    @classmethod
    def fingerprint_inputs(cls, encoder_name: str | None, **_: Any) -> Any:
        return [files.fingerprint(files.encoder_path(name)) for name in files.chosen(encoder_name)]

    @classmethod
    def execute(cls, encoder_name: str) -> io.NodeOutput:
        clip = clips.load_clip(files.encoder_path(encoder_name), encoder_name)
        report = quick_line(encoder_name, clips.own_weights(clip))
        return io.NodeOutput(clip, report, ui=ui.PreviewText(report))


class SAGEApplyEncoder(io.ComfyNode):
    """Moves a checkpoint's CLIP to an aligned encoder, or by what alignment changed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEApplyEncoder",
            display_name="SAGE Apply",
            category="SAGE/text",
            **found_by("sage", "safe", "safety", "nsfw", "sfw", "nudity", "censor", "Apply SAGE Text Encoder"),
            description="Puts an aligned text encoder into a checkpoint's CLIP, at any strength. Stacks with LoRAs and "
            "CLIP Set Last Layer; the CLIP that comes in stays as it was.",
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP of an SD 1.x checkpoint."),
                io.Combo.Input(
                    "encoder_name",
                    options=[files.NONE, *files.encoder_files()],
                    default=files.NONE,
                    tooltip="Aligned encoder in models/text_encoders. Leave it at 'none' when one is connected.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-1.0,
                    max=2.0,
                    step=0.05,
                    tooltip="0 is the CLIP as it came, 1 the aligned encoder. Half strength is not half safety: at 0.5 "
                    "most of a removed concept may show. Above 1 overdoes it.",
                ),
                io.Combo.Input(
                    "mode",
                    options=["replace", "delta"],
                    default="replace",
                    tooltip="replace: at strength 1 the weights are the encoder's. delta: add only what alignment "
                    "changed in the encoder's own base, which keeps what a fine-tuned CLIP has learnt.",
                ),
                io.Clip.Input(
                    "encoder",
                    optional=True,
                    tooltip="An aligned encoder from SAGE Train or Load Text Encoder, instead of a file.",
                ),
                io.Clip.Input(
                    "encoder_base",
                    optional=True,
                    tooltip="For delta: the CLIP that the encoder was trained from, for example that of SD 1.4. Not "
                    "needed when the encoder comes straight from SAGE Train Text Encoder.",
                ),
            ],
            outputs=[io.Clip.Output(display_name="clip", tooltip="The CLIP with the aligned encoder in it.")],
        )

    @classmethod
    def validate_inputs(cls, encoder_name: str | None = None) -> bool | str:
        return files.taken(files.encoder_path, *files.chosen(encoder_name))

    @classmethod
    def fingerprint_inputs(cls, encoder_name: str | None, **_: Any) -> Any:
        return [files.fingerprint(files.encoder_path(name)) for name in files.chosen(encoder_name)]

    @classmethod
    def execute(cls, clip, encoder_name, strength, mode, encoder=None, encoder_base=None) -> io.NodeOutput:
        exactly_one(
            encoder_name != files.NONE, encoder is not None, "Choose encoder_name or connect encoder", SettingsError
        )
        if encoder is not None:
            target = clips.patched_weights(encoder)
        else:
            target, _ = read_encoder(files.encoder_path(encoder_name))
        base = clips.own_weights(clip) if mode == "replace" else _base_of(encoder, encoder_base)
        aligned = clips.add_difference(clip, target, base, strength)
        if mode == "delta":
            # Nothing else would tell a user that the wrong base is connected.
            display.log.info(
                "SAGE: delta is %.2f%% of the base's weights.", 100 * text_encoder.relative_change(target, base)
            )
        if patches := clips.count_patches(clip):
            display.log.warning(
                "SAGE: this CLIP already carries %d patch(es), such as LoRAs. They stay and the encoder is added to "
                "them; of two SAGE encoders in a chain both changes add up.",
                patches,
            )
        lost = clips.rounding(clip, target, base, strength)
        if lost < _MOST_LOST:
            return io.NodeOutput(aligned)
        text = (
            f"⚠ This CLIP is held too coarsely: rounding takes {lost:.0%} of what alignment changes. Start ComfyUI "
            "without --bf16-text-enc or --fp8-text-enc, with --fp16-text-enc or --fp32-text-enc."
        )
        display.log.warning("SAGE: %s", text)
        return io.NodeOutput(aligned, ui=ui.PreviewText(text))


def _base_of(encoder, encoder_base) -> Mapping[str, Tensor]:
    """The encoder before alignment: as connected, or known because the alignment is a patch on it."""
    if encoder_base is not None:
        return clips.patched_weights(encoder_base)
    if encoder is not None and clips.count_patches(encoder):
        return clips.own_weights(encoder)
    raise SettingsError(
        "mode is delta, but what the encoder was trained from is not known. Connect that CLIP, for example the one of "
        "SD 1.4, to encoder_base, or use mode replace."
    )


class SAGESaveEncoder(io.ComfyNode):
    """Saves a CLIP's text encoder as a file for any CLIP loader."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGESaveEncoder",
            display_name="SAGE Save Text Encoder",
            category="SAGE/text",
            **found_by("export text encoder"),
            description="Saves an SD 1.x CLIP with its patches (SAGE, LoRA) worked in, as models/text_encoders/<name>"
            ".safetensors, which CLIPLoader reads without this pack.",
            is_output_node=True,
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP to save, as its patches make it."),
                io.String.Input("name", default="sage-encoder", tooltip="File name, without folder or extension."),
                io.Boolean.Input("overwrite", default=False, tooltip="Replace another file of this name."),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where the file is.")],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        return check_name(name)

    @classmethod
    def execute(cls, clip, name, overwrite) -> io.NodeOutput:
        path = files.new_encoder_path(name)
        state = clips.private_copy(clips.patched_weights(clip))
        metadata = {
            "base_hash": state_hash(clips.own_weights(clip)),
            "hash": state_hash(state),
            "software": f"sage-alignment {__version__}",
        }
        if path.exists() and not overwrite and saved_metadata(path).get("hash") != metadata["hash"]:
            raise SettingsError(f"{path} exists and holds another encoder. Choose another name, or turn overwrite on.")
        save_encoder(path, state, metadata)
        return io.NodeOutput(str(path), ui=ui.PreviewText(f"Saved {path}"))


NODES: list[type[io.ComfyNode]] = [SAGELoadEncoder, SAGEApplyEncoder, SAGESaveEncoder]
