"""The one training loop: steps, reports, checkpoints, exact resume, cancelling and memory, for any objective.

An objective hands over what it trains and the gradient of each step's loss; the loop does the rest:

    loop = Loop(objective, Budget(steps=100), rate=lambda step, used: 1e-4, checkpoint=path, key="of these inputs")
    loop.run(on_step=print)
"""

from __future__ import annotations

import math
import time
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..batches import is_out_of_memory
from ..errors import TrainingError
from ..files import whole_file
from .interrupts import uninterrupted
from .record import Check, GeometryPoint, StepReport

# A killed process loses no more than this, unless writing a checkpoint takes longer than a tenth of it.
CHECKPOINT_SECONDS = 30.0
_CHECKPOINT_SHARE = 10
# Checks in a row that have to hold before a run ends: one alone may be luck. What is watched is a sample: where it says
# for the first time that the end is reached, prompts of other kinds follow later. So a run goes on for as long again.
CHECKS_TO_END = 2

Result = TypeVar("Result")


class Diverged(TrainingError):
    """A loss or a weight is no longer finite; such a state is not written to a checkpoint."""


class Objective(ABC):
    """What a loop trains.

    Attributes:
        optimizer: steps the parameters in training.
        losses: names of the losses that `gradients` returns.
        device: where the parameters are.
        advice: what to do when a loss is no longer finite, a sentence.
        least: steps before which no check ends the run.
    """

    optimizer: torch.optim.Optimizer
    losses: Sequence[str]
    device: torch.device
    advice: str = "Lower the learning rate."
    least: int = 0

    @abstractmethod
    def gradients(self, step: int) -> Tensor:
        """Fill the gradients of step `step`, counted from 0, and return its losses, (len(losses),), detached.

        A resumed run equals an uninterrupted one only if this depends on nothing but the step, `state` and what
        `resume` takes up.
        """

    @abstractmethod
    def state(self) -> Mapping[str, Tensor]:
        """All tensors that a step changes, by name, except the optimizer's; they share memory with the objective."""

    def after_update(self, step: int) -> None:  # noqa: B027 (most objectives do without)
        """Do what belongs to an update, such as a moving average of the weights; `step` steps are now done."""

    def measure(self, step: int) -> GeometryPoint | None:
        """The geometry after `step` steps, or None where it is not due."""
        return None

    def check(self, step: int) -> Check | None:
        """Whether what the run is for is reached after `step` steps, or None where it is not looked at.

        The run ends when the newest CHECKS_TO_END of them hold, as long after the first that did as that took, and
        after `least` steps at the earliest. A resumed run equals an uninterrupted one only if this depends on nothing
        but the step and `state`, and says in the Check what else the next steps depend on.
        """
        return None

    def resume(self, history: Sequence[StepReport]) -> None:  # noqa: B027 (most objectives do without)
        """Take up what the reports of the steps that are done say of the next ones; weights are restored by then.

        Raises:
            ValueError: they are those of another objective.
        """

    def shrink(self) -> None:
        """Take less memory for a step, after it ran out.

        Raises:
            TrainingError: there is nothing left to save.
        """
        raise TrainingError(f"Out of memory on {self.device}. Free memory on the device, or train on the CPU.")


@dataclass(frozen=True)
class Budget:
    """How long a loop runs: for `seconds` of wall clock or for `steps` steps, whichever ends first.

    Only a budget in steps makes a run repeatable to the bit.
    """

    seconds: float = float("inf")
    steps: float = float("inf")

    def used(self, seconds: float, steps: int) -> float:
        """The share of the budget that is used; 1 or more at the end."""
        return max(seconds / self.seconds, steps / self.steps)


