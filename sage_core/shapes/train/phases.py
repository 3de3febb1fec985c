"""The losses of the networks that draw and of the contrastive one, each a function of the step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...drawing.noise import TRAINING_STEPS, noise_scheduler, noised
from ...encoders.tokens import VOCABULARY_SIZE, tokenize
from ..networks.contrast import ContrastModel, contrastive_loss
from ..networks.model import LATENT_SHAPE, TinyAutoencoder
from ..render import render
from ..scenes import Scenes
from .pools import Pool

# See `diffusion_loss`.
SNR_LIMIT = 10.0
# Of the captions: empty ones, and those into which a token is mixed that no caption uses, each of two times.
EMPTY_SHARE = 0.1
STRANGER_SHARE = 0.15

Loss = Callable[[int], Tensor]


class Randomness:
    """Random numbers of a phase, a function of seed and step alone, so that a resumed run draws the same."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed = seed
        self.device = device

    def at(self, step: int) -> torch.Generator:
        """The generator of one step."""
        return torch.Generator(self.device).manual_seed(self.seed_of("step", step))

    def seed_of(self, use: str, step: int) -> int:
        """A seed for each use: with a shared one, say, the choice of a scene would determine where its objects are."""
        return (3 * self.seed + ("step", "render", "questions").index(use)) * 100_000_000 + step


def mixed_precision(device: torch.device) -> AbstractContextManager[None]:
    """Autocast to bf16 on CUDA; CPUs only run the toy, in fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def autoencoder_loss(vae: TinyAutoencoder, scenes: Scenes, batch: int, seed: int, *, latent_noise: float) -> Loss:
    """Reconstruction of rendered pictures from noisy latents.

    Absolute error of the pixels and, for edges and textures, of the differences between neighbours. Latents carry
    noise of a random strength up to `latent_noise`, since the diffusion model's are never exact; each of their
    channels is held at mean 0 and deviation 1, which the noise schedule assumes.
    """
    random = Randomness(seed, scenes.device)

    def loss_at(step: int) -> Tensor:
        generator = random.at(step)
        rows = torch.randint(len(scenes), (batch,), device=scenes.device, generator=generator)
        pictures = render(scenes[rows], seed=random.seed_of("render", step)).contiguous(
            memory_format=torch.channels_last
        )
        with mixed_precision(scenes.device):
            latents = vae.encoder(pictures)
            strength = torch.rand(batch, 1, 1, 1, device=scenes.device, generator=generator) * latent_noise
            noise = torch.randn(latents.shape, device=scenes.device, generator=generator)
            decoded = vae.decoder(latents + strength * noise)
        latents, decoded = latents.float(), decoded.float()
        mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        spread = (mean.square() + (deviation - 1).square()).sum()
        return (
            F.l1_loss(decoded, pictures) + 2 * F.mse_loss(decoded, pictures) + edges(decoded - pictures) + 0.05 * spread
        )

    return loss_at


def edges(error: Tensor) -> Tensor:
    """Mean absolute difference between neighbouring pixels of an error picture."""
    return error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()


@torch.no_grad()
def encode_pool(vae: TinyAutoencoder, scenes: Scenes, seed: int, batch: int = 2048) -> Tensor:
    """Latents (N,4,8,8) of all scenes, each drawn once; sets the autoencoder's shift and scale by the first batch."""
    latents = torch.empty(len(scenes), *LATENT_SHAPE, device=scenes.device)
    for start in range(0, len(scenes), batch):
        pictures = render(scenes[start : start + batch], seed=seed + start)
        with mixed_precision(scenes.device):
            raw = vae.encoder(pictures.contiguous(memory_format=torch.channels_last)).float()
        if start == 0:
            vae.shift.copy_(raw.mean())
            vae.scale.copy_(1 / raw.std())
        latents[start : start + batch] = (raw - vae.shift) * vae.scale
    return latents


