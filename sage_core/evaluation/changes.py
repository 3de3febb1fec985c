"""A method of a plan as a change of the base: its files opened, what is to be made made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..drawing.change import Change, Reader, Safety
from ..drawing.guidance import PRESETS, SAFETY_TEXT
from ..drawing.models import Model
from ..encoders.layouts import EncoderConfig, read_encoder
from ..encoders.lora import apply_lora
from ..encoders.text_encoder import TextEncoder
from ..errors import EncoderError, UnetError
from ..methods.gate import GatedPrompts
from ..methods.gate_file import load_gate
from ..methods.making import Watch, made_again, make, unet_dtype, what_is
from ..methods.removal import Base, Removal
from ..methods.safree import MovedPrompts
from ..methods.table import METHODS, settings_for, settings_of
from ..prompts.concept_files import read_concepts
from ..prompts.concept_pairs import read_concepts_pairs
from ..prompts.pairs import read_pairs, read_prompts
from ..unet.changes import changes
from ..unet.files import Handle, UnetFile, read_unet, sort_tensors
from ..unet.names import UnetConfig
from .plan import Making, MethodPlan, Part

_LORA = "lora_te_"
# Where each kind of file that `sage make` wrote belongs in a method.
_FIELDS = {"text encoder": "text_encoder", "U-Net": "unet", "gate": "gate"}


def change_of(
    method: MethodPlan, model: Model, *, size: int = 512, store: Path | None = None, watch: Watch | None = None
) -> Change:
    """What a method makes of a model, which stays as it is.

    Args:
        size: side of the pictures that trainings draw, in pixels.
        store: folder of runs, in which trainings are kept and found again.
        watch: called with (what, done, total) while something is made; may raise to stop.

    Raises:
        SageError: a file of the method does not fit the model.
    """
    base, again = model.encoder.state(), None
    if method.file and what_is(method.file.file) == "settings":
        again = made_again(method.file.file, _base(model, Change(), size)).change
    method = sorted_file(method)
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
            change += _scaled(Change(deltas=found), part.strength)
    if again is not None:
        change += again
    return change + _made(method.make, _base(model, change, size), store, watch) if method.make else change


def sorted_file(method: MethodPlan) -> MethodPlan:
    """The method with its `file` as the part that it is; a file without weights is left out.

    Raises:
        SettingsError: the file says nothing of itself.
    """
    if method.file is None:
        return method
    found: dict[str, Any] = {"file": None}
    if field := _FIELDS.get(what_is(method.file.file)):
        found[field] = method.file.file if field == "gate" else method.file
    return replace(method, **found)


def _reader(method: MethodPlan, encoder: TextEncoder) -> Reader | None:
    if method.safree:
        return MovedPrompts(method.safree)
    return GatedPrompts(load_gate(method.gate, encoder)) if method.gate else None


def _base(model: Model, change: Change, size: int) -> Base:
    """The model's networks with a change in them."""
    encoder = model.encoder
    if change.encoder is not None:
        encoder = TextEncoder.from_state(change.encoder).to(model.device)

    def weight(name: str) -> Tensor:
        return model.weight(name) + change.deltas[name] if name in change.deltas else model.weight(name)

    return Base(encoder, model.config, weight, size, unet_dtype("auto", model.device))


def _made(making: Making, base: Base, store: Path | None, watch: Watch | None) -> Change:
    removal, settings = making_task(making)
    return _scaled(make(making.method, base, removal, settings, store=store, watch=watch).change, making.strength)


def _scaled(change: Change, strength: float) -> Change:
    return replace(change, deltas={name: strength * delta for name, delta in change.deltas.items()})


def making_task(making: Making) -> tuple[Removal, Any]:
    """What a method is told, and its settings.

    Raises:
        PromptError, SettingsError: a text, a file of prompts or a value cannot be used.
    """
    about: dict[str, Any] = {
        "preserve": read_prompts(making.keep)[0] if making.keep else (),
        "captions": read_prompts(making.captions)[0] if making.captions else (),
    }
    if making.concept_list:
        concepts = read_concepts(making.concept_list)
        pairs = read_concepts_pairs(making.pairs, concepts) if making.pairs else None
        removal = Removal.of(concepts, pairs=pairs, **about)
    else:
        pairs = read_pairs(making.pairs) if making.pairs else None
        removal = Removal(making.concepts, making.guides, pairs=pairs, **about)
    removal.texts()
    settings = _settings(making)
    METHODS[making.method].require(removal, settings)
    return removal, settings


def recipe_of(making: Making) -> int:
    """See `table.Method.recipe`. Texts to keep are not read for it: it is enough that there are some.

    Raises:
        ConceptError, SettingsError: the list of concepts or a value cannot be used.
    """
    kept = (str(making.keep),) if making.keep else ()
    if making.concept_list:
        removal = Removal.of(read_concepts(making.concept_list), preserve=kept)
    else:
        removal = Removal(making.concepts, making.guides, kept)
    return METHODS[making.method].recipe(_settings(making), removal)


def _settings(making: Making) -> Any:
    if making.knobs:
        return settings_of(making.method, making.knobs)
    return settings_for(making.method, making.settings)


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
