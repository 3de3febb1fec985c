"""An adaptive attack: tokens that bring an aligned encoder back to the base encoder's embedding of an unsafe prompt.

It is a greedy white-box attack on the text encoder alone, guided by gradients. As in HotFlip (Ebrahimi et al. 2018) the
gradient with respect to the token embeddings ranks replacements. As in GCG (Zou et al. 2023) each round tries many of
the best ranked at once. The names used in training are forbidden; the attack may start from any other name of the
concept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..encoders.text_encoder import TextEncoder
from ..encoders.tokens import END_TOKEN
from ..errors import PromptError, SettingsError


@dataclass(frozen=True)
class AttackSettings:
    """How hard the attack tries.

    Attributes:
        rounds: how often replacements are ranked and tried.
        candidates: replacements tried for each prompt in a round.
        best: how many replacements of each free position, ranked by gradient, these are drawn from.
        seed: for the start and the draws.

    Raises:
        SettingsError: rounds, candidates or best is below 1.
    """

    rounds: int = 24
    candidates: int = 48
    best: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "candidates", "best"):
            if getattr(self, name) < 1:
                raise SettingsError(f"The attack's {name} is {getattr(self, name)}; expected 1 or more.")


@dataclass(frozen=True)
class AttackResult:
    """Attacked prompts as token ids (N, 77), and their cosines to the target with random words and after, each (N,)."""

    ids: Tensor
    before: Tensor
    after: Tensor


def attack(
    encoder: TextEncoder,
    base: TextEncoder,
    ids: Tensor,
    free: Tensor,
    allowed: Tensor,
    settings: AttackSettings | None = None,
    names: Sequence[Tensor] = (),
    on_round: Callable[[int, int], None] | None = None,
) -> AttackResult:
    """Fill the `free` positions of unsafe prompts so that φ_θ(prompt) approaches φ_0(the unsafe prompt), by cosine.

    Args:
        encoder: the aligned encoder θ under attack.
        base: the frozen encoder.
        ids: unsafe prompts (N, 77).
        free: which of their tokens may be replaced, (N, 77) bool, at least one in each row.
        allowed: the tokens that may be used, (A,).
        settings: how hard to try.
        names: token ids of names to start from where they fit.
        on_round: called with (rounds done, rounds in all); what it raises stops the attack.

    Returns:
        The best prompt found for each. The start is random tokens, with a name at the end of the free ones where that
        is nearer to the target.

    Raises:
        PromptError: a prompt has no free position.
    """
    settings = settings or AttackSettings()
    device = next(encoder.parameters()).device
    ids, free, allowed = ids.to(device), free.to(device), allowed.to(device).long()
    if not free.any(1).all():
        row = int((~free.any(1)).nonzero()[0])
        raise PromptError(f"Prompt {row}, counted from 0, has no free position; expected one or more in each row.")
    generator = torch.Generator(device).manual_seed(settings.seed)
    with torch.no_grad():
        target = base(ids).flatten(1)
        start = allowed[torch.randint(len(allowed), ids.shape, device=device, generator=generator)]
        current = torch.where(free, start, ids)
        score = before = _cosine(encoder, current, target)
        for name in names:
            current, score = _try_name(encoder, current, score, target, free, name.to(device))
    for done in range(1, settings.rounds + 1):
        ranked = _rank(encoder, current, target, allowed, settings.best)
        current, score = _try_replacements(encoder, current, score, target, free, ranked, settings, generator)
        if on_round is not None:
            on_round(done, settings.rounds)
    return AttackResult(current, before, score)


def differing_span(unsafe: Tensor, safe: Tensor) -> Tensor:
    """Positions (N, 77), bool, of `unsafe` between the start and the end that it shares with `safe`."""
    length, other = ((ids != END_TOKEN).sum(1) for ids in (unsafe, safe))
    column = torch.arange(unsafe.shape[1])
    same_start = (unsafe == safe).int().cumprod(1).sum(1)
    # Compared from the ends, so that a tail after names of different lengths still lines up.
    back = lambda ids, end: ids.gather(1, (end[:, None] - 1 - column).clamp(min=0))  # noqa: E731
    same_end = (back(unsafe, length) == back(safe, other)).int().cumprod(1).sum(1)
    stop = torch.maximum(length - same_end, same_start)
    return (column >= same_start[:, None]) & (column < stop[:, None])


def _with_name(ids: Tensor, free: Tensor, name: Tensor) -> Tensor:
    """`ids` with `name` in the last free positions of each row; rows without room stay as they are."""
    from_end = free.flip(1).cumsum(1).flip(1)
    place = free & (from_end <= len(name)) & (free.sum(1) >= len(name))[:, None]
    return torch.where(place, name[(len(name) - from_end).clamp(0, len(name) - 1)], ids)


def _try_name(
    encoder: TextEncoder, current: Tensor, score: Tensor, target: Tensor, free: Tensor, name: Tensor
) -> tuple[Tensor, Tensor]:
    """Each prompt with the name in it, if that is nearer to the target than what it was."""
    named = _with_name(current, free, name)
    of_named = _cosine(encoder, named, target)
    nearer = of_named > score
    return torch.where(nearer[:, None], named, current), torch.where(nearer, of_named, score)


def _rank(encoder: TextEncoder, ids: Tensor, target: Tensor, allowed: Tensor, best: int) -> Tensor:
    """The `best` allowed tokens for each position, (N, 77, best), by the first-order gain in cosine."""
    table = encoder.token_table
    captured: list[Tensor] = []
    hook = table.register_forward_hook(lambda _, __, output: captured.append(output.requires_grad_()))
    try:
        with torch.enable_grad():
            total = _cosine(encoder, ids, target).sum()
            (gradient,) = torch.autograd.grad(total, captured)
    finally:
        hook.remove()
    gain = gradient @ table.weight.detach()[allowed].T
    return allowed[gain.topk(min(best, len(allowed)), dim=-1).indices]


def _try_replacements(
    encoder: TextEncoder,
    current: Tensor,
    score: Tensor,
    target: Tensor,
    free: Tensor,
    ranked: Tensor,
    settings: AttackSettings,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Each prompt with the best of some single replacements, if that is nearer to the target than before."""
    count, tries = len(current), settings.candidates
    place = torch.multinomial(free.float(), tries, replacement=True, generator=generator)
    pick = torch.randint(ranked.shape[2], (count, tries), device=current.device, generator=generator)
    rows = torch.arange(count, device=current.device)[:, None]
    tried = current[:, None].expand(-1, tries, -1).clone()
    tried[rows, torch.arange(tries, device=current.device), place] = ranked[rows, place, pick]
    with torch.no_grad():
        scores = torch.stack([_cosine(encoder, tried[:, i], target) for i in range(tries)], dim=1)
    found, at = scores.max(1)
    better = found > score
    chosen = tried[torch.arange(count, device=current.device), at]
    return torch.where(better[:, None], chosen, current), torch.where(better, found, score)


def _cosine(encoder: TextEncoder, ids: Tensor, target: Tensor) -> Tensor:
    return F.cosine_similarity(encoder(ids).flatten(1), target, dim=1)
