"""What an edited U-Net changes against a base: differences, a report, a guess at the method; and how to save them."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UnetError
from ..files import whole_file
from .files import UnetFile, require_finite
from .names import (
    COMFY_PREFIX,
    SD1,
    UnetConfig,
    block_of,
    in_cross_attention,
    is_value,
    kind_of,
    module_of,
    reads_prompt,
    unet_names,
)

# From this share of a whole U-Net's tensors on, a difference looks like another base rather than an edit.
_NEARLY_ALL = 0.9
# An edit of everything but some part changes at least this share of the tensors.
_MANY = 0.3
# Relative error of fp16 twice over: a rotation stored in it keeps inner products this well.
_ROTATED = 4e-3


@dataclass(frozen=True)
class ChangeReport:
    """What an edit changes.

    Attributes:
        source: the file.
        layout: what the file is, in words.
        total: tensors of the U-Net, 686 in SD 1.x.
        held: tensors that the file says something about.
        changed: tensors that differ from the base's.
        by_block, by_kind: how many of `changed`, by block ("down 0") and by kind ("self-attention").
        relative: ‖change‖ / ‖base‖ over all changed tensors.
        maker: a guess at the method, by what is changed.
        warnings: sentences.
        not_applied: keys that fit no tensor of this U-Net.
        other_parts: keys of other models in the file, by model.
    """

    source: str
    layout: str
    total: int
    held: int
    changed: int
    by_block: dict[str, int]
    by_kind: dict[str, int]
    relative: float
    maker: str
    warnings: tuple[str, ...]
    not_applied: tuple[str, ...]
    other_parts: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    def summary(self) -> str:
        """A few lines of plain text."""
        lines = [
            f"{self.source}: {self.layout}",
            f"{self.changed} of {self.total} tensors changed, by {self.relative:.2%} of their size; "
            f"looks like {self.maker}",
            "By kind: " + ", ".join(f"{kind} {count}" for kind, count in self.by_kind.items()),
            "By block: " + ", ".join(f"{block} {count}" for block, count in self.by_block.items()),
        ]
        if self.other_parts:
            parts = ", ".join(f"{part} ({count} keys)" for part, count in self.other_parts.items())
            lines.append(f"Left out, of other models: {parts}")
        return "\n".join([*lines, *(f"⚠ {warning}" for warning in self.warnings)])


@dataclass(frozen=True, eq=False)
class UnetChanges:
    """Differences to add to a base, by diffusers' names, float32 on the CPU, and the report on them."""

    deltas: dict[str, Tensor]
    report: ChangeReport


def changes(
    file: UnetFile, base: Mapping[str, Tensor], *, on_tensor: Callable[[int, int], None] | None = None
) -> UnetChanges:
    """What `file` changes of `base`, one tensor in memory at a time next to the differences.

    A weight of the file and one of the base are compared in the coarser of their two types, so that a file in fp16
    does not differ from an fp32 base by its rounding. To replace the weights of a checkpoint, its own are the base;
    to carry an edit over to a fine-tuned checkpoint, the base is what the file was made from.

    Args:
        file: from `files.read_unet`.
        base: a U-Net by names of either form, with or without a prefix.
        on_tensor: called with (done, total) after each tensor; may raise to stop.

    Raises:
        UnetError: the file changes nothing, a tensor is missing in the base or of another shape, or holds NaN.
    """
    own = {found: tensor for name, tensor in base.items() if (found := file.names.find(name))}
    deltas: dict[str, Tensor] = {}
    for done, (name, how, value) in enumerate(file.tensors(), start=1):
        if name not in own:
            raise UnetError(f"The base lacks {name}, which {file.source} changes: use a whole SD 1.x U-Net.")
        if own[name].shape != value.shape:
            raise UnetError(
                f"{name} has shape {tuple(own[name].shape)} in the base and {tuple(value.shape)} in {file.source}."
            )
        delta = value.to("cpu", torch.float32) if how == "change" else _difference(value, own[name])
        if delta.any():
            if not torch.isfinite(delta).all() and not torch.isfinite(own[name].float()).all():
                raise UnetError(f"The base's {name} holds values that are NaN or infinite: load it from a whole file.")
            require_finite(delta, name, f"The difference between {file.source} and the base")
            deltas[name] = delta.clone() if delta.data_ptr() == value.data_ptr() else delta
        if on_tensor:
            on_tensor(done, len(file.stored))
    if not deltas:
        raise UnetError(
            f"{file.source} changes nothing: its {len(file.stored)} tensors equal the base's. It may be the base "
            "itself, or its edit may be in the averaged copy (EMA) or the text encoder."
        )
    return UnetChanges(deltas, _report(file, own, deltas))


