"""The loop that all networks of the shapes world are trained with: by the clock, averaged, and resumable."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ...files import whole_file

logger = logging.getLogger(__name__)

SAVE_EVERY_SECONDS = 150.0
REPORT_EVERY_SECONDS = 10.0


@dataclass(frozen=True)
class Budget:
    """How long a phase runs: for `seconds` of wall clock, or for exactly `steps`, whichever ends first.

    The learning rate falls with the share of the budget that is used, so a slow machine ends a run just as well
    annealed as a fast one. Only a budget in steps makes a run repeatable to the bit.
    """

    seconds: float = float("inf")
    steps: float = float("inf")

    def used(self, seconds: float, steps: int) -> float:
        return max(seconds / self.seconds, steps / self.steps)


@dataclass(frozen=True)
class Optimisation:
    """AdamW with linear warm-up, a constant rate, and a linear fall to 2% over the last `anneal` of the budget."""

    learning_rate: float
    warmup: int = 200
    anneal: float = 0.5
    weight_decay: float = 0.01
    average: float = 0.999


def fit(
    network: nn.Module,
    loss_at: Callable[[int], Tensor],
    *,
    name: str,
    budget: Budget,
    optimisation: Optimisation,
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
    run = _Run(network, optimisation, checkpoint)
    # The seconds of an earlier command are not this one's: counted against its budget they would end the phase at once.
    budget = replace(budget, seconds=budget.seconds + run.seconds)
    start = time.monotonic() - run.seconds
    reported = saved = time.monotonic()
    loss = torch.zeros(())
    try:
        while (used := budget.used(time.monotonic() - start, run.step)) < 1:
            loss = run.advance(loss_at, used)
            now = time.monotonic()
            if now - reported > REPORT_EVERY_SECONDS or run.step == 1:
                logger.info("%s: step %d, loss %.4f, %.0f s (%.0f%%)", name, run.step, loss, now - start, 100 * used)
                reported = now
            if now - saved > SAVE_EVERY_SECONDS:
                run.save(now - start)
                saved = now
            if on_step is not None:
                on_step(name, run.step)
    except BaseException:
        run.save(time.monotonic() - start)
        raise
    run.apply_average()
    last = float(loss)
    logger.info("%s: done, %d steps, loss %.4f, %.0f s", name, run.step, last, time.monotonic() - start)
    return run.step, last


class _Run:
    """Everything that a step changes."""

    def __init__(self, network: nn.Module, optimisation: Optimisation, checkpoint: Path) -> None:
        self.optimisation = optimisation
        self.checkpoint = checkpoint
        self.parameters: list[Tensor] = [p for p in network.parameters() if p.requires_grad]
        self.averages = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(
            _groups(network, optimisation.weight_decay),
            lr=optimisation.learning_rate,
            betas=(0.9, 0.99),
            fused=self.parameters[0].is_cuda,
        )
        self.step, self.seconds = 0, 0.0
        if checkpoint.exists():
            self._resume()

    def advance(self, loss_at: Callable[[int], Tensor], used: float) -> Tensor:
        settings = self.optimisation
        rate = min(1.0, (self.step + 1) / settings.warmup) * min(1.0, max(0.02, (1 - used) / settings.anneal))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate
        loss = loss_at(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        # A fixed decay would remember the random start of a short run.
        decay = min(settings.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)
        self.step += 1
        return loss.detach()

    def apply_average(self) -> None:
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.averages)

    def save(self, seconds: float) -> None:
        state = {
            "step": self.step,
            "seconds": seconds,
            "parameters": [p.detach() for p in self.parameters],
            "averages": self.averages,
            "optimizer": self.optimizer.state_dict(),
        }
        with whole_file(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.parameters[0].device, weights_only=True)
        self.step, self.seconds = state["step"], state["seconds"]
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, state["parameters"])
            torch._foreach_copy_(self.averages, state["averages"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Sequence[nn.Parameter] | float]]:
    """Decay for matrices only, and none for embedding tables, whose unused rows must stay what they are."""
    tables = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    trained = [p for p in network.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1 and id(p) not in tables]
    kept = [p for p in trained if p.ndim <= 1 or id(p) in tables]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
