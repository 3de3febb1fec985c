"""A MODEL of ComfyUI as the weights of a U-Net, and back: read, copied, and moved by differences.

Weights go by ComfyUI's keys, `diffusion_model.` and the CompVis name, which the library reads as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import comfy.lora
import comfy.model_base
import comfy.model_patcher
import comfy.model_sampling
import torch
from torch import Tensor

from ...sage_core.errors import UnetError
from ...sage_core.unet.files import require_finite
from ...sage_core.unet.names import COMFY_PREFIX, UnetConfig, unet_names

_PLAIN = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# What is stored for each tensor: (weight as loaded, its conversion), patch, …
_Entries = dict[str, list]


def unet_config(model: comfy.model_patcher.ModelPatcher) -> UnetConfig:
    """The sizes of a MODEL's U-Net.

    Raises:
        UnetError: the MODEL is not an SD 1.x one; the message says what it is.
    """
    return _config(_entries(model), model)


def require_noise_prediction(model: comfy.model_patcher.ModelPatcher) -> None:
    """Raise UnetError for a MODEL that does not predict noise, as a v-prediction fine-tune.

    ComfyUI tells such a fine-tune of SD 1.x by its file only rarely: most are declared by a node.
    """
    kind = getattr(model.model, "model_type", None)
    if kind is not comfy.model_base.ModelType.EPS:
        raise UnetError(
            f"This MODEL predicts {getattr(kind, 'name', kind)}, not noise: use an SD 1.4 or 1.5 checkpoint."
        )
    sampling = type(model.get_model_object("model_sampling"))
    if getattr(sampling, "calculate_denoised", None) is not comfy.model_sampling.EPS.calculate_denoised:
        found = next((each.__name__ for each in sampling.__mro__ if "calculate_denoised" in vars(each)), "other values")
        raise UnetError(
            f"A node such as ModelSamplingDiscrete has set this MODEL to predict {found}, not noise (EPS). Connect the "
            "MODEL of an SD 1.4 or 1.5 checkpoint without that node."
        )


def require_added_noise(model: comfy.model_patcher.ModelPatcher) -> None:
    """Raise UnetError for a MODEL whose noisy pictures are not picture + sigma · noise, as flow models' are not."""
    sampling = model.get_model_object("model_sampling")
    if not isinstance(sampling, comfy.model_sampling.EPS):
        raise UnetError(
            f"This MODEL ({type(model.model).__name__}) is a flow model, whose predictions are no noise; safe guidance "
            "is defined in units of noise. Use a Stable Diffusion 1.x, 2.x or XL checkpoint."
        )


def own_weights(model: comfy.model_patcher.ModelPatcher) -> dict[str, Tensor]:
    """The U-Net of a MODEL without LoRAs or other patches, where and as it is held; not to be written to.

    Raises:
        UnetError: the MODEL is not an SD 1.x one, or its weights are in 8 bits.
    """
    entries = _entries(model)
    _config(entries, model)
    return {key: _plain(key, values[0][0]) for key, values in entries.items()}


def patched_weights(
    model: comfy.model_patcher.ModelPatcher, wanted: Callable[[str], bool] = lambda _: True
) -> dict[str, Tensor]:
    """As `own_weights`, of the tensors that are `wanted`, with every patch worked in; patched ones are fp32 copies.

    Raises:
        UnetError: as `own_weights`, or a value is NaN or infinite.
    """
    entries = _entries(model)
    _config(entries, model)
    found = {key: _worked_in(key, values, torch.float32) for key, values in entries.items() if wanted(key)}
    for key, value in found.items():
        require_finite(value, key, "This MODEL")
    return found


def differences(
    before: comfy.model_patcher.ModelPatcher,
    after: comfy.model_patcher.ModelPatcher,
    on_tensor: Callable[[int, int], None] | None = None,
) -> dict[str, Tensor]:
    """What is to be added to the patched weights of one MODEL to get another's: changed tensors only, fp32 on the CPU.

    Raises:
        UnetError: one of them is not an SD 1.x MODEL, or they are of different sizes.
    """
    old, new = _entries(before), _entries(after)
    if _config(old, before) != _config(new, after):
        raise UnetError("base and edited are U-Nets of different sizes: connect the same checkpoint's MODEL to both.")
    found = {}
    for done, (key, values) in enumerate(new.items(), start=1):
        if not same_entry(old[key], values):
            # In fp64, so that a difference is what was added, and not that up to the rounding of the weight.
            delta = _worked_in(key, values, torch.float64) - _worked_in(key, old[key], torch.float64)
            if delta.any():
                found[key] = delta.float()
        if on_tensor:
            on_tensor(done, len(new))
    return found