def save_changes(
    path: str | os.PathLike[str],
    deltas: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    *,
    text_encoder: Mapping[str, Tensor] | None = None,
    config: UnetConfig = SD1,
    dtype: torch.dtype | None = None,
) -> None:
    """Write changes of a U-Net as a file that ComfyUI's own LoraLoader applies, with a strength; whole.

    Keys are `diffusion_model.<CompVis path>.diff` for weights and `.diff_b` for biases, both added to the model's.

    Args:
        deltas: changes by names of either form, with or without a prefix.
        metadata: stored as text.
        text_encoder: changes of the text encoder by canonical names (`text_model.*`), stored in the same file as
            `text_encoders.clip_l.transformer.<name>.diff`.
        config: sizes of the U-Net.
        dtype: to store in; by default as given.

    Raises:
        UnetError: a name or shape is not the U-Net's, a value is NaN or infinite (as fp16 makes of values beyond
            65,504), or nothing is changed.
    """
    from safetensors.torch import save_file

    names = unet_names(config)
    tensors: dict[str, Tensor] = {}
    for name, delta in deltas.items():
        if (found := names.find(name)) is None:
            raise UnetError(f"{name} is not a tensor of this U-Net: nothing was written to {path}.")
        if tuple(delta.shape) != names.shapes[found]:
            raise UnetError(f"{name} has shape {tuple(delta.shape)}, expected {names.shapes[found]}.")
        tensors[_change_key(COMFY_PREFIX + names.compvis[found])] = delta
    for name, delta in (text_encoder or {}).items():
        tensors[_change_key(f"text_encoders.clip_l.transformer.{name}")] = delta
    if not any(bool(delta.any()) for delta in tensors.values()):
        raise UnetError(f"The edit changes nothing: nothing was written to {path}.")
    ready = {key: delta.detach().to("cpu", dtype or delta.dtype).contiguous() for key, delta in tensors.items()}
    for key, delta in ready.items():
        require_finite(delta, key, f"The change in {delta.dtype}")
    texts = {"format": "pt", "modelspec.architecture": "stable-diffusion-v1/lora"}
    with whole_file(path) as temporary:
        save_file(ready, temporary, metadata=texts | {str(key): str(value) for key, value in metadata.items()})


def _difference(value: Tensor, base: Tensor) -> Tensor:
    """Their difference in float32; a single 0 where they are equal, which most tensors are."""
    coarser = max(value.dtype, base.dtype, key=lambda dtype: torch.finfo(dtype).eps)
    ours, theirs = value.cpu().to(coarser), base.cpu().to(coarser)
    # Widening equal ones would take the memory of three more tensors for nothing.
    return torch.zeros(()) if torch.equal(ours, theirs) else ours.float() - theirs.float()


def _report(file: UnetFile, base: Mapping[str, Tensor], deltas: Mapping[str, Tensor]) -> ChangeReport:
    sizes = {name: _norm(base[name].float()) for name in deltas}
    norms = {name: _norm(delta) for name, delta in deltas.items()}
    return ChangeReport(
        source=file.source,
        layout=file.layout,
        total=len(file.names.shapes),
        held=len(file.stored),
        changed=len(deltas),
        by_block=dict(Counter(map(block_of, deltas))),
        by_kind=dict(Counter(map(kind_of, deltas))),
        relative=math.hypot(*norms.values()) / max(math.hypot(*sizes.values()), 1e-30),
        maker=_maker(file, base, deltas),
        warnings=tuple(_warnings(file, {name: norms[name] / max(sizes[name], 1e-30) for name in deltas})),
        not_applied=file.not_applied,
        other_parts=dict(file.other_parts),
    )


def _norm(tensor: Tensor) -> float:
    """Its length; that of values whose squares are beyond fp32 in fp64."""
    found = float(tensor.norm())
    return found if math.isfinite(found) else float(tensor.double().norm())


def _maker(file: UnetFile, base: Mapping[str, Tensor], deltas: Mapping[str, Tensor]) -> str:
    if method := file.metadata.get("sage_method"):
        return method
    changed, all_names = set(deltas), file.names.shapes
    attention = {name for name in all_names if ".attn" in name and name.endswith(".weight")}
    if changed <= set(filter(is_value, all_names)):
        return "OCE (a rotation of the values)" if _is_rotation(base, deltas) else "SPEED"
    if changed <= set(filter(reads_prompt, all_names)):
        return "MACE's LoRA" if file.ranks == (1,) else "UCE, RECE, CURE, MACE or ESD-x-strict"
    if changed <= set(filter(in_cross_attention, all_names)):
        return "ESD-x or the SAGE U-Net (all of cross-attention)"
    if changed <= attention:
        return "AlignGuard, or another LoRA of all attention" + (", merged" if not file.ranks else "")
    if len(changed) < _MANY * len(all_names):
        return "a method that is not known here"
    norms = any(kind_of(name) == "norms" for name in changed)
    if not any(map(in_cross_attention, changed)):
        return "ESD-u of 2023, STEREO or RACE" if norms else "ESD-u"
    return "a full edit, as by SalUn, RACE or fine-tuning" if norms else "ESD-all"


def _is_rotation(base: Mapping[str, Tensor], deltas: Mapping[str, Tensor]) -> bool:
    """Whether the smallest changed matrix keeps all inner products of its outputs: W*ᵀW* = WᵀW."""
    name = min(deltas, key=lambda name: deltas[name].numel())
    weight = base[name].cpu().double()
    edited = weight + deltas[name].double()
    before, after = weight.T @ weight, edited.T @ edited
    return bool((after - before).norm() < _ROTATED * before.norm())


def _warnings(file: UnetFile, relative: Mapping[str, float]) -> Iterator[str]:
    total = len(file.names.shapes)
    if len(relative) >= _NEARLY_ALL * total and all(stored.how == "weight" for stored in file.stored.values()):
        low, middle, high = np.quantile([*relative.values()], [0.1, 0.5, 0.9])
        yield (
            f"{len(relative)} of {total} tensors differ, by {middle:.2%} of their size in the middle ({low:.2%} to "
            f"{high:.2%}). The file was probably made from another base, such as SD 1.4 for SD 1.5: give the base it "
            "was made from, or the difference between the bases is applied too."
        )
    if file.not_applied:
        shown = ", ".join(file.not_applied[:3])
        more = f" and {len(file.not_applied) - 3} more" if len(file.not_applied) > 3 else ""
        yield f"{len(file.not_applied)} keys fit no tensor of this U-Net and are not applied: {shown}{more}."


def _change_key(name: str) -> str:
    return f"{module_of(name)}.{'diff_b' if name.endswith('.bias') else 'diff'}"
