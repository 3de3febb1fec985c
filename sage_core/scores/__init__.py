"""Scores of pictures in addition to TIFA: CLIPScore, concept rates, distances of sets, and the table of scores."""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "ClipScorer": "clipscore",
        "Rate": "rates",
        "rate_by_vqa": "rates",
        "rate_by_clip": "rates",
        "rates_by_nudenet": "rates",
        "check_pictures": "checking",
        "Run": "results",
        "report_markdown": "results",
        "save_report": "results",
        "runs_page": "page",
        "distance": "distances",
    },
)
