"""A whole AdvUnlearn training: its memory, a private U-Net, the loop, and the encoder in a store, found again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..encoders.layouts import EncoderConfig, canonical_state, read_encoder, require_positions
from ..encoders.text_encoder import TextEncoder, save_encoder, state_hash
from ..runs.keeping import SOFTWARE, kept, read_run, run_name, save_run, weights_hash
from ..runs.loop import Budget, Loop
from ..runs.record import StepReport
from ..unet.files import require_finite
from ..unet.names import UnetConfig
from ..unet.training import FACTOR, TypedNoise, UnetRun, checked_config, diffusers_unet, require_width, watched
from .adv_unlearn import AdvUnlearnObjective, AdvUnlearnSettings, require_layers, retain_prompts
from .concepts import Concepts

# Numbers that autograd keeps of a picture for each of its latent pixels and each channel of the U-Net's first level,
# counted on SD 1.x's U-Net with fused attention and frozen weights, which need no inputs of matrices kept.
_KEPT_NUMBERS = 281
# What passes through at the same time, such as the gradients of the largest layers: a generous allowance.
_PASSING = 1.5
# Frozen and trained copy in fp32; of trained weights the gradient and Adam's two moments, too.
_COPIES, _TRAINED_COPIES = 2, 3
# The whole encoder's weights and two moments in a checkpoint at most, and the result that is written before it goes.
_STORED_COPIES = 4
# Raised when the same inputs no longer give the same weights.
_RECIPE = 1


@dataclass(frozen=True)
class UnlearningPlan:
    """How a run is laid out.

    Attributes:
        chunk: pictures that go through the U-Net at once.
        bytes: estimate of what the run takes on its device.
    """

    chunk: int
    bytes: int

    def summary(self) -> str:
        """One line for a person."""
        return f"about {self.bytes / 2**30:.1f} GiB, {self.chunk} pictures at a time"


@dataclass(frozen=True, eq=False)
class AdvUnlearnResult:
    """A finished training.

    Attributes:
        state: the encoder's canonical state, float32 on the CPU.
        history: each step's report.
        metadata: method, preset, concept, steps, hashes and settings, as text; what a saved encoder says of itself.
        found: whether it was made before and is read from the store.
    """

    state: dict[str, Tensor]
    history: tuple[StepReport, ...]
    metadata: dict[str, str]
    found: bool

    def summary(self) -> str:
        """A few lines for a person."""
        first, last, about = self.history[0].losses, self.history[-1].losses, self.metadata
        lines = [
            f"{'Found, not trained again' if self.found else 'Trained'}: {about['method']}, {about['preset']}, concept "
            f"{about['concept']}, {about['steps']} steps in {float(about['seconds']):.0f} s, {about['retained']}.",
            "Losses, first to last step: "
            + ", ".join(f"{name} {first[name]:.4g} → {last[name]:.4g}" for name in last)
            + "; single steps differ by what they drew, so look at the curve.",
        ]
        return "\n".join(lines)


def plan_unlearning(
    unet: Mapping[str, Tensor],
    base: Mapping[str, Tensor],
    settings: AdvUnlearnSettings,
    *,
    size: int = 512,
    dtype: torch.dtype = torch.float32,
    free: int | None = None,
) -> UnlearningPlan:
    """The fastest layout that fits into `free` bytes, or one picture at a time if none does; None means no limit.

    Args:
        unet: the whole U-Net, by names of either form.
        base: canonical state of the text encoder.

    Raises:
        SettingsError, UnetError: see `train_adv_unlearn`.
    """
    config = checked_config(unet, size)
    layers = EncoderConfig.of(base).layers
    share = min(settings.layers or layers, layers) / layers
    encoder = 4 * sum(value.numel() for value in base.values())
    inner = 4 * sum(value.numel() for name, value in base.items() if ".layers." in name)
    weights = dtype.itemsize * sum(value.numel() for value in unet.values())
    fixed = weights + _COPIES * encoder + int(_TRAINED_COPIES * share * inner)
    pixels = (size // FACTOR) ** 2
    picture = int(_PASSING * _KEPT_NUMBERS * config.channels * pixels * dtype.itemsize)
    chunk = settings.batch_size + settings.retain_batch
    while free is not None and fixed + chunk * picture > free and chunk > 1:
        chunk = (chunk + 1) // 2
    return UnlearningPlan(chunk, fixed + chunk * picture)


def train_adv_unlearn(
    run: UnetRun,
    base: Mapping[str, Tensor],
    concepts: Concepts,
    settings: AdvUnlearnSettings,
    store: Path,
    *,
    retain: Sequence[str] = (),
    free_memory: int | None = None,
) -> AdvUnlearnResult:
    """Train an encoder, go on with a training that was stopped, or find a finished one in the folder `store`.

    A result that cannot be stored at the end is returned all the same, and its checkpoint stays.

    Args:
        run: the U-Net that draws, which stays as it is, and what it computes on and in; the encoder is float32. Its
            `on_evaluation` is called within an evaluation at every layer, too.
        base: canonical state of the encoder to start from; it stays as it is.
        concepts: what to erase, and the guides; the other texts in it are not used.
        retain: prompts that keep their pictures; none for the pack's everyday prompts.
        free_memory: bytes that the run may take on its device; None is no limit. Decides how many pictures go through
            the U-Net at once; never the result but for rounding.

    Raises:
        SettingsError: a size that no picture has, or more layers than the encoder has.
        PromptError: see `retain_prompts`.
        UnetError, EncoderError: the weights are not those of a plain SD 1.x model, or not finite.
        TrainingError: the run diverged, does not fit into memory, or another process is at it.
    """
    base = canonical_state(base, "The text encoder")
    unet, size, device, dtype, look = run.state, run.size, run.device, run.dtype, run.on_evaluation
    config = _checked(unet, base, size)
    require_layers(settings.layers, EncoderConfig.of(base))
    prompts = retain_prompts(retain, concepts)
    hashes = {"unet_hash": weights_hash(unet), "base_hash": state_hash(base)}
    retained = f"{len(prompts)} {'retain' if retain else 'everyday'} prompts"

    def make(checkpoint: Path) -> AdvUnlearnResult:
        noise = TypedNoise(watched(diffusers_unet(unet, device=device, dtype=dtype), look), look)
        encoder = TextEncoder.from_state({name: tensor.to(device) for name, tensor in base.items()})
        shape = (config.inputs, size // FACTOR, size // FACTOR)
        objective = AdvUnlearnObjective(noise, encoder, concepts, prompts, settings, shape)
        objective.chunk = plan_unlearning(unet, base, settings, size=size, dtype=dtype, free=free_memory).chunk
        budget, rate = Budget(steps=settings.steps), settings.learning_rate
        loop = Loop(objective, budget, lambda _step, _used: rate, checkpoint=checkpoint, key=checkpoint.stem)
        history = loop.run(run.on_step)
        state = objective.result()
        metadata = _metadata(hashes, concepts, settings, state, retained, loop.seconds)
        return AdvUnlearnResult(state, history, metadata, found=False)

    about = [_RECIPE, hashes, concepts.erase, concepts.guides, prompts, settings.key(), size, str(dtype)]
    needed = _STORED_COPIES * 4 * sum(value.numel() for value in base.values())
    return kept(store, run_name(["AdvUnlearn", *about]), make=make, save=_save, read=_read, needed=needed)[0]


def _checked(unet: Mapping[str, Tensor], base: Mapping[str, Tensor], size: int) -> UnetConfig:
    """The U-Net's sizes, where both are of one SD 1.x model and finite; else raises as `train_adv_unlearn` does."""
    config, width = checked_config(unet, size), EncoderConfig.of(base).width
    require_positions(EncoderConfig.of(base), "The CLIP")
    require_width(config, width)
    for name, value in unet.items():
        require_finite(value, name, "The U-Net")
    return config


