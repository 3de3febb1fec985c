"""What alignment did to an embedding space: spread, neighbours, drift, and a verdict with intervals."""

from __future__ import annotations

from ..lazy import lazy_names

# Nearest neighbours of each prompt that are compared by default; the verdict's thresholds hold for this number. It is
# defined here because nodes and the command line need it without importing PyTorch.
DEFAULT_NEIGHBOURS = 10
# Nearest neighbours within the prompts of one type of question, as in the paper's figure by category.
CATEGORY_NEIGHBOURS = 5

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
        "types_page": "category_plots",
        "methods_figure": "category_plots",
    },
)
