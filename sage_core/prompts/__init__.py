"""Prompts as data: files, safe and unsafe pairs, and the filter of prompts that refer to minors."""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "PromptPairs": "pairs",
        "read_pairs": "pairs",
        "read_prompts": "pairs",
        "pairs_from_lists": "pairs",
        "pairs_from_concept": "pairs",
        "ConceptList": "concepts",
        "read_concepts": "concept_files",
        "mentions_minor": "minors",
        "REFERENCE_PROMPTS": "everyday",
    },
)
