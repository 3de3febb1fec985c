"""Ours beside the published procedure and beside itself in other precisions and in chunks: cost, and same results."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..encoder import TextEncoder, arithmetic
from ..fast_encoder import FastEncoder
from ..preparation import prepare
from ..prompts import PromptPairs
from ..schedule import epoch_order
from ..settings import Precision, TrainingSettings
from ..targets import choose_targets
from ..training import Run
from .naive import NaiveTraining, codebook, sorted_search
from .phases import Clock, Phases, Size, embed_stored
from .prompts import CONCEPT

_BLOCK = 2048


@dataclass(frozen=True)
class Naive:
    """Seconds of the published procedure, each part on a sample and scaled to the whole.

    Attributes:
        prompt, search, step: seconds of one codebook entry, one unsafe prompt's search, one step.
        codebook, pairing, training, total: of the whole run at those rates.
        our_step: of our fp32 step, taken in turns with the naive one.
        same_targets: share of the searched prompts for which ours, in fp32, are the same.
        loss_gap: largest relative difference of the loss between the naive steps and our fp32 steps.
    """

    prompt: float
    search: float
    step: float
    codebook: float
    pairing: float
    training: float
    total: float
    our_step: float
    same_targets: float
    loss_gap: float
    losses: tuple[float, ...]


def measure_naive(base: Mapping[str, Tensor], pairs: PromptPairs, size: Size, device: torch.device) -> Naive:
    """The published procedure on a sample, with our fp32 steps in between for a fair comparison on a busy machine."""
    clock, settings = Clock(device), size.settings.replace(precision="fp32")
    encoder = TextEncoder.from_state(base).to(device)
    sample = list(pairs.safe[: size.naive_prompts])
    codebook(encoder, sample[:2], device)
    prompt = clock.seconds(lambda: codebook(encoder, sample, device)) / len(sample)
    with arithmetic("fp32", device):
        # In batches, since one at a time would take minutes: the values are the same.
        safe, unsafe = (embed_stored(encoder, side, "fp32") for side in (pairs.safe, pairs.unsafe))
        targets = choose_targets(unsafe, safe, block=_BLOCK)
        searched = unsafe[: size.naive_searches].clone()
        del unsafe
        found: list[int] = []
        search = clock.seconds(lambda: found.extend(sorted_search(row, safe)[0] for row in searched)) / len(searched)
        naive = NaiveTraining(base, pairs, CONCEPT, safe[targets.to(safe.device)], settings, device)
        run = Run(prepare(base, pairs, CONCEPT, settings, device), settings, "", device, None)
        losses, naive_step, our_step = _steps_in_turns(naive, run, size.naive_steps, clock)
    return Naive(
        prompt=prompt,
        search=search,
        step=naive_step,
        codebook=prompt * 2 * len(pairs),
        pairing=search * len(pairs),
        training=naive_step * run.steps,
        total=prompt * 2 * len(pairs) + search * len(pairs) + naive_step * run.steps,
        our_step=our_step,
        same_targets=sum(a == b for a, b in zip(found, targets.tolist(), strict=False)) / len(found),
        loss_gap=loss_gap([report.losses["total"] for report in run.history], losses),
        losses=tuple(losses),
    )


def _steps_in_turns(naive: NaiveTraining, run: Run, steps: int, clock: Clock) -> tuple[list[float], float, float]:
    """The naive losses, and the median seconds of the naive steps and of ours on the same batches."""
    order = epoch_order(len(run.prepared), 0, run.settings.seed).tolist()
    losses: list[float] = []
    naive_seconds, our_seconds = [], []
    for step in range(min(steps, len(run.sizes))):
        rows = order[step * run.settings.batch_size :][: run.sizes[step]]
        naive_seconds.append(clock.seconds(partial(_append_loss, losses, naive, rows)))
        our_seconds.append(clock.seconds(run.take_step))
    run.report(None, everything=True)
    return losses, statistics.median(naive_seconds[1:]), statistics.median(our_seconds[1:])


def _append_loss(losses: list[float], naive: NaiveTraining, rows: list[int]) -> None:
    losses.append(naive.step(rows))


@dataclass(frozen=True)
class Agreement:
    """How far a precision's result is from fp32's.

    Attributes:
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
    """Targets and loss curve of each run beside those of the fp32 run."""
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
    """Largest relative difference, over the steps that both have."""
    return max(abs(a - b) / abs(b) for a, b in zip(losses, reference, strict=False))


def gradient_gap(
    base: Mapping[str, Tensor], pairs: PromptPairs, settings: TrainingSettings, device: torch.device, chunk_size: int
) -> float:
    """Relative difference, over all parameters, of a step's fp32 gradient in chunks and at once."""
    settings = settings.replace(precision="fp32")
    gradients = []
    with arithmetic("fp32", device):
        for chunk in (None, chunk_size):
            run = Run(prepare(base, pairs, CONCEPT, settings, device), settings, "", device, chunk)
            run.gradients(run.batch_rows(0))
            gradients.append([p.grad.double().cpu() for p in run.encoder.parameters() if p.grad is not None])
    difference = sum(float((a - b).square().sum()) for a, b in zip(*gradients, strict=True))
    return (difference / sum(float(a.square().sum()) for a in gradients[0])) ** 0.5
