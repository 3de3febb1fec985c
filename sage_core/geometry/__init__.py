"""What alignment did to an embedding space: spread, neighbours, drift, and a verdict with intervals."""

from __future__ import annotations

# Nearest neighbours of each prompt that are compared unless another number is asked for; verdicts are found at it. It
# stands here since combo boxes and the command line want it without PyTorch.
DEFAULT_NEIGHBOURS = 10
