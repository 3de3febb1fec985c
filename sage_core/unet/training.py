"""Trainings of a U-Net that are kept: a private U-Net, the loop, and the finished edit in a store, found again."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from ..encoders.text_encoder import TextEncoder, state_hash
from ..errors import SettingsError, UnetError
from ..runs.keeping import SOFTWARE, kept, read_run, run_name, save_run, weights_hash
from ..runs.loop import Budget, Loop
from ..runs.record import StepReport
from .changes import save_changes
from .differences import DifferencesObjective, DiffusersNoise, Trained
from .files import read_unet
from .names import UnetConfig, unet_names, unet_values

# Pixels of a picture, along a side, to a number of its latents.
FACTOR = 8
# What takes the time of an evaluation, by diffusers' names.
_LAYER = re.compile(r"\.(?:resnets|attentions)\.\d+$")
# A difference, its gradient and Adam's two moments, in fp32.
_BYTES_TRAINED = 16


@dataclass(frozen=True, eq=False)
class EditResult:
    """A finished training.

    Attributes:
        deltas: what to add to the base, by diffusers' names, float32 on the CPU.
        history: each step's report.
        metadata: method, preset, concept, steps, seconds, settings and hashes, as text.
        found: whether it was made before and is read from the store.
    """

    deltas: dict[str, Tensor]
    history: tuple[StepReport, ...]
    metadata: dict[str, str]
    found: bool

    def summary(self) -> str:
        """A few lines for a person."""
        first, last, about = self.history[0].losses["total"], self.history[-1].losses["total"], self.metadata
        return "\n".join(
            [
                f"{'Found, not trained again' if self.found else 'Trained'}: {about['method']}, preset "
                f"{about['preset']}, concept {about['concept']}, {about['steps']} steps in "
                f"{float(about['seconds']):.0f} s.",
                f"{len(self.deltas)} tensors changed. Loss, first to last step: {first:.4g} → {last:.4g}; single steps "
                "differ by what they drew, so look at the curve.",
            ]
        )


class EditSettings(Protocol):
    """What the settings of every such training say."""

    @property
    def trained(self) -> Trained:
        """Which of the U-Net's parameters, see `differences.trained_names`."""

    @property
    def steps(self) -> int:
        """Of training."""

    def rate(self, step: int, used: float, /) -> float:
        """Learning rate of a step, counted from 0, when this share of the budget is used."""

    def to_dict(self) -> dict[str, Any]:
        """All of them, JSON-able."""

    def key(self) -> dict[str, Any]:
        """Those that name the result, see `settings.Settings.key`."""


class TypedNoise(DiffusersNoise):
    """Takes and gives fp32, whatever the U-Net computes in; `watch` is called before each evaluation."""

    def __init__(self, unet: nn.Module, watch: Callable[[], None] | None) -> None:
        super().__init__(unet)
        self._dtype = next(unet.parameters()).dtype
        self._watch = watch

    def forward(self, latents: Tensor, times: Tensor, states: Tensor) -> Tensor:
        """See DiffusersNoise."""
        if self._watch is not None:
            self._watch()
        return super().forward(latents.to(self._dtype), times, states.to(self._dtype)).float()


def watched(unet: nn.Module, watch: Callable[[], None] | None) -> nn.Module:
    """The same U-Net, which calls `watch` after each of its layers, on the way forwards and back; it may raise to stop.

    On a CPU one evaluation of a few pictures takes minutes.
    """

    def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
        cast(Callable[[], None], watch)()
        found = output[0] if isinstance(output, tuple) else output
        if found.requires_grad:
            found.register_hook(lambda _: cast(Callable[[], None], watch)())

    if watch is not None:
        for name, module in unet.named_modules():
            if _LAYER.search(name):
                module.register_forward_hook(look)
    return unet


def diffusers_unet(
    state: Mapping[str, Tensor], *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> nn.Module:
    """Diffusers' U-Net with copies of the weights of a whole U-Net by names of either form, with or without a prefix.

    Raises:
        UnetError: it is not a whole U-Net of SD 1.x's kind.
    """
    from diffusers import UNet2DConditionModel

    config = UnetConfig.of({name: tuple(value.shape) for name, value in state.items()})
    names = unet_names(config)
    own = {found: value for name, value in state.items() if (found := names.find(name))}
    if missing := names.shapes.keys() - own.keys():
        raise UnetError(f"The U-Net lacks {len(missing)} of its {len(names.shapes)} tensors, such as {min(missing)}.")
    # Weights that are replaced at once need not be drawn at random.
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**unet_values(config))
    unet.load_state_dict({name: value.to(device, dtype, copy=True) for name, value in own.items()}, assign=True)
    return cast(nn.Module, unet.eval())


def training_bytes(state: Mapping[str, Tensor], trained: Trained, dtype: torch.dtype) -> int:
    """Memory of the weights, and of the differences if all were trained; activations come in addition."""
    size = sum(value.numel() for value in state.values())
    cross = sum(value.numel() for name, value in state.items() if ".attn2." in name)
    return size * dtype.itemsize + _BYTES_TRAINED * (cross if trained in ("x", "x-strict") else size)


