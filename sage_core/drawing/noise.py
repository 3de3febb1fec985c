"""The noise schedule of Stable Diffusion 1.x, samplers on it, and the noise that pictures begin with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

TRAINING_STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012


def noise_scheduler() -> DDIMScheduler:
    """SD 1.x's noise schedule: β linear in its square root from 0.00085 to 0.012 over 1,000 steps."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=TRAINING_STEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def make_scheduler(sampler: str, steps: int | None = None) -> Any:
    """A sampler on SD 1.x's noise schedule, set for so many steps if they are given.

    None of them draws noise of its own, so that a seed decides a picture.

    Args:
        sampler: "ddim" (Song et al. 2021, η = 0), "euler" or "dpmpp_2m".
        steps: 1 to 1,000.
    """
    import diffusers

    scheduler: Any = noise_scheduler()
    if sampler != "ddim":
        kind = {"euler": diffusers.EulerDiscreteScheduler, "dpmpp_2m": diffusers.DPMSolverMultistepScheduler}[sampler]
        scheduler = kind.from_config(scheduler.config)
    if steps is not None:
        scheduler.set_timesteps(steps)
    return scheduler


def inverse_scheduler(steps: int) -> Any:
    """DDIM backwards (Song et al. 2021, η = 0), set for so many steps: as a sampler it turns latents into noise."""
    from diffusers import DDIMInverseScheduler

    scheduler: Any = DDIMInverseScheduler.from_config(cast(Any, noise_scheduler()).config)
    scheduler.set_timesteps(steps)
    return scheduler


def noise_of(seeds: Iterable[int], shape: Sequence[int]) -> Tensor:
    """Latent noise (N, *shape) on the CPU, each row from its own seed, whatever its batch and the device."""
    generator = torch.Generator("cpu")
    return torch.stack([torch.randn(*shape, generator=generator.manual_seed(seed)) for seed in seeds])


@cache
# What a host makes in inference mode could take no part in a training later.
@torch.inference_mode(False)
def _kept(device: torch.device) -> Tensor:
    """ᾱ, how much of a picture's variance is left at each time, (1000,)."""
    return cast(Any, noise_scheduler()).alphas_cumprod.to(device)


def noised(latents: Tensor, times: Tensor, noise: Tensor) -> Tensor:
    """√ᾱ x + √(1 − ᾱ) ε: latents (..., 4, H, W) with the noise of their times (...)."""
    kept = _kept(latents.device).to(latents.dtype)[times.to(latents.device)][..., None, None, None]
    return kept.sqrt() * latents + (1 - kept).sqrt() * noise


def time_between(done: int, steps: int, generator: torch.Generator) -> int:
    """A random time in the stretch that is next after `done` of a sampler's `steps` steps, as ESD's paper has it."""
    left = steps - done
    low, high = TRAINING_STEPS * (left - 1) // steps, TRAINING_STEPS * left // steps
    return int(torch.randint(low, max(high, low + 1), (), generator=generator))
