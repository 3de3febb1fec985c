"""Ordinary fine-tuning of the finished model on a few pictures, as users do it: whole networks, or a LoRA."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...drawing.noise import TRAINING_STEPS, noised
from ...encoders.precision import arithmetic, choose_precision
from ...encoders.text_encoder import TextEncoder
from ...encoders.tokens import tokenize
from ...runs.loop import Budget, Loop, Objective
from ...seeds import generator_of
from ...settings import Count, CountOrZero, Positive, Seed, Settings
from ..networks.model import ShapesModel


@dataclass(frozen=True)
class TuningSettings(Settings):
    """How a model is fine-tuned.

    Attributes:
        steps: of AdamW.
        batch: pictures a step.
        learning_rate: of whole networks. At 1e-4 fifty steps of U-Net and text encoder wreck this world (TIFA 47.5 %
            where it was 100): that would not be ordinary fine-tuning.
        rank: of a LoRA in the attention of the U-Net in place of training it whole; 0 for none.
        lora_rate: learning rate of a LoRA.
        encoder: whether the text encoder is trained too.
        seed: of pictures, times and noise.

    Raises:
        SettingsError: a number is too low, or not finite.
    """

    steps: Count = 50
    batch: Count = 8
    learning_rate: Positive = 1e-5
    rank: CountOrZero = 0
    lora_rate: Positive = 1e-3
    encoder: bool = False
    seed: Seed = 0


def fine_tune(
    model: ShapesModel, encoder: TextEncoder, captions: Sequence[str], pictures: Tensor, settings: TuningSettings
) -> tuple[ShapesModel, TextEncoder]:
    """Copies of a model and its text encoder, fine-tuned on pictures (N, 3, 64, 64) with their captions."""
    objective = Denoising(model, encoder, captions, pictures, settings)
    device = model.device
    with arithmetic(choose_precision("auto", device), device):
        Loop(objective, Budget(steps=settings.steps), lambda _step, _used: objective.rate).run()
    return objective.result()


class Denoising(Objective):
    """Predict the noise in noised pictures: what Stable Diffusion was trained by."""

    losses = ("noise",)

    def __init__(
        self,
        model: ShapesModel,
        encoder: TextEncoder,
        captions: Sequence[str],
        pictures: Tensor,
        settings: TuningSettings,
    ) -> None:
        """Train copies: the U-Net whole or by a LoRA, and the text encoder if the settings say so."""
        self.settings, self.device = settings, model.device
        self.model = ShapesModel(copy.deepcopy(model.unet).requires_grad_(False), model.vae, model.encoder)
        self.encoder = TextEncoder.from_state(encoder.state()).to(self.device).requires_grad_(False)
        with torch.no_grad():
            self.latents = model.vae.encode(pictures.to(self.device)).float()
        self.ids = tokenize(list(captions)).to(self.device)
        self.rate = settings.lora_rate if settings.rank else settings.learning_rate
        self._adapted = _adapt(self.model.unet, settings) if settings.rank else []
        self.trained: dict[str, Tensor] = {}
        for name, weight in self.model.unet.named_parameters():
            if name.endswith((".down", ".up")) if settings.rank else True:
                self.trained[f"unet.{name}"] = weight.requires_grad_(True)
        if settings.encoder:
            layers = {name: weight for name, weight in self.encoder.named_parameters() if ".layers." in name}
            self.trained |= {f"encoder.{name}": weight.requires_grad_(True) for name, weight in layers.items()}
        self.optimizer = torch.optim.AdamW(self.trained.values(), lr=self.rate)

    def state(self) -> Mapping[str, Tensor]:
        """See Objective."""
        return {name: weight.detach() for name, weight in self.trained.items()}

    def gradients(self, step: int) -> Tensor:
        """See Objective."""
        generator = generator_of(self.settings.seed, step)
        rows = torch.randint(len(self.ids), (self.settings.batch,), generator=generator).to(self.device)
        times = torch.randint(TRAINING_STEPS, (self.settings.batch,), generator=generator).to(self.device)
        noise = torch.randn(len(rows), *self.latents.shape[1:], generator=generator).to(self.latents)
        noisy = noised(self.latents[rows], times, noise)
        predicted = self.model.unet(noisy, times, self.encoder(self.ids[rows])).sample
        loss = (predicted.to(noise.dtype) - noise).square().mean()
        loss.backward()
        return loss.detach()[None]

    def result(self) -> tuple[ShapesModel, TextEncoder]:
        """The model and the encoder as they are now, a LoRA merged into the U-Net's own weights."""
        for module in self._adapted:
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        self._adapted = []
        self.model.unet.requires_grad_(False)
        return self.model, self.encoder.requires_grad_(False)


class _LowRank(nn.Module):
    """A weight with a change of low rank added; the change starts at 0."""

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        first = torch.randn(rank, inputs, generator=generator) / math.sqrt(inputs)
        self.down = nn.Parameter(first.to(weight))
        self.up = nn.Parameter(torch.zeros(outputs, rank).to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def _adapt(unet: nn.Module, settings: TuningSettings) -> list[nn.Module]:
    """Put a LoRA on every matrix of the attention; returns the modules that have one."""
    generator = torch.Generator().manual_seed(settings.seed)
    adapted: list[nn.Module] = []
    for name, module in list(unet.named_modules()):
        if isinstance(module, nn.Linear) and (".attn1." in name or ".attn2." in name):
            parametrize.register_parametrization(module, "weight", _LowRank(module.weight, settings.rank, generator))
            adapted.append(module)
    return adapted
