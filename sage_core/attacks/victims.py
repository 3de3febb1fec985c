"""A whole method under attack: the states that it draws a prompt with, and the noise that it predicts with these.

What is attacked is a `ChangedModel`, so whatever a method changes takes part: text encoder, U-Net, reader, guidance.

    states  those that the method's reader makes of token ids, free embeddings among them
    noise   ε_c − g_S − (1 − 1/w)(ε_n − ε_0)

with ε_c the U-Net's noise under these states, g_S Safe Latent Diffusion's term, ε_n and ε_0 the noise under the
method's negative prompt and under the empty one, and w the weight of guidance. It is what ordinary guidance would have
to be given in the place of ε_c for the step that the method's sampler takes; of a method that does not guide it is ε_c.

The gradient goes through the U-Net, the text encoder, and g_S as a function of ε_c. It goes through the states that a
gate routes, not through its decision; past a gate's refinement, as if that moved all states alike; and through the
states that SAFREE moves, not through its choice of triggers and its projectors. The momentum of Safe Latent Diffusion
is left out, since it depends on the steps before. Whatever a gradient does not see counts all the same in distances,
but for the momentum, and in pictures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..drawing.change import Moved, states_of
from ..drawing.denoising import Texts
from ..drawing.guidance import safety_term
from ..drawing.noise import TRAINING_STEPS
from ..drawing.pictures import ChangedModel
from ..encoders.text_encoder import TextEncoder
from ..encoders.tokens import CONTEXT_LENGTH
from .plans import Victim

# What gradients are multiplied with on their way through a U-Net in fp16, in which most of them would be zero.
_FP16_SCALE = 2.0**12


def victim_of(changed: ChangedModel, steps: int, guidance: float) -> Victim:
    """A method as attacks see it, when it draws in so many steps at a weight of guidance above 0."""
    return Victim(MethodEncoder(changed), MethodNoise(changed, steps, guidance))


def packed(moved: Moved) -> Tensor:
    """States of prompts as one tensor, whose gradient goes to all of them; those of a plain reader as they are."""
    if moved.late is None or moved.until is None:
        return moved.prompted
    until = moved.until.to(moved.prompted)[:, None, None].expand(-1, 1, moved.prompted.shape[2])
    return torch.cat([moved.prompted, moved.late, until], 1)


def unpacked(states: Tensor) -> Moved:
    """What `packed` made one tensor of."""
    if states.shape[1] == CONTEXT_LENGTH:
        return Moved(states)
    prompted, late, until = states.split([CONTEXT_LENGTH, CONTEXT_LENGTH, 1], 1)
    return Moved(prompted, late, until[:, 0, 0])


class MethodEncoder(TextEncoder):
    """A method's reader as a text encoder: token ids (B, 77) to the states that it draws with, as `packed`."""

    def __init__(self, changed: ChangedModel) -> None:
        """Read as this model does; words and layers are those of its text encoder."""
        nn.Module.__init__(self)
        self.config, self.model = changed.encoder.config, changed.encoder.model
        # A gate reads by both; free embeddings must be known to each.
        self.encoders = nn.ModuleList([changed.model.encoder, changed.encoder])
        self._read = changed.read

    def forward(self, ids: Tensor) -> Tensor:
        """See the class."""
        return packed(self._read(ids))


class MethodNoise:
    """A method's noise, called with latents, times and packed states; see the module."""

    def __init__(self, changed: ChangedModel, steps: int, guidance: float) -> None:
        self.model, self.safety = changed.model.frozen(), changed.safety
        self.steps, self.guidance = steps, guidance
        with torch.no_grad():
            texts = changed.texts([""])
            empty = states_of(changed.encoder, [""])
        self.negative, self.away = texts.plain, texts.safety if self._acts else None
        self.empty = None if torch.equal(empty, self.negative) else empty

    @property
    def _acts(self) -> bool:
        return self.safety is not None and self.safety.settings.acts(self.guidance)

    def __call__(self, latents: Tensor, times: Tensor, states: Tensor) -> Tensor:
        """Noise (B, 4, H, W) at latents, times (B,) and states of B prompts."""
        # The step of the sampler in which a time lies.
        numbers = self.steps - 1 - ((times - 1).clamp(min=0) * self.steps).div(TRAINING_STEPS, rounding_mode="floor")
        moved = unpacked(states)
        given = Texts(self.negative, moved.prompted, moved.late, moved.until).at(numbers, self.steps)
        found = self._noise(latents, times, given)
        with torch.no_grad():
            negative, empty, away = (
                None if each is None else self._noise(latents, times, each.expand_as(given))
                for each in (self.negative if self._guides else None, self.empty, self.away)
            )
        if self.safety is not None and away is not None and negative is not None:
            settings = self.safety.settings
            term = safety_term(found, negative, away, 0.0, settings)
            found = found - term * (numbers >= settings.warmup_of(self.steps))[:, None, None, None]
        if empty is not None and negative is not None:
            found = found - (1 - 1 / self.guidance) * (negative - empty)
        return found

    @property
    def _guides(self) -> bool:
        return self.empty is not None or self.away is not None

    def _noise(self, latents: Tensor, times: Tensor, states: Tensor) -> Tensor:
        if self.model.dtype != torch.float16 or not states.requires_grad:
            return self.model.noise(latents, times, states).to(latents.dtype)
        found = self.model.noise(latents, times, _Scaled.apply(states, 1 / _FP16_SCALE))
        return _Scaled.apply(found.to(latents.dtype), _FP16_SCALE)


class _Scaled(torch.autograd.Function):
    """A value as it is, with its gradient multiplied."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        return slopes[0] * ctx.scale, None
