"""CLIP text encoders of Stable Diffusion 1.x: every file layout, token ids, embeddings, LoRAs."""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "TextEncoder": "text_encoder",
        "embed": "text_encoder",
        "save_encoder": "text_encoder",
        "state_hash": "text_encoder",
        "EncoderConfig": "layouts",
        "read_encoder": "layouts",
        "tokenize": "tokens",
        "extract_lora": "lora",
        "save_lora": "lora",
        "examine": "doctor",
        "to_diffusers": "pipelines",
    },
)
