"""A method of a plan as a change of the base: its files opened, its closed form solved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..drawing.change import Change, Reader, Safety
from ..drawing.guidance import PRESETS, SAFETY_TEXT
from ..drawing.models import Model
from ..encoders.layouts import EncoderConfig, read_encoder
from ..encoders.lora import apply_lora
from ..encoders.text_encoder import TextEncoder
from ..errors import EncoderError, UnetError
from ..methods.closed_form import METHODS as CLOSED_FORMS
from ..methods.closed_form import settings_of
from ..methods.concepts import Concepts
from ..methods.gate import GatedPrompts, load_gate
from ..methods.safree import MovedPrompts
from ..prompts.pairs import read_prompts
from ..unet.changes import changes
from ..unet.files import Handle, UnetFile, read_unet, sort_tensors
from ..unet.names import UnetConfig, reads_prompt, unet_names
from .plan import Erase, MethodPlan, Part

_LORA = "lora_te_"


def change_of(method: MethodPlan, model: Model) -> Change:
    """What a method makes of a model, which stays as it is.

    Raises:
        SageError: a file of the method does not fit the model.
    """
    base = model.encoder.state()
    state = encoder_state(method, base)
    change = Change(
        None if state is base else state,
        safety=Safety(PRESETS[method.sld], method.safety_text or SAFETY_TEXT) if method.sld else None,
        reads=_reader(method, model.encoder),
    )
    parts = [(part, False) for part in (method.unet,) if part] + [(part, True) for part in method.loras]
    for part, may_be_text in parts:
        file = open_unet(part, model.config, may_be_text)
        if file is not None:
            found = changes(file, {name: model.weight(name) for name in file.stored}).deltas
            change += Change(deltas={name: part.strength * delta for name, delta in found.items()})
    return change + _solved(method.erase, model, change) if method.erase else change


def _reader(method: MethodPlan, encoder: TextEncoder) -> Reader | None:
    if method.safree:
        return MovedPrompts(method.safree)
    return GatedPrompts(load_gate(method.gate, encoder)) if method.gate else None


def _solved(erase: Erase, model: Model, change: Change) -> Change:
    """A closed form, on a model with a change in it."""
    encoder = model.encoder
    if change.encoder is not None:
        encoder = TextEncoder.from_state(change.encoder).to(model.device)
    names = [name for name in unet_names(model.config).shapes if reads_prompt(name)]
    weights = {name: model.weight(name) + change.deltas.get(name, 0) for name in names}
    concepts, settings = erase_task(erase)
    edit = CLOSED_FORMS[erase.method].load()[1](weights, encoder, concepts, settings)
    return Change(deltas={name: erase.strength * delta for name, delta in edit.deltas.items()})


def erase_task(erase: Erase) -> tuple[Concepts, Any]:
    """What a closed form is told, and its settings.

    Raises:
        PromptError, SettingsError: a text, a file of prompts or a value cannot be used.
    """
    concepts = Concepts(
        erase.concepts,
        erase.guides,
        read_prompts(erase.keep)[0] if erase.keep else (),
        read_prompts(erase.captions)[0] if erase.captions else (),
    )
    CLOSED_FORMS[erase.method].require(concepts)
    return concepts, settings_of(erase.method, erase.knobs)


def encoder_state(method: MethodPlan, base: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The text encoder's weights under a method; `base` itself if it changes none.

    Raises:
        EncoderError: a file holds no text encoder of the base's sizes.
    """
    state = base
    if method.text_encoder:
        part = method.text_encoder
        found = {name: value.float() for name, value in read_encoder(part.file)[0].items()}
        if EncoderConfig.of(found) != EncoderConfig.of(base):
            raise EncoderError(
                f"{part.file} holds a text encoder of other sizes than the base's ({EncoderConfig.of(found)} and "
                f"{EncoderConfig.of(base)}). Use one that was made from this base."
            )
        where = next(iter(base.values())).device
        state = {name: value + part.strength * (found[name].to(where) - value) for name, value in base.items()}
        if part.strength == 1:
            state = {name: value.to(where) for name, value in found.items()}
    for part in method.loras:
        if tensors := _text_lora(part):
            state = apply_lora(state, tensors, part.strength)
    return state


def lora_tensors(part: Part) -> dict[str, Tensor]:
    """The tensors of a LoRA's file. Raises UnetError if it is not a whole safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(part.file))
    except (SafetensorError, OSError) as error:
        raise UnetError(f"{part.file} is not a whole safetensors file ({error}). Download or save it again.") from error


def _text_lora(part: Part) -> dict[str, Tensor]:
    return {name: value for name, value in lora_tensors(part).items() if name.startswith(_LORA)}


def open_unet(part: Part, config: UnetConfig, is_lora: bool) -> UnetFile | None:
    """What a file changes of a U-Net of these sizes; None for a LoRA of the text encoder alone.

    Raises:
        UnetError: it changes nothing, or also a text encoder in a form that is not read here.
    """
    if not is_lora:
        return read_unet(part.file, config)
    tensors = lora_tensors(part)
    handles = {name: Handle.of(value) for name, value in tensors.items() if not name.startswith(_LORA)}
    if tensors and not handles:
        return None
    file = sort_tensors(handles, str(part.file), config)
    if "text encoder" in file.other_parts:
        raise UnetError(
            f"{part.file} changes the text encoder under names other than {_LORA}*, which are not read here."
        )
    return file
