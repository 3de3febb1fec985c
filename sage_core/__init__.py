"""SAGE: safety alignment of CLIP text encoders that keeps the embedding space's spread and neighbourhoods.

Yousaf, Ghosh, Beetham, Bedi, Shah: "The Illusion of High Utility in Safety Alignment of
Text-to-Image Diffusion Models", ECCV 2026, arXiv 2607.00402. This package is an independent
implementation of the published formulas. It imports nothing of ComfyUI.

The files that lie open here are the ground; every folder is a wing that imports the wings below it and the ground:

    demo  cli                                  the command `sage-demo`, the command `sage`
    bench  shapes                              what alignment costs; a Stable Diffusion small enough to know exactly
    alignment  attacks  diffusion  scores      train a safe encoder, attack one, edit a U-Net, score pictures
    prompts  geometry  tifa                    prompts and pairs, embedding spaces, question answering
    encoders  runs                             text encoders, and the one training loop
"""

from __future__ import annotations

__version__ = "0.1.0"
