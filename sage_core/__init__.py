"""SAGE: safety alignment of CLIP text encoders that keeps the embedding space's spread and neighbourhoods.

Yousaf, Ghosh, Beetham, Bedi, Shah: "The Illusion of High Utility in Safety Alignment of
Text-to-Image Diffusion Models", ECCV 2026, arXiv 2607.00402. This package is an independent
implementation of the published formulas. It imports nothing of ComfyUI.
"""

from __future__ import annotations

__version__ = "0.1.0"