@dataclass(frozen=True, eq=False)
class UnetRun:
    """What a training needs that no objective knows.

    Attributes:
        state: the whole U-Net to train from, by names of either form; it stays as it is.
        size: side of the pictures in pixels, a multiple of 8.
        device, dtype: what the U-Net computes on and in; the differences are float32.
        on_step: called with each step's report; may raise to stop, which leaves a checkpoint.
        on_evaluation: called before each evaluation of the U-Net; may raise to stop.
    """

    state: Mapping[str, Tensor]
    size: int = 512
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    on_step: Callable[[StepReport], None] | None = None
    on_evaluation: Callable[[], None] | None = None

    def train(
        self,
        encoder: TextEncoder,
        settings: EditSettings,
        objective_of: Callable[[nn.Module, tuple[int, int, int], Path], DifferencesObjective],
        store: Path,
        *,
        inputs: Sequence[Any],
        about: Mapping[str, str],
        name: str = "",
        recipe: int = 1,
    ) -> EditResult:
        """Train an edit, go on with one that was stopped, or find a finished one in the folder `store`.

        Args:
            encoder: of the prompts.
            settings: how.
            objective_of: makes the objective of a U-Net, the shape of its latents and the path of the run's
                checkpoint; not called for a finished run.
            store: of all runs, see `runs.keeping`.
            inputs: what else decides the result, ready for JSON.
            about: what the run says of itself: `method`, `preset`, `concept` and more.
            name: what the run's key calls the method; empty for ESD and RACE, whose runs have always done without.
            recipe: of the method, raised when the same inputs no longer give the same edit.

        Raises:
            SettingsError: a size that no picture has.
            UnetError: the weights are not a plain SD 1.x U-Net, or one that reads states of another width.
            TrainingError: the run diverged, does not fit into memory, or another process is at it.
        """
        config = checked_config(self.state, self.size)
        require_width(config, encoder.config.width)
        hashes = {"unet_hash": weights_hash(self.state), "encoder_hash": state_hash(encoder.state())}
        made_of = [*hashes.values(), *inputs, settings.key(), self.size, str(self.dtype)]
        known = {**about, **hashes, "size": str(self.size), "precision": str(self.dtype).removeprefix("torch.")}
        return kept(
            store,
            run_name([name, *made_of] if name else made_of, recipe),
            make=lambda checkpoint: self._train(objective_of, settings, config, known, checkpoint),
            save=lambda weights, result: _save(weights, result, config),
            read=lambda weights: _read(weights, config),
            needed=training_bytes(self.state, settings.trained, torch.float32),
        )[0]

    def _train(
        self,
        objective_of: Callable[[nn.Module, tuple[int, int, int], Path], DifferencesObjective],
        settings: EditSettings,
        config: UnetConfig,
        about: Mapping[str, str],
        checkpoint: Path,
    ) -> EditResult:
        started = time.monotonic()
        unet = diffusers_unet(self.state, device=self.device, dtype=self.dtype)
        shape = (config.inputs, self.size // FACTOR, self.size // FACTOR)
        objective = objective_of(TypedNoise(unet, self.on_evaluation), shape, checkpoint)
        # Some draw pictures first, which may take longer than the steps.
        before = time.monotonic() - started
        budget = Budget(steps=settings.steps)
        loop = Loop(objective, budget, settings.rate, checkpoint=checkpoint, key=checkpoint.stem)
        history = loop.run(self.on_step)
        names = unet_names(config)
        deltas = {str(names.find(name)): delta for name, delta in objective.result().items()}
        metadata = {
            **about,
            "steps": str(settings.steps),
            "seconds": f"{before + loop.seconds:.1f}",
            "hash": weights_hash(deltas),
            "settings": json.dumps(settings.to_dict(), sort_keys=True),
            "software": SOFTWARE,
        }
        return EditResult(deltas, history, metadata, found=False)


def checked_config(state: Mapping[str, Tensor], size: int) -> UnetConfig:
    """The U-Net's sizes. Raises SettingsError for a size of no picture, UnetError for a U-Net that is no plain one."""
    if size < FACTOR or size % FACTOR:
        raise SettingsError(f"size is {size}, expected a multiple of {FACTOR} pixels.")
    config = UnetConfig.of({name: tuple(value.shape) for name, value in state.items()})
    if config.inputs != config.outputs:
        raise UnetError(
            f"The U-Net reads {config.inputs} channels and gives {config.outputs}. Do not use an inpainting model."
        )
    return config


def require_width(config: UnetConfig, width: int) -> None:
    """Raise UnetError unless the U-Net reads states of `width` numbers, which a text encoder gives."""
    if config.context != width:
        raise UnetError(
            f"The U-Net reads states of width {config.context}, and the text encoder gives {width}. Use the MODEL and "
            "the CLIP of one SD 1.x checkpoint; SD 2 has width 1024 and SDXL 2048."
        )


def _save(weights: Path, result: EditResult, config: UnetConfig) -> None:
    def write(path: Path, deltas: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
        save_changes(path, deltas, {"sage_method": about["method"], **about}, config=config)

    save_run(weights, write, result.deltas, result.metadata, result.history)


def _read(weights: Path, config: UnetConfig) -> EditResult:
    def tensors(path: Path) -> dict[str, Tensor]:
        return {name: value.clone() for name, _, value in read_unet(path, config).tensors()}

    says = ("method", "preset", "concept", "seconds")
    deltas, metadata, history, _ = read_run(weights, tensors, weights_hash, says)
    return EditResult(deltas, history, metadata, found=True)
