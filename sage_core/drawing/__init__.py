"""How pictures are drawn: the model of a checkpoint or folder, the noise schedule, and guidance.

- `models`: a checkpoint of SD 1.x or a diffusers folder, ready to draw.
- `noise`: the noise schedule.
- `guidance`: classifier-free guidance, and Safe Latent Diffusion at each step of a sampler.
"""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__, {"Model": "models", "load": "models", "SafeGuidance": "guidance", "noise_scheduler": "noise"}
)
