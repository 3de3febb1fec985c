"""Everything of an alignment run that is computed once: tokens, base embeddings, targets, held-out prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..encoders.fast_encoder import FastEncoder
from ..encoders.layouts import TOKEN_TABLE
from ..encoders.text_encoder import TextEncoder, embed
from ..encoders.tokens import tokenize
from ..errors import TrainingError
from ..prompts.pairs import PromptPairs
from .schedule import least_batch
from .settings import TrainingSettings
from .targets import match_blocks, row_norms

# Geometry on fewer prompts than this says little: with k = 10 neighbours, everything is a neighbour of everything.
_LEAST_HELD_OUT = 32
# Prompts embedded and compared at once: half a GiB in fp32 at width 768.
_BLOCK = 2048


@dataclass(frozen=True)
class Prepared:
    """The fixed side of a run. N pairs, M distinct safe prompts, D = 77 × width.

    Attributes:
        encoder: the base, ready to be trained, with the rows of its token table that the run uses.
        vocabulary: those rows' numbers in the full table, ascending.
        safe_ids, unsafe_ids, concept_ids: tokens of the distinct prompts, as places in `vocabulary`, on the device.
        rows: each pair's row in `safe_ids`, row in `unsafe_ids` and target's row in `base_safe`, (3, N), CPU.
        base_safe: φ_0 of the distinct safe prompts, (M, D); on the host when the device is short of memory.
        direction: u, (D,). empty: φ_0 of the empty prompt, (D,).
        norm: mean norm of `base_safe`.
        measured_ids, measured_base: the prompts that the geometry is measured on, and their φ_0.
        held_out: whether those were kept out of training.
    """

    encoder: TextEncoder
    vocabulary: Tensor
    safe_ids: Tensor
    unsafe_ids: Tensor
    concept_ids: Tensor
    rows: Tensor
    base_safe: Tensor
    direction: Tensor
    empty: Tensor
    norm: float
    measured_ids: Tensor
    measured_base: Tensor
    held_out: bool

    def __len__(self) -> int:
        return self.rows.shape[1]


def prepare(
    base: Mapping[str, Tensor],
    pairs: PromptPairs,
    concept: str,
    settings: TrainingSettings,
    device: torch.device,
    *,
    on_host: bool = False,
    memory_budget: int | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Tokenise, embed with the base and choose targets; see `Prepared`.

    Args:
        base: canonical state of the base encoder.
        on_host: keep the base embeddings in host memory instead of on `device`.
        memory_budget: bytes for the activations of one batch of prompts, see `embed`.
        on_batch: called with (prompts embedded, prompts in all); what it raises stops the work.

    Raises:
        TrainingError: an empty concept, or fewer pairs than a batch of the settings' neighbours needs.
    """
    if not concept.strip():
        raise TrainingError('The concept is empty: name what is to be removed, for example "nudity".')
    training, measured, held_out = _split(pairs, settings)
    safe, unsafe = list(dict.fromkeys(s for s, _ in training)), list(dict.fromkeys(u for _, u in training))
    vocabulary, ids = _renumber(tokenize([*safe, *unsafe, *measured, concept, ""]))
    encoder = FastEncoder.from_state(dict(base) | {TOKEN_TABLE: base[TOKEN_TABLE][vocabulary]}).to(device)
    safe_ids, unsafe_ids, measured_ids, rest = ids.to(device).split([len(safe), len(unsafe), len(measured), 2])

    stored = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    total = len(ids)
    done = 0

    def embedded(block: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        nonlocal done
        start = done
        done += len(block)
        progress = (lambda at, _: on_batch(start + at, total)) if on_batch else None
        return embed(
            encoder,
            block,
            precision=settings.precision,
            memory_budget=memory_budget,
            out_dtype=dtype,
            on_batch=progress,
        )

    concept_base, empty = embedded(rest)
    base_safe = torch.empty(len(safe), concept_base.numel(), dtype=stored, device="cpu" if on_host else device)
    for part, block in zip(base_safe.split(_BLOCK), safe_ids.split(_BLOCK), strict=True):
        part.copy_(embedded(block, stored))
    measured_base = embedded(measured_ids)
    safe_at, unsafe_at = {p: i for i, p in enumerate(safe)}, {p: i for i, p in enumerate(unsafe)}
    safe_row = torch.tensor([safe_at[s] for s, _ in training])
    unsafe_row = torch.tensor([unsafe_at[u] for _, u in training])
    if settings.target == "paired":
        target_row = safe_row
    else:
        blocks = (embedded(block, stored) for block in unsafe_ids.split(_BLOCK))
        target_row = match_blocks(blocks, base_safe, settings.target, _BLOCK)[unsafe_row]
    return Prepared(
        encoder=encoder,
        vocabulary=vocabulary,
        safe_ids=safe_ids,
        unsafe_ids=unsafe_ids,
        concept_ids=rest[:1],
        rows=torch.stack([safe_row, unsafe_row, target_row]),
        base_safe=base_safe,
        direction=concept_base / concept_base.norm(),
        empty=empty,
        norm=float(torch.cat([row_norms(part) for part in base_safe.split(_BLOCK)]).mean()),
        measured_ids=measured_ids,
        measured_base=measured_base,
        held_out=held_out,
    )


def _renumber(ids: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct tokens, ascending, and `ids` as places among them. A table: sorting a million ids is slower."""
    used = torch.zeros(int(ids.max()) + 1, dtype=torch.int64).index_fill_(0, ids.flatten(), 1)
    return used.nonzero().flatten(), (used.cumsum(0) - 1)[ids]


def _split(pairs: PromptPairs, settings: TrainingSettings) -> tuple[list[tuple[str, str]], list[str], bool]:
    """Pairs to train on, safe prompts to measure on, and whether those were held out of the pairs."""
    together = list(zip(pairs.safe, pairs.unsafe, strict=True))
    distinct = list(dict.fromkeys(pairs.safe))
    order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(settings.seed)).tolist()
    count = min(settings.held_out, len(distinct) // 10)
    if count < _LEAST_HELD_OUT:
        measured = [distinct[i] for i in order[: max(settings.held_out, _LEAST_HELD_OUT)]]
        return _enough(together, settings), measured, False
    measured = [distinct[i] for i in order[:count]]
    kept_out = set(measured)
    return _enough([p for p in together if p[0] not in kept_out], settings), measured, True


def _enough(training: list[tuple[str, str]], settings: TrainingSettings) -> list[tuple[str, str]]:
    least = least_batch(settings)
    if len(training) < least:
        raise TrainingError(
            f"{len(training)} prompt pairs to train on, but local structure alignment with {settings.neighbours} "
            f"neighbours needs at least {least} in every batch. Add pairs, lower neighbours, or set local_weight to 0."
            if settings.local_weight > 0
            else f"{len(training)} prompt pairs to train on; at least {least} are needed. Add pairs."
        )
    return training
