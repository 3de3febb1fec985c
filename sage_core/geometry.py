"""What alignment does to the space of prompt embeddings: its spread and its neighbourhoods.

Pure functions of embeddings, tensors of shape (N, D), one prompt a row, on any device. The idea is from Yousaf et al.,
"The Illusion of High Utility in Safety Alignment of Text-to-Image Diffusion Models" (ECCV 2026): an aligned encoder
that keeps the spread of its prompts and each prompt's neighbours keeps what its prompts mean.

Whatever needs all pairs of prompts starts from `similarities`, an (N, N) matrix that is computed once and shared.
"""

import torch
from torch import Tensor

from .errors import PromptError

# Rows handled at once. At 77 x 768 values a row, 512 of them take 121 MB: enough for a full-speed product.
BLOCK = 512


def spread(embeddings: Tensor) -> float:
    """Total variance (trace of the covariance, divisor N - 1) of the L2-normalised rows: from 0 to N / (N - 1)."""
    lengths = row_lengths(embeddings)
    mean = torch.zeros(embeddings.shape[1], dtype=torch.float64, device=embeddings.device)
    for rows, length in zip(embeddings.split(BLOCK), lengths.split(BLOCK), strict=True):
        mean += (rows.float() / length[:, None]).sum(0, dtype=torch.float64)
    mean = (mean / len(embeddings)).float()
    # Around the mean, not E[x^2] - E[x]^2: prompts share most of their embedding, and the difference would cancel.
    total = 0.0
    for rows, length in zip(embeddings.split(BLOCK), lengths.split(BLOCK), strict=True):
        total += (rows.float() / length[:, None]).sub_(mean).square_().sum(dtype=torch.float64).item()
    return total / (len(embeddings) - 1)


def spread_ratio(base: Tensor, aligned: Tensor) -> float:
    """R_s = spread(aligned) / spread(base): 1 for an untouched space, towards 0 for a collapsed one."""
    check_same_prompts(base, aligned)
    before = spread(base)
    if before == 0:
        raise PromptError(f"The base embeddings of all {len(base)} prompts are the same; give prompts that differ.")
    return spread(aligned) / before


def similarities(embeddings: Tensor) -> Tensor:
    """Cosine of every pair of rows: (N, N) in fp32, exactly symmetric, with ones on the diagonal."""
    lengths = row_lengths(embeddings)
    count = len(embeddings)
    result = torch.empty(count, count, dtype=torch.float32, device=embeddings.device)
    for start in range(0, count, BLOCK):
        rows = slice(start, min(start + BLOCK, count))
        left = embeddings[rows].float() / lengths[rows, None]
        for other_start in range(0, rows.stop, BLOCK):
            others = slice(other_start, min(other_start + BLOCK, count))
            block = (left @ embeddings[others].float().T).div_(lengths[others])
            result[rows, others] = block
            result[others, rows] = block.T
    return result.clamp_(-1, 1).fill_diagonal_(1)


def nearest(similarity: Tensor, k: int) -> Tensor:
    """The k most similar other rows of each row, most similar first: (N, k) indices from (N, N) similarities."""
    count = len(similarity)
    if not 1 <= k < count:
        raise PromptError(
            f"k = {k} neighbours need 1 <= k < number of prompts; found {count}. Change k or add prompts."
        )
    found = torch.empty(count, k, dtype=torch.long, device=similarity.device)
    for start in range(0, count, BLOCK):
        rows = similarity[start : start + BLOCK].clone()
        rows.diagonal(start).fill_(-torch.inf)
        found[start : start + BLOCK] = rows.topk(k).indices
    return found


def neighbour_overlap(before: Tensor, after: Tensor) -> Tensor:
    """Jaccard overlap |A & B| / |A | B| of each row's k neighbours in two (N, k) index tensors: (N,) in 0..1."""
    k = before.shape[1]
    shared = (before[:, :, None] == after[:, None, :]).sum((1, 2)).double()
    return shared / (2 * k - shared)


def jaccard_overlap(base: Tensor, aligned: Tensor, k: int) -> float:
    """Mean Jaccard overlap of each prompt's k nearest others by cosine, before and after: 1 for an untouched space."""
    check_same_prompts(base, aligned)
    return neighbour_overlap(nearest(similarities(base), k), nearest(similarities(aligned), k)).mean().item()


def local_correlation(base: Tensor, aligned: Tensor, k: int) -> float:
    """Pearson correlation, before and after, of the cosines between each prompt and its k nearest base neighbours.

    All N * k pairs are one sample: it is 1 - LSA of the SAGE loss without its perturbation, 1 for an untouched space.
    Constant cosines have no correlation: nan.
    """
    check_same_prompts(base, aligned)
    before = similarities(base)
    neighbours = nearest(before, k)
    return pearson(before.gather(1, neighbours), similarities(aligned).gather(1, neighbours))


def pearson(first: Tensor, second: Tensor) -> float:
    """Pearson correlation of two tensors of one shape, each taken as one sample, in float64; nan if one is constant."""
    first, second = first.double() - first.double().mean(), second.double() - second.double().mean()
    return ((first * second).sum() / (first.square().sum() * second.square().sum()).sqrt()).item()


def row_lengths(embeddings: Tensor) -> Tensor:
    """The L2 length of each row, (N,) in fp32.

    Raises PromptError for anything but two or more rows of finite length above 0, which have a direction each.
    """
    if embeddings.ndim != 2 or len(embeddings) < 2:
        raise PromptError(f"Expected embeddings of 2 or more prompts, shape (N, D); found {tuple(embeddings.shape)}.")
    norm = torch.linalg.vector_norm
    lengths = torch.cat([norm(rows, dim=1, dtype=torch.float32) for rows in embeddings.split(BLOCK)])
    bad = ~(lengths.isfinite() & (lengths > 0))
    if bad.any():
        row = int(bad.nonzero()[0])
        raise PromptError(
            f"Embedding {row} has length {lengths[row].item()}; expected a finite one above 0. Is the encoder damaged?"
        )
    return lengths


def check_same_prompts(base: Tensor, aligned: Tensor) -> None:
    """Raise PromptError unless both have the shape (N, D) of the same prompts under encoders of one width."""
    if base.shape != aligned.shape:
        raise PromptError(
            f"Base and aligned embeddings must be of the same prompts and width; "
            f"found shapes {tuple(base.shape)} and {tuple(aligned.shape)}."
        )
