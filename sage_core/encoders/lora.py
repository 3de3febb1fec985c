"""An aligned text encoder as a LoRA: the change of its weight matrices in low rank, as stock LoRA loaders take it.

The file follows kohya's naming for SD 1.x text encoders: `lora_te_text_model_encoder_layers_0_self_attn_q_proj` with
`.lora_down.weight` (rank, in), `.lora_up.weight` (out, rank) and `.alpha`; W + up @ down at strength 1. A LoRA holds
nothing but the 6 matrices of each layer: what an alignment changed elsewhere is lost, and reported.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..devices import measurable, measuring_device
from ..errors import EncoderError, SettingsError
from ..files import write_tensors

# Singular values below this share of the largest are rounding errors: they come from the squared matrix.
_ROUNDING = 1e-7
# The largest number of fp16, in which both factors of a change are stored.
_LARGEST_HALF = torch.finfo(torch.float16).max


@dataclass(frozen=True, eq=False)
class Lora:
    """A change of a text encoder in low rank.

    Attributes:
        tensors: the file's content, fp16.
        ranks: rank of each changed matrix by its canonical name.
        kept: share of the matrices' squared change that the ranks hold.
        left_out: share of the encoder's whole squared change in what a LoRA cannot hold: "embeddings", "layer norms"
            and "biases".
    """

    tensors: dict[str, Tensor]
    ranks: dict[str, int]
    kept: float
    left_out: dict[str, float]

    @property
    def bytes(self) -> int:
        """Size of all tensors; the file's header is not counted."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def summary(self) -> str:
        """One line on size and losses."""
        ranks = sorted(self.ranks.values()) or [0]
        outside = ", ".join(f"{name} {share:.2%}" for name, share in self.left_out.items())
        return (
            f"rank {ranks[0]} to {ranks[-1]} in {len(self.ranks)} matrices, {self.bytes / 1e6:.1f} MB; it holds "
            f"{self.kept:.2%} of their squared change. Not in a LoRA, of the whole squared change: {outside}."
        )


@torch.no_grad()
def extract_lora(
    base: Mapping[str, Tensor],
    aligned: Mapping[str, Tensor],
    *,
    rank: int | None = None,
    energy: float | None = None,
    device: torch.device | str = "cpu",
    on_matrix: Callable[[int, int], None] | None = None,
) -> Lora:
    """The best LoRA of the change from `base` to `aligned`, two canonical states of equal shapes.

    Give either `rank`, the same for every matrix, or `energy`, the share of the squared change to keep, above 0 and up
    to 1. `energy` is reached with the fewest numbers: each matrix gets the rank that its change needs. No matrix gets
    a higher rank than its change has. The work is done on `device`, but on the CPU instead of an Apple GPU.
    `on_matrix(done, total)` may raise to stop.

    Raises:
        EncoderError: the encoders have different shapes, no matrix changed, or one changed by more than fp16 holds.
        SettingsError: not exactly one of `rank` and `energy` is given, or it is out of range.
    """
    _check(base, aligned, rank, energy)
    device = measuring_device(device)
    names = [name for name in base if _kind(name) == "matrices"]
    factors: dict[str, _Factors] = {}
    for done, name in enumerate(names, start=1):
        factors[name] = _factorise(aligned[name].to(device).double() - base[name].to(device).double())
        if on_matrix:
            on_matrix(done, len(names))
    total = sum(factor.energies.sum().item() for factor in factors.values())
    if total == 0:
        raise EncoderError("The encoders have the same weights in every layer: there is nothing to put into a LoRA.")
    full = {name: len(factor.energies) for name, factor in factors.items()}
    ranks = {name: min(rank, most) for name, most in full.items()} if rank else _ranks(factors, (energy or 1) * total)
    ranks = {name: number for name, number in ranks.items() if number}
    kept = sum(factors[name].energies[:number].sum().item() for name, number in ranks.items())
    tensors: dict[str, Tensor] = {}
    for name, number in ranks.items():
        tensors |= factors[name].tensors(name, number)
        _require_finite(name, factors[name], tensors)
    return Lora(tensors, ranks, kept / total, _left_out(base, aligned))


def save_lora(path: str | os.PathLike[str], lora: Lora, metadata: Mapping[str, Any]) -> None:
    """Write a LoRA as safetensors, whole; `metadata` is stored as text in addition to what loaders look for."""
    known = {"ss_network_module": "networks.lora", "ss_base_model_version": "sd_v1"}
    write_tensors(path, lora.tensors, {**known, **metadata})


def apply_lora(base: Mapping[str, Tensor], lora: Mapping[str, Tensor], strength: float = 1.0) -> dict[str, Tensor]:
    """The state that a LoRA makes of `base`, as loaders compute it in fp32: W + strength * alpha / rank * up @ down."""
    state = dict(base)
    for name in base:
        key = _key(name)
        if f"{key}.lora_up.weight" in lora:
            up, down = (
                lora[f"{key}.lora_{part}.weight"].to(base[name].device, torch.float32) for part in ("up", "down")
            )
            scale = strength * lora[f"{key}.alpha"].item() / len(down)
            state[name] = base[name].float() + scale * (up @ down)
    return state


