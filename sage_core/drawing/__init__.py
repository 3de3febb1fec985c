"""How pictures are drawn: the model of a checkpoint or folder, the noise schedule, and guidance.

- `models`: a checkpoint of SD 1.x or a diffusers folder, ready to draw.
- `change`: what a method makes of a model. `pictures`: drawn of prompts by a model with a change in it.
- `denoising`: the sampling loop. `noise`: the noise schedule and samplers.
- `guidance`: classifier-free guidance, and Safe Latent Diffusion at each step of a sampler.
"""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Change": "change",
        "ChangedModel": "pictures",
        "Model": "models",
        "SafeGuidance": "guidance",
        "draw": "pictures",
        "load": "models",
        "noise_scheduler": "noise",
    },
)
