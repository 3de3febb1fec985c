"""Everything of an alignment run that is computed once: tokens, base embeddings, targets, held-out prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..encoders.fast_encoder import FastEncoder
from ..encoders.layouts import TOKEN_TABLE
from ..encoders.text_encoder import Pooling, TextEncoder, embed
from ..encoders.tokens import tokenize
from ..errors import TrainingError
from ..prompts.concepts import ConceptList
from ..prompts.pairs import PromptPairs
from .concepts import Pair, RunConcepts
from .rounds import joined
from .schedule import batch_sizes, least_batch
from .settings import Target, TrainingSettings
from .targets import match_blocks, row_norms
from .watch import Watch, WatchedTexts, named_shortly, some_of

# Geometry on fewer prompts than this says little: with k = 10 neighbours, everything is a neighbour of everything.
LEAST_HELD_OUT = 32
# Prompts embedded and compared at once: half a GiB in fp32 at width 768.
_BLOCK = 2048
# Targets that are found among all safe prompts.
_MATCHED: tuple[Target, ...] = ("farthest", "nearest")
# Pairs of a concept that say how far apart its two sides are, and how near these are taken to be at the nearest.
_FOR_WEIGHT, _LEAST_APART = 256, 1e-3


@dataclass(frozen=True)
class Prepared:
    """The fixed side of a run. N pairs, M safe prompts, C concepts, D = 77 × width, or width if φ is pooled.

    Attributes:
        encoder: the base, ready to be trained, with the rows of its token table that the run uses.
        vocabulary: those rows' numbers in the full table, ascending; the last is the end-of-text token's.
        safe_ids, unsafe_ids, concept_ids: tokens of the distinct prompts, as places in `vocabulary`, on the device.
            After the safe ones come the concepts' own targets and the safe sides of the rounds' pairs, after the unsafe
            ones the unsafe sides of these.
        rows: each pair's row in `safe_ids`, row in `unsafe_ids`, target's row in `base_safe`, and concept, (4, N), CPU.
        base_safe: φ_0 of `safe_ids`, (M, D); on the host when the device is short of memory.
        directions: u of each concept, (C, D). led_to: φ_0 of what each is led to, (C, D).
        norm: mean norm of φ_0 of the safe prompts. concept_norms: norm of φ_0 of each concept.
        measured_ids, measured_base: the prompts that the geometry is measured on, and their base embeddings, all 77
            states flattened, whatever φ is.
        held_out: whether those were kept out of training.
        unshifted: whether the targets of each concept stay where they are, (C,) bool; None if none do.
        weight: what the way of each concept's unsafe prompts counts, (C,); None for 1.
        watch: what a run looks at that ends when the concept is removed; None for one of a fixed length.
    """

    encoder: FastEncoder
    vocabulary: Tensor
    safe_ids: Tensor
    unsafe_ids: Tensor
    concept_ids: Tensor
    rows: Tensor
    base_safe: Tensor
    directions: Tensor
    led_to: Tensor
    norm: float
    concept_norms: tuple[float, ...]
    measured_ids: Tensor
    measured_base: Tensor
    held_out: bool
    unshifted: Tensor | None = None
    weight: Tensor | None = None
    watch: Watch | None = None

    def __len__(self) -> int:
        return self.rows.shape[1]


def prepare(
    base: Mapping[str, Tensor],
    pairs: PromptPairs,
    concept: str | ConceptList,
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
        concept: what is removed; with several concepts `pairs` says which each pair is for.
        on_host: keep the base embeddings in host memory instead of on `device`.
        memory_budget: bytes for the activations of one batch of prompts, see `embed`.
        on_batch: called with (prompts embedded, prompts in all); what it raises stops the work.

    Raises:
        TrainingError: an empty concept, fewer pairs than a batch of the settings' neighbours needs, or pairs that are
            for other concepts.
    """
    given = RunConcepts.of(concept, pairs)
    run_concepts = given.fitted(settings.target)
    training, measured, kept_out = _split(run_concepts.tagged(pairs), settings)
    watched, further, paired = None, list[Pair](), run_concepts.paired(settings.target)
    if settings.until == "removed":
        watched = WatchedTexts.of(training, kept_out, run_concepts, settings.seed, paired=paired)
        in_turns = some_of(training, len(training), settings.seed)
        known = {unsafe for _, unsafe, _ in training} | {text for text, _ in named_shortly(run_concepts)}
        further = joined([[pair for pair in in_turns if pair[2] == place] for place in range(len(given))], known)
    tokens = _tokenise(training, further, measured, run_concepts, watched.parts if watched else [], device)
    encoder = FastEncoder.from_state(dict(base) | {TOKEN_TABLE: base[TOKEN_TABLE][tokens.vocabulary]}).to(device)
    assert isinstance(encoder, FastEncoder)
    embedded = _Embedder(encoder, settings, memory_budget, tokens.count(settings, paired), on_batch)
    *concept_base, empty = embedded(torch.cat([tokens.concept, tokens.empty]))
    told = torch.cat([tokens.safe, tokens.own, tokens.further_safe])
    base_safe = torch.empty(len(told), empty.numel(), dtype=embedded.stored, device="cpu" if on_host else device)
    for part, block in zip(base_safe.split(_BLOCK), told.split(_BLOCK), strict=True):
        part.copy_(embedded(block, embedded.stored))
    own = {text: base_safe[len(tokens.safe) + at] for at, text in enumerate(run_concepts.own_targets)}
    safe = base_safe[: len(tokens.safe)]
    measured_base = embedded(tokens.measured, pooling="flattened")
    rows = _rows(tokens, safe, embedded, settings, run_concepts)
    watch = None
    if watched:
        largest = max(batch_sizes(len(training), settings))
        ids = (*tokens.watched, tokens.further_safe, tokens.further_unsafe)
        watch = Watch.of(
            watched, ids, rows[:, len(training) :], lambda ids: embedded(ids, pooling="flattened"), largest
        )
    weight = None
    if settings.target == "fitting" and any(paired):
        weight = torch.tensor(_weights(tokens, safe, embedded, paired), device=device)
    # A paired prompt stays where it is only beside others that are moved.
    unshifted = [
        (text is not None and settings.target != "paired") or (led and weight is not None)
        for text, led in zip(given.targets, paired, strict=True)
    ]
    return Prepared(
        encoder=encoder,
        vocabulary=tokens.vocabulary,
        safe_ids=told,
        unsafe_ids=tokens.unsafe,
        concept_ids=tokens.concept,
        rows=rows[:, : len(training)],
        base_safe=base_safe,
        directions=torch.stack([each / each.norm() for each in concept_base]),
        led_to=torch.stack([empty if text is None else own[text].to(empty) for text in run_concepts.targets]),
        norm=float(torch.cat([row_norms(part) for part in safe.split(_BLOCK)]).mean()),
        concept_norms=tuple(float(each.norm()) for each in concept_base),
        measured_ids=tokens.measured,
        measured_base=measured_base,
        held_out=bool(kept_out),
        unshifted=torch.tensor(unshifted, device=device) if any(unshifted) else None,
        weight=weight,
        watch=watch,
    )


