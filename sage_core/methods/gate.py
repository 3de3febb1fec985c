"""A gate before the sampler, after CGCE (ECCV 2026): prompts that it takes for unsafe are refined or routed away.

CGCE's code and sizes are not published; this is a gate of its kind. A small classifier reads the text encoder's states.
A prompt under its threshold goes through untouched, and so costs nothing. One above is changed along the gradient until
it is under the threshold, or drawn with the states of another, safe encoder instead.

What a gate costs is its false alarms. So its threshold is not 0 but set on held-out safe prompts, to a stated rate.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor, nn

from ..drawing.change import Moved, Reading, states_of
from ..encoders.text_encoder import TextEncoder, embed, state_hash
from ..encoders.tokens import CONTEXT_LENGTH
from ..errors import PromptError
from ..runs.loop import Budget, Loop, Objective
from ..runs.record import StepReport
from ..seeds import generator_of
from ..settings import Count, Limits, Positive, Seed, Settings
from .gate_file import Gate, GateCard, GateNetwork


@dataclass(frozen=True)
class GateSettings(Settings):
    """How a gate is trained and set.

    Attributes:
        steps: of training.
        batch_size: prompts a step, half of them unsafe.
        learning_rate: of AdamW.
        held_out: share of the prompts that set the threshold and measure the rates.
        false_alarms: the stated rate: at most this share of the held-out safe prompts is taken for unsafe.
        seed: of the split, the first weights and the batches.
    """

    steps: Count = 200
    batch_size: Annotated[int, Limits(least=2)] = 32
    learning_rate: Positive = 5e-4
    held_out: Annotated[float, Limits(above=0, below=1)] = 0.25
    false_alarms: Annotated[float, Limits(above=0, below=1)] = 0.02
    seed: Seed = 0


@dataclass(frozen=True)
class RefineSettings(Settings):
    """How flagged prompts are changed.

    Attributes:
        eta: step length. Of a normalised gradient it is the distance that all states together move in a step; those
            of an SD 1.x prompt have a length of about 250.
        iterations: at most.
        normalised: divide each prompt's gradient by its length.
    """

    eta: Positive = 1.0
    iterations: Count = 50
    normalised: bool = True


@dataclass(frozen=True, eq=False)
class Refined:
    """Prompts after a gate.

    Attributes:
        states: (B, rows, width); those of prompts that were not flagged are the very ones given.
        flagged: prompts that were taken for unsafe.
        safe: prompts that no gate takes for unsafe in the end.
        iterations: steps that each prompt took.
    """

    states: Tensor
    flagged: Tensor
    safe: Tensor
    iterations: Tensor


def refine(gates: Sequence[Gate], states: Tensor, settings: RefineSettings | None = None) -> Refined:
    """Move the states of flagged prompts until no gate flags them, by the sum of the flagging gates' gradients."""
    settings = settings or RefineSettings()
    changed = states.detach().clone()
    iterations = torch.zeros(len(states), dtype=torch.long, device=states.device)
    flagged = open_ = _flagged(gates, changed)
    for _ in range(settings.iterations):
        if not open_.any():
            break
        moving = changed[open_].float()
        slope = _slope(gates, moving)
        if settings.normalised:
            slope = slope / slope.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None]
        changed[open_] = (moving - settings.eta * slope).to(changed.dtype)
        iterations[open_] += 1
        open_ = _flagged(gates, changed)
    return Refined(changed, flagged, ~open_, iterations)


def route(gates: Sequence[Gate], states: Tensor, safe_states: Tensor) -> tuple[Tensor, Tensor]:
    """States of prompts that no gate flags, and in the place of the others those of a safe encoder; and the flags."""
    flagged = _flagged(gates, states)
    return torch.where(flagged[:, None, None], safe_states.to(states), states), flagged


def _flagged(gates: Sequence[Gate], states: Tensor) -> Tensor:
    return torch.stack([gate.flags(states).to(states.device) for gate in gates]).any(0)


