"""Attacks on a text encoder, to test it: prompts and embeddings that bring a removed concept back."""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "AttackSettings": "tokens",
        "TokenSearch": "tokens",
        "GeneticSearch": "genetic",
        "SoftPrompt": "embeddings",
        "pass_through": "bypass",
        "EmbeddingGoal": "objectives",
        "AttackBudget": "budgets",
        "run_attack": "budgets",
    },
)
