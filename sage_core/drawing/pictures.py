"""Pictures of prompts, drawn by a model with a change in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..encoders.text_encoder import TextEncoder
from ..encoders.tokens import tokenize
from ..errors import SettingsError
from .change import Change, Moved, read_plainly, states_of
from .denoising import Step, Texts, denoise
from .guidance import SafeGuidance
from .models import Model
from .noise import inverse_scheduler, make_scheduler, noise_of

_CHANNELS, _FACTOR = 4, 8


@dataclass(frozen=True, eq=False)
class Begin:
    """What N pictures begin with besides the noise of their seeds, or in its place.

    Attributes:
        noise: of deviation 1, in the place of the seeds', (N, 4, H/8, W/8).
        picture: latents of pictures to begin with, as `noise`.
        strength: the share of the sampler's steps that are taken, the last ones, on `picture` noised as far as that.
        open: where `picture` is painted anew, (H/8, W/8) bool; elsewhere it holds through every step. None: everywhere.
    """

    noise: Tensor | None = None
    picture: Tensor | None = None
    strength: float = 1.0
    open: Tensor | None = None

    def __getitem__(self, part: slice) -> Begin:
        """That of some of the pictures."""
        noise, picture = (None if each is None else each[part] for each in (self.noise, self.picture))
        return replace(self, noise=noise, picture=picture)

    def prepared(self, scheduler: Any, noise: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Latents that a sampler begins with, and what `denoise` is told besides; `noise` is that of the seeds."""
        noise = noise if self.noise is None else self.noise.to(noise)
        if self.picture is None:
            return noise, {}
        picture, times = self.picture.to(noise), scheduler.timesteps
        first = len(times) - max(1, round(self.strength * len(times)))

        def noised(number: int) -> Tensor:
            return scheduler.add_noise(picture, noise, times[number : number + 1].expand(len(picture)))

        def fill(latents: Tensor, number: int) -> Tensor:
            kept = picture if number == len(times) else noised(number)
            return latents if self.open is None else torch.where(self.open.to(latents.device), latents, kept)

        return noised(first) if first else noise, {"first": first, "fill": fill}


class ChangedModel:
    """A model with a change in it, until another is put into the model."""

    def __init__(self, model: Model, change: Change | None = None) -> None:
        """Put a change into a model in place of the one before.

        Raises:
            SageError: the change does not fit the model.
        """
        change = change or Change()
        self.model, self.safety = model, change.safety
        encoder = model.encoder
        if change.encoder is not None:
            encoder = TextEncoder.from_state(change.encoder).to(model.device)
        self.encoder = encoder
        self._is_read = change.reads is not None
        self._reading = change.reads.reading(model.encoder, encoder) if change.reads else read_plainly(encoder)
        self._deltas = change.deltas
        self.put_in()

    def put_in(self) -> None:
        """Put the change into the model again, after another was."""
        self.model.put_in(self._deltas)
        self._puts = self.model.puts

    @torch.no_grad()
    def draw(
        self,
        prompts: Sequence[str] | Moved,
        seeds: Sequence[int],
        *,
        steps: int,
        guidance: float,
        sampler: str = "ddim",
        size: tuple[int, int] = (512, 512),
        batch: int | None = None,
        begin: Begin | None = None,
        watch: Callable[[Step], None] | None = None,
    ) -> Tensor:
        """Pictures (N, 3, height, width) in 0..1, fp32 on the model's device.

        Picture i comes from prompt i and seed i, whatever its batch.

        Args:
            prompts: what to draw, one picture each; texts, or what was read of them.
            seeds: one a prompt.
            steps: of the sampler, 1 to 1,000.
            guidance: weight of classifier-free guidance; 1 is none.
            sampler: see `noise.make_scheduler`.
            size: width and height in pixels.
            batch: pictures at a time; None for all.
            begin: what they begin with, where it is not noise alone.
            watch: called with each step of each batch; may raise to stop.

        Raises:
            SettingsError: there is no prompt, or not a seed for each, or another change has been put into the model.
        """
        if not len(prompts) or len(prompts) != len(seeds):
            raise SettingsError(f"There are {len(prompts)} prompts but {len(seeds)} seeds: give prompts, a seed each.")
        model, shape = self.model, (_CHANNELS, size[1] // _FACTOR, size[0] // _FACTOR)
        if model.puts != self._puts:
            raise SettingsError(f"Another change has been put into {model.title} since. Make a new ChangedModel.")
        acts = self.safety is not None and self.safety.settings.acts(guidance)
        pictures = []
        with torch.autocast(model.device.type, model.autocast, enabled=model.autocast is not None):
            for start in range(0, len(prompts), batch := batch or len(prompts)):
                part = slice(start, start + batch)
                safe = SafeGuidance(self.safety.settings, steps) if self.safety is not None and acts else None
                latents = noise_of(seeds[part], shape).to(model.device)
                texts = self.texts(prompts[part])
                scheduler = make_scheduler(sampler, steps)
                latents, more = (begin[part] if begin else Begin()).prepared(scheduler, latents)
                latents = denoise(model.noise, scheduler, latents, texts, guidance, safe=safe, watch=watch, **more)
                pictures.append(model.decode(latents))
        return torch.cat(pictures)

    @torch.no_grad()
    def inverted(self, latents: Tensor, steps: int) -> Tensor:
        """Noise from which so many steps of DDIM without a prompt come near to latents (N, 4, H/8, W/8) of pictures."""
        plain = self.texts([""]).plain
        texts = Texts(plain, plain.expand(len(latents), -1, -1))
        return denoise(self.model.noise, inverse_scheduler(steps), latents, texts, 1.0)

    def read(self, ids: Tensor) -> Moved:
        """States of the prompts of token ids (N, 77), differentiable as far as the reader is."""
        return self._reading.prompts(ids.to(self.model.device))

    @torch.no_grad()
    def texts(self, prompts: Sequence[str] | Moved) -> Texts:
        """The states that a batch of prompts is drawn with."""
        reading = self._reading
        # A gate's threshold, and what is a trigger for SAFREE, were set in fp32.
        kind = self.model.device.type
        with torch.autocast(kind, enabled=torch.is_autocast_enabled(kind) and not self._is_read):
            moved = prompts if isinstance(prompts, Moved) else self.read(tokenize(list(prompts)))
            texts = Texts(states_of(reading.encoder, [reading.negative]), moved.prompted, moved.late, moved.until)
            if self.safety is None:
                return texts
            return replace(texts, safety=states_of(reading.encoder, [self.safety.text]))


def draw(
    model: Model, change: Change | None, prompts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance: float,
    sampler: str = "ddim", size: tuple[int, int] = (512, 512), batch: int | None = None,
    watch: Callable[[Step], None] | None = None,
) -> Tensor:  # fmt: skip
    """Pictures of prompts by a model with a change in it, which stays in; see `ChangedModel.draw`."""
    return ChangedModel(model, change).draw(
        prompts, seeds, steps=steps, guidance=guidance, sampler=sampler, size=size, batch=batch, watch=watch
    )
