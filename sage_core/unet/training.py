"""Trainings of a U-Net that are kept: a private U-Net, the loop, and the finished edit in a store, found again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import SettingsError, TrainingError, UnetError
from ..files import write_json
from ..rows import parse_json
from ..runs.loop import Budget, Loop
from ..runs.record import StepReport
from ..runs.store import CHECKPOINT, REPORT, WEIGHTS, RunStore
from .changes import save_changes
from .differences import DifferencesObjective, DiffusersNoise, Trained
from .files import read_unet
from .names import UnetConfig, unet_names

# Pixels of a picture, along a side, to a number of its latents.
FACTOR = 8
# A difference, its gradient and Adam's two moments, in fp32.
_BYTES_TRAINED = 16


@dataclass(frozen=True, eq=False)
class EditResult:
    """A finished training.

    Attributes:
        deltas: what to add to the base, by diffusers' names, float32 on the CPU.
        history: each step's report.
        metadata: method, preset, concept, steps, seconds and the settings, as text.
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
    kinds = ["CrossAttn" if attention else "" for attention in config.attention]
    # Weights that are replaced at once need not be drawn at random.
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(
            in_channels=config.inputs,
            out_channels=config.outputs,
            layers_per_block=config.blocks,
            block_out_channels=tuple(config.channels * multiplier for multiplier in config.multipliers),
            down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
            up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
            cross_attention_dim=config.context,
            # diffusers' name for what are SD 1.x's 8 heads.
            attention_head_dim=8,
        )
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
        store: Path,
        key: str,
        objective_of: Callable[[nn.Module, tuple[int, int, int]], DifferencesObjective],
        trained: Trained,
        steps: int,
        rate: Callable[[int, float], float],
        metadata: Mapping[str, str],
    ) -> EditResult:
        """Train an edit, go on with one that was stopped, or find a finished one in the folder `store`.

        Args:
            store: of all runs.
            key: the run's name, of everything that decides its result.
            objective_of: makes the objective of a U-Net and the shape of its latents; not called for a finished run.
            trained: which of the U-Net's parameters it trains.
            steps: of training.
            rate: the learning rate of a step.
            metadata: what the run says of itself, among it the method.

        Raises:
            SettingsError: a size that no picture has.
            UnetError: the weights are not a plain SD 1.x U-Net.
            TrainingError: the run diverged, does not fit into memory, or another process is at it.
        """
        config = checked_config(self.state, self.size)
        runs = RunStore(store)
        weights, report, checkpoint = (runs.path(key, suffix) for suffix in (WEIGHTS, REPORT, CHECKPOINT))
        if weights.exists() and report.exists():
            return _read(weights, report, config)
        runs.make_ready(key, training_bytes(self.state, trained, torch.float32))
        with runs.locked(key):
            unet = diffusers_unet(self.state, device=self.device, dtype=self.dtype)
            shape = (config.inputs, self.size // FACTOR, self.size // FACTOR)
            objective = objective_of(TypedNoise(unet, self.on_evaluation), shape)
            loop = Loop(objective, Budget(steps=steps), rate, checkpoint=checkpoint, key=key)
            history = loop.run(self.on_step)
            names = unet_names(config)
            deltas = {str(names.find(name)): delta for name, delta in objective.result().items()}
            about = {**metadata, "steps": str(steps), "seconds": f"{loop.seconds:.1f}"}
            content = {"metadata": about, "history": [asdict(step) for step in history], "hash": weights_hash(deltas)}
            write_json(report, content)
            # Last, since its presence says that the run is whole.
            save_changes(weights, deltas, {"sage_method": about["method"], **about}, config=config)
            checkpoint.unlink(missing_ok=True)
        return EditResult(deltas, history, about, found=False)


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


def _read(weights: Path, report: Path, config: UnetConfig) -> EditResult:
    try:
        content: dict[str, Any] = parse_json(report.read_text(encoding="utf-8"))
        history = tuple(StepReport.from_dict(row) for row in content["history"])
        metadata = {str(name): str(value) for name, value in content["metadata"].items()}
        if len(history) != int(metadata["steps"]):
            raise ValueError(f"it reports {len(history)} of {metadata['steps']} steps")
        deltas = {name: value.clone() for name, _, value in read_unet(weights, config).tensors()}
        if weights_hash(deltas) != content["hash"]:
            # safetensors carries no checksum.
            raise ValueError("its weights have changed since they were written")
        return EditResult(deltas, history, metadata, found=True)
    except (UnetError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"The finished run {weights} cannot be read ({error}). Delete it to train again."
        ) from error


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of tensors by name, type and bytes."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name}{state[name].dtype}".encode())
        digest.update(state[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
