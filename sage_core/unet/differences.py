"""A U-Net that is trained as differences from a base: one U-Net in memory, and the result is an edit.

What ESD, RACE and the redirected U-Net have in common: which parameters are trained, the edited noise, and the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import TrainingError, UnetError
from ..runs.loop import Objective
from .names import UnetConfig, in_cross_attention, kind_of, reads_prompt, unet_names

Trained = Literal["x", "x-strict", "u", "all", "noxattn"]


class DiffusersNoise(nn.Module):
    """diffusers' U-Net as a function of latents, times and states, which is what an objective calls."""

    def __init__(self, unet: nn.Module) -> None:
        """Around `unet`, whose weights are shared."""
        super().__init__()
        self.unet = unet

    def forward(self, latents: Tensor, times: Tensor, states: Tensor) -> Tensor:
        """Predicted noise of latents (B, 4, H, W) at times (B,) under states (B, 77, width)."""
        return cast(Tensor, self.unet(latents, times, states).sample)


class DifferencesObjective(Objective):
    """Differences from the weights of a U-Net, which stays as it is; what their loss is, a subclass says."""

    def __init__(
        self, noise: nn.Module, trained: Trained, learning_rate: float, chunk: int, latent_shape: tuple[int, int, int]
    ) -> None:
        """Train differences from the weights of `noise`, which is frozen.

        Args:
            noise: called with latents, times and states; its parameters have names of either form, after any known
                prefix, as in `DiffusersNoise`.
            trained: which parameters, see `trained_names`.
            learning_rate: of Adam.
            chunk: pictures at once, until memory runs out.
            latent_shape: channels, height and width; (4, 64, 64) for pictures of 512 pixels.

        Raises:
            UnetError: the parameters are not those of a U-Net.
        """
        self.noise, self.latent_shape, self.chunk = noise.requires_grad_(False).eval(), latent_shape, chunk
        self.base = dict(noise.named_parameters())
        self.device = next(iter(self.base.values())).device
        names = trained_names({name: tuple(value.shape) for name, value in self.base.items()}, trained)
        self.deltas = {name: nn.Parameter(torch.zeros_like(self.base[name], dtype=torch.float32)) for name in names}
        self.optimizer = torch.optim.Adam(self.deltas.values(), lr=learning_rate)

    def state(self) -> Mapping[str, Tensor]:
        """See Objective: the differences."""
        return {name: delta.detach() for name, delta in self.deltas.items()}

    def shrink(self) -> None:
        """See Objective: half as many pictures at once."""
        if self.chunk == 1:
            super().shrink()
        self.chunk = (self.chunk + 1) // 2

    def result(self) -> dict[str, Tensor]:
        """The differences by the parameters' names, float32 on the CPU.

        Raises:
            TrainingError: one is not finite.
        """
        for name, delta in self.deltas.items():
            if not torch.isfinite(delta).all():
                raise TrainingError(f"The change of {name} is not finite. {self.advice}")
        return {name: delta.detach().cpu().clone() for name, delta in self.deltas.items()}

    def edited(self, latents: Tensor, times: Tensor, states: Tensor) -> Tensor:
        """Noise by the base and the differences together, differentiable."""
        return cast(Tensor, functional_call(self.noise, self.weights(), (latents, times, states)))

    def weights(self) -> dict[str, Tensor]:
        """Base and differences together, where there is one."""
        return {
            name: (self.base[name].float() + delta).to(self.base[name].dtype) for name, delta in self.deltas.items()
        }


def trained_names(shapes: Mapping[str, tuple[int, ...]], trained: Trained) -> list[str]:
    """The parameters that a method trains, of a whole U-Net's under names of either form.

    "x" is all of cross-attention, "x-strict" its keys and values, "u" all other matrices and convolutions, "all" these
    and "x", "noxattn" the "u" of ESD's paper: norms too, the time's and the output's layers not.

    Raises:
        UnetError: they are not a U-Net's.
    """
    names = unet_names(UnetConfig.of(shapes))
    found = {name: own for name in shapes if (own := names.find(name))}
    if len(found) != len(names.shapes):
        raise UnetError(f"The U-Net has {len(found)} of the {len(names.shapes)} tensors of its kind.")
    chosen = set(_chosen(found.values(), trained))
    return [name for name, own in found.items() if own in chosen]


def _chosen(names: Iterable[str], trained: Trained) -> Iterable[str]:
    def wanted(name: str) -> bool:
        if trained == "x-strict":
            return reads_prompt(name)
        if trained == "x":
            return in_cross_attention(name)
        if trained == "noxattn":
            outside = ("conv_norm_out.", "conv_out.", "time_embedding.")
            return not in_cross_attention(name) and not name.startswith(outside)
        matrices = kind_of(name) != "norms"
        return matrices and (trained == "all" or not in_cross_attention(name))

    return filter(wanted, names)
