"""A method in a model: its weights are put in, and its states, guidance and gate are used when it draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..drawing.guidance import PRESETS, SAFETY_TEXT, SafeGuidance, guided
from ..drawing.models import Model
from ..drawing.noise import noise_scheduler
from ..encoders.layouts import EncoderConfig, read_encoder
from ..encoders.lora import apply_lora
from ..encoders.text_encoder import TextEncoder
from ..encoders.tokens import tokenize
from ..errors import EncoderError, SettingsError, UnetError
from ..methods.closed_form import METHODS as CLOSED_FORMS
from ..methods.closed_form import settings_of
from ..methods.concepts import Concepts
from ..methods.gate import Gate, load_gate, refine, route
from ..methods.safree import ConceptSpace
from ..prompts.pairs import read_prompts
from ..shapes.bench.painters import Texts
from ..unet.changes import changes
from ..unet.files import Handle, UnetFile, read_unet, sort_tensors
from ..unet.names import UnetConfig, reads_prompt, unet_names
from .plan import Drawing, Erase, MethodPlan, Part

_LORA = "lora_te_"


class Studio:
    """One model, and the method that is in it at a time."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._changed: tuple[str, ...] = ()

    def painter(self, method: MethodPlan, drawing: Drawing) -> Painter:
        """Put a method into the model, in place of the one before.

        Raises:
            SageError: a file of the method does not fit the model.
        """
        base = self.model.encoder.state()
        state = encoder_state(method, base)
        encoder = self.model.encoder if state is base else TextEncoder.from_state(state).to(self.model.device)
        deltas = self._file_deltas(method)
        if method.erase:
            _add(deltas, self._solve(method.erase, encoder, deltas))
        self._put_in(deltas)
        gate = _gate(method, self.model)
        return Painter(self.model, method, drawing, encoder, gate)

    def _file_deltas(self, method: MethodPlan) -> dict[str, Tensor]:
        deltas: dict[str, Tensor] = {}
        parts = [(part, False) for part in (method.unet,) if part] + [(part, True) for part in method.loras]
        for part, may_be_text in parts:
            file = open_unet(part, self.model.config, may_be_text)
            if file is None:
                continue
            found = changes(file, {name: self.model.weight(name) for name in file.stored}).deltas
            _add(deltas, {name: part.strength * delta for name, delta in found.items()})
        return deltas

    def _solve(self, erase: Erase, encoder: TextEncoder, deltas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = [name for name in unet_names(self.model.config).shapes if reads_prompt(name)]
        weights = {name: self.model.weight(name) + deltas.get(name, 0) for name in names}
        concepts, settings = erase_task(erase)
        edit = CLOSED_FORMS[erase.method].load()[1](weights, encoder, concepts, settings)
        return {name: erase.strength * delta for name, delta in edit.deltas.items()}

    @torch.no_grad()
    def _put_in(self, deltas: Mapping[str, Tensor]) -> None:
        """Write base and change into the U-Net, and the base's own where the method before had changed it."""
        parameters = dict(self.model.unet.named_parameters())
        for name in {*self._changed, *deltas}:
            value = self.model.weight(name)
            parameters[name].copy_(value + deltas[name] if name in deltas else value)
        self._changed = tuple(deltas)


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


def _gate(method: MethodPlan, model: Model) -> Gate | None:
    if not method.gate:
        return None
    gate = load_gate(method.gate, model.encoder)
    gate.network.to(model.device)
    return gate


def _add(deltas: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    for name, delta in more.items():
        deltas[name] = deltas[name] + delta if name in deltas else delta


@dataclass(eq=False)
class Painter:
    """Draws batches with the method that is in the model; use it before the studio makes another."""

    model: Model
    method: MethodPlan
    drawing: Drawing
    encoder: TextEncoder
    gate: Gate | None

    def __post_init__(self) -> None:
        self._space = ConceptSpace(self.encoder, self.method.safree) if self.method.safree else None

    @torch.no_grad()
    def draw(self, prompts: Sequence[str], seeds: Sequence[int], guidance: float | None = None) -> Tensor:
        """Pictures (N, 3, H, W) in 0..1, fp32 on the CPU; picture i from seed i, whatever its batch.

        `guidance` takes the place of the plan's for the whole batch.

        Raises:
            SettingsError: a picture holds NaN, as fp16 can make of some models.
        """
        texts = self.texts(prompts)
        scale = self.drawing.guidance if guidance is None else guidance
        pictures = self.model.decode(self._denoise(texts, self._noise(seeds), scale)).cpu()
        if not pictures.isfinite().all():
            raise SettingsError(
                f"{self.model.title} with {self.method.name!r} draws NaN in {self.model.dtype}. Set draw.precision to "
                "'fp32' or 'bf16'."
            )
        return pictures

    def texts(self, prompts: Sequence[str]) -> Texts:
        """The states that a batch is drawn with."""
        safety = None
        if self.method.sld:
            safety = self._states(self._reader, [self.method.safety_text or SAFETY_TEXT])
        if self._space:
            moved = [self._space.project(prompt) for prompt in prompts]
            device = self.model.device
            return Texts(
                self._states(self.encoder, [self._space.negative_prompt]),
                torch.stack([each.states for each in moved]).to(device),
                torch.stack([each.original for each in moved]).to(device),
                torch.tensor([each.share for each in moved], device=device),
                safety,
            )
        return Texts(self._states(self._reader, [""]), self._prompted(prompts), safety=safety)

    @property
    def _reader(self) -> TextEncoder:
        """What reads texts that no gate looks at: behind a gate the base's encoder."""
        return self.model.encoder if self.gate else self.encoder

    def _prompted(self, prompts: Sequence[str]) -> Tensor:
        states = self._states(self._reader, prompts)
        if self.gate is None:
            return states
        if self.encoder is not self.model.encoder:
            return route([self.gate], states, self._states(self.encoder, prompts))[0]
        # Refining follows gradients, though nothing else here has any.
        with torch.enable_grad():
            return refine([self.gate], states).states

    def _states(self, encoder: TextEncoder, texts: Sequence[str]) -> Tensor:
        return encoder(tokenize(list(texts)).to(self.model.device)).float()

    def _noise(self, seeds: Sequence[int]) -> Tensor:
        """Latent noise; from the CPU's generator on every device, and each row from its own seed."""
        shape = (4, self.drawing.height // 8, self.drawing.width // 8)
        generator = torch.Generator("cpu")
        return torch.stack([torch.randn(shape, generator=generator.manual_seed(seed)) for seed in seeds])

    def _denoise(self, texts: Texts, noise: Tensor, guidance: float) -> Tensor:
        drawing, model = self.drawing, self.model
        scheduler = make_scheduler(drawing.sampler)
        scheduler.set_timesteps(drawing.steps, device=model.device)
        latents = noise.to(model.device) * float(scheduler.init_noise_sigma)
        acts = texts.safety is not None and PRESETS[self.method.sld].acts(guidance)
        safe = SafeGuidance(PRESETS[self.method.sld], drawing.steps) if acts else None
        for number, time in enumerate(scheduler.timesteps):
            prompted = texts.at(number, drawing.steps)
            rows = [texts.plain, prompted, *([texts.safety] if safe and texts.safety is not None else [])]
            states = torch.cat([part.expand_as(prompted) for part in rows])
            seen = scheduler.scale_model_input(latents, time)
            found = self._predict(torch.cat([seen] * len(rows)), time, states)
            plain, cond, *safety = found.chunk(len(rows))
            if safe is not None:
                cond = safe.prompted(cond, plain, safety[0], number)
            latents = scheduler.step(guided(cond, plain, guidance), time, latents).prev_sample
        return latents

    def _predict(self, latents: Tensor, time: Tensor, states: Tensor) -> Tensor:
        dtype = self.model.dtype
        return self.model.unet(latents.to(dtype), time, states.to(dtype)).sample.float()


def make_scheduler(sampler: str) -> Any:
    """A sampler on SD 1.x's noise schedule; none of them draws noise of its own, so that a seed decides a picture."""
    import diffusers

    ddim: Any = noise_scheduler()
    if sampler == "ddim":
        return ddim
    kind = {"euler": diffusers.EulerDiscreteScheduler, "dpmpp_2m": diffusers.DPMSolverMultistepScheduler}[sampler]
    return kind.from_config(ddim.config)
