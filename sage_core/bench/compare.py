"""Our training against the published procedure, and against itself in other precisions and in chunks.

What each costs, and whether the results are the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..alignment.objective import AlignmentObjective
from ..alignment.preparation import prepare
from ..alignment.schedule import epoch_order, total_steps
from ..alignment.settings import TrainingSettings
from ..alignment.targets import choose_targets
from ..encoders.fast_encoder import FastEncoder
from ..encoders.precision import Precision, arithmetic
from ..encoders.text_encoder import TextEncoder
from ..prompts.pairs import PromptPairs
from ..runs.loop import Budget, Loop
from .naive import NaiveTraining, codebook, sorted_search
from .phases import Phases, Size, embed_stored
from .prompts import CONCEPT
from .watch import Clock

# Prompts compared at once in pairing.
_BLOCK = 2048


@dataclass(frozen=True)
class StepComparison:
    """A step of the published procedure and one of ours at the same precision, taken in turns.

    Attributes:
        precision: of both.
        naive, ours: median seconds of each.
        loss_gap: largest relative difference of the loss between the two, over the steps taken.
    """

    precision: str
    naive: float
    ours: float
    loss_gap: float


@dataclass(frozen=True)
class Naive:
    """Seconds of the published procedure, each part measured on a sample and scaled to the whole.

    Attributes:
        prompt, search, step: seconds of one codebook entry, one unsafe prompt's search, one step, all in fp32.
        our_search: seconds an unsafe prompt of our pairing of the same embeddings.
        codebook, pairing, training, total: of the whole run at those rates.
        same_targets: share of the searched prompts for which ours, in fp32, are the same.
        steps: both steps, precision by precision.
    """

    prompt: float
    search: float
    our_search: float
    step: float
    codebook: float
    pairing: float
    training: float
    total: float
    same_targets: float
    steps: tuple[StepComparison, ...]


def measure_naive(
    base: Mapping[str, Tensor],
    pairs: PromptPairs,
    size: Size,
    device: torch.device,
    precisions: Sequence[Precision] = ("fp32",),
) -> Naive:
    """Measure the published procedure on a sample; its steps and ours take turns, to be fair on a busy machine.

    Args:
        base: canonical state of the base encoder.
        pairs: what to train on.
        size: how large the samples are.
        device: where both run.
        precisions: steps are compared in each; the first stands for the whole, "fp32" as published.
    """
    encoder = TextEncoder.from_state(base).to(device)
    sample = list(pairs.safe[: size.naive_prompts])
    codebook(encoder, sample[:2], device)
    prompt = Clock(device).seconds(lambda: codebook(encoder, sample, device)) / len(sample)
    search, our_search, same, targets = _searches(encoder, pairs, size.naive_searches, device)
    rows = [_steps_in_turns(base, pairs, targets, size, device, precision) for precision in precisions]
    training = rows[0].naive * total_steps(len(pairs), size.settings)
    return Naive(
        prompt=prompt,
        search=search,
        our_search=our_search,
        step=rows[0].naive,
        codebook=prompt * 2 * len(pairs),
        pairing=search * len(pairs),
        training=training,
        total=prompt * 2 * len(pairs) + search * len(pairs) + training,
        same_targets=same,
        steps=tuple(rows),
    )


def _searches(
    encoder: TextEncoder, pairs: PromptPairs, count: int, device: torch.device
) -> tuple[float, float, float, Tensor]:
    """Seconds a prompt of a naive search and of ours, the share of equal targets, and the targets (N, D)."""
    clock = Clock(device)
    with arithmetic("fp32", device):
        # In batches, since one at a time would take minutes: the values are the same.
        safe, unsafe = (embed_stored(encoder, side, "fp32") for side in (pairs.safe, pairs.unsafe))
        chosen: list[Tensor] = []
        ours = clock.seconds(lambda: chosen.append(choose_targets(unsafe, safe, block=_BLOCK)))
        found: list[int] = []
        naive = clock.seconds(lambda: found.extend(sorted_search(row, safe)[0] for row in unsafe[:count]))
    same = sum(a == b for a, b in zip(found, chosen[0].tolist(), strict=False)) / len(found)
    return naive / len(found), ours / len(unsafe), same, safe[chosen[0].to(device)]


def _steps_in_turns(
    base: Mapping[str, Tensor],
    pairs: PromptPairs,
    targets: Tensor,
    size: Size,
    device: torch.device,
    precision: Precision,
) -> StepComparison:
    """Time naive steps and ours on the same batches, in turns."""
    clock, settings = Clock(device), size.settings.replace(precision=precision)
    with arithmetic("tf32" if precision == "tf32" else "fp32", device):
        naive = NaiveTraining(base, pairs, CONCEPT, targets, settings, device)
        objective = AlignmentObjective(prepare(base, pairs, CONCEPT, settings, device), settings, device)
        loop = Loop(objective, Budget(steps=objective.steps), objective.rate)
        order = epoch_order(len(objective.prepared), 0, settings.seed).tolist()
        losses: list[float] = []
        naive_seconds, our_seconds = [], []
        for step in range(min(size.naive_steps, len(objective.sizes))):
            rows = order[step * settings.batch_size :][: objective.sizes[step]]
            naive_seconds.append(clock.seconds(partial(_append_loss, losses, naive, rows)))
            our_seconds.append(clock.seconds(loop.take_step))
        loop.report(None, everything=True)
    return StepComparison(
        precision=precision,
        naive=statistics.median(naive_seconds[1:]),
        ours=statistics.median(our_seconds[1:]),
        loss_gap=loss_gap([report.losses["total"] for report in loop.history], losses),
    )


def _append_loss(losses: list[float], naive: NaiveTraining, rows: list[int]) -> None:
    losses.append(naive.step(rows))


# The largest difference allowed: a share of the targets, relative for losses and gradients, absolute for cosines.
TOLERANCES: dict[str, float] = {
    "targets of the published procedure": 0.0,
    "loss against the published procedure, fp32": 1e-4,
    "gradient in chunks": 1e-4,
    "loss against fp32": 0.02,
    "cosine lost by targets against fp32": 0.01,
}


def disagreements(report: Mapping[str, Any]) -> list[str]:
    """A line for each figure of a bench's report that is beyond its tolerance; none when all agree."""
    found = [
        ("targets of the published procedure", 1 - report["naive"]["same_targets"]),
        ("loss against the published procedure, fp32", report["naive"]["steps"][0]["loss_gap"]),
        ("gradient in chunks", report["gradient_gap"]),
    ]
    for row in report["agreement"]:
        found += [("loss against fp32", row["loss_gap"]), ("cosine lost by targets against fp32", row["regret"])]
    lines = [f"{name}: {gap:.1e}, at most {TOLERANCES[name]:g}" for name, gap in found if not gap <= TOLERANCES[name]]
    return lines if report["same_again"] else [*lines, "the same run gave other losses the second time"]


