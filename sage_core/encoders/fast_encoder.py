"""The text encoder's forward and backward pass with as little memory traffic as plain PyTorch allows.

It is the same function of the same parameters as `TextEncoder`, which is transformers' CLIPTextModel. A transformer of
this width spends as long on moving activations as on matrix products. The weights are hundreds of times smaller than a
batch's activations, so whatever can be done to the weights instead is done to them:

- CLIP's activation x·sigmoid(1.702 x) is silu(1.702 x) / 1.702: both factors go into the MLP's matrices, and one
  fused kernel that keeps one array replaces three that keep three.
- Scale and offset of a layer norm go into the matrix that follows it, so that their gradients are sums over a matrix
  and not over every token.
- Query, key and value are one matrix product.

Under bf16 autocast the residual stream stays fp32. Matrix products, norms and activations are computed in bf16 on bf16
copies of the weights, which are made anew in each pass. Gradients arrive at the fp32 parameters in fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .text_encoder import TextEncoder

_QUICK_GELU = 1.702
_EPSILON = 1e-5
# Not cuDNN's kernels, which some versions of PyTorch prefer: they plan anew for each batch size and are not
# deterministic.
_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class FastEncoder(TextEncoder):
    """A `TextEncoder` that is faster to train and to embed with; equal to it up to rounding.

    Attributes:
        watch: called before each layer, forwards and back; may raise to stop. A pass of a batch may take a minute.
    """

    watch: Callable[[], None] | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (B, 77) to the last hidden state after the final layer norm, (B, 77, width), fp32.

        Computes in fp32, or in autocast's dtype where autocast is on.
        """
        kind = ids.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        with torch.autocast(kind, enabled=False), sdpa_kernel(_ATTENTION):
            return self._hidden(ids, dtype)

    def _hidden(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        weights = {name.rpartition("model.")[2]: parameter for name, parameter in self.named_parameters()}
        heads = self.config.heads
        x = F.embedding(ids, weights["embeddings.token_embedding.weight"])
        y = weights["embeddings.position_embedding.weight"].expand_as(x)
        for layer in range(self.config.layers):
            at = f"encoder.layers.{layer}."
            self._look(y)
            x, normed = add_and_norm(x, y, dtype)
            qkv = F.linear(normed, *_folded(weights, at, ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
                                            dtype, norm="layer_norm1"))  # fmt: skip
            # Cut along the last dimension, so that the backward pass is one concatenation.
            q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=2))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
            y = F.linear(mixed, *_folded(weights, at, ("self_attn.out_proj",), dtype))
            x, normed = add_and_norm(x, y, dtype)
            mlp = F.linear(normed, *_folded(weights, at, ("mlp.fc1",), dtype, norm="layer_norm2", after=_QUICK_GELU))
            y = F.linear(F.silu(mlp), *_folded(weights, at, ("mlp.fc2",), dtype, before=1 / _QUICK_GELU))
        scale, offset = weights["final_layer_norm.weight"], weights["final_layer_norm.bias"]
        return F.layer_norm(x + y, scale.shape, scale, offset, _EPSILON)

    def _look(self, y: Tensor) -> None:
        """Call `watch` now, and when the gradient of `y` is known."""
        watch = self.watch
        if watch is None:
            return
        watch()
        if y.requires_grad:

            def back(_gradient: Tensor) -> None:
                watch()

            y.register_hook(back)


