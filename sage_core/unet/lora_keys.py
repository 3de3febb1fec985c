"""The keys of LoRA files for U-Nets, in every spelling: kohya's, PEFT's, old and new diffusers', LyCORIS' changes.

A key is the path of a layer and a suffix that says what the tensor is to it. Paths come with dots or underscores, in
diffusers' or CompVis' form, and old diffusers puts `processor` into those of attention.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from ..errors import UnetError
from .names import UnetNames, module_of, without_prefix

Part = Literal["up", "down", "alpha", "diff", "diff_b", "set"]

# The longest first, since some end in others.
_SUFFIXES: tuple[tuple[str, Part], ...] = (
    (".lora_linear_layer.up.weight", "up"),
    (".lora_linear_layer.down.weight", "down"),
    (".lora_B.default.weight", "up"),
    (".lora_A.default.weight", "down"),
    (".lora_B.weight", "up"),
    (".lora_A.weight", "down"),
    (".lora_up.weight", "up"),
    (".lora_down.weight", "down"),
    (".lora.up.weight", "up"),
    (".lora.down.weight", "down"),
    ("_lora.up.weight", "up"),
    ("_lora.down.weight", "down"),
    (".set_weight", "set"),
    (".diff_b", "diff_b"),
    (".alpha", "alpha"),
    (".diff", "diff"),
)
_PREFIXES = ("base_model.model.", "lora_unet_", "lycoris_")
# Forms that multiply or rescale instead of adding a product of two matrices.
_OTHER_FORMS = {
    ".dora_scale": "DoRA",
    ".lora_magnitude_vector": "DoRA",
    ".hada_w1_a": "LoHa",
    ".lokr_w1": "LoKr",
    ".lora_mid.weight": "a LoCon with a middle matrix",
    ".oft_blocks": "OFT",
}


@dataclass(frozen=True)
class LoraModule:
    """The keys of one layer, by what they are to it; `path` is diffusers' path of the layer."""

    path: str
    keys: dict[Part, str] = field(default_factory=dict)


def lora_modules(names: Iterable[str], unet: UnetNames, source: str) -> tuple[list[LoraModule], list[str]]:
    """Sort keys by layer; the second list has those that fit no layer of this U-Net, or stand alone.

    Raises:
        UnetError: the file is of a form that cannot be added up here.
    """
    modules: dict[str, LoraModule] = {}
    left = []
    for name in names:
        if form := next((form for mark, form in _OTHER_FORMS.items() if mark in name), None):
            raise UnetError(f"{source} is {form} ({name}), which is not read here: load it by ComfyUI's LoraLoader.")
        found = _split(name, unet)
        if found is None:
            left.append(name)
            continue
        path, part = found
        module = modules.setdefault(path, LoraModule(path))
        if part in module.keys:
            raise UnetError(f"{source} changes {path} twice: by {module.keys[part]} and by {name}.")
        module.keys[part] = name
    whole = []
    for module in modules.values():
        if {"up", "down"} <= set(module.keys) or {"diff", "diff_b", "set"} & set(module.keys):
            whole.append(module)
        else:
            left += module.keys.values()
    return whole, left


def _split(name: str, unet: UnetNames) -> tuple[str, Part] | None:
    """The layer's path in diffusers, and what the tensor is to it."""
    suffix, part = next(((suffix, part) for suffix, part in _SUFFIXES if name.endswith(suffix)), (None, None))
    if suffix is None or part is None:
        return None
    stem = name.removesuffix(suffix)
    for prefix in _PREFIXES:
        stem = stem.removeprefix(prefix)
    stem = without_prefix(stem).replace(".processor.", ".")
    # Old diffusers leaves out that the output projection is the first of two layers.
    for candidate in (stem, f"{stem}.0"):
        if path := unet.underscored.get(candidate.replace(".", "_")):
            return path, part
    # `.diff` of a bias by its own name, as LyCORIS and ComfyUI allow.
    if part == "diff" and stem.endswith(".bias") and (path := unet.underscored.get(module_of(stem).replace(".", "_"))):
        return path, "diff_b"
    return None
