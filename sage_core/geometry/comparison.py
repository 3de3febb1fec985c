"""Is an aligned text encoder's embedding space healthy? Every measure of it, its uncertainty, and a verdict.

`compare` takes any two ways to embed the same prompts, `compare_encoders` two text encoders. At any time they hold one
(N, D) matrix of embeddings, small blocks, and two (N, N) matrices of distances, from which nearly all else follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from ..batches import counting
from ..devices import measurable
from ..encoders.text_encoder import Pooling
from ..errors import PromptError
from ..settings import Count, Limits, Seed, Settings
from . import DEFAULT_NEIGHBOURS
from .bootstrap import draws, interval, mean_interval, spread_forms
from .categories import measure_categories
from .jackknife import correlation_estimate, overlap_estimate, reach
from .measures import (
    BLOCK,
    CHUNK,
    Spectrum,
    distances,
    nearest,
    neighbour_overlap,
    positive_spread,
    principal_directions,
    rank_correlation,
    separation,
    spectrum,
    spread,
    unit_rows,
)
from .report import GeometryReport, Neighbours, Space

if TYPE_CHECKING:
    from ..encoders.layouts import EncoderConfig
    from ..encoders.precision import PrecisionChoice
    from ..encoders.text_encoder import TextEncoder

Embedder = Callable[[Sequence[str]], Tensor]

# Prompts in the similarity heat maps: more could not be told apart at the size of a picture.
_SAMPLE = 40


@dataclass(frozen=True)
class GeometrySettings(Settings):
    """How two spaces are compared.

    Attributes:
        embedding: "flattened" (all 77 positions, which is what the image model sees), "eos" or "mean".
        k: neighbours of each prompt in the verdict and in every measure with a single k.
        more_k: further k at which the Jaccard overlap is reported; values of N or more are left out.
        resamples: bootstrap resamples of the prompts for each 95 % interval.
        seed: for the resampling.
    """

    embedding: Pooling = "flattened"
    k: Count = DEFAULT_NEIGHBOURS
    more_k: tuple[Count, ...] = (1, 5, 20, 50)
    resamples: Annotated[int, Limits(least=100)] = 1000
    seed: Seed = 0


def comparison_bytes(config: EncoderConfig, prompts: int, settings: GeometrySettings) -> int:
    """Bytes that comparing two encoders takes on its device, not counting batches, whose size adapts.

    They are those of both encoders' weights, one matrix of embeddings and two of distances.
    """
    weights = sum(math.prod(shape) for shape in config.shapes().values())
    width = config.width * (config.positions if settings.embedding == "flattened" else 1)
    # Two blocks of embeddings and half a matrix of distances are at work at a time, or those of a group of prompts.
    return 4 * (2 * weights + (prompts + 2 * BLOCK) * width + 7 * prompts**2 // 2)


def compare_encoders(
    base: TextEncoder,
    aligned: TextEncoder,
    prompts: Sequence[str],
    unsafe: Sequence[str] = (),
    settings: GeometrySettings = GeometrySettings(),
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
    device: torch.device | str | None = None,
    precision: PrecisionChoice = "auto",
    memory_budget: int | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> GeometryReport:
    """Compare two text encoders on the same prompts; see `compare`.

    `device` moves both encoders there; by default each stays where it is. `precision` is what both compute in; on
    1,000 prompts of the shapes world bf16 moves spread ratio and overlap by less than 0.001. `memory_budget` is that
    of `embed`.
    `on_batch(done, total)` counts the prompts of both encoders, is also called between the measures, and may stop.
    """
    from ..encoders.precision import choose_precision
    from ..encoders.text_encoder import embed, state_hash

    chosen = choose_precision(precision, device or next(base.parameters()).device)
    tell = counting(on_batch, 2 * (len(prompts) + len(unsafe)))

    def embedder(encoder: TextEncoder) -> Embedder:
        def embed_texts(texts: Sequence[str]) -> Tensor:
            done = 0

            def on_texts(now: int, _: int) -> None:
                nonlocal done
                tell(now - done)
                done = now

            return embed(
                encoder,
                texts,
                device=device,
                precision=chosen,
                memory_budget=memory_budget,
                pooling=settings.embedding,
                on_batch=on_texts,
            )

        return embed_texts

    hashes = (state_hash(base.state()), state_hash(aligned.state()))
    spaces = embedder(base), embedder(aligned)
    report = compare(*spaces, prompts, unsafe, settings, groups=groups, hashes=hashes, on_batch=on_batch)
    return replace(report, precision=chosen)


@torch.no_grad()
def compare(
    embed_base: Embedder,
    embed_aligned: Embedder,
    prompts: Sequence[str],
    unsafe: Sequence[str] = (),
    settings: GeometrySettings = GeometrySettings(),
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
    hashes: tuple[str, str] = ("", ""),
    on_batch: Callable[[int, int], None] | None = None,
) -> GeometryReport:
    """Measure what became of the space of `prompts` between two ways to embed them.

    Everything is measured on `prompts`, which should be safe; `unsafe` ones serve only for the separation and the map.
    The embedders map B texts to (B, D) on one device and are called with the same blocks of texts. All else is computed
    on that device, or on the CPU if it is an Apple GPU. `hashes` name the base and the aligned encoder in the report.
    `groups` name sets of prompts by their places, such as those of one type of question; spread and neighbours are then
    also measured within each, see `categories`.

    Raises:
        PromptError: there are no more than k prompts, all of them embed alike, or an embedding has no direction.
    """
    count = len(prompts)
    if count <= settings.k:
        raise PromptError(f"k = {settings.k} needs more than {settings.k} prompts; found {count}. Add some or lower k.")
    texts = [*prompts, *unsafe]

    def stay() -> None:
        # The measures can take longer than the embeddings did; a wish to stop must be heard between them.
        if on_batch:
            on_batch(2 * len(texts), 2 * len(texts))

    spaces = _measure_spaces(
        _blocks(embed_base, texts, 0, on_batch), _blocks(embed_aligned, texts, len(texts), on_batch), len(texts), count
    )
    stay()
    report = _report(spaces, tuple(prompts), tuple(unsafe), settings, hashes, stay)
    if not groups:
        return report
    found = measure_categories(
        spaces.before, spaces.after, groups, resamples=settings.resamples, seed=settings.seed, stay=stay
    )
    return replace(report, categories=found)


@dataclass(frozen=True, eq=False)
class _Spaces:
    """What is kept of the embeddings; `before` and `after` are the (N, N) distances of the safe prompts."""

    base: Space
    aligned: Space
    before: Tensor
    after: Tensor
    displacement: Tensor
    sample: Tensor


_Blocks = Iterator[tuple[slice, Tensor]]


def _measure_spaces(base_blocks: _Blocks, aligned_blocks: _Blocks, total: int, count: int) -> _Spaces:
    """Measure both spaces of `total` prompts, of which the first `count` are safe."""
    embeddings = _gather(base_blocks, total)
    before = distances(embeddings)
    components = spectrum(before[:count, :count])
    plane = _Plane(*principal_directions(embeddings[:count], components.coordinates[:, :2]))
    sample = _sample(components.coordinates[:, 0])
    base = _space(before, count, positive_spread(embeddings[:count]), components, plane.places(embeddings), sample)

    # From here on the matrix holds the aligned embeddings: many machines could not hold two such matrices.
    displacement = _replace(embeddings, aligned_blocks)[:count]
    after = distances(embeddings)
    components = spectrum(after[:count, :count])
    aligned = _space(after, count, spread(embeddings[:count]), components, plane.places(embeddings), sample)
    return _Spaces(base, aligned, before[:count, :count], after[:count, :count], displacement, sample)


def _report(
    spaces: _Spaces,
    prompts: tuple[str, ...],
    unsafe: tuple[str, ...],
    settings: GeometrySettings,
    hashes: tuple[str, str],
    stay: Callable[[], None],
) -> GeometryReport:
    """Every figure of the report; `stay` is called between the slow ones and may raise."""
    before, after = spaces.before, spaces.after
    ks = sorted(k for k in {settings.k, *settings.more_k} if k < len(prompts))
    # More neighbours than are measured: they take the places of those that the intervals leave out.
    old, new = (nearest(matrix, min(reach(max(ks)), len(prompts) - 1)) for matrix in (before, after))
    weights = draws(len(prompts), settings.resamples, settings.seed).to(before.device)
    stay()
    ratios = spread_forms(after, weights) / spread_forms(before, weights)
    spread_ratio = interval(spaces.aligned.spread / spaces.base.spread, ratios)
    stay()
    jaccard = {k: overlap_estimate(old, new, k, settings.seed) for k in ks}
    stay()
    local = correlation_estimate(before, after, old, settings.k)
    stay()
    return GeometryReport(
        embedding=settings.embedding,
        k=settings.k,
        prompts=prompts,
        unsafe=unsafe,
        base_hash=hashes[0],
        aligned_hash=hashes[1],
        base=spaces.base,
        aligned=spaces.aligned,
        spread_ratio=spread_ratio,
        jaccard=jaccard,
        local_correlation=local,
        rank_correlation=rank_correlation(before, after),
        mean_displacement=mean_interval(spaces.displacement, weights),
        displacement=spaces.displacement.cpu(),
        overlap=neighbour_overlap(old[:, : settings.k], new[:, : settings.k]).cpu(),
        neighbours_base=_neighbours(before, old[:, : settings.k]),
        neighbours_aligned=_neighbours(after, new[:, : settings.k]),
        sample=tuple(spaces.sample.tolist()),
    )


def _blocks(
    embedder: Embedder, texts: Sequence[str], done: int, on_batch: Callable[[int, int], None] | None
) -> _Blocks:
    """Rows and embeddings of one block of texts after the other; `done` texts were embedded before."""
    for start in range(0, len(texts), BLOCK):
        rows = slice(start, min(start + BLOCK, len(texts)))
        yield rows, measurable(embedder(texts[rows]))
        if on_batch:
            on_batch(done + rows.stop, 2 * len(texts))


def _gather(blocks: _Blocks, count: int) -> Tensor:
    """One (N, D) matrix from blocks of its rows; each block is freed before the next is made."""
    rows, first = next(blocks)
    matrix = first.new_empty(count, first.shape[1])
    matrix[rows] = first
    for rows, block in blocks:
        matrix[rows] = block
    return matrix


def _replace(embeddings: Tensor, blocks: _Blocks) -> Tensor:
    """Put new rows in place of the old ones; returns the cosine distance of each new row to its old one, (N,)."""
    distances = torch.empty(len(embeddings), dtype=torch.float64, device=embeddings.device)
    for rows, block in blocks:
        if block.shape[1] != embeddings.shape[1]:
            raise PromptError(
                f"The encoders give {embeddings.shape[1]} and {block.shape[1]} values a prompt. "
                "Compare encoders of one width."
            )
        parts = (matrix.split(CHUNK) for matrix in (embeddings[rows], block, distances[rows]))
        for old, new, distance in zip(*parts, strict=True):
            # Half the squared chord equals 1 - cosine without its cancellation for prompts that hardly moved.
            chord = normalize(new.float(), dim=1).sub_(normalize(old.float(), dim=1))
            distance.copy_(torch.linalg.vector_norm(chord, dim=1).double().square() / 2)
            old.copy_(new)
    return distances


def _space(distance: Tensor, count: int, spread: float, components: Spectrum, plane: Tensor, sample: Tensor) -> Space:
    return Space(
        spread=spread,
        spectrum=components,
        separation=separation(distance, count) if len(distance) > count else None,
        plane=plane,
        sample_similarity=1 - distance[sample][:, sample].cpu(),
    )


@dataclass(frozen=True, eq=False)
class _Plane:
    mean: Tensor
    directions: Tensor

    def places(self, embeddings: Tensor) -> Tensor:
        """Places (N, 2) of the L2-normalised rows in the plane, on the CPU."""
        places = torch.cat([rows.sub_(self.mean) @ self.directions for rows in unit_rows(embeddings)]).cpu()
        # Two prompts differ along one direction only.
        return pad(places, (0, 2 - places.shape[1]))


def _sample(coordinate: Tensor) -> Tensor:
    """Prompts for the heat maps, evenly spaced along the first component, so that similar ones are neighbours."""
    order = coordinate.argsort()
    places = torch.linspace(0, len(order) - 1, min(_SAMPLE, len(order)), device=order.device).round().long()
    return order[places]


def _neighbours(distance: Tensor, indices: Tensor) -> Neighbours:
    # In float64 the cosines of a nearly collapsed space keep what tells them from 1.
    return Neighbours(indices.cpu(), 1 - distance.gather(1, indices).cpu().double())
