"""Work in batches that shrink when memory runs out, and how much of it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from .errors import JudgeError, SageError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_batches(
    function: Callable[[Sequence[Item]], list[Result]],
    items: Sequence[Item],
    size: int,
    error: type[SageError] = JudgeError,
) -> tuple[list[Result], int]:
    """Apply `function` to `items` in batches of `size`; returns all results and the size that fitted in memory.

    A batch that runs out of memory is tried again at half its size, and the rest goes on at that size.
    Raises `error` if memory does not even suffice for one item.
    """
    results: list[Result] = []

    def work(part: slice) -> None:
        results.extend(function(items[part]))

    return results, work_through(work, len(items), size, error)


def work_through(work: Callable[[slice], None], count: int, size: int, error: type[SageError]) -> int:
    """Call `work` for `count` rows, `size` at a time, in order; returns the size that fitted in memory.

    A part that runs out of memory is tried again at half its size, and the rest goes on at that size. So `work` must
    keep nothing of a part before it has all of it.

    Raises:
        SageError: of the kind `error`, if memory does not even suffice for one row.
    """
    done = 0
    while done < count:
        part = slice(done, min(done + size, count))
        try:
            work(part)
            done = part.stop
            continue
        except (RuntimeError, MemoryError) as found:
            if not is_out_of_memory(found):
                raise
            if part.stop - done == 1:
                raise error(
                    f"Out of memory with a single item ({found}). Free memory, use a smaller model, or half precision."
                ) from found
        # Outside the handler: inside it the exception still holds the failed batch's tensors.
        size = (part.stop - done + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        elif torch.backends.mps.is_available():
            torch.mps.empty_cache()
    return size


def counting(tell: Callable[[int, int], None] | None, total: int) -> Callable[[int], None]:
    """A function of how much more is done, which tells how much is in all, of `total`."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        if tell is not None:
            tell(done, total)

    return count


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: CUDA's has a type of its own, MPS's and the CPU's only their words."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    # "MPS backend out of memory", and the CPU's allocator on Linux and macOS, then on Windows.
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(some in str(error) for some in words)