@dataclass(frozen=True)
class Agreement:
    """How far a precision's result is from fp32's.

    Attributes:
        precision: the one compared.
        same_targets: share of unsafe prompts with the same target.
        regret: largest excess, in fp32 cosine, of a chosen target over the best one.
        loss_gap: largest relative difference of the loss at the same step, over the whole run.
    """

    precision: str
    same_targets: float
    regret: float
    loss_gap: float


def compare_precisions(
    base: Mapping[str, Tensor], pairs: PromptPairs, device: torch.device, runs: Mapping[Precision, Phases]
) -> list[Agreement]:
    """Compare each run's targets and loss curve with those of the fp32 run."""
    encoder = FastEncoder.from_state(base).to(device)
    with arithmetic("fp32", device):
        unsafe, safe = (embed_stored(encoder, side, "fp32") for side in (pairs.unsafe, pairs.safe))
        best = choose_targets(unsafe, safe, block=_BLOCK)
    rows = []
    for precision in (p for p in runs if p != "fp32"):
        with arithmetic("tf32" if precision == "tf32" else "fp32", device):
            rough_unsafe, rough_safe = (embed_stored(encoder, side, precision) for side in (pairs.unsafe, pairs.safe))
            chosen = choose_targets(rough_unsafe, rough_safe, block=_BLOCK)
        excess = [
            torch.cosine_similarity(u, safe[a.to(device)]) - torch.cosine_similarity(u, safe[b.to(device)])
            for u, a, b in zip(unsafe.split(512), chosen.split(512), best.split(512), strict=True)
        ]
        rows.append(
            Agreement(
                precision=precision,
                same_targets=float((chosen == best).float().mean()),
                regret=float(torch.cat(excess).max()),
                loss_gap=loss_gap(runs[precision].losses, runs["fp32"].losses),
            )
        )
    return rows


def loss_gap(losses: Sequence[float], reference: Sequence[float]) -> float:
    """Largest relative difference of two loss curves, over the steps that both have."""
    return max(abs(a - b) / abs(b) for a, b in zip(losses, reference, strict=False))


def gradient_gap(
    base: Mapping[str, Tensor], pairs: PromptPairs, settings: TrainingSettings, device: torch.device, chunk_size: int
) -> float:
    """Relative difference, over all parameters, between a step's fp32 gradient in chunks and in one piece."""
    settings = settings.replace(precision="fp32")
    gradients = []
    with arithmetic("fp32", device):
        for chunk in (None, chunk_size):
            run = AlignmentObjective(prepare(base, pairs, CONCEPT, settings, device), settings, device, chunk)
            run.gradients(0)
            gradients.append([p.grad.double().cpu() for p in run.encoder.parameters() if p.grad is not None])
    difference = sum(float((a - b).square().sum()) for a, b in zip(*gradients, strict=True))
    return (difference / sum(float(a.square().sum()) for a in gradients[0])) ** 0.5
