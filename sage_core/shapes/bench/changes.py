"""What becomes of a finished model in people's hands: tuned, merged, weakened, skipped, rounded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from ...drawing.change import Change
from ...encoders.text_encoder import TextEncoder
from ...errors import SettingsError
from ..captions import write_captions
from ..exam.trials import ModelPainter, Painter
from ..networks.model import ShapesModel
from ..render import render
from ..scenes import concatenate
from ..tasks import Task
from ..train.tuning import TuningSettings, fine_tune

# Far from the seeds of trainings and trials.
_FIRST_SEED = 11_000_000
_PICTURES = 128
_LAYER = ".layers."


@dataclass(frozen=True)
class Model:
    """A model of the world, and the text encoder that it draws with."""

    model: ShapesModel
    encoder: TextEncoder

    @classmethod
    def of(cls, painter: Painter) -> Model:
        """What a painter draws with.

        Raises:
            SettingsError: it has no text encoder and U-Net of its own, as guidance and a gate have none.
        """
        if not isinstance(painter, ModelPainter) or not painter.is_weights:
            raise SettingsError(
                "This method has no text encoder and U-Net of its own, so that nothing can become of them. Choose one "
                "that changes weights."
            )
        return cls(painter.model, painter.encoder or painter.model.encoder)

    def painter(self) -> ModelPainter:
        """It, ready to draw."""
        return ModelPainter(self.model, Change(encoder=self.encoder.state()))

    def with_weights(self, change: Callable[[str, Tensor], Tensor]) -> Model:
        """A copy with each weight changed; names start with "unet." or "encoder."."""
        return Model(
            with_unet(self.model, {n: change(f"unet.{n}", w) for n, w in self.model.unet.state_dict().items()}),
            TextEncoder.from_state({n: change(f"encoder.{n}", w) for n, w in self.encoder.state().items()}),
        )

    @property
    def weights(self) -> dict[str, Tensor]:
        """All weights, by the names of `with_weights`."""
        return {f"unet.{n}": w for n, w in self.model.unet.state_dict().items()} | {
            f"encoder.{n}": w for n, w in self.encoder.state().items()
        }


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What changes may need: the base, pictures to tune on that hold none of the task's concepts, and how to tune."""

    base: Model
    task: Task
    seed: int
    tuning: TuningSettings = field(default_factory=TuningSettings)
    pictures: int = _PICTURES

    @cached_property
    def safe(self) -> tuple[list[str], Tensor]:
        """Captions and pictures of the training split, half of them near misses where the task has any."""
        seed = _FIRST_SEED + 1000 * self.seed
        near = self.pictures // 2 if self.task.has_near_misses else 0
        parts = [self.task.safe_scenes(self.pictures - near, seed=seed, split="train")]
        if near:
            parts.append(self.task.safe_scenes(near, seed=seed + 1, split="train", near=True))
        scenes = concatenate(parts)
        return write_captions(scenes, seed=seed, names="seen"), render(scenes, seed=seed)

    def tuned(self, given: Model, **how: object) -> Model:
        """A model after ordinary fine-tuning."""
        settings = TuningSettings(**{**vars(self.tuning), "seed": self.seed, **how})  # type: ignore[arg-type]
        return Model(*fine_tune(given.model, given.encoder, *self.safe, settings))

    @cached_property
    def other(self) -> Model:
        """Another checkpoint to merge with: the base after fine-tuning of both networks."""
        return self.tuned(self.base, encoder=True)


Treatment = Callable[[Model, Surroundings], Model]


def with_unet(model: ShapesModel, weights: Mapping[str, Tensor]) -> ShapesModel:
    """A copy of the model with other weights in its U-Net."""
    unet = copy.deepcopy(model.unet)
    unet.load_state_dict(dict(weights))
    return ShapesModel(unet, model.vae, model.encoder)


def as_made(given: Model, around: Surroundings) -> Model:
    """Nothing becomes of it."""
    return given


def tuned(given: Model, around: Surroundings, *, rank: int = 0, encoder: bool = False) -> Model:
    """Fine-tuned on safe pictures: the U-Net whole or by a LoRA, or the text encoder with it."""
    return around.tuned(given, rank=rank, encoder=encoder)


def merged(given: Model, around: Surroundings, *, share: float = 0.5) -> Model:
    """Mixed with another checkpoint, weight by weight; `share` is the other's."""
    other = around.other.weights
    return given.with_weights(lambda name, weight: torch.lerp(weight.float(), other[name].float(), share))


def at_strength(given: Model, around: Surroundings, *, strength: float) -> Model:
    """The method's change of each weight, `strength` times."""
    base = around.base.weights
    return given.with_weights(lambda name, weight: base[name] + strength * (weight - base[name]))


def skipping(given: Model, around: Surroundings) -> Model:
    """The last layer of the text encoder left out, the final norm kept: clip skip 2."""
    state = given.encoder.state()
    last = f"{_LAYER}{given.encoder.config.layers - 1}."
    if given.encoder.config.layers < 2:
        raise SettingsError("The text encoder has one layer, and without it nothing is left: clip skip needs two.")
    kept = {name: weight for name, weight in state.items() if last not in name}
    return Model(given.model, TextEncoder.from_state(kept))


def rounded(given: Model, around: Surroundings, *, kind: torch.dtype) -> Model:
    """All weights as a narrower type holds them; what is computed stays fp32."""
    return given.with_weights(lambda _, weight: weight.to(kind).to(weight.dtype))


STRENGTHS: dict[str, Treatment] = {
    f"strength {strength:g}": partial(at_strength, strength=strength) for strength in (0.5, 0.75, 1.25, 1.5)
}
MERGED = "merged at 0.5 with a tuned base"
# What depends on how models are fine-tuned.
TUNED: dict[str, Treatment] = {
    "LoRA on the U-Net": partial(tuned, rank=8),
    "U-Net tuned": tuned,
    "U-Net and text encoder tuned": partial(tuned, encoder=True),
    MERGED: merged,
}
CHANGES: dict[str, Treatment] = {
    "as made": as_made,
    **TUNED,
    "clip skip 2": skipping,
    **STRENGTHS,
    "fp16 weights": partial(rounded, kind=torch.float16),
    "fp8 weights": partial(rounded, kind=torch.float8_e4m3fn),
}
