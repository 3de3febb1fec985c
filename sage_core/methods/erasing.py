"""Erasing by training: ESD (Gandikota et al., ICCV 2023) as published and as its authors have it now, and RACE.

A step draws a picture of the concept c half way, with the guidance of a sampler, to latents x at the time t. There the
edited noise ε_θ is drawn to what the frozen base ε says of the picture without the concept:

    2025:  ‖ε_θ(x, f) − [ε(x, f) − η (ε(x, c) − ε(x, ""))]‖²    η = 2, f the text to erase it from, c itself by default
    2023:  ‖ε_θ(x, c) − [ε(x, "") − η (ε(x, c) − ε(x, ""))]‖²   η = 1, x drawn by the model in training

RACE (Kim et al., ECCV 2024) moves the text's states within a small box first, to where ε_θ still draws the concept.
Its authors begin with the weights of a finished ESD, and take the targets from Stable Diffusion itself. Here both are
the base, unless `plain_steps` trains an ESD first: 1,000 of 2,000 steps are theirs, but that Adam's moments go on.

`train_erasure` is a whole training, kept in a store; its result is an edit, see `unet.differences`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..drawing.denoising import Noise, Texts, denoise
from ..drawing.noise import TRAINING_STEPS, make_scheduler, time_between
from ..encoders.text_encoder import TextEncoder, embed
from ..encoders.tokens import CONTEXT_LENGTH
from ..errors import SettingsError
from ..seeds import generator_of
from ..settings import Count, CountOrZero, Limits, NotNegative, Positive, Seed, Settings
from ..unet.differences import DifferencesObjective, Trained
from ..unet.training import EditResult, UnetRun
from .concepts import Concepts
from .removal import Removal

Form = Literal["2025", "2023"]


@dataclass(frozen=True)
class RaceSettings(Settings):
    """RACE's search for states that still draw the concept, by projected gradient descent.

    Attributes:
        radius: of the box around each number of the text's states.
        iterations: of the descent, each of a quarter of the radius.
        plain_steps: of the training, the first, without the search, which are ESD; 0 begins with the search.
    """

    later = ("plain_steps",)

    radius: Positive = 0.1
    iterations: Count = 10
    plain_steps: CountOrZero = 0


@dataclass(frozen=True)
class ErasingSettings(Settings):
    """How a concept is trained away; the defaults are ESD-x of 2025.

    Attributes:
        trained: which parameters, see `differences.trained_names`.
        form: of the target, "2025" or "2023".
        steps: of training.
        learning_rate: of Adam, constant.
        strength: η.
        guidance: of the sampler that draws the latents.
        sampling_steps: of that sampler, DDIM; a training step takes half of them on average.
        batch_size: pictures a step.
        seed: of everything random.
        race: the adversarial version.
        l1: weight of the absolute difference from the base: its mean over each tensor, summed over the tensors.
    """

    trained: Trained = "x"
    form: Form = "2025"
    steps: Count = 200
    learning_rate: Positive = 5e-5
    strength: Positive = 2.0
    guidance: float = 3.0
    sampling_steps: Annotated[int, Limits(1, TRAINING_STEPS)] = 50
    batch_size: Count = 1
    seed: Seed = 0
    race: RaceSettings | None = None
    l1: NotNegative = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.race is not None and self.race.plain_steps >= self.steps:
            raise SettingsError(
                f"race: plain_steps is {self.race.plain_steps:,}, expected fewer than the training's {self.steps:,} "
                "steps: none would search for the concept."
            )

    def rate(self, _step: int, _used: float) -> float:
        """Learning rate of a step."""
        return self.learning_rate


ESD_PAPER = ErasingSettings("x", "2023", 1000, 1e-5, strength=1.0)
PRESETS = {
    "esd_x": ErasingSettings(),
    "esd_u": ErasingSettings("u"),
    "esd_x_paper": ESD_PAPER,
    "esd_u_paper": ESD_PAPER.replace(trained="noxattn"),
    "race": ESD_PAPER.replace(race=RaceSettings()),
}


@dataclass(frozen=True, eq=False)
class ErasingTexts:
    """States of the texts, (n, 77, width) each: what is erased, what it is erased from, and the empty prompt (1)."""

    erase: Tensor
    sources: Tensor
    empty: Tensor

    @classmethod
    def of(cls, encoder: TextEncoder, concepts: Concepts, sources: Sequence[str] = ()) -> ErasingTexts:
        """Embed concepts, and the texts they are erased from where these are others. Guides are not used.

        Raises:
            SettingsError: as many sources as concepts are expected, or none.
        """
        if sources and len(sources) != len(concepts.erase):
            raise SettingsError(f"{len(sources)} texts to erase {len(concepts.erase)} concepts from: give one each.")
        texts = [*concepts.erase, *(sources or concepts.erase), ""]
        states = embed(encoder, texts).view(len(texts), CONTEXT_LENGTH, -1)
        count = len(concepts.erase)
        return cls(states[:count], states[count:-1], states[-1:])


class ErasingObjective(DifferencesObjective):
    """ESD or RACE as the training loop sees it; all that a step does follows from the seed and the step."""

    losses = ("total", "erasing", "l1")

    def __init__(
        self, noise: nn.Module, texts: ErasingTexts, settings: ErasingSettings, latent_shape: tuple[int, int, int]
    ) -> None:
        """Train differences from the weights of `noise`; see DifferencesObjective.

        Args:
            noise: the U-Net.
            texts: states of the texts.
            settings: how.
            latent_shape: channels, height and width.
        """
        super().__init__(noise, settings.trained, settings.learning_rate, settings.batch_size, latent_shape)
        self.settings = settings
        self.texts = ErasingTexts(*(getattr(texts, name).to(self.device) for name in ("erase", "sources", "empty")))
        self.scheduler = make_scheduler("ddim", settings.sampling_steps)

    def gradients(self, step: int) -> Tensor:
        """See Objective."""
        generator = generator_of(self.settings.seed, step)
        count = self.settings.batch_size
        chosen = torch.randint(len(self.texts.erase), (count,), generator=generator)
        done = int(torch.randint(self.settings.sampling_steps, (), generator=generator))
        time = self._time(done, generator)
        start = torch.randn(count, *self.latent_shape, generator=generator).to(self.device)
        shift = torch.rand(count, *self.texts.erase.shape[1:], generator=generator).to(self.device) * 2 - 1
        race = self.settings.race
        searched = race is not None and step >= race.plain_steps
        erasing = torch.zeros((), device=self.device)
        for part in torch.arange(count).split(self.chunk):
            moved = shift[part] if searched else None
            loss = self._loss(start[part], chosen[part].to(self.device), done, time, moved) * len(part) / count
            loss.backward()
            erasing += loss.detach()
        l1 = self.settings.l1 * sum((delta.abs().mean() for delta in self.deltas.values()), erasing.new_zeros(()))
        if self.settings.l1:
            l1.backward()
        return torch.stack([erasing + l1.detach(), erasing, l1.detach()])

    def _loss(self, start: Tensor, chosen: Tensor, done: int, time: int, shift: Tensor | None) -> Tensor:
        """Mean over pictures of the squared error; `start` is the noise they begin with, `shift` that of a search."""
        settings, texts = self.settings, self.texts
        concept = texts.erase[chosen]
        source = texts.sources[chosen] if settings.form == "2025" else concept
        latents = self.partly_drawn(start, source, done)
        times = torch.full((len(start),), time, device=self.device)
        target = self._target(latents, times, concept, source)
        if shift is not None:
            source = self._attacked(latents, times, source, start, shift)
        return (self.edited(latents, times, source).float() - target).square().mean()

    @torch.no_grad()
    def _target(self, latents: Tensor, times: Tensor, concept: Tensor, source: Tensor) -> Tensor:
        empty = self.texts.empty.expand_as(concept)
        texts = [concept, empty] if self.settings.form == "2023" or source is concept else [concept, empty, source]
        found = self.noise(*(torch.cat([one] * len(texts)) for one in (latents, times)), torch.cat(texts)).float()
        of_concept, of_empty, *rest = found.chunk(len(texts))
        anchor = of_empty if self.settings.form == "2023" else (rest or [of_concept])[0]
        return anchor - self.settings.strength * (of_concept - of_empty)

    def partly_drawn(self, latents: Tensor, states: Tensor, steps: int) -> Tensor:
        """Latents after `steps` steps of DDIM with guidance: by the base, in the 2023 form by the edited U-Net."""
        noise: Noise = self.edited if self.settings.form == "2023" else self.noise
        texts = Texts(self.texts.empty, states)
        return denoise(noise, self.scheduler, latents, texts, self.settings.guidance, steps=steps)

    def _attacked(self, latents: Tensor, times: Tensor, states: Tensor, start: Tensor, shift: Tensor) -> Tensor:
        """States in the box around the given ones under which the edited U-Net predicts the starting noise best."""
        race = cast(RaceSettings, self.settings.race)
        # Detached: the search is for states, and must not gather gradients of the differences.
        weights = {name: weight.detach() for name, weight in self.weights().items()}
        moved = race.radius * shift
        for _ in range(race.iterations):
            moved.requires_grad_(True)
            error = (
                (functional_call(self.noise, weights, (latents, times, states + moved)).float() - start).square().mean()
            )
            (slope,) = torch.autograd.grad(error, moved)
            moved = (moved.detach() - race.radius / 4 * slope.sign()).clamp(-race.radius, race.radius)
        return states + moved

    def _time(self, done: int, generator: torch.Generator) -> int:
        """The time after `done` steps: the sampler's own, in the 2023 form any in that step's stretch of time."""
        if self.settings.form == "2025":
            return int(self.scheduler.timesteps[done])
        return time_between(done, self.settings.sampling_steps, generator)


def recipe(settings: ErasingSettings, _given: Removal | None = None) -> int:
    """See `table.Method.recipe`. 2: l1 is a sum over tensors."""
    return 2 if settings.l1 else 1


def train_erasure(
    run: UnetRun,
    encoder: TextEncoder,
    concepts: Concepts,
    settings: ErasingSettings,
    store: Path,
    *,
    preset: str = "",
    sources: Sequence[str] = (),
) -> EditResult:
    """Train an erasure, go on with one that was stopped, or find a finished one in the folder `store`.

    Args:
        run: the U-Net, and on what it is trained.
        concepts: what to erase; guides and texts to preserve are not used.
        preset: the settings' name, for reports.
        sources: texts to erase the concepts from, one each; none for the concepts themselves.

    Raises:
        SettingsError, UnetError, TrainingError: see `UnetRun.train`.
    """
    return run.train(
        encoder,
        settings,
        lambda noise, shape, _: ErasingObjective(noise, ErasingTexts.of(encoder, concepts, sources), settings, shape),
        store,
        inputs=[concepts.erase, tuple(sources)],
        about={
            "method": "RACE" if settings.race else f"ESD-{settings.trained}",
            "preset": preset or "none",
            "concept": "; ".join(concepts.erase),
        },
        recipe=recipe(settings),
    )
