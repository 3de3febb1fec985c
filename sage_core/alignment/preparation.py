"""Everything of an alignment run that is computed once: tokens, base embeddings, targets, held-out prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..encoders.fast_encoder import FastEncoder
from ..encoders.layouts import TOKEN_TABLE
from ..encoders.text_encoder import Pooling, TextEncoder, embed
from ..encoders.tokens import tokenize
from ..errors import TrainingError
from ..prompts.pairs import PromptPairs
from .schedule import least_batch
from .settings import TrainingSettings
from .targets import match_blocks, row_norms

# Geometry on fewer prompts than this says little: with k = 10 neighbours, everything is a neighbour of everything.
LEAST_HELD_OUT = 32
# Prompts embedded and compared at once: half a GiB in fp32 at width 768.
_BLOCK = 2048


@dataclass(frozen=True)
class Prepared:
    """The fixed side of a run. N pairs, M distinct safe prompts, D = 77 × width, or the width where φ is pooled.

    Attributes:
        encoder: the base, ready to be trained, with the rows of its token table that the run uses.
        vocabulary: those rows' numbers in the full table, ascending; the last is the end-of-text token's.
        safe_ids, unsafe_ids, concept_ids: tokens of the distinct prompts, as places in `vocabulary`, on the device.
        rows: each pair's row in `safe_ids`, row in `unsafe_ids` and target's row in `base_safe`, (3, N), CPU.
        base_safe: φ_0 of the distinct safe prompts, (M, D); on the host when the device is short of memory.
        direction: u, (D,). empty: φ_0 of the empty prompt, (D,).
        norm: mean norm of `base_safe`. concept_norm: norm of φ_0 of the concept.
        measured_ids, measured_base: the prompts that the geometry is measured on, and their base embeddings, all 77
            states flattened, whatever φ is.
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
    concept_norm: float
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
    if not concept.strip(" \t\n()[]"):
        raise TrainingError('The concept is empty: name what is to be removed, for example "nudity".')
    training, measured, held_out = _split(pairs, settings)
    tokens = _tokenise(training, measured, concept, device)
    encoder = FastEncoder.from_state(dict(base) | {TOKEN_TABLE: base[TOKEN_TABLE][tokens.vocabulary]}).to(device)
    embedded = _Embedder(encoder, settings, memory_budget, tokens.count, on_batch)
    concept_base, empty = embedded(torch.cat([tokens.concept, tokens.empty]))
    base_safe = torch.empty(
        len(tokens.safe), concept_base.numel(), dtype=embedded.stored, device="cpu" if on_host else device
    )
    for part, block in zip(base_safe.split(_BLOCK), tokens.safe.split(_BLOCK), strict=True):
        part.copy_(embedded(block, embedded.stored))
    measured_base = embedded(tokens.measured, pooling="flattened")
    return Prepared(
        encoder=encoder,
        vocabulary=tokens.vocabulary,
        safe_ids=tokens.safe,
        unsafe_ids=tokens.unsafe,
        concept_ids=tokens.concept,
        rows=_rows(tokens, base_safe, embedded, settings),
        base_safe=base_safe,
        direction=concept_base / concept_base.norm(),
        empty=empty,
        norm=float(torch.cat([row_norms(part) for part in base_safe.split(_BLOCK)]).mean()),
        concept_norm=float(concept_base.norm()),
        measured_ids=tokens.measured,
        measured_base=measured_base,
        held_out=held_out,
    )


@dataclass(frozen=True)
class _Tokens:
    """Tokens of all distinct prompts as places in `vocabulary`, and each pair's rows among them, (N,) on the CPU."""

    vocabulary: Tensor
    safe: Tensor
    unsafe: Tensor
    measured: Tensor
    concept: Tensor
    empty: Tensor
    safe_row: Tensor
    unsafe_row: Tensor

    @property
    def count(self) -> int:
        return len(self.safe) + len(self.unsafe) + len(self.measured) + 2


def _tokenise(training: list[tuple[str, str]], measured: list[str], concept: str, device: torch.device) -> _Tokens:
    safe, unsafe = (
        {prompt: row for row, prompt in enumerate(dict.fromkeys(side))} for side in zip(*training, strict=True)
    )
    vocabulary, ids = _renumber(tokenize([*safe, *unsafe, *measured, concept, ""]))
    safe_ids, unsafe_ids, *rest = ids.to(device).split([len(safe), len(unsafe), len(measured), 1, 1])
    rows = torch.tensor([[safe[s], unsafe[u]] for s, u in training])
    return _Tokens(vocabulary, safe_ids, unsafe_ids, rest[0], rest[1], rest[2], rows[:, 0], rows[:, 1])


def pooling_of(settings: TrainingSettings) -> Pooling:
    """Which embedding of a prompt the settings call φ."""
    return "eos" if settings.supervision == "pooled" else "flattened"


class _Embedder:
    """Embeds tokens with the base and counts the prompts that are done."""

    def __init__(
        self,
        encoder: TextEncoder,
        settings: TrainingSettings,
        memory_budget: int | None,
        total: int,
        on_batch: Callable[[int, int], None] | None,
    ) -> None:
        self.stored = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        self._encoder, self._settings, self._budget = encoder, settings, memory_budget
        self._done, self._total, self._on_batch = 0, total, on_batch

    def __call__(self, ids: Tensor, dtype: torch.dtype = torch.float32, pooling: Pooling | None = None) -> Tensor:
        start = self._done
        self._done += len(ids)
        heard = self._on_batch
        return embed(
            self._encoder,
            ids,
            precision=self._settings.precision,
            memory_budget=self._budget,
            pooling=pooling or pooling_of(self._settings),
            # Tokens are places in the run's vocabulary here.
            end_token=self._encoder.token_table.num_embeddings - 1,
            out_dtype=dtype,
            on_batch=(lambda at, _: heard(start + at, self._total)) if heard else None,
        )


def _rows(tokens: _Tokens, base_safe: Tensor, embedded: _Embedder, settings: TrainingSettings) -> Tensor:
    """`Prepared.rows`: each pair's safe and unsafe row, and the row of its target."""
    if settings.target == "paired":
        target = tokens.safe_row
    else:
        blocks = (embedded(block, embedded.stored) for block in tokens.unsafe.split(_BLOCK))
        target = match_blocks(blocks, base_safe, settings.target, _BLOCK)[tokens.unsafe_row]
    return torch.stack([tokens.safe_row, tokens.unsafe_row, target])


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
    if count < LEAST_HELD_OUT:
        measured = [distinct[i] for i in order[: max(settings.held_out, LEAST_HELD_OUT)]]
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
