"""How every network of the shapes world is trained: by the clock, with a moving average of its weights."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ...runs.loop import Budget, Loop, Objective
from ...runs.record import StepReport

__all__ = ["Budget", "Optimization", "fit"]

logger = logging.getLogger(__name__)

REPORT_EVERY_SECONDS = 10.0


@dataclass(frozen=True)
class Optimization:
    """AdamW with linear warm-up, a constant rate, and a linear fall to 2% over the last `anneal` of the budget.

    The rate falls with the share of the budget that is used, so a slow machine ends a run as well annealed as a fast
    one. `average` is the largest decay of the moving average of the weights.
    """

    learning_rate: float
    warmup: int = 200
    anneal: float = 0.5
    weight_decay: float = 0.01
    average: float = 0.999

    def rate(self, step: int, used: float) -> float:
        """Learning rate of a step, counted from 0, when the share `used` of the budget is gone."""
        share = min(1.0, (step + 1) / self.warmup) * min(1.0, max(0.02, (1 - used) / self.anneal))
        return self.learning_rate * share


def fit(
    network: nn.Module,
    loss_at: Callable[[int], Tensor],
    *,
    name: str,
    budget: Budget,
    optimization: Optimization,
    checkpoint: Path,
    on_step: Callable[[str, int], None] | None = None,
) -> tuple[int, float]:
    """Train `network` in place and leave the moving average of its weights in it; returns (steps, last loss).

    Args:
        network: its parameters that require a gradient are trained.
        loss_at: the loss of step i; must depend on i and the weights alone for a resumed run to equal a whole one.
        checkpoint: file of the run's state, written now and then and on a failure; resumed from when it exists.
        on_step: called with (name, step) after each step; what it raises ends the run, after saving.
    """
    objective = _NetworkObjective(network, loss_at, optimization)
    loop = Loop(objective, budget, optimization.rate, checkpoint=checkpoint, key=name)
    reported = time.monotonic()

    def heard(report: StepReport) -> None:
        nonlocal reported
        if time.monotonic() - reported > REPORT_EVERY_SECONDS or report.step == 1:
            logger.info("%s: step %d of %d, loss %.4f", name, report.step, report.steps, report.losses["total"])
            reported = time.monotonic()
        if on_step is not None:
            on_step(name, report.step)

    history = loop.run(heard)
    objective.apply_average()
    last = history[-1].losses["total"]
    logger.info("%s: done, %d steps, loss %.4f, %.0f s", name, loop.step, last, loop.seconds)
    return loop.step, last


class _NetworkObjective(Objective):
    """A network, one loss, and the moving average of the weights."""

    losses = ("total",)

    def __init__(self, network: nn.Module, loss_at: Callable[[int], Tensor], optimization: Optimization) -> None:
        self._network, self._loss_at = network, loss_at
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        self.device = self._parameters[0].device
        self.optimizer = torch.optim.AdamW(
            _groups(network, optimization.weight_decay),
            lr=optimization.learning_rate,
            betas=(0.9, 0.99),
            fused=self._parameters[0].is_cuda,
        )

        def average(averages: Sequence[Tensor], parameters: Sequence[Tensor], updates: int | Tensor) -> None:
            # A fixed decay would remember the random start of a short run.
            decay = min(optimization.average, float(updates) / (9 + float(updates)))
            get_ema_multi_avg_fn(decay)(averages, parameters, updates)

        self._average = AveragedModel(network, multi_avg_fn=average)
        # At 0 it would begin with the weights after the first step instead of those before it.
        self._average.n_averaged.fill_(1)

    def gradients(self, step: int) -> Tensor:
        """See Objective."""
        loss = self._loss_at(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        return loss.detach()[None]

    def after_update(self, step: int) -> None:
        """See Objective: the average takes the new weights in."""
        self._average.update_parameters(self._network)

    def state(self) -> dict[str, Tensor]:
        """See Objective: the weights and their averages."""
        trained = {name: p.detach() for name, p in self._network.named_parameters() if p.requires_grad}
        averages = {name: p.detach() for name, p in self._average.named_parameters() if p.requires_grad}
        return trained | averages | {"updates": self._average.n_averaged}

    def apply_average(self) -> None:
        """Put the averages in the weights' place."""
        with torch.no_grad():
            for parameter, average in zip(self._network.parameters(), self._average.parameters(), strict=True):
                parameter.copy_(average)


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Sequence[nn.Parameter] | float]]:
    """Decay for matrices only, and none for embedding tables, whose unused rows must stay what they are."""
    tables = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    trained = [p for p in network.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1 and id(p) not in tables]
    kept = [p for p in trained if p.ndim <= 1 or id(p) in tables]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
