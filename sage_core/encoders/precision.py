"""The precisions to compute in, and the switch between them. PyTorch is imported only where the switch is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal, get_args

from ..errors import SettingsError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "tf32", "bf16"]


@contextmanager
def arithmetic(precision: Precision, device: torch.device | str) -> Iterator[None]:
    """Compute in fp32, tf32 (matrix products on CUDA) or bf16 (autocast), then restore the global tf32 switch.

    Raises:
        SettingsError: there is no such precision.
    """
    import torch

    if precision not in get_args(Precision):
        raise SettingsError(f"precision is '{precision}', expected one of {', '.join(get_args(Precision))}.")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    kind = torch.device(device).type
    try:
        with torch.autocast(kind, torch.bfloat16) if precision == "bf16" else nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(before)
