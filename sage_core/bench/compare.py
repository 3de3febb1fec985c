"""Our training against the published procedure, and against itself in other precisions and in chunks.

What each costs, and whether the results are the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
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
from ..shapes.captions import CONCEPT
from .measures import Size, State, as_in_runs, embed_stored, loss_gap
from .naive import NaiveTraining, codebook, sorted_search
from .watch import by_turns, timed

# Prompts compared at once in pairing.
_BLOCK = 2048


def measure_naive(
    base: State, pairs: PromptPairs, size: Size, device: torch.device, precisions: Sequence[Precision] = ("fp32",)
) -> dict[str, Any]:
    """Measure the published procedure on a sample; its steps and ours take turns, to be fair on a busy machine.

    Args:
        base: canonical state of the base encoder.
        pairs: what to train on.
        size: how large the samples are.
        device: where both run.
        precisions: steps are compared in each; the first stands for the whole, "fp32" as published.

    Returns:
        Seconds of one codebook entry, `prompt`, of one unsafe prompt's `search`, and of one `step`; `embed`, `pair`,
        `train` and `total` of the whole run at those rates; how many times faster ours pairs the same embeddings,
        `times_pairing`; the share of the searched prompts for which ours are the same, `same_targets`; and both steps,
        precision by precision, `steps`.
    """
    encoder = TextEncoder.from_state(base).to(device)
    sample = list(pairs.safe[: size.naive_prompts])
    codebook(encoder, sample[:2], device)
    prompt = timed(device, codebook, encoder, sample, device).seconds / len(sample)
    with arithmetic("fp32", device):
        # In batches, since one at a time would take minutes: the values are the same.
        safe, unsafe = (embed_stored(encoder, side, "fp32") for side in (pairs.safe, pairs.unsafe))
        ours = timed(device, lambda: choose_targets(unsafe, safe, block=_BLOCK))
        searched = timed(device, lambda: [sorted_search(row, safe)[0] for row in unsafe[: size.naive_searches]])
    found, chosen = searched.result, ours.result
    search = searched.seconds / len(found)
    targets = safe[chosen.to(device)]
    rows = [_steps_in_turns(base, pairs, targets, size, device, precision) for precision in precisions]
    parts = {
        "embed": prompt * 2 * len(pairs),
        "pair": search * len(pairs),
        "train": rows[0]["naive"] * total_steps(len(pairs), size.settings),
    }
    return {
        "prompt": prompt,
        "search": search,
        "step": rows[0]["naive"],
        **parts,
        "total": sum(parts.values()),
        "times_pairing": search * len(unsafe) / ours.seconds,
        "same_targets": sum(a == b for a, b in zip(found, chosen.tolist(), strict=False)) / len(found),
        "steps": rows,
    }


def _steps_in_turns(
    base: State, pairs: PromptPairs, targets: Tensor, size: Size, device: torch.device, precision: Precision
) -> dict[str, Any]:
    """Median seconds of naive steps and ours on the same batches, in turns, and how far their losses differ."""
    settings = size.settings.replace(precision=precision)
    with as_in_runs(precision, device):
        naive = NaiveTraining(base, pairs, CONCEPT, targets, settings, device)
        objective = AlignmentObjective(prepare(base, pairs, CONCEPT, settings, device), settings, device)
        loop = Loop(objective, Budget(steps=objective.steps), objective.rate)
        order = epoch_order(len(objective.prepared), 0, settings.seed).tolist()
        losses: list[float] = []

        def naive_step(step: int) -> None:
            losses.append(naive.step(order[step * settings.batch_size :][: objective.sizes[step]]))

        rounds = min(size.naive_steps, len(objective.sizes))
        theirs, ours = map(statistics.median, by_turns(device, rounds, naive_step, lambda _: loop.take_step()))
        loop.report(None, everything=True)
    gap = loss_gap([report.losses["total"] for report in loop.history], losses)
    return {"precision": precision, "naive": theirs, "ours": ours, "times": theirs / ours, "loss_gap": gap}


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


def compare_precisions(
    base: State, pairs: PromptPairs, device: torch.device, runs: Mapping[Precision, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Compare each run's targets and loss curve with those of the fp32 run.

    Returns:
        For each other precision the share of unsafe prompts with the same target, `same_targets`; the largest excess,
        in fp32 cosine, of a chosen target over the best one, `regret`; and the largest relative difference of the loss
        at the same step, `loss_gap`.
    """
    encoder = FastEncoder.from_state(base).to(device)
    with arithmetic("fp32", device):
        unsafe, safe = (embed_stored(encoder, side, "fp32") for side in (pairs.unsafe, pairs.safe))
        best = choose_targets(unsafe, safe, block=_BLOCK)
    rows = []
    for precision in (p for p in runs if p != "fp32"):
        with as_in_runs(precision, device):
            rough, rough_safe = (embed_stored(encoder, side, precision) for side in (pairs.unsafe, pairs.safe))
            chosen = choose_targets(rough, rough_safe, block=_BLOCK)
        excess = [
            torch.cosine_similarity(u, safe[a.to(device)]) - torch.cosine_similarity(u, safe[b.to(device)])
            for u, a, b in zip(unsafe.split(512), chosen.split(512), best.split(512), strict=True)
        ]
        same = {"same_targets": float((chosen == best).float().mean()), "regret": float(torch.cat(excess).max())}
        gap = loss_gap(runs[precision]["losses"], runs["fp32"]["losses"])
        rows.append({"precision": precision, **same, "loss_gap": gap})
    return rows


def gradient_gap(
    base: State, pairs: PromptPairs, settings: TrainingSettings, device: torch.device, chunk_size: int
) -> float:
    """Relative difference, over all parameters, between a step's fp32 gradient in chunks and in one piece."""
    settings = settings.replace(precision="fp32")
    gradients = []
    with arithmetic("fp32", device):
        for chunk in (None, chunk_size):
            run = AlignmentObjective(prepare(base, pairs, CONCEPT, settings, device), settings, device, chunk)
            run.gradients(0)
            parts = [p.grad.double().cpu().flatten() for p in run.encoder.parameters() if p.grad is not None]
            gradients.append(torch.cat(parts))
    whole, chunked = gradients
    return float((chunked - whole).norm() / whole.norm())