def add_differences(
    model: comfy.model_patcher.ModelPatcher, deltas: Mapping[str, Tensor], strength: float
) -> comfy.model_patcher.ModelPatcher:
    """A clone of `model` whose weights are moved by strength · delta; `model` itself stays as it was.

    Patches, not a swap: they add up with LoRAs and follow offloading. ComfyUI adds in fp32 and rounds to the model's
    own precision; with little memory from 0.33 on, it adds in that precision.

    Args:
        model: to be moved.
        deltas: by any names of the library's: diffusers' or CompVis', with or without a prefix.
        strength: of all of them.

    Raises:
        UnetError: the MODEL lacks a tensor, has it in another shape, or refuses a patch.
    """
    entries = _entries(model)
    names = unet_names(_config(entries, model))
    patches = {}
    for name, delta in deltas.items():
        found = names.find(name)
        if found is None or names.shapes[found] != tuple(delta.shape):
            raise UnetError(f"The MODEL has no tensor {name} of shape {tuple(delta.shape)}: use an SD 1.x checkpoint.")
        patches[COMFY_PREFIX + names.compvis[found]] = ("diff", (delta,))
    moved = model.clone()
    done = set(moved.add_patches(patches, strength))
    if missing := sorted(patches.keys() - done):
        raise UnetError(f"ComfyUI did not take {len(missing)} of {len(patches)} changes, such as {missing[0]}.")
    return moved


def patch_notes(model: comfy.model_patcher.ModelPatcher) -> list[str]:
    """For the report of a training: a note if the MODEL carries patches, which it saw."""
    if not (patches := count_patches(model)):
        return []
    return [f"Note: the MODEL carries {patches} patch(es), such as LoRAs, which the training saw."]


def holds_8_bits(model: comfy.model_patcher.ModelPatcher) -> bool:
    """Whether weights of a MODEL's U-Net are held in 8 bits, to which ComfyUI rounds what is added to them."""
    return any(values[0][0].dtype not in _PLAIN for values in _entries(model).values())


def count_patches(model: comfy.model_patcher.ModelPatcher) -> int:
    """How many LoRAs and other patches lie on the most patched tensor of a MODEL's U-Net."""
    return max((len(values) - 1 for values in _entries(model).values()), default=0)


def _entries(model: comfy.model_patcher.ModelPatcher) -> _Entries:
    return model.get_key_patches(COMFY_PREFIX)


def _config(entries: _Entries, model: comfy.model_patcher.ModelPatcher) -> UnetConfig:
    about = getattr(model.model, "model_config", None)
    kind, settings = type(about).__name__, getattr(about, "unet_config", None) or {}
    if settings.get("context_dim") != 768 or settings.get("adm_in_channels") or "model_channels" not in settings:
        raise UnetError(
            f"This MODEL is of the kind {kind}; SAGE works on the U-Net of SD 1.x. Use an SD 1.4 or 1.5 checkpoint, or "
            "a fine-tune of one."
        )
    shapes = {key: tuple(values[0][0].shape) for key, values in entries.items()}
    config = UnetConfig.of(shapes)
    names = unet_names(config)
    found = {own: shape for key, shape in shapes.items() if (own := names.find(key))}
    if len(found) != len(shapes) or found != names.shapes:
        odd = next((key for key in shapes if names.find(key) is None), "one of another shape")
        raise UnetError(
            f"This MODEL ({kind}) is not the plain U-Net of SD 1.x: {len(found)} of its {len(shapes)} tensors are "
            f"known, and {odd} is not. Use the MODEL as a checkpoint loader gives it."
        )
    return config


def _plain(key: str, weight: Tensor) -> Tensor:
    if weight.dtype not in _PLAIN:
        raise UnetError(
            f"This MODEL holds {key} as {str(weight.dtype).removeprefix('torch.')}, too coarse to measure an edit "
            "against. Load the checkpoint in fp16, bf16 or fp32: weight_dtype 'default'."
        )
    return weight.detach()


def _worked_in(key: str, values: list, dtype: torch.dtype) -> Tensor:
    (weight, convert), *patches = values
    weight = _plain(key, weight)
    if not patches:
        return weight.to("cpu", dtype) if dtype == torch.float64 else weight
    copy = convert(weight.to("cpu", dtype, copy=True), inplace=True)
    return comfy.lora.calculate_weight(patches, copy, key)


def same_entry(old: list, new: list) -> bool:
    """Whether two entries are one weight with the same patches: two clones of one model share most of theirs."""
    if len(old) != len(new) or old[0][0] is not new[0][0]:
        return len(old) == len(new) == 1 and torch.equal(old[0][0].cpu(), new[0][0].cpu())
    return all(one is other for one, other in zip(old[1:], new[1:], strict=True))