@dataclass(frozen=True)
class _Tokens:
    """Tokens of all distinct prompts as places in `vocabulary`, and each pair's rows among them, (N + P,) on the CPU.

    The last P pairs are those of `Rounds`: their unsafe sides are the last of `unsafe`, and their safe ones stand
    after the safe prompts and the concepts' own targets.
    """

    vocabulary: Tensor
    safe: Tensor
    unsafe: Tensor
    measured: Tensor
    concept: Tensor
    own: Tensor
    empty: Tensor
    further_safe: Tensor
    watched: tuple[Tensor, ...]
    safe_row: Tensor
    unsafe_row: Tensor
    concept_of: Tensor

    @property
    def further_unsafe(self) -> Tensor:
        """Tokens of the unsafe sides of the rounds' pairs, (P, 77)."""
        return self.unsafe[len(self.unsafe) - len(self.further_safe) :]

    def of_training(self, concept: int) -> Tensor:
        """The places of a concept's pairs that are trained on."""
        return (self.concept_of[: len(self.concept_of) - len(self.further_safe)] == concept).nonzero().flatten()

    def count(self, settings: TrainingSettings, paired: Sequence[bool]) -> int:
        """Prompts that are embedded: unsafe ones only to find their targets, or the way to these."""
        once = (self.safe, self.measured, self.concept, self.own, self.empty, *self.watched)
        found = sum(map(len, once)) + 3 * len(self.further_safe)
        if settings.target in _MATCHED:
            return found + len(self.unsafe)
        led = [place for place, is_led in enumerate(paired) if is_led and settings.target == "fitting"]
        return found + sum(min(_FOR_WEIGHT, len(self.of_training(place))) for place in led)


