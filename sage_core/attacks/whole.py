"""Attacks on whole methods: on what a method really draws with, in the words of the publications they come from.

A method is a `ChangedModel`, seen as `victims` has it; the same attack on the base, a `ChangedModel` without a change,
is its control. What an attack found is handed on as it stood at every look within its budget, so that whoever draws it
can say how success grows with the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..drawing.change import states_of
from ..drawing.pictures import Begin, ChangedModel
from ..encoders.tokens import MAX_PROMPT_TOKENS
from ..runs.record import StepReport
from .budgets import run_attack
from .bypass import pass_through
from .layouts import layout
from .plans import Aim, AttackPlan, Search, prepare
from .search import Attempt
from .victims import victim_of


@dataclass(frozen=True)
class Kind:
    """A kind of attack.

    Attributes:
        title: what it looks for, in words.
        method: the search, "" for what is solved for and not searched.
        aim: its goal, unless settings name another.
        usual: further settings of `AttackPlan` that its authors have otherwise than this package.
        probe: what the method draws its prompts with in the place of noise, one of PROBES; "" for a text.
    """

    title: str
    method: Search | str
    aim: Aim = "embedding"
    usual: Mapping[str, Any] = field(default_factory=dict)
    probe: str = ""

    @property
    def shared(self) -> bool:
        """Whether one set of embeddings is learned on all prompts together."""
        return self.method == "inversion"


KINDS = {
    "unlearndiffatk": Kind("words before each prompt, to the noise in the base's picture of it", "tokens", "pictures"),
    "p4d": Kind(
        "a text in each prompt's place, to the base's noise", "tokens", "noise", {"place": "all", "count": 16}
    ),
    "mma": Kind(
        "a text in each prompt's place, to its end token's state", "tokens", "pooled", {"place": "all", "count": 16}
    ),
    "tokens": Kind("words before each prompt, to the base's states of it", "tokens"),
    "ring_a_bell": Kind("a text in each prompt's place, along the concept, without gradients", "genetic", "direction"),
    "soft": Kind("embeddings in each prompt's place, to the base's noise", "soft", "noise"),
    "inversion": Kind("embeddings for all prompts, to the noise in the base's pictures", "inversion", "pictures"),
    "pass_through": Kind("embeddings that carry the base's states through the text encoder; nothing is searched", ""),
    "inverted": Kind("the prompts, from the noise into which the base's pictures are inverted", "", probe="inverted"),
    "noised": Kind("the prompts, from the base's pictures with noise", "", probe="noised"),
    "filled": Kind("the prompts, into the open middle of the base's pictures", "", probe="filled"),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Found:
    """What an attack on N prompts found.

    Attributes:
        attempts: at each look.
        history: each step's report.
    """

    attempts: tuple[Attempt, ...]
    history: tuple[StepReport, ...] = ()

    def texts(self) -> list[list[str]]:
        """Of each look the N prompts; free embeddings stand in them as "*"."""
        return [attempt.texts() for attempt in self.attempts]


def begin_of(probe: str, base: ChangedModel, pictures: Tensor, *, steps: int, strength: float) -> Begin:
    """What a probe has a method begin with.

    Args:
        probe: "inverted", DDIM inversion without a prompt; "noised", as image to image; or "filled", inpainting of the
            middle, half of the picture.
        base: inverts.
        pictures: the base's, of the prompts, (N, 3, H, W).
        steps: of the inversion.
        strength: the share of steps that are drawn anew, for "noised".
    """
    latents = base.model.encode(pictures)
    if probe == "inverted":
        return Begin(noise=base.inverted(latents, steps))
    if probe == "noised":
        return Begin(picture=latents, strength=strength)
    height, width = latents.shape[2:]
    middle = torch.zeros(height, width, dtype=torch.bool)
    # A border on each side of what leaves a half open.
    top, left = (round(side * (1 - 0.5**0.5) / 2) for side in (height, width))
    middle[top : height - top, left : width - left] = True
    return Begin(picture=latents, open=middle)


def tries_of(kind: str, plan: AttackPlan) -> tuple[int, ...]:
    """How many attempts at each prompt were evaluated until each look; of what is not searched one."""
    if not KINDS[kind].method:
        return (1,)
    return plan.budget.tries(plan.tries)


def attack_method(
    kind: str,
    plan: AttackPlan,
    method: ChangedModel,
    base: Callable[[], ChangedModel],
    *,
    steps: int,
    guidance: float,
    shape: tuple[int, int, int],
    pictures: Callable[[ChangedModel], Tensor],
    chunk: int,
    checkpoint: Path,
    on_step: Callable[[StepReport], None] | None = None,
) -> Found:
    """Attack a method to the end of the plan's budget, or go on from a checkpoint, to the same end.

    Args:
        kind: one of KINDS.
        plan: how.
        method: what is attacked; it is put into its model again after `base` was.
        base: puts the base into the same model, for the targets.
        steps, guidance: of the method's sampler.
        shape: channels, height and width of latents.
        pictures: draws the base's pictures of the prompts, (N, 3, H, W), for the goal "pictures".
        chunk: prompts that go through the U-Net at once.
        checkpoint: file to go on from; the caller deletes it.
        on_step: called with each step's report; may raise to stop.

    Raises:
        TrainingError: the checkpoint is damaged, or memory does not suffice.
    """
    victim, source = victim_of(method, steps, guidance), base()
    if not KINDS[kind].method:
        where = layout(plan.prompts, MAX_PROMPT_TOKENS, "all").to(source.model.device)
        with torch.no_grad():
            wanted = states_of(source.encoder, plan.prompts)
        vectors = pass_through(victim.encoder, wanted, where)
        method.put_in()
        return Found((Attempt(where.ids, where.places, vectors, torch.arange(len(wanted), device=vectors.device)),))
    references = source.model.encode(pictures(source)) if plan.aim == "pictures" else None
    attack = prepare(plan, victim, victim_of(source, steps, guidance), shape, references)
    attack.chunk, attack.keeps = chunk, True
    method.put_in()
    outcome = run_attack(attack, plan.budget, checkpoint=checkpoint, key=checkpoint.stem, on_step=on_step)
    return Found(tuple(attack.attempt(found) for found in attack.seen), outcome.history)
