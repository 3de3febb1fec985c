"""Hugging Face models as ComfyUI keeps them: where their folders are, and when they are in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import folder_paths
import torch

from ..sage_core.errors import JudgeError
from .host import clips

NONE = "none"
_KINDS = ("VQA", "LLM")

# Registered at import: hooks for that come later than the first listing on older versions.
for _kind in _KINDS:
    folder_paths.add_model_folder_path(_kind, os.path.join(folder_paths.models_dir, _kind))


def model_folders() -> list[str]:
    """Names of the folders in models/VQA and models/LLM that hold a transformers model, one or two levels deep."""
    found = set()
    for root in _roots():
        found |= {
            file.parent.relative_to(root).as_posix()
            for depth in ("*", "*/*")
            for file in root.glob(f"{depth}/config.json")
        }
    return sorted(found)


def model_path(name: str | None) -> Path:
    """Full path of one of `model_folders`. Raises JudgeError, naming the folders, if there is none of that name."""
    paths = (clips.path_inside(root, name or "") for root in _roots())
    path = next((path for path in paths if path is not None and path.is_dir()), None)
    if path is None:
        found = f"there is no model folder {name!r}" if name else "no model folder is chosen"
        where = " or ".join(map(str, _roots()))
        raise JudgeError(f"{found}. Put it into {where} and refresh the node list (R).")
    return path


def fingerprint(name: str) -> tuple[int, ...]:
    """Changes when files in a model's folder do."""
    return tuple(sorted(file.stat().st_mtime_ns for file in model_path(name).iterdir()))


class Managed:
    """A model under ComfyUI's memory manager: on the GPU while it is used, unloaded with everything else."""

    def __init__(self, model: torch.nn.Module) -> None:
        # The manager sets attributes that a transformers model forbids; a plain module around it allows them.
        holder = torch.nn.ModuleList([model])
        self.patcher = comfy.model_patcher.ModelPatcher(
            holder,
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )


def load(models: Sequence[Managed]) -> None:
    """Bring whole models to their device, all of them at once."""
    # In one call, since a second one may push parts of the first's models out again; and whole, since only ComfyUI's
    # own layers can compute with weights that lie elsewhere.
    comfy.model_management.load_models_gpu([model.patcher for model in models], force_full_load=True)


def precision(name: str) -> torch.dtype:
    """The dtype of a precision by its name; "auto" is bf16 where the device computes with it, else fp32."""
    if name == "auto":
        name = "bf16" if comfy.model_management.should_use_bf16(comfy.model_management.get_torch_device()) else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]


def _roots() -> list[Path]:
    return [Path(folder) for kind in _KINDS for folder in folder_paths.get_folder_paths(kind)]


def flatten(images: list[Any]) -> list[torch.Tensor]:
    """All images of a list of IMAGE batches, of whatever sizes: (height, width, channels) each."""
    return [image for batch in images for image in batch]