def _metadata(
    hashes: Mapping[str, str],
    concepts: Concepts,
    settings: AdvUnlearnSettings,
    state: Mapping[str, Tensor],
    retained: str,
    seconds: float,
) -> dict[str, str]:
    if not settings.radius:
        preset = "without attack"
    else:
        preset = "fast" if settings.attack_steps == 1 else f"{settings.attack_steps} attack steps"
    return {
        "format": "pt",
        "method": "AdvUnlearn",
        "preset": preset,
        "concept": "; ".join(concepts.erase),
        "guide": "; ".join(dict.fromkeys(concepts.guides)),
        "steps": str(settings.steps),
        "seconds": f"{seconds:.1f}",
        "retained": retained,
        **hashes,
        "hash": state_hash(state),
        "settings": json.dumps(settings.to_dict(), sort_keys=True),
        "software": SOFTWARE,
    }


def _save(weights: Path, result: AdvUnlearnResult) -> None:
    save_run(weights, save_encoder, result.state, result.metadata, result.history)


def _read(weights: Path) -> AdvUnlearnResult:
    says = ("method", "preset", "concept", "seconds", "retained")
    state, metadata, history, _ = read_run(weights, lambda path: read_encoder(path)[0], state_hash, says)
    return AdvUnlearnResult(state, history, metadata, found=True)
