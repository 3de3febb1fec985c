"""Painters of methods that change neither weights nor the whole text encoder: guidance, projected prompts, a gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...drawing.guidance import PRESETS, SafeGuidance, guided
from ...drawing.noise import noise_scheduler
from ...encoders.text_encoder import TextEncoder
from ...encoders.tokens import tokenize
from ...methods.gate import Gate, route
from ...methods.safree import ConceptSpace, SafreeSettings
from ..exam.trials import BATCH, drawing_precision
from ..networks.model import ShapesModel, initial_noise


@dataclass(frozen=True)
class Texts:
    """States that a batch of B prompts is drawn with.

    Attributes:
        plain: of the negative prompt, (1 or B, 77, width).
        prompted: of the prompts, (B, 77, width).
        late: of the prompts, for steps from `until` on; None for `prompted` throughout.
        until: the share of the steps, one for each prompt, for which `prompted` holds, (B,).
        safety: of the safety text, for Safe Latent Diffusion.
    """

    plain: Tensor
    prompted: Tensor
    late: Tensor | None = None
    until: Tensor | None = None
    safety: Tensor | None = None

    def at(self, step: int, steps: int) -> Tensor:
        """States of the prompts at a step, counted from 0."""
        if self.late is None or self.until is None:
            return self.prompted
        early = (step < self.until * steps)[:, None, None]
        return torch.where(early, self.prompted, self.late)


class TextPainter:
    """Draws with states of its own making; subclasses say which."""

    encoder: TextEncoder | None = None

    def __init__(self, model: ShapesModel, preset: str | None = None) -> None:
        """Draw with `model`, away from a safety text by one of Safe Latent Diffusion's presets if one is named."""
        self.model, self.preset = model, preset

    def texts(self, prompts: Sequence[str]) -> Texts:
        """The states of a batch of prompts."""
        raise NotImplementedError

    @torch.no_grad()
    def draw(self, prompts: Sequence[str], *, steps: int, weight: float) -> Tensor:
        """See Painter."""
        half = drawing_precision(self.model.device)
        with torch.autocast(self.model.device.type, half, enabled=half is not None):
            pictures = [
                self._batch(prompts[start : start + BATCH], range(start, start + BATCH), steps, weight)
                for start in range(0, len(prompts), BATCH)
            ]
        return torch.cat(pictures)

    def _batch(self, prompts: Sequence[str], seeds: Sequence[int], steps: int, weight: float) -> Tensor:
        model, texts = self.model, self.texts(prompts)
        scheduler: Any = noise_scheduler()
        scheduler.set_timesteps(steps)
        latents = initial_noise(seeds[: len(prompts)]).to(model.device)
        safe = SafeGuidance(PRESETS[self.preset], steps) if self.preset else None
        for number, step in enumerate(scheduler.timesteps):
            prompted = texts.at(number, steps)
            rows = [texts.plain, prompted, *([] if texts.safety is None else [texts.safety])]
            states = torch.cat([part.expand_as(prompted) for part in rows])
            plain, cond, *safety = (
                model.unet(torch.cat([latents] * len(rows)), step, states).sample.float().chunk(len(rows))
            )
            if safe is not None:
                cond = safe.prompted(cond, plain, safety[0], number)
            latents = scheduler.step(guided(cond, plain, weight), step, latents).prev_sample
        return model.vae.decode(latents).float().clamp(0, 1)

    def _states(self, texts: Sequence[str]) -> Tensor:
        return self.model.encoder(tokenize(list(texts)).to(self.model.device))


class GuidedPainter(TextPainter):
    """Safe Latent Diffusion: guidance away from a safety text."""

    def __init__(self, model: ShapesModel, safety: str, preset: str) -> None:
        """Draw away from `safety`."""
        super().__init__(model, preset)
        self.safety = safety

    def texts(self, prompts: Sequence[str]) -> Texts:
        """See TextPainter."""
        plain, safety = self._states([""]), self._states([self.safety])
        return Texts(plain, self._states(prompts), safety=safety)


class SafreePainter(TextPainter):
    """SAFREE: prompts projected out of the concepts' space, which are the negative prompt as well."""

    def __init__(self, model: ShapesModel, concepts: Sequence[str]) -> None:
        """Draw away from `concepts`."""
        super().__init__(model)
        self.space = ConceptSpace(model.encoder, concepts)

    def texts(self, prompts: Sequence[str]) -> Texts:
        """See TextPainter."""
        moved = [self.space.project(prompt, SafreeSettings()) for prompt in prompts]
        device = self.model.device
        return Texts(
            self._states([self.space.negative_prompt]),
            torch.stack([prompt.states for prompt in moved]).to(device),
            torch.stack([prompt.original for prompt in moved]).to(device),
            torch.tensor([prompt.share for prompt in moved], device=device),
        )


class GatedEncoder(nn.Module):
    """The base's states of prompts that a gate lets through, and a safe encoder's of the others."""

    def __init__(self, base: TextEncoder, safe: TextEncoder, gate: Gate) -> None:
        """Route between two encoders of one size."""
        super().__init__()
        self.base, self.safe = base, safe
        self.gate = gate

    def forward(self, ids: Tensor) -> Tensor:
        """States (B, 77, width) of token ids (B, 77)."""
        return route([self.gate], self.base(ids).float(), self.safe(ids).float())[0]
