"""Work in batches: what counts as a lack of memory."""

from __future__ import annotations

import pytest
import torch

from sage_core.batches import in_batches, is_out_of_memory
from sage_core.errors import JudgeError


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.13 GB, max allowed: 18.13 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:122] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried"),
        MemoryError(),
    ],
    ids=["cuda", "mps", "cpu", "cpu of Windows", "numpy"],
)
def test_batches_split_on_every_devices_lack_of_memory(error):
    def double(batch):
        if len(batch) > 2:
            raise error
        return [2 * item for item in batch]

    assert in_batches(double, [1, 2, 3, 4, 5], 8) == ([2, 4, 6, 8, 10], 2)
    with pytest.raises(JudgeError, match="Out of memory with a single item"):
        in_batches(lambda batch: double([1, 2, 3]), [1], 8)


def test_what_torch_says_without_memory_on_the_cpu_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("size mismatch"), ValueError("out of memory")])
def test_in_batches_passes_other_errors_on(error):
    def fail(batch):
        raise error

    with pytest.raises(type(error)):
        in_batches(fail, [1, 2], 2)