@dataclass(frozen=True, eq=False)
class _Factors:
    """A matrix as up @ down; component i contributes energies[i] to the squared sum, the largest first."""

    up: Tensor
    energies: Tensor
    down: Tensor

    def tensors(self, name: str, rank: int) -> dict[str, Tensor]:
        key = _key(name)
        return {
            f"{key}.lora_up.weight": self.up[:, :rank].half().cpu().contiguous(),
            f"{key}.lora_down.weight": self.down[:rank].half().cpu().contiguous(),
            f"{key}.alpha": torch.tensor(float(rank)).half(),
        }


def _require_finite(name: str, factor: _Factors, tensors: Mapping[str, Tensor]) -> None:
    if not all(tensors[f"{_key(name)}.lora_{part}.weight"].isfinite().all() for part in ("up", "down")):
        largest = factor.energies[0].sqrt().item()
        raise EncoderError(
            f"{name} changes by {largest:.1e} in one direction, and a LoRA, whose numbers are fp16, holds "
            f"{_LARGEST_HALF**2:.1e} at most. No encoder of Stable Diffusion changes by that much: the aligned one has "
            "diverged. Train it anew with a lower learning_rate."
        )


def _factorise(change: Tensor) -> _Factors:
    """Singular value decomposition through the smaller squared matrix, several times as fast as a direct one."""
    if change.shape[0] > change.shape[1]:
        other = _factorise(change.T)
        return _Factors(other.down.T, other.energies, other.up.T)
    energies, vectors = torch.linalg.eigh(change @ change.T)
    energies, vectors = energies.flip(0), vectors.flip(1)
    real = energies > _ROUNDING**2 * energies[0].clamp(min=0)
    energies, vectors = energies[real], vectors[:, real]
    # Both factors share each component's size, which keeps fp16 from underflowing.
    root = energies.sqrt().sqrt()
    return _Factors((vectors * root).float(), energies, ((vectors / root).T @ change).float())


def _ranks(factors: Mapping[str, _Factors], wanted: float) -> dict[str, int]:
    """Ranks that hold the energy `wanted` with the fewest numbers: components with most energy a number first."""
    components = sorted(
        (-energy / (len(factor.up) + factor.down.shape[1]), name, energy)
        for name, factor in factors.items()
        for energy in factor.energies.tolist()
    )
    ranks = dict.fromkeys(factors, 0)
    held = 0.0
    for _, name, energy in components:
        if held >= wanted:
            break
        ranks[name] += 1
        held += energy
    return ranks


def _key(name: str) -> str:
    return "lora_te_" + name.removesuffix(".weight").replace(".", "_")


def _kind(name: str) -> str:
    if "embedding" in name:
        return "embeddings"
    if "layer_norm" in name:
        return "layer norms"
    return "biases" if name.endswith(".bias") else "matrices"


def _left_out(base: Mapping[str, Tensor], aligned: Mapping[str, Tensor]) -> dict[str, float]:
    sums = dict.fromkeys(("matrices", "embeddings", "layer norms", "biases"), 0.0)
    for name, before in base.items():
        sums[_kind(name)] += measurable(aligned[name].float() - before.float()).square().sum(dtype=torch.float64).item()
    whole = sum(sums.values())
    return {kind: value / whole for kind, value in sums.items() if kind != "matrices"}


def _check(base: Mapping[str, Tensor], aligned: Mapping[str, Tensor], rank: int | None, energy: float | None) -> None:
    if (rank is None) == (energy is None):
        raise SettingsError(f"Give either rank or energy; found rank {rank} and energy {energy}.")
    if rank is not None and rank < 1:
        raise SettingsError(f"rank must be 1 or more; found {rank}.")
    if energy is not None and not 0 < energy <= 1:
        raise SettingsError(f"energy must be above 0 and at most 1; found {energy}.")
    for name, before in base.items():
        shape = tuple(aligned[name].shape) if name in aligned else None
        if shape != tuple(before.shape):
            raise EncoderError(
                f"{name} is {tuple(before.shape)} in the base and {shape or 'missing'} in the aligned encoder; a LoRA "
                "needs two encoders of one architecture."
            )


def decomposition_bytes(state: Mapping[str, Tensor]) -> int:
    """Bytes that `extract_lora` takes on its device: all factors at full rank in fp32, one matrix at work in fp64."""
    shapes = [tuple(tensor.shape) for name, tensor in state.items() if ".layers." in name and tensor.ndim == 2]
    factors = sum(min(shape) * sum(shape) for shape in shapes)
    # Both matrices, their difference and two products of its shape; its square, and the workspace for its eigenvectors.
    return 4 * factors + 8 * max(5 * math.prod(shape) + 6 * min(shape) ** 2 for shape in shapes)
