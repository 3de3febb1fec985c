"""The U-Net of Stable Diffusion 1.x: its tensors' names, what published edits change of them, and how one is trained.

- `names`: the 686 tensors in both forms; `state_dicts`: how a file nests them.
- `files`, `lora_keys`, `changes`: read what erasing methods publish, say what it changes, save changes.
- `differences`, `training`: a U-Net trained as differences from a base, and how a training is kept.
"""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "read_unet": "files",
        "save_changes": "changes",
        "UnetConfig": "names",
        "UnetRun": "training",
    },
)
