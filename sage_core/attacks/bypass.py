"""Embeddings that pass through a text encoder: no training of it can keep them out, and nothing has to be searched for.

A layer of CLIP's encoder reads its input through a layer norm, so that what it adds to it is bounded, however long the
input is. Let v be a vector at some position, p that position's embedding, and r the bounded sum of what all layers add.
The encoder's state there is, with the final norm's γ and β,

    E(v) = γ·LN(v + p + r) + β  →  γ·LN(n) + β   for v = c·n − p and c → ∞

So any states t, such as the base's of an unsafe prompt, come out of any encoder of the kind for n = (t − β)/γ. An
encoder that was aligned says no more to these vectors than the base: what can hold against them is what reads the
states, the U-Net.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..encoders.text_encoder import TextEncoder
from ..errors import EncoderError, SettingsError
from .layouts import Layout

_TINY = 1e-12


@torch.no_grad()
def pass_through(encoder: TextEncoder, targets: Tensor, where: Layout, length: float = 1e4) -> Tensor:
    """Vectors under which the encoder gives the target states at free positions, the more exactly the longer they are.

    Args:
        encoder: any, aligned or not; its final norm and its positions are read.
        targets: states to come out, (N, 77, width).
        where: N prompts and the positions that the vectors take, the same number n in each.
        length: c, the root mean square of the vectors' numbers. Encoders in fp16 take some 1e3: single numbers are
            several times as large, and 65,504 is the largest there.

    Returns: (N, n, width), in the targets' precision.

    Raises:
        SettingsError: a length that is not above 0, or rows with different numbers of free positions, or none.
        EncoderError: a γ of the final norm is 0, so that its number carries nothing.
    """
    if not 0 < length < float("inf"):
        raise SettingsError(f"length is {length}, expected a finite number above 0.")
    weights = encoder.state()
    gamma, beta, positions = (
        weights[f"text_model.{name}"].to(targets)
        for name in (
            "final_layer_norm.weight",
            "final_layer_norm.bias",
            "embeddings.position_embedding.weight",
        )
    )
    if (gamma == 0).any():
        raise EncoderError("The encoder's final norm scales a number by 0: nothing passes through there.")
    wanted = (targets - beta) / gamma
    # The final norm makes unit vectors of mean 0 of whatever it gets; what the targets have besides cannot come out.
    wanted = wanted - wanted.mean(-1, keepdim=True)
    wanted = wanted / wanted.square().mean(-1, keepdim=True).clamp_min(_TINY).sqrt()
    vectors = length * wanted - positions[: targets.shape[1]]
    return vectors[where.free].view(len(targets), where.count, -1)
