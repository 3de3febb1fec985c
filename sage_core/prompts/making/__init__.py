"""Makes prompts to train on for a concept of one's own: from its name, captions and the base text encoder."""

from __future__ import annotations

from ...lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__, {"make_pairs": "make", "MakingSettings": "settings", "MadePairs": "made", "EncoderSenses": "senses"}
)