def add_and_norm(x: Tensor, y: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The residual stream x + y in fp32, and its layer norm without scale and offset in `dtype`."""
    return _AddAndNorm.apply(x, y, dtype)


class _AddAndNorm(torch.autograd.Function):
    """One autograd node instead of four: the stream's two gradients are added in one pass, without a cast."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        total = x + y
        normed, _, inverse = torch.native_layer_norm(total.to(dtype), total.shape[-1:], None, None, _EPSILON)
        # The matrix product that follows keeps `normed` anyway; the stream itself need not be kept.
        ctx.save_for_backward(normed, inverse)
        ctx.y_dtype = y.dtype
        return total, normed

    @staticmethod
    def backward(ctx: Any, of_total: Tensor, of_normed: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, inverse = ctx.saved_tensors
        # `normed` has mean 0 and deviation 1, so that only the stream's own deviation is still to be divided out.
        mean, deviation = torch.zeros_like(inverse), torch.ones_like(inverse)
        through_norm, _, _ = torch.ops.aten.native_layer_norm_backward(
            of_normed, normed, normed.shape[-1:], mean, deviation, None, None, [True, False, False]
        )
        gradient = torch.addcmul(of_total, through_norm, inverse)
        return gradient, gradient.to(ctx.y_dtype), None


def _folded(
    weights: Mapping[str, Tensor],
    at: str,
    names: Sequence[str],
    dtype: torch.dtype,
    norm: str | None = None,
    before: float = 1.0,
    after: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Weight and bias, in `dtype`, of y = after · (W (scale · before · x + offset) + b), matrices stacked."""
    scale, offset = (weights[f"{at}{norm}.weight"], weights[f"{at}{norm}.bias"]) if norm else (None, None)
    matrices = [weights[f"{at}{name}.weight"] for name in names]
    biases = [weights[f"{at}{name}.bias"] for name in names]
    return fold(matrices, biases, scale, offset, dtype, before, after)


def fold(
    matrices: Sequence[Tensor],
    biases: Sequence[Tensor],
    scale: Tensor | None,
    offset: Tensor | None,
    dtype: torch.dtype,
    before: float = 1.0,
    after: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The linear map x → after · (W (scale · before · x + offset) + b) as one matrix and one bias in `dtype`.

    Args:
        matrices: (O_i, I) each; their outputs are stacked.
        biases: (O_i,) each.
        scale, offset: (I,), a layer norm's own; None for 1 and 0.

    Returns:
        (ΣO_i, I) and (ΣO_i,). Gradients flow to everything given, in its own dtype.
    """
    return _Fold.apply(dtype, before, after, scale, offset, *matrices, *biases)


class _Fold(torch.autograd.Function):
    """One pass over the matrices each way; autograd would make one for each factor, cast and stack."""

    @staticmethod
    def forward(
        ctx: Any,
        dtype: torch.dtype,
        before: float,
        after: float,
        scale: Tensor | None,
        offset: Tensor | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        count = len(tensors) // 2
        matrices, biases = tensors[:count], tensors[count:]
        columns = matrices[0].new_ones(matrices[0].shape[1]) if scale is None else scale
        columns = columns * (before * after)
        matrix = matrices[0].new_empty(sum(map(len, matrices)), len(columns), dtype=dtype)
        for part, whole in zip(matrix.split([len(m) for m in matrices]), matrices, strict=True):
            torch.mul(whole, columns, out=part)
        moved = (
            biases if offset is None else [torch.mv(m, offset).add_(b) for m, b in zip(matrices, biases, strict=True)]
        )
        ctx.save_for_backward(columns, offset, *matrices)
        ctx.factors, ctx.has_scale = (before * after, after), scale is not None
        return matrix, torch.cat(list(moved)).mul_(after).to(dtype)

    @staticmethod
    def backward(ctx: Any, of_matrix: Tensor, of_bias: Tensor) -> tuple[Any, ...]:
        columns, offset, *matrices = ctx.saved_tensors
        factor, after = ctx.factors
        sizes = [len(m) for m in matrices]
        of_biases = (of_bias.to(columns.dtype) * after).split(sizes)
        of_parts = of_matrix.split(sizes)
        of_matrices = [part * columns for part in of_parts]
        of_scale = of_offset = None
        if ctx.has_scale:
            of_scale = sum((part * m).sum(0) for part, m in zip(of_parts, matrices, strict=True)) * factor
            of_offset = sum(torch.mv(m.T, b) for m, b in zip(matrices, of_biases, strict=True))
            for gradient, of_one in zip(of_matrices, of_biases, strict=True):
                gradient.addr_(of_one, offset)
        return (None, None, None, of_scale, of_offset, *of_matrices, *of_biases)
