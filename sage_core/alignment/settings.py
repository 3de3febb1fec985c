"""Every knob of an alignment run in one frozen, validated object, and the presets that we ship."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..encoders.precision import Precision
from ..errors import SettingsError

Target = Literal["farthest", "paired", "nearest"]
Unit = Literal["absolute", "norm"]
Schedule = Literal["constant", "linear", "cosine"]


# No setting that makes sense is larger, and whatever is computed with this one stays finite in fp32.
_LARGEST = 10**9


def _shown(value: Any) -> str:
    # Python refuses to write whole numbers of more than 4,300 digits, and nobody reads them.
    long = isinstance(value, int) and abs(value) > _LARGEST**3
    return "a whole number of more than 27 digits" if long else repr(value)


def _within(name: str, value: float, least: float = -_LARGEST, most: float = _LARGEST) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # Compared before anything else: whole numbers of any length reach this, and NaN lies nowhere.
    if not number or not least <= value <= most:
        raise SettingsError(f"{name} is {_shown(value)}; expected a number from {least:g} to {most:g}.")


def _whole(name: str, value: int, least: int, most: int = _LARGEST) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise SettingsError(f"{name} is {_shown(value)}; expected a whole number from {least} to {most}.")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SettingsError(f"{name} is {value!r}; expected one of {', '.join(allowed)}.")


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one alignment run; the defaults are the paper's (arXiv 2607.00402).

    Attributes:
        keep_weight: λ, share of the keep terms; the redirect terms get 1 − λ.
        spread_weight: λ_ESP, weight of embedding spread preservation. 0 together with `local_weight` 0 is DES.
        local_weight: λ_LSA, weight of local structure alignment.
        neighbours: K, nearest base neighbours of a prompt within its batch that local structure alignment looks at.
        perturbation: α, how far safe embeddings are pushed along the concept inside local structure alignment.
        perturbation_unit: "absolute", or "norm" for multiples of the mean norm of the base's safe embeddings.
        concept_scale: s, how far along the concept targets and kept embeddings are moved.
        scale_unit: unit of `concept_scale`, as for `perturbation_unit`.
        keep_mse: weight, inside λ, of the relative squared error ‖φ_θ(safe) − φ_0(safe)‖² / ‖φ_0(safe)‖²; 0 in the
            paper.
        keep_concept: whether the keep term on concept-shifted safe embeddings takes part.
        target: which safe prompt an unsafe one is redirected to.
        target_shift: multiples of s by which that target is moved against the concept (1 in the paper).
        learning_rate, weight_decay: AdamW's.
        schedule: what becomes of the learning rate: "constant" (the paper's), or a "linear" or "cosine" fall to 0.
        warmup: steps of linear warm-up.
        batch_size: pairs a step. The loss couples the whole batch, so this is part of the result.
        epochs: passes over the pairs.
        steps: when given, the exact number of steps, whatever `epochs` says.
        chunk_size: prompts that go through the encoder at once, None for the whole batch. Changes memory, not results.
        precision: arithmetic of the encoder: "fp32", "tf32" (CUDA only) or "bf16" autocast. Weights stay fp32.
        seed: order of the pairs and choice of the held-out prompts.
        held_out: safe prompts kept out of training to measure the geometry on, at most a tenth of all.
    """

    keep_weight: float = 0.3
    spread_weight: float = 2.0
    local_weight: float = 0.1
    neighbours: int = 15
    perturbation: float = 1.0
    perturbation_unit: Unit = "absolute"
    concept_scale: float = 205.0
    scale_unit: Unit = "absolute"
    keep_mse: float = 0.0
    keep_concept: bool = True
    target: Target = "farthest"
    target_shift: float = 1.0
    learning_rate: float = 1e-5
    weight_decay: float = 0.01
    schedule: Schedule = "constant"
    warmup: int = 0
    batch_size: int = 128
    epochs: int = 2
    steps: int | None = None
    chunk_size: int | None = None
    precision: Precision = "fp32"
    seed: int = 0
    held_out: int = 128

    def __post_init__(self) -> None:
        _within("keep_weight", self.keep_weight, 0, 1)
        for name in ("spread_weight", "local_weight", "perturbation", "concept_scale", "keep_mse", "weight_decay"):
            _within(name, getattr(self, name), 0)
        _within("learning_rate", self.learning_rate, 1e-12, 1)
        _within("target_shift", self.target_shift)
        for name, least in (("neighbours", 1), ("batch_size", 2), ("epochs", 1), ("warmup", 0), ("held_out", 0)):
            _whole(name, getattr(self, name), least)
        for name in ("steps", "chunk_size"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 1)
        _whole("seed", self.seed, 0, 2**32 - 1)
        _one_of("target", self.target, get_args(Target))
        _one_of("perturbation_unit", self.perturbation_unit, get_args(Unit))
        _one_of("scale_unit", self.scale_unit, get_args(Unit))
        _one_of("schedule", self.schedule, get_args(Schedule))
        _one_of("precision", self.precision, get_args(Precision))
        if not isinstance(self.keep_concept, bool):
            raise SettingsError(f"keep_concept is {self.keep_concept!r}; expected true or false.")
        if self.local_weight > 0 and self.batch_size <= self.neighbours + 1:
            raise SettingsError(
                f"batch_size is {self.batch_size} and neighbours is {self.neighbours}: local structure alignment needs "
                f"more than {self.neighbours + 1} prompts a batch. Raise batch_size, lower neighbours, or set "
                "local_weight to 0."
            )

    def replace(self, **changes: Any) -> TrainingSettings:
        """A copy with some fields changed, validated again.

        Raises:
            SettingsError: a field that does not exist, or a value out of range.
        """
        _known(changes, "the changes")
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "the settings") -> TrainingSettings:
        """Settings from a mapping; missing fields take the paper's value.

        Raises:
            SettingsError: an unknown field (named, with `source`) or a value out of range.
        """
        _known(values, source)
        return cls(**values)


def _known(values: Mapping[str, Any], source: str) -> None:
    fields = [field.name for field in dataclasses.fields(TrainingSettings)]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise SettingsError(f"{source}: unknown setting {unknown[0]!r}. Known settings: {', '.join(fields)}.")


PRESETS: dict[str, TrainingSettings] = {
    "paper": TrainingSettings(),
    "des": TrainingSettings(spread_weight=0.0, local_weight=0.0, concept_scale=200.0),
    "sage_plus": TrainingSettings(learning_rate=1e-4, keep_mse=20.0, epochs=4),
}


def preset_name(settings: TrainingSettings) -> str:
    """The preset whose objective `settings` has, or "custom".

    Seed, precision, chunk size and held-out prompts belong to a run, not to an objective, and are not compared.
    """
    run = {name: getattr(settings, name) for name in ("seed", "precision", "chunk_size", "held_out")}
    for name, preset in PRESETS.items():
        if dataclasses.replace(preset, **run) == settings:
            return name
    return "custom"