def _tokenise(
    training: list[Pair],
    further: list[Pair],
    measured: list[str],
    run_concepts: RunConcepts,
    watched: list[list[str]],
    device: torch.device,
) -> _Tokens:
    safe = {prompt: row for row, prompt in enumerate(dict.fromkeys(pair[0] for pair in training))}
    unsafe = {prompt: row for row, prompt in enumerate(dict.fromkeys(pair[1] for pair in training))}
    parts = [
        list(safe),
        [*unsafe, *(pair[1] for pair in further)],
        measured,
        list(run_concepts.directions),
        list(run_concepts.own_targets),
        [""],
        [pair[0] for pair in further],
        *watched,
    ]
    vocabulary, ids = _renumber(tokenize([text for part in parts for text in part]))
    rows = [(safe[s], unsafe[u], concept) for s, u, concept in training]
    after = len(safe) + len(run_concepts.own_targets), len(unsafe)
    rows += [(after[0] + at, after[1] + at, concept) for at, (_, _, concept) in enumerate(further)]
    first = ids.to(device).split([len(part) for part in parts])
    safe_row, unsafe_row, concept_of = torch.tensor(rows).unbind(1)
    safe_ids, unsafe_ids, measured_ids, concept_ids, own, empty, further_safe = first[:7]
    return _Tokens(
        vocabulary, safe_ids, unsafe_ids, measured_ids, concept_ids, own, empty, further_safe, first[7:], safe_row,
        unsafe_row, concept_of,
    )  # fmt: skip


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
            on_batch=(lambda at, _: heard(min(start + at, self._total), self._total)) if heard else None,
        )


def _rows(
    tokens: _Tokens, safe: Tensor, embedded: _Embedder, settings: TrainingSettings, run_concepts: RunConcepts
) -> Tensor:
    """`Prepared.rows`: each pair's safe and unsafe row, the row of its target, and its concept."""
    paired = run_concepts.paired(settings.target)
    target = tokens.safe_row
    if settings.target in _MATCHED:
        blocks = (embedded(block, embedded.stored) for block in tokens.unsafe.split(_BLOCK))
        target = match_blocks(blocks, safe, settings.target, _BLOCK)[tokens.unsafe_row]
    for concept, (text, led) in enumerate(zip(run_concepts.targets, paired, strict=True)):
        # A paired prompt says what stands in the concept's place, and all the rest as well.
        row = tokens.safe_row if led else None
        if text is not None and not led:
            row = torch.tensor(len(safe) + run_concepts.own_targets.index(text))
        if row is not None:
            target = torch.where(tokens.concept_of == concept, row, target)
    return torch.stack([tokens.safe_row, tokens.unsafe_row, target, tokens.concept_of])


def _weights(tokens: _Tokens, safe: Tensor, embedded: _Embedder, paired: Sequence[bool]) -> list[float]:
    """Of each concept that is led 1 over the mean distance, 1 − cos, of its unsafe prompts from their safe sides."""
    found = [1.0] * len(paired)
    for concept in (place for place, led in enumerate(paired) if led):
        some = tokens.of_training(concept)[:_FOR_WEIGHT]
        unsafe = embedded(tokens.unsafe[tokens.unsafe_row[some].to(tokens.unsafe.device)])
        sides = safe[tokens.safe_row[some].to(safe.device)].to(unsafe)
        apart = 1 - torch.cosine_similarity(unsafe, sides, dim=1).mean()
        found[concept] = 1 / max(float(apart), _LEAST_APART)
    return found


def _renumber(ids: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct tokens, ascending, and `ids` as places among them. A table: sorting a million ids is slower."""
    used = torch.zeros(int(ids.max()) + 1, dtype=torch.int64).index_fill_(0, ids.flatten(), 1)
    return used.nonzero().flatten(), (used.cumsum(0) - 1)[ids]


def _split(together: list[Pair], settings: TrainingSettings) -> tuple[list[Pair], list[str], list[Pair]]:
    """Pairs to train on, safe prompts to measure on, and the pairs that were held out with these, if any were."""
    distinct = list(dict.fromkeys(safe for safe, _, _ in together))
    order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(settings.seed)).tolist()
    count = min(settings.held_out, len(distinct) // 10)
    if count < LEAST_HELD_OUT:
        measured = [distinct[i] for i in order[: max(settings.held_out, LEAST_HELD_OUT)]]
        return _enough(together, settings), measured, []
    measured = [distinct[i] for i in order[:count]]
    chosen = set(measured)
    kept_out = [p for p in together if p[0] in chosen]
    return _enough([p for p in together if p[0] not in chosen], settings), measured, kept_out


def _enough(training: list[Pair], settings: TrainingSettings) -> list[Pair]:
    least = least_batch(settings)
    if len(training) < least:
        raise TrainingError(
            f"{len(training)} prompt pairs to train on, but local structure alignment with {settings.neighbours} "
            f"neighbours needs at least {least} in every batch. Add pairs, lower neighbours, or set local_weight to 0."
            if settings.local_weight > 0
            else f"{len(training)} prompt pairs to train on; at least {least} are needed. Add pairs."
        )
    return training
