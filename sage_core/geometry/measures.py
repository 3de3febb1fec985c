"""What alignment does to the space of prompt embeddings: its spread and its neighbourhoods.

They are pure functions of embeddings, (N, D) with one prompt in each row, on any device. An Apple GPU has no float64,
so that its embeddings are measured on the CPU. The idea is from Yousaf et al., "The Illusion of High Utility in Safety
Alignment of Text-to-Image Diffusion Models" (ECCV 2026): an aligned encoder that keeps the spread of its prompts and
each prompt's neighbours keeps what its prompts mean.

Whatever needs all pairs of prompts starts from `distances`, an (N, N) matrix that is computed once and shared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from ..devices import measurable
from ..errors import PromptError

# Rows of a matrix product, enough for its full speed.
BLOCK = 512
# Rows of an element-wise step. At 77 x 768 values a row, 64 of them take 15 MB, small enough for the allocator to
# reuse; larger pieces are mapped afresh each time, which costs twice the arithmetic.
CHUNK = 64

# Spread below which rows count as equal: in fp32 the mean of N rows is off by about 1e-7 of its length.
_ROUNDING = 1e-12
# Variance of unit rows below which products of rows in fp32, off by 1e-7, cannot tell near rows from nearer ones.
_NARROW = 0.01
_BINS = 2**20
_KRYLOV_STEPS = 6


def spread(embeddings: Tensor) -> float:
    """Total variance (trace of the covariance, divisor N - 1) of the L2-normalised rows: from 0 to N / (N - 1)."""
    embeddings = measurable(embeddings)
    mean = _mean_direction(embeddings).float()
    # Around the mean, not E[x^2] - E[x]^2, which would cancel: prompts share most of their embedding.
    distances = torch.cat([torch.linalg.vector_norm(rows.sub_(mean), dim=1) for rows in unit_rows(embeddings)])
    return distances.double().square().sum().item() / (len(embeddings) - 1)


def spread_ratio(base: Tensor, aligned: Tensor) -> float:
    """R_s = spread(aligned) / spread(base): 1 for an untouched space, towards 0 for a collapsed one."""
    check_same_prompts(base, aligned)
    return spread(aligned) / positive_spread(base)


def positive_spread(embeddings: Tensor) -> float:
    """As `spread`; raises PromptError if the rows differ by no more than rounding, so that no ratio to it exists."""
    value = spread(embeddings)
    if value < _ROUNDING:
        raise PromptError(f"The base embeddings of all {len(embeddings)} prompts are equal. Give prompts that differ.")
    return value


def distances(embeddings: Tensor) -> Tensor:
    """Cosine distance 1 - cos of every pair of rows: (N, N) in fp32, exactly symmetric, with zeros on the diagonal.

    The matrix is on the rows' `measuring_device`.
    """
    embeddings = measurable(embeddings)
    lengths = row_lengths(embeddings)
    count = len(embeddings)
    centre = _mean_direction(embeddings)
    # 1 - |mean|² is the variance of unit rows.
    collapsed = 1 - centre.square().sum().item() < _NARROW
    result = torch.empty(count, count, dtype=torch.float32, device=embeddings.device)
    for start in range(0, count, BLOCK):
        columns = slice(start, min(start + BLOCK, count))
        if collapsed:
            block = _centred_distances(embeddings[start:], embeddings[columns], centre)
        else:
            block = embeddings[start:].float() @ embeddings[columns].float().T
            block.div_(lengths[start:, None]).div_(lengths[columns]).neg_().add_(1)
        block.clamp_(0, 2)
        # In a block on the diagonal both halves are rounded differently; the lower one replaces the upper one.
        top = block[: columns.stop - start]
        top.copy_(top.tril() + top.tril(-1).T)
        result[start:, columns] = block
        result[columns, start:] = block.T
    return result.fill_diagonal_(0)


def nearest(distance: Tensor, k: int) -> Tensor:
    """The k nearest other rows of each row, nearest first: (N, k) indices from (N, N) distances."""
    count = len(distance)
    if not 1 <= k < count:
        raise PromptError(
            f"k = {k} neighbours need 1 <= k < number of prompts; found {count}. Change k or add prompts."
        )
    found = torch.empty(count, k, dtype=torch.long, device=distance.device)
    for start in range(0, count, BLOCK):
        rows = distance[start : start + BLOCK].clone()
        rows.diagonal(start).fill_(torch.inf)
        found[start : start + BLOCK] = rows.topk(k, largest=False).indices
    return found


def neighbour_overlap(before: Tensor, after: Tensor) -> Tensor:
    """Jaccard overlap |A & B| / |A | B| of each row's k neighbours in two (N, k) index tensors: (N,) in 0..1."""
    k = before.shape[1]
    shared = (before[:, :, None] == after[:, None, :]).sum((1, 2)).double()
    return shared / (2 * k - shared)


