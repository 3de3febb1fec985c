"""A complete Stable Diffusion 1.x for 64×64 pictures: U-Net, autoencoder and CLIP text encoder, 37 M parameters in all.

Every part has the layout of its big sibling (U-Net with 320 channels and 768-wide cross-attention, TAESD, CLIP text
model of width 768), so that files made from it are ordinary SD 1.x files to everything that reads such files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...drawing.denoising import Texts, denoise
from ...drawing.models import Model
from ...drawing.noise import make_scheduler, noise_of
from ...encoders.layouts import EncoderConfig
from ...encoders.text_encoder import TextEncoder
from ...encoders.tokens import CONTEXT_LENGTH, VOCABULARY_SIZE, tokenize
from ...errors import ShapesError
from ...unet.names import UnetConfig, unet_values

PICTURE_SIZE = 64
LATENT_SHAPE = (4, PICTURE_SIZE // 8, PICTURE_SIZE // 8)

ENCODER_CONFIG = EncoderConfig(
    layers=2,
    width=768,
    heads=12,
    mlp_width=1024,
    vocabulary=VOCABULARY_SIZE,
    positions=CONTEXT_LENGTH,
)


def build_unet(channels: int = 320, context: int = 768) -> nn.Module:
    """The noise predictor with fresh weights: SD 1.x's U-Net cut to one resolution with one block each way."""
    from diffusers import UNet2DConditionModel

    values = unet_values(UnetConfig(channels, multipliers=(1,), blocks=1, attention=(True,), context=context))
    return cast(nn.Module, UNet2DConditionModel(**values | {"sample_size": LATENT_SHAPE[1]}))


class TinyAutoencoder(nn.Module):
    """TAESD's autoencoder: pictures (N,3,H,W) in 0..1 to latents (N,4,H/8,W/8) and back.

    `encode` and `decode` work on the diffusion model's latents, x = (z − shift) · scale, which have mean 0 and
    standard deviation 1; z is what the convolutions see.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.encoder, self.decoder = _encoder(channels), _decoder(channels)
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents of pictures."""
        return (self.encoder(pictures) - self.shift) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures, not yet clamped to 0..1."""
        return cast(Tensor, self.decoder(latents / self.scale + self.shift))


class ShapesModel(Model):
    """The three networks together, able to draw prompts.

    The networks stay on whatever device and in whatever precision they are given in; `to` moves them all.
    """

    vae: TinyAutoencoder

    def __init__(self, unet: nn.Module, vae: TinyAutoencoder, encoder: TextEncoder, **how: Any) -> None:
        """Around three networks; `how` as in Model."""
        super().__init__(unet, vae, encoder, **{"title": "the shapes world", "decoded": 1000, **how})

    def eval(self) -> ShapesModel:
        """Put the networks into evaluation mode; returns this model."""
        for network in (self.unet, self.vae, self.encoder):
            network.eval()
        return self

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str] | Tensor,
        *,
        seeds: Sequence[int],
        steps: int = 20,
        guidance: float = 4.0,
        encoder: nn.Module | None = None,
        device: str | torch.device | None = None,
        batch_size: int = 500,
        autocast: torch.dtype | None = None,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Pictures (N,3,64,64) in 0..1, float32, on the model's device.

        DDIM (Song et al. 2021, η = 0) with classifier-free guidance (Ho & Salimans 2022, eq. 6) away from the empty
        prompt. A picture's noise comes from its own seed alone, so that the picture does not depend on its batch.

        Args:
            prompts: what to draw, one picture each: texts, or token ids (N, 77).
            seeds: one a prompt.
            steps: of DDIM, 1 to 1000.
            guidance: its weight; 1 is the prompt's own prediction, 0 ignores it.
            encoder: draws with this text encoder, an aligned one for instance, instead of the model's own.
            device: moves the model (and `encoder`) there first.
            batch_size: pictures at a time.
            autocast: e.g. torch.bfloat16 to run the networks in that precision.
            on_batch: called with (pictures done, pictures in all) after each batch.

        Raises:
            ShapesError: the numbers of prompts and seeds differ.
        """
        if len(prompts) != len(seeds):
            raise ShapesError(
                f"There are {len(prompts)} prompts but {len(seeds)} seeds: give one seed for each prompt."
            )
        self.to(device or self.device)
        encoder = self.encoder if encoder is None else encoder.to(self.device)
        pictures = torch.empty(len(prompts), 3, PICTURE_SIZE, PICTURE_SIZE, device=self.device)
        scheduler = make_scheduler("ddim", steps)
        with torch.autocast(self.device.type, dtype=autocast, enabled=autocast is not None):
            plain = encoder(tokenize([""]).to(self.device))
            for start in range(0, len(prompts), batch_size):
                part = slice(start, start + batch_size)
                ids = prompts[part] if isinstance(prompts, Tensor) else tokenize(prompts[part])
                texts = Texts(plain, encoder(ids.to(self.device)))
                noise = noise_of(seeds[part], LATENT_SHAPE).to(self.device)
                pictures[part] = self.decode(denoise(self.noise, scheduler, noise, texts, guidance))
                if on_batch is not None:
                    on_batch(min(start + batch_size, len(prompts)), len(prompts))
        return pictures


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(channels, channels), nn.ReLU(), _conv(channels, channels), nn.ReLU(), _conv(channels, channels)
        )

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.conv(features) + features)


class _SoftClamp(nn.Module):
    def forward(self, latents: Tensor) -> Tensor:
        return torch.tanh(latents / 3) * 3


def _conv(inputs: int, outputs: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


# TAESD's key names number the layers of these two sequences.
def _encoder(channels: int) -> nn.Sequential:
    layers: list[nn.Module] = [_conv(3, channels), _Block(channels)]
    for _ in range(3):
        layers += [_conv(channels, channels, stride=2, bias=False), *(_Block(channels) for _ in range(3))]
    return nn.Sequential(*layers, _conv(channels, LATENT_SHAPE[0]))


def _decoder(channels: int) -> nn.Sequential:
    layers: list[nn.Module] = [_SoftClamp(), _conv(LATENT_SHAPE[0], channels), nn.ReLU()]
    for _ in range(3):
        layers += [*(_Block(channels) for _ in range(3)), nn.Upsample(scale_factor=2)]
        layers.append(_conv(channels, channels, bias=False))
    return nn.Sequential(*layers, _Block(channels), _conv(channels, 3))