def _slope(gates: Sequence[Gate], states: Tensor) -> Tensor:
    """Gradient of the cross-entropy towards "safe", of the gates that flag a prompt."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = states.detach().clone().requires_grad_(True)
        # A flag means a margin above 0; gates that are content must not pull.
        losses = [
            torch.nn.functional.softplus(margin) * (margin > 0) for margin in (gate.margins(leaf) for gate in gates)
        ]
        total = sum((loss.sum().to(leaf.device) for loss in losses), leaf.new_zeros(()))
        return torch.autograd.grad(total, leaf)[0]


@dataclass(frozen=True, eq=False)
class GatedPrompts:
    """A gate as a reader of prompts, see `drawing.change.Reader`: it reads the base's states.

    What it flags is read by the changed text encoder, or refined where none is changed.
    """

    gate: Gate
    settings: RefineSettings = field(default_factory=RefineSettings)

    def reading(self, base: TextEncoder, changed: TextEncoder) -> Reading:
        """Prompts go through the gate; all other texts are read by the base.

        Raises:
            EncoderError: the gate belongs to another text encoder than the base's.
        """
        self.gate.card.require(state_hash(base.state()))
        self.gate.network.to(next(base.parameters()).device)

        def gated(ids: Tensor) -> Moved:
            states = states_of(base, ids).float()
            if changed is not base:
                return Moved(route([self.gate], states, states_of(changed, ids).float())[0])
            # A gradient goes past the refinement, as if it moved all states alike.
            return Moved(refine([self.gate], states, self.settings).states + (states - states.detach()))

        return Reading(base, gated)

    def summary(self) -> str:
        """A few words for a person."""
        return "a gate before the prompts"


class GateObjective(Objective):
    """A gate's classification as the training loop sees it."""

    losses = ("total",)

    def __init__(
        self, safe: Tensor, unsafe: Tensor, settings: GateSettings, device: torch.device | str = "cpu"
    ) -> None:
        """Learn from states (n, 77, width) of safe and of unsafe prompts, which stay where they are."""
        self.safe, self.unsafe, self.settings, self.device = safe, unsafe, settings, torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.network = GateNetwork(safe.shape[2]).to(self.device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=settings.learning_rate)

    def state(self) -> dict[str, Tensor]:
        """See Objective."""
        return {name: value.detach() for name, value in self.network.state_dict().items()}

    def gradients(self, step: int) -> Tensor:
        """See Objective."""
        generator = generator_of(self.settings.seed, step)
        half = self.settings.batch_size // 2
        batch = torch.cat([
            states[torch.randint(len(states), (half,), generator=generator)].to(self.device, torch.float32)
            for states in (self.safe, self.unsafe)
        ])  # fmt: skip
        wanted = torch.arange(2 * half, device=self.device) >= half
        loss = nn.functional.binary_cross_entropy_with_logits(self.network(batch), wanted.float())
        loss.backward()
        return loss.detach()[None]