def jaccard_overlap(base: Tensor, aligned: Tensor, k: int) -> float:
    """Mean Jaccard overlap of each prompt's k nearest others by cosine, before and after: 1 for an untouched space."""
    check_same_prompts(base, aligned)
    return neighbour_overlap(nearest(distances(base), k), nearest(distances(aligned), k)).mean().item()


def rank_correlation(before: Tensor, after: Tensor) -> float:
    """Spearman correlation of the distances of all pairs, from two (N, N) matrices; nan if one is constant.

    Ranks come from a histogram of 2^20 bins, not from sorting N^2 / 2 values. Distances in one bin share their mean
    rank, as ties do. They differ by less than a millionth of the range, which is near the rounding of fp32.
    """
    most = before.max(), after.max()
    first, second = _mean_ranks(before, most[0]), _mean_ranks(after, most[1])
    products, squares, others = 0.0, 0.0, 0.0
    for rows, columns, times in tiles(len(before)):
        x = first.index_select(0, _bins(before[rows, columns], most[0]))
        y = second.index_select(0, _bins(after[rows, columns], most[1]))
        if rows == columns:
            width = len(before[rows])
            x[:: width + 1] = y[:: width + 1] = 0
        products += times * (x * y).sum().item()
        squares += times * x.square_().sum().item()
        others += times * y.square_().sum().item()
    size = (squares * others) ** 0.5
    return products / size if size > 0 else float("nan")


@dataclass(frozen=True, eq=False)
class Spectrum:
    """How the variance of a space is shared among its principal components.

    Attributes:
        shares: variance of the leading components as shares of the total, largest first.
        coordinates: (N, components) places of the prompts along those components.
        effective_rank: participation ratio (sum of variances)^2 / sum of squared variances over ALL components: as many
            components with equal variance would have the same ratio.
    """

    shares: tuple[float, ...]
    coordinates: Tensor
    effective_rank: float


def spectrum(distance: Tensor, components: int = 32) -> Spectrum:
    """Principal components of the L2-normalised prompts from their (N, N) distances alone, at any D.

    The centred matrix of cosines has the eigenvalues of the embeddings' scatter matrix; it is the centred matrix of
    distances with the sign reversed. Its leading eigenvalues come from a randomised block Krylov space (Musco and
    Musco, NeurIPS 2015), whose cost grows with N^2 and not N^3. With few prompts that space is the whole space, and
    the decomposition is exact.
    """
    count = len(distance)
    means = distance.mean(1)
    mean = means.mean(dtype=torch.float64).item()
    total = count * mean
    squares = 0.0
    for rows, own in zip(distance.split(CHUNK), means.split(CHUNK), strict=True):
        squares += (rows - own[:, None]).sub_(means - mean).square_().sum().item()
    values, vectors = _leading(distance, min(components, count - 1))
    shares = tuple((values / total).tolist()) if total > 0 else (0.0,) * len(values)
    return Spectrum(shares, vectors * values.sqrt(), total**2 / squares if squares > 0 else 0.0)


def principal_directions(embeddings: Tensor, coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) of the L2-normalised rows, and the unit directions (D, C) along which they have these coordinates."""
    mean = torch.zeros(embeddings.shape[1], device=embeddings.device)
    directions = torch.zeros(embeddings.shape[1], coordinates.shape[1], device=embeddings.device)
    for rows, places in zip(unit_rows(embeddings), coordinates.float().split(CHUNK), strict=True):
        mean += rows.sum(0) / len(embeddings)
        directions += rows.T @ places
    # The coordinates sum to zero, so that the mean drops out of the sum above.
    return mean, torch.nn.functional.normalize(directions, dim=0)


def separation(distance: Tensor, safe: int) -> float:
    """Fisher's ratio of two classes, the first `safe` prompts and the rest, from (N, N) distances of both.

    It is the squared distance of the two class means over the mean variance within the classes: 0 for classes that lie
    on each other, and the larger the further they are apart.
    """
    near, far, across = distance[:safe, :safe], distance[safe:, safe:], distance[:safe, safe:]
    # Rows have length 1, so a class has its mean cosine distance as variance.
    within, beyond, between = (part.mean(1).double().mean().item() for part in (near, far, across))
    variance = (within + beyond) / 2
    return (2 * between - within - beyond) / variance if variance > 0 else float("nan")


def unit_rows(embeddings: Tensor) -> Iterator[Tensor]:
    """The L2-normalised rows in fp32, in new tensors of at most CHUNK rows; raises PromptError as `row_lengths`."""
    lengths = row_lengths(embeddings)
    for rows, length in zip(embeddings.split(CHUNK), lengths.split(CHUNK), strict=True):
        yield rows.float() / length[:, None]


def tiles(count: int) -> Iterator[tuple[slice, slice, int]]:
    """Rows and columns of blocks of a symmetric (N, N) matrix, and how often the whole matrix has the block's values.

    A block on the diagonal occurs once. The block to its left occurs twice, since it also stands above the diagonal.
    """
    for start in range(0, count, BLOCK):
        rows = slice(start, min(start + BLOCK, count))
        yield rows, rows, 1
        yield rows, slice(0, start), 2


def row_lengths(embeddings: Tensor) -> Tensor:
    """The L2 length of each row, (N,) in fp32.

    Raises:
        PromptError: there are fewer than two rows, or the length of one is not finite or is 0, so that it has no
            direction.
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
    """Raise PromptError unless both have one shape (N, D): the same prompts under encoders of one width."""
    if base.shape != aligned.shape:
        raise PromptError(
            f"Base and aligned embeddings must be of the same prompts and width; "
            f"found shapes {tuple(base.shape)} and {tuple(aligned.shape)}."
        )


