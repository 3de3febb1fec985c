"""What alignment did to an embedding space: spread, neighbours, drift, and a verdict with intervals."""

from __future__ import annotations

from ..lazy import lazy_names

# Nearest neighbours of each prompt that are compared unless another number is asked for; verdicts are found at it. It
# stands here since combo boxes and the command line want it without PyTorch.
DEFAULT_NEIGHBOURS = 10

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "compare_encoders": "comparison",
        "compare": "comparison",
        "GeometrySettings": "comparison",
        "GeometryReport": "report",
        "spread_ratio": "measures",
        "jaccard_overlap": "measures",
        "report_page": "page",
    },
)
