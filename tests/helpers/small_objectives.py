"""An objective small enough to compute by hand, and what stops its run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sage_core.runs.loop import Objective
from sage_core.runs.record import GeometryPoint, StepReport


class Stop(BaseException):
    """What a host application may raise to cancel: not an Exception."""


class Bowl(Objective):
    """Minimise Σ(w − step)², whose gradient is 2(w − step): depends on the step, so that a wrong one shows."""

    losses = ("total",)
    device = torch.device("cpu")

    def __init__(self, fails: Callable[[int, int], BaseException | None] = lambda step, size: None) -> None:
        self.weight = torch.nn.Parameter(torch.full((3,), 5.0, dtype=torch.float64))
        self.optimizer = torch.optim.AdamW([self.weight], lr=1.0, weight_decay=0.0)
        self.size, self.fails, self.updates = 8, fails, 0

    def gradients(self, step: int) -> Tensor:
        if (error := self.fails(step, self.size)) is not None:
            raise error
        loss = (self.weight - step).square().sum()
        loss.backward()
        return loss.detach()[None]

    def after_update(self, step: int) -> None:
        self.updates += 1

    def measure(self, step: int) -> GeometryPoint | None:
        return GeometryPoint(1.0, 1.0, 1, 1, False) if step % 4 == 0 else None

    def state(self) -> dict[str, Tensor]:
        return {"weight": self.weight.detach()}

    def shrink(self) -> None:
        if self.size == 1:
            super().shrink()
        self.size //= 2


def stop_at(step: int) -> Callable[[StepReport], None]:
    def on_step(report: StepReport) -> None:
        if report.step == step:
            raise Stop

    return on_step