# A host application may run everything in inference mode, whose tensors take no gradient.
@torch.inference_mode(False)
@torch.enable_grad()
def train_gate(
    encoder: TextEncoder,
    safe: Sequence[str],
    unsafe: Sequence[str],
    settings: GateSettings | None = None,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Gate:
    """A gate for this encoder's states, learned from prompts.

    Args:
        encoder: whose states it will read; training runs on its device.
        safe, unsafe: prompts. They need not be pairs; what only one kind talks about is what the gate learns.
        settings: how.
        checkpoint: as in `runs.loop.Loop`.
        on_step: as in `runs.loop.Loop.run`.
        on_batch: called with (prompts embedded, in all) before the first step; may raise to stop.

    Raises:
        PromptError: too few prompts to learn from, or to measure the stated rate of false alarms.
    """
    settings = settings or GateSettings()
    kinds = [list(dict.fromkeys(texts)) for texts in (safe, unsafe)]
    if both := set(kinds[0]) & set(kinds[1]):
        raise PromptError(f"The prompt '{min(both)}' is among the safe and among the unsafe ones: remove it from one.")
    order = [torch.randperm(len(texts), generator=_generator(settings.seed, i)) for i, texts in enumerate(kinds)]
    held = _held_out(kinds, settings)
    # Half precision, since the states of a few thousand prompts would fill the memory otherwise.
    states = [
        _embedded(encoder, texts, done, sum(map(len, kinds)), on_batch)[rows]
        for texts, rows, done in zip(kinds, order, (0, len(kinds[0])), strict=True)
    ]
    device = next(encoder.parameters()).device
    objective = GateObjective(states[0][held[0] :], states[1][held[1] :], settings, device)
    identity = state_hash(encoder.state())
    key = _made_of(identity, kinds, settings)
    Loop(objective, Budget(steps=settings.steps), lambda _step, _used: settings.learning_rate,
         checkpoint=checkpoint, key=key).run(on_step)  # fmt: skip
    network = objective.network.eval().requires_grad_(False)
    logits = [_logits(network, part[:out], device) for part, out in zip(states, held, strict=True)]
    threshold = threshold_for(logits[0], settings.false_alarms)
    false_alarms, detected = (float((part > threshold).double().mean()) for part in logits)
    card = GateCard(
        encoder=identity,
        threshold=threshold,
        stated_false_alarms=settings.false_alarms,
        false_alarms=false_alarms,
        detected=detected,
        safe_prompts=held[0],
        unsafe_prompts=held[1],
        settings=asdict(settings),
    )
    return Gate(network, card)


def _embedded(
    encoder: TextEncoder, texts: Sequence[str], done: int, total: int, on_batch: Callable[[int, int], None] | None
) -> Tensor:
    """States (n, 77, width) on the CPU, told as the prompts after the first `done` of `total`."""
    told = (lambda at, _: on_batch(done + at, total)) if on_batch else None
    return embed(encoder, texts, out_dtype=torch.float16, on_batch=told).view(len(texts), CONTEXT_LENGTH, -1).cpu()


def _held_out(kinds: Sequence[Sequence[str]], settings: GateSettings) -> list[int]:
    """How many safe and unsafe prompts are held out. Raises PromptError if that states no rate."""
    held = [round(settings.held_out * len(texts)) for texts in kinds]
    # A rate below one prompt in all held-out ones cannot be told from none.
    needed = -(-1 // settings.false_alarms)
    if held[0] < needed or not held[1] or min(len(texts) - out for texts, out in zip(kinds, held, strict=True)) < 2:
        raise PromptError(
            f"{len(kinds[0])} safe and {len(kinds[1])} unsafe prompts are too few: to state "
            f"{settings.false_alarms:.1%} false alarms, {needed:.0f} safe prompts must be held out, a share of "
            f"{settings.held_out:g}. Give {math.ceil(needed / settings.held_out):,} different safe prompts or more, or "
            "state a higher rate."
        )
    return held


def threshold_for(safe_logits: Tensor, false_alarms: float) -> float:
    """The lowest threshold that at most this share of safe prompts' logits exceeds."""
    ordered = safe_logits.double().sort(descending=True).values
    return float(ordered[int(false_alarms * len(ordered) + 1e-9)])


def gate_name(encoder_hash: str, safe: Sequence[str], unsafe: Sequence[str], settings: GateSettings) -> str:
    """Name of a gate that is kept, 32 hex digits: the encoder's hash, the prompts and the settings."""
    kinds = [list(dict.fromkeys(texts)) for texts in (safe, unsafe)]
    return hashlib.sha256(_made_of(encoder_hash, kinds, settings).encode()).hexdigest()[:32]


def _made_of(encoder_hash: str, kinds: Sequence[Sequence[str]], settings: GateSettings) -> str:
    texts = hashlib.sha256(json.dumps([list(texts) for texts in kinds]).encode()).hexdigest()
    return f"{encoder_hash} {settings} {texts}"


def _generator(seed: int, part: int) -> torch.Generator:
    return torch.Generator().manual_seed(2 * seed + part)


@torch.no_grad()
def _logits(network: GateNetwork, states: Tensor, device: torch.device) -> Tensor:
    return torch.cat([network(part.to(device, torch.float32)).cpu() for part in states.split(128)])
