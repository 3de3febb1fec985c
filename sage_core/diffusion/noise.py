"""The noise schedule of Stable Diffusion 1.x."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
