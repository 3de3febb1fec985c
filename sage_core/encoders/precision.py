"""The precisions to compute in, and the switch between them. PyTorch is imported only where the switch is used."""

from __future__ import annotations

import os
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import SettingsError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "tf32", "bf16"]
PrecisionChoice = Literal["auto", "fp32", "tf32", "bf16"]

# What x86 processors that multiply in bf16 natively say of themselves.
_NATIVE = ("avx512_bf16", "amx_bf16")
# How much faster bf16 has to be before it is chosen. A processor that has instructions for it is three to seven times
# as fast, one without several times as slow: what lies near 1 is noise.
_WORTH = 1.5
# A matrix product of an encoder's layer: prompts × 77 states, width, MLP.
_TRIAL = (8 * 77, 768, 3072)
_TRIALS = 5


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


def choose_precision(choice: PrecisionChoice, device: torch.device | str) -> Precision:
    """The precision of a choice: for "auto" bf16 where the device computes in it natively and faster, else fp32.

    On CUDA the card's generation decides, on a CPU its instructions, so that the same run comes to the same precision
    however busy the machine is. Where PyTorch cannot tell them (ARM, an older PyTorch) one matrix product decides,
    timed in both once in a process.

    Raises:
        SettingsError: there is no such choice.
    """
    import torch

    if choice not in get_args(PrecisionChoice):
        raise SettingsError(f"precision is '{choice}', expected one of {', '.join(get_args(PrecisionChoice))}.")
    if choice != "auto":
        return choice
    kind = torch.device(device).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if kind == "cpu" and _cpu_is_faster() else "fp32"


def _cpu_is_faster() -> bool:
    import torch

    told: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if told.get("architecture") == "x86_64" and _NATIVE[0] in told:
        return any(told.get(name) for name in _NATIVE)
    return _cpu_gains() >= _WORTH


@cache
def _cpu_gains() -> float:
    """How many times faster than in fp32 this processor multiplies matrices in bf16; about a tenth of a second."""
    import torch

    rows, inner, columns = _TRIAL
    left, right = torch.ones(rows, inner), torch.ones(inner, columns)
    half = left.bfloat16(), right.bfloat16()
    return _seconds(lambda: left @ right) / _seconds(lambda: half[0] @ half[1])


def _seconds(work: Callable[[], Any]) -> float:
    """The shortest of a few times that a piece of work takes: what other processes add is left out.

    Of the processor: on a busy machine the same run would come to another precision, and so to another result.
    """
    # On Windows the processor's clock ticks 64 times a second.
    clock = time.perf_counter if os.name == "nt" else time.process_time
    return min(timeit.repeat(work, timer=clock, number=1, repeat=_TRIALS))
