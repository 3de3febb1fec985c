"""The alignment as the training loop sees it: which pairs a step takes, and the gradient of their loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..encoders.layouts import TOKEN_TABLE
from ..encoders.precision import arithmetic, choose_precision
from ..encoders.text_encoder import Pooling, TextEncoder, pool
from ..errors import TrainingError
from ..geometry import DEFAULT_NEIGHBOURS
from ..geometry.measures import jaccard_overlap, spread_ratio
from ..runs.loop import Diverged, Objective
from ..runs.record import Check, GeometryPoint, StepReport
from .losses import LOSS_PARTS, BaseBatch, alignment_loss
from .memory import chunked_backward
from .preparation import Prepared, pooling_of
from .schedule import batch_sizes, epoch_order, learning_rate, total_steps
from .settings import TrainingSettings

_MEASUREMENTS = 10
# A color leaves watched prompts in fifteen steps, and may still be drawn for other prompts then: purple in 4 of 72
# pictures after twenty steps, in 1 after forty.
_LEAST_STEPS = 40


class AlignmentObjective(Objective):
    """The alignment loss of a prepared run; a step depends on the seed, its number and the newest look."""

    losses = LOSS_PARTS
    least = _LEAST_STEPS

    def __init__(
        self, prepared: Prepared, settings: TrainingSettings, device: torch.device, chunk_size: int | None = None
    ) -> None:
        """Train `prepared.encoder`, in chunks of `chunk_size` prompts, or in whole batches if it is None."""
        self.prepared, self.settings, self.device = prepared, settings, device
        self.precision = choose_precision(settings.precision, device)
        self.advice = f"Lower learning_rate ({settings.learning_rate:g}), or use precision fp32 ({self.precision} now)."
        self.sizes = batch_sizes(len(prepared), settings)
        self.steps = total_steps(len(prepared), settings)
        # Both sides of a batch's pairs, and the concepts.
        self._most = 2 * max(self.sizes) + len(prepared.concept_ids)
        self.chunk_size = chunk_size or self._most
        self.encoder: TextEncoder = prepared.encoder
        self.encoder.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            self.encoder.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self._epoch_rows: tuple[int, Tensor] = (-1, torch.empty(0))
        # The pairs of the present round, those that were left at the newest look.
        self._again: Sequence[int] = ()

    def rate(self, step: int, used: float) -> float:
        """Learning rate of a step, by the settings' schedule."""
        return learning_rate(step, self.steps, self.settings)

    def state(self) -> dict[str, Tensor]:
        """See Objective: the encoder's weights by canonical names."""
        return self.encoder.state()

    def gradients(self, step: int) -> Tensor:
        """See Objective."""
        p, rows = self.prepared, self._batch_rows(step)
        size = rows.shape[1]
        safe, unsafe, _, concept_of = self._to_device(rows)
        base = BaseBatch(
            safe=self._base_embeddings(rows[0]),
            target=self._base_embeddings(rows[2]),
            direction=p.directions,
            empty=p.led_to,
            norm=p.norm,
            concept_norm=p.concept_norms,
            concept_of=concept_of if len(p.directions) > 1 else None,
            unshifted=None if p.unshifted is None else p.unshifted[concept_of],
            weight=None if p.weight is None else p.weight[concept_of],
        )
        ids = torch.cat([p.safe_ids[safe], p.unsafe_ids[unsafe], p.concept_ids])

        def losses_of(z: Tensor) -> dict[str, Tensor]:
            with arithmetic("fp32", self.device):
                safe, unsafe, concept = z.split([size, size, len(p.concept_ids)])
                return alignment_loss(safe, unsafe, concept, base, self.settings)

        losses = chunked_backward(self._embed, ids, losses_of, self.chunk_size)
        return torch.stack([losses[name].detach() for name in LOSS_PARTS])

    def shrink(self) -> None:
        """See Objective: half as many prompts at once."""
        if self.chunk_size == 1:
            raise TrainingError(
                f"Out of memory on {self.device} even with chunk_size 1 at batch_size {self.settings.batch_size}. "
                "Free memory on the device, or train on the CPU."
            )
        self.chunk_size = max(1, min(self.chunk_size, self._most) // 2)

    def measure(self, step: int) -> GeometryPoint | None:
        """See Objective: the geometry of the measured prompts, at about ten steps of a run and at its last."""
        if step % max(1, self.steps // _MEASUREMENTS) and step != self.steps:
            return None
        p = self.prepared
        with torch.no_grad():
            aligned = self._flattened(p.measured_ids)
        if not torch.isfinite(aligned).all():
            raise self._diverged(step)
        k = min(DEFAULT_NEIGHBOURS, len(aligned) - 1)
        return GeometryPoint(
            spread_ratio=spread_ratio(p.measured_base, aligned),
            jaccard=jaccard_overlap(p.measured_base, aligned, k),
            k=k,
            prompts=len(aligned),
            held_out=p.held_out,
        )

    def check(self, step: int) -> Check | None:
        """See Objective: what the watched prompts say, every few steps and at the limit."""
        watch = self.prepared.watch
        if watch is None or (step % watch.every and step != self.steps):
            return None
        with torch.no_grad():
            check = watch.look(self._flattened)
        if check is None:
            raise self._diverged(step)
        self._again = check.again
        return check

    def resume(self, history: Sequence[StepReport]) -> None:
        """See Objective: the round that the newest look began goes on."""
        self._again = next((report.check.again for report in reversed(history) if report.check), ())
        watch = self.prepared.watch
        if max(self._again, default=-1) >= (0 if watch is None else len(watch.rounds)):
            raise ValueError(f"a check names pairs that the rounds have not: {list(self._again)}")

    def full_state(self, base: Mapping[str, Tensor], steps: int) -> dict[str, Tensor]:
        """The trained encoder after `steps` steps with its whole token table, fp32 on the CPU.

        A token that occurs in no prompt has no gradient, so that AdamW would only decay it. Such rows are not trained;
        they are decayed here by the product of what the steps would have done.
        """
        state = {name: value.to("cpu", torch.float32) for name, value in self.encoder.state().items()}
        decay = 1.0
        for step in range(steps):
            decay *= 1 - learning_rate(step, self.steps, self.settings) * self.settings.weight_decay
        table = base[TOKEN_TABLE].to("cpu", torch.float32) * decay
        table[self.prepared.vocabulary] = state[TOKEN_TABLE]
        return state | {TOKEN_TABLE: table}

    def _batch_rows(self, step: int) -> Tensor:
        """`Prepared.rows` of a step's batch, (4, B), on the CPU; those of a round take the place of some."""
        epoch, position = divmod(step, len(self.sizes))
        if self._epoch_rows[0] != epoch:
            order = epoch_order(len(self.prepared), epoch, self.settings.seed)
            self._epoch_rows = (epoch, self.prepared.rows[:, order])
        start = sum(self.sizes[:position])
        rows = self._epoch_rows[1][:, start : start + self.sizes[position]]
        if self.prepared.watch is None or not self._again:
            return rows
        of_round = self.prepared.watch.rounds.pairs_of(self._again, step, rows.shape[1])
        return torch.cat([of_round, rows[:, of_round.shape[1] :]], 1)

    def _to_device(self, tensor: Tensor) -> Tensor:
        """Copy a CPU tensor to the device without waiting for it."""
        if self.device.type == "cuda":
            tensor = torch.empty_like(tensor, pin_memory=True).copy_(tensor)
        return tensor.to(self.device, non_blocking=True)

    def _base_embeddings(self, rows: Tensor) -> Tensor:
        """φ_0 of the safe prompts `rows`, (B, D), fp32 on the device; if kept on the host, only these leave it."""
        stored = self.prepared.base_safe
        picked = self._to_device(stored[rows]) if stored.is_cpu else stored[self._to_device(rows)]
        return picked.float()

    def _diverged(self, step: int) -> Diverged:
        return Diverged(f"An embedding is not finite after step {step}. {self.advice}")

    def _flattened(self, ids: Tensor) -> Tensor:
        """Flattened embeddings in parts that a step has memory for."""
        return torch.cat([self._embed(part, "flattened") for part in ids.split(min(self.chunk_size, 128))])

    def _embed(self, ids: Tensor, pooling: Pooling | None = None) -> Tensor:
        with arithmetic(self.precision, self.device):
            states = self.encoder(ids).float()
        return pool(states, ids, pooling or pooling_of(self.settings), len(self.prepared.vocabulary) - 1)
