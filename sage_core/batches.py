"""Work in batches that shrink when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from .errors import JudgeError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_batches(
    function: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item], size: int
) -> tuple[list[Result], int]:
    """Apply `function` to `items` in batches of `size`; returns all results and the size that fitted in memory.

    A batch that runs out of memory is tried again at half its size, and the rest goes on at that size.
    Raises JudgeError if memory does not even suffice for one item.
    """
    results: list[Result] = []
    while len(results) < len(items):
        batch = items[len(results) : len(results) + size]
        try:
            results += function(batch)
            continue
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise JudgeError(
                    f"out of memory with a single item ({error}); free memory, use a smaller model, or half precision"
                ) from error
        # Only here, outside the handler, are the failed batch's tensors let go.
        size = (len(batch) + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        elif torch.backends.mps.is_available():
            torch.mps.empty_cache()
    return results, size


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: CUDA's has its own type, MPS's and the CPU's their words alone."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    # "MPS backend out of memory", and the CPU's allocator on Linux and macOS, then on Windows.
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(some in str(error) for some in words)