def _mean_direction(embeddings: Tensor) -> Tensor:
    """Mean (D,) of the L2-normalised rows in float64."""
    total = torch.zeros(embeddings.shape[1], dtype=torch.float64, device=embeddings.device)
    for rows in unit_rows(embeddings):
        total += rows.sum(0)
    return total / len(embeddings)


def _centred_distances(embeddings: Tensor, others: Tensor, centre: Tensor) -> Tensor:
    """Cosine distances (N, M) as half the squared distances of unit rows, which are exact relative to the spread."""
    columns = _centred(others, centre)
    squares = columns.square().sum(1)
    result = torch.empty(len(embeddings), len(others), dtype=torch.float32, device=embeddings.device)
    for part, place in zip(embeddings.split(BLOCK), result.split(BLOCK), strict=True):
        rows = _centred(part, centre)
        place.copy_((rows.square().sum(1)[:, None] + squares) / 2 - rows @ columns.T)
    return result


def _centred(embeddings: Tensor, centre: Tensor) -> Tensor:
    """The L2-normalised rows minus `centre`, rounded to fp32 only after the subtraction."""
    result = torch.empty(embeddings.shape, dtype=torch.float32, device=embeddings.device)
    for rows, place in zip(embeddings.split(CHUNK), result.split(CHUNK), strict=True):
        place.copy_(torch.nn.functional.normalize(rows.double(), dim=1) - centre)
    return result


def _bins(distance: Tensor, most: Tensor) -> Tensor:
    """Histogram bin of each value, flat; bins go from 0, the diagonal's value, to `most`, the matrix's largest."""
    return (distance * ((_BINS - 1) / most.clamp(min=1e-12))).int().flatten()


def _mean_ranks(distance: Tensor, most: Tensor) -> Tensor:
    """Mean rank of the off-diagonal values in each bin, scaled by their number to -0.5 to 0.5, fp32."""
    count = len(distance)
    counts = torch.zeros(_BINS, dtype=torch.long, device=distance.device)
    for rows, columns, times in tiles(count):
        counts += times * torch.bincount(_bins(distance[rows, columns], most), minlength=_BINS)
    counts -= torch.bincount(_bins(distance.diagonal(), most), minlength=_BINS)
    pairs = count * (count - 1)
    return ((counts.cumsum(0) - (counts - 1) / 2.0 - (pairs + 1) / 2) / pairs).float()


def _leading(distance: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Largest eigenvalues (C,) and eigenvectors (N, C) of the centred matrix of cosines, float64."""
    count = len(distance)
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(count, min(count, components + 8), generator=generator).to(distance.device)
    blocks = []
    for _ in range(min(_KRYLOV_STEPS, ceil(count / block.shape[1]))):
        block = torch.linalg.qr(_centred_product(distance, block)).Q
        blocks.append(block)
    basis = torch.linalg.qr(torch.cat(blocks, 1)).Q
    small = basis.T.double() @ _centred_product(distance, basis).double()
    values, rotation = torch.linalg.eigh((small + small.T) / 2)
    kept = torch.arange(len(values) - 1, len(values) - 1 - components, -1, device=values.device)
    return values[kept].clamp(min=0), basis.double() @ rotation[:, kept]


def _centred_product(distance: Tensor, vectors: Tensor) -> Tensor:
    product = distance @ (vectors.mean(0) - vectors)
    return product - product.mean(0)
