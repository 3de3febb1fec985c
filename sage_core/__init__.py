"""SAGE: safety alignment of CLIP text encoders that keeps the embedding space's spread and neighbourhoods.

Yousaf, Ghosh, Beetham, Bedi, Shah: "The Illusion of High Utility in Safety Alignment of
Text-to-Image Diffusion Models", ECCV 2026, arXiv 2607.00402. This package is an independent
implementation of the published formulas. It imports nothing of ComfyUI.

The files that lie open here are the ground; every folder is a wing that imports the wings below it and the ground:

    demo  cli  bench             the commands `sage-demo` and `sage`, and what trainings and scores cost
    evaluation                   whole test sets, drawn and scored by any number of processes
    shapes                       a Stable Diffusion small enough to know exactly
    attacks                      what brings a concept back
    methods                      every other way to make a model forget
    alignment  drawing  scores   a safe text encoder, trained; pictures, drawn and scored
    prompts  geometry  tifa      prompts and pairs, embedding spaces, question answering
    unet  encoders  runs         the two networks' files, and the one training loop
"""

from __future__ import annotations

__version__ = "0.2.1"
