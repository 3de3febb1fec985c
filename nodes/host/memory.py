"""ComfyUI's memory: room for a training, models under its manager, and the precision that a device supports."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import comfy.model_management
import comfy.model_patcher
import psutil
import torch

from ...sage_core.batches import is_out_of_memory
from ...sage_core.errors import SageError

OUT_OF_MEMORY = comfy.model_management.OOM_EXCEPTION


def device() -> torch.device:
    """Where models compute and train."""
    return torch.device(comfy.model_management.get_torch_device())


@contextmanager
def training_device(needed: int) -> Iterator[tuple[torch.device, int]]:
    """Make room for `needed` bytes and allow gradients; yields the device and the bytes now free on it."""
    where = device()
    comfy.model_management.free_memory(needed, where)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield where, int(comfy.model_management.get_free_memory(where))
    finally:
        comfy.model_management.soft_empty_cache()
        _give_back()


def _give_back() -> None:
    """Hand freed memory back to the system: glibc keeps gigabytes of a training that is over."""
    gc.collect()
    # Before psutil 7.2, and on systems whose C library cannot, there is nothing to ask.
    if trim := getattr(psutil, "heap_trim", None):
        trim()


@contextmanager
def telling_memory(error: SageError) -> Iterator[None]:
    """Raise `error` instead of a device's own error when memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as found:
        if is_out_of_memory(found):
            raise error from found
        raise


class Managed:
    """A model under ComfyUI's memory manager: on the GPU while it is used, unloaded with everything else."""

    def __init__(self, model: torch.nn.Module) -> None:
        # The manager sets attributes that a transformers model forbids; a plain module around it allows them.
        holder = torch.nn.ModuleList([model])
        self.patcher = comfy.model_patcher.ModelPatcher(
            holder, load_device=device(), offload_device=comfy.model_management.unet_offload_device()
        )


def load(models: Sequence[Managed]) -> None:
    """Bring whole models to their device, all at once."""
    # In one call: a second one may push parts of the first one's models out again. Whole: only ComfyUI's own layers can
    # compute with weights that are on another device.
    comfy.model_management.load_models_gpu([model.patcher for model in models], force_full_load=True)


def precision(name: str) -> torch.dtype:
    """The dtype of a precision's name; "auto" is bf16 if the device computes in it, else fp32."""
    if name == "auto":
        name = "bf16" if comfy.model_management.should_use_bf16(device()) else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