class Loop:
    """The moving side of a run: step, history and time, and how they are saved and restored."""

    def __init__(
        self,
        objective: Objective,
        budget: Budget,
        rate: Callable[[int, float], float],
        *,
        checkpoint: Path | None = None,
        key: str = "",
    ) -> None:
        """Go on from the checkpoint if there is one.

        Args:
            rate: gives the learning rate from the step, counted from 0, and the used share of the budget.
            checkpoint: file of the run's state, written on the way and when an exception stops the run. The caller
                deletes it once the result is saved.
            key: names the run's inputs; a checkpoint with another key is refused.

        Raises:
            TrainingError: the checkpoint is damaged, or belongs to another run.
        """
        self.objective, self.rate, self.checkpoint, self.key = objective, rate, checkpoint, key
        self.step = 0
        self.history: list[StepReport] = []
        # Steps whose losses may still be on their way to the CPU.
        self._pending: list[tuple[StepReport, Tensor, torch.cuda.Event | None]] = []
        self._checks: list[tuple[int, bool]] = []
        self._whole = True
        self._earlier_seconds = 0.0
        self._started = time.monotonic()
        if checkpoint is not None and checkpoint.exists():
            self._restore(checkpoint, budget.steps)
        # The budget is this command's: the seconds of earlier ones would use it up at once.
        self.budget = Budget(budget.seconds + self._earlier_seconds, budget.steps)

    @property
    def seconds(self) -> float:
        """Seconds of training until now, over all resumes."""
        return self._earlier_seconds + time.monotonic() - self._started

    @property
    def reached(self) -> bool:
        """Whether the newest checks hold, not before `least`, and the first did as far back as it took to get there."""
        held = [holds for _, holds in self._checks]
        if len(held) < CHECKS_TO_END or not all(held[-CHECKS_TO_END:]) or self._checks[-1][0] < self.objective.least:
            return False
        first = held.index(True)
        return len(held) - first >= first

    def run(self, on_step: Callable[[StepReport], None] | None = None) -> tuple[StepReport, ...]:
        """Run to the end of the budget, or until the objective's checks hold.

        Args:
            on_step: called with each step's report, one step after it happened, so that a GPU never waits for it.
                What it raises stops the run within a step and leaves a checkpoint.

        Returns:
            The reports of all steps, those before a resume among them.

        Raises:
            Diverged: a loss is not finite.
            TrainingError: memory does not suffice even for the smallest step.
        """
        saved, interval = time.monotonic(), CHECKPOINT_SECONDS
        try:
            self._make_up()
            while not self.reached and self.budget.used(self.seconds, self.step) < 1:
                self.take_step()
                self.report(on_step)
                if self.checkpoint is not None and time.monotonic() - saved > interval:
                    self.report(on_step, everything=True)
                    start = time.monotonic()
                    self.save()
                    saved = time.monotonic()
                    interval = max(CHECKPOINT_SECONDS, _CHECKPOINT_SHARE * (saved - start))
            self.report(on_step, everything=True)
        except BaseException as error:
            # The host application cancels by an exception of its own, which in some is a BaseException.
            if not isinstance(error, Diverged):
                self.save()
            raise
        return tuple(self.history)

    def take_step(self) -> None:
        """Update the weights once, and queue the losses for the next report."""
        used = self.budget.used(self.seconds, self.step)
        rate = self.rate(self.step, used)
        optimizer = self.objective.optimizer
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses = self.within_memory(lambda: self.objective.gradients(self.step))
        before, geometry, check = self.step, None, None
        try:
            with uninterrupted():
                self._whole = False
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                self.step += 1
                self.objective.after_update(self.step)
                self._whole = True
            geometry = self.within_memory(lambda: self.objective.measure(self.step))
            check = self.within_memory(lambda: self.objective.check(self.step))
        finally:
            # A signal that was held back is raised here at the latest; the step that it waited for is reported too.
            if self.step > before:
                self._queue(losses, rate, geometry, check)

    def within_memory(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns; if memory runs out, shrink the objective and start again."""
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the handler: the exception keeps the failed step's tensors alive.
            self.objective.optimizer.zero_grad(set_to_none=True)
            self.objective.shrink()
            if self.objective.device.type == "cuda":
                torch.cuda.empty_cache()

    def _make_up(self) -> None:
        """Measure and check after the newest step of a resumed run, if an exception kept that step from it."""
        newest = self.history[-1] if self.history else None
        if newest is not None and newest.geometry is None:
            newest = replace(newest, geometry=self.within_memory(lambda: self.objective.measure(self.step)))
        if newest is not None and newest.check is None:
            newest = replace(newest, check=self.within_memory(lambda: self.objective.check(self.step)))
            self._checks += [(self.step, newest.check.holds)] if newest.check is not None else []
        self.history[-1:] = [newest] if newest is not None else []

    def _queue(self, losses: Tensor, rate: float, geometry: GeometryPoint | None, check: Check | None) -> None:
        arrived = None
        if check is not None:
            self._checks.append((self.step, check.holds))
        if losses.is_cuda:
            # An asynchronous copy, read a step later: reading it now would leave the GPU idle until the next launch.
            on_gpu, losses = losses, torch.empty_like(losses, device="cpu", pin_memory=True)
            losses.copy_(on_gpu, non_blocking=True)
            arrived = torch.cuda.Event()
            # On the run's own card, which need not be the current one.
            arrived.record(torch.cuda.current_stream(on_gpu.device))
        report = StepReport(self.step, self._steps_in_all(), {}, rate, self.seconds, geometry, check)
        self._pending.append((report, losses, arrived))

    def _steps_in_all(self) -> int:
        """Steps of the whole run; an estimate if the budget is in seconds."""
        if self.budget.steps < float("inf"):
            return int(self.budget.steps)
        return max(self.step, round(self.step / self.budget.used(self.seconds, self.step)))

    def report(self, on_step: Callable[[StepReport], None] | None, *, everything: bool = False) -> None:
        """Move queued losses into the history and hand them on: all but the newest, or all if `everything`."""
        while len(self._pending) > (0 if everything else 1):
            report, losses, arrived = self._pending[0]
            if arrived is not None:
                arrived.synchronize()
            values = dict(zip(self.objective.losses, losses.tolist(), strict=True))
            if not torch.isfinite(losses).all():
                value = values.get("total", next(iter(values.values())))
                raise Diverged(f"The loss is {value} at step {report.step}. {self.objective.advice}")
            report = replace(report, losses=values, seconds=self.seconds)
            self.history.append(report)
            self._pending.pop(0)
            if on_step is not None:
                on_step(report)

    def save(self) -> None:
        """Write a checkpoint from which a new loop goes on exactly; write none if the weights are no longer finite.

        A run does so by itself, unless a caller's own work between two runs changes the objective's state.
        """
        if self.checkpoint is None or not self._whole:
            return
        try:
            self.report(None, everything=True)
        except Diverged:
            return
        state = self.objective.state()
        # The losses were taken before the newest update, which may have broken the weights.
        if not all(torch.isfinite(tensor).all() for tensor in state.values()):
            return
        content = {
            "key": self.key,
            "step": self.step,
            "seconds": self.seconds,
            "model": dict(state),
            "optimizer": self.objective.optimizer.state_dict(),
            "history": [asdict(report) for report in self.history],
        }
        with whole_file(self.checkpoint) as temporary:
            torch.save(content, temporary)

    def _restore(self, path: Path, most_steps: float) -> None:
        content = _read_checkpoint(path, self.objective.device)
        if content["key"] != self.key:
            raise TrainingError(
                f"{path} belongs to a run with another base, prompts, concept or settings. "
                "Delete it or name another checkpoint."
            )
        try:
            step, seconds = content["step"], content["seconds"]
            if type(step) is not int or not 0 <= step <= most_steps:
                raise ValueError(f"its step is {step!r}, expected 0 to {most_steps:g}")
            if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
                raise ValueError(f"its time is {seconds!r} seconds")
            history = [StepReport.from_dict(row) for row in content["history"]]
            _check_steps([report.step for report in history], step, content["may_lack_reports"])
            with torch.no_grad():
                for name, tensor in self.objective.state().items():
                    if (saved := content["model"][name]).shape != tensor.shape:
                        # copy_ would spread one row over all.
                        raise ValueError(f"{name} has shape {tuple(saved.shape)}, expected {tuple(tensor.shape)}")
                    tensor.copy_(saved)
            if not all(tensor.isfinite().all() for tensor in self.objective.state().values()):
                raise ValueError("a weight is not finite")
            _restore_optimizer(self.objective.optimizer, content["optimizer"])
            self.objective.resume(history)
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise TrainingError(_unreadable(path, str(error))) from error
        self.step, self.history = step, history
        self._checks = [(report.step, report.check.holds) for report in history if report.check is not None]
        self._earlier_seconds, self._started = float(seconds), time.monotonic()


def _check_steps(reported: Sequence[int], done: int, may_lack: bool) -> None:
    """Raise ValueError unless these are the steps 1 to `done` in order; less than half may be missing if `may_lack`."""
    if may_lack:
        whole = all(a < b for a, b in pairwise([0, *reported, done + 1])) and len(reported) >= (done + 1) // 2
    else:
        whole = len(reported) == done and all(step == place for place, step in enumerate(reported, 1))
    if not whole:
        raise ValueError(f"it reports {len(reported)} of {done} steps")


def _restore_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Load what the steps have changed; learning rate, betas and so on are those of the run's own settings.

    Raises:
        ValueError: the state is not that of these parameters, or not finite. TypeError, KeyError, AttributeError
            and RuntimeError: it does not have the form of an optimizer's state.
    """
    groups = optimizer.state_dict()["param_groups"]
    if [group["params"] for group in saved["param_groups"]] != [group["params"] for group in groups]:
        raise ValueError("its optimizer moves other parameters")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for place, moments in saved["state"].items():
        for name, value in moments.items():
            value = torch.as_tensor(value)
            if value.ndim and value.shape != parameters[place].shape:
                raise ValueError(f"{name} of parameter {place} has shape {tuple(value.shape)}")
            if not value.isfinite().all():
                raise ValueError(f"{name} of parameter {place} is not finite")
    optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})


def _read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            # PyTorch reads changed bytes without a word, and packs nothing.
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
            intact = stored and archive.testzip() is None
        if not intact:
            raise TrainingError(_unreadable(path))
        content = torch.load(path, map_location=device, weights_only=True)
        # Version 0.1 spelled it differently, and lost the report of a step that a signal interrupted.
        content["may_lack_reports"] = "optimiser" in content
        content["optimizer"] = content.pop("optimiser", None) or content["optimizer"]
        whole = {"key", "step", "seconds", "model", "history"} <= content.keys()
    except Exception:
        # A damaged pickle can raise anything. PyTorch's own message advises an unsafe read and is not passed on.
        whole = False
    if not whole:
        raise TrainingError(_unreadable(path))
    return content


def _unreadable(path: Path, reason: str = "") -> str:
    found = f" ({reason})" if reason else ""
    return f"{path} is not a readable checkpoint of a training{found}. Delete it to start anew."