def diffusion_loss(unet: nn.Module, encoder: nn.Module, pool: Pool, latents: Tensor, batch: int, seed: int) -> Loss:
    """Noise prediction on SD 1.x's schedule, of U-Net and text encoder together.

    A share of the captions is empty, for guidance; some hold words that no caption uses. Weighted by
    min(SNR, 10) / SNR (Hang et al. 2023): the last traces of noise matter less than what the picture shows. The limit
    is above the paper's 5, since at 8×8 there are fewer neighbours to average the same noise away.
    """
    random = Randomness(seed, latents.device)
    scheduler: Any = noise_scheduler()
    alphas = scheduler.alphas_cumprod.to(latents.device)
    weights = (SNR_LIMIT * (1 - alphas) / alphas).clamp(max=1.0)
    strangers = torch.ones(VOCABULARY_SIZE, dtype=torch.bool)
    strangers[pool.used_tokens().long()] = False
    unknown = strangers.nonzero()[:, 0].to(latents.device)
    empty = tokenize([""])[0].to(latents.device)

    def loss_at(step: int) -> Tensor:
        generator = random.at(step)

        def uniform() -> Tensor:
            return torch.rand(batch, device=latents.device, generator=generator)

        rows = (uniform() * len(pool)).long()
        tokens = pool.captions[rows, (uniform() * pool.captions.shape[1]).long()].long()
        for _ in range(2):
            chosen = unknown[(uniform() * len(unknown)).long()]
            tokens = insert_tokens(tokens, chosen, uniform(), uniform() < STRANGER_SHARE)
        tokens = torch.where((uniform() < EMPTY_SHARE)[:, None], empty, tokens)
        times = (uniform() * TRAINING_STEPS).long()
        noise = torch.randn(batch, *LATENT_SHAPE, device=latents.device, generator=generator)
        noisy = noised(latents[rows], times, noise)
        with mixed_precision(latents.device):
            predicted = unet(noisy, times, encoder(tokens)).sample
        return ((predicted.float() - noise).square().mean((1, 2, 3)) * weights[times]).mean()

    return loss_at


def insert_tokens(tokens: Tensor, new: Tensor, where: Tensor, chosen: Tensor) -> Tensor:
    """Put new[i] into row i of (N, 77) tokens at a place `where[i]` (0..1) of its length, in the `chosen` rows."""
    length = (tokens != tokens[:, -1:]).sum(1)
    place = 1 + (where * length).long().clamp(max=tokens.shape[1] - 3)
    columns = torch.arange(tokens.shape[1], device=tokens.device)
    shifted = torch.where(columns > place[:, None], tokens.roll(1, 1), tokens)
    shifted = torch.where(columns == place[:, None], new[:, None], shifted)
    shifted[:, -1] = tokens[:, -1]
    return torch.where(chosen[:, None], shifted, tokens)


def contrast_loss(model: ContrastModel, vae: TinyAutoencoder, pool: Pool, batch: int, seed: int) -> Loss:
    """CLIP's loss over captions and their pictures, half of them through the autoencoder."""
    random = Randomness(seed, pool.captions.device)
    longest = int((pool.captions != pool.captions[..., -1:]).sum(-1).max()) + 1

    def loss_at(step: int) -> Tensor:
        generator = random.at(step)
        device = pool.captions.device
        rows = torch.randint(len(pool), (batch,), device=device, generator=generator)
        which = torch.randint(pool.captions.shape[1], (batch,), device=device, generator=generator)
        pictures = render(pool.scenes[rows], seed=random.seed_of("render", step))
        with torch.no_grad(), mixed_precision(device):
            half = pictures[::2].contiguous(memory_format=torch.channels_last)
            pictures[::2] = vae.decode(vae.encode(half)).float().clamp(0, 1)
        with mixed_precision(device):
            shown = model.embed_pictures(pictures)
            told = model.embed_tokens(pool.captions[rows, which, :longest].long())
        return contrastive_loss(shown, told, model.log_scale)

    return loss_at
