"""What the judge is trained on: a pool of pictures with their facts, and new questions at every step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ask import ATTRIBUTES, UNCLEAR, group_facts, sample_questions
from ..networks.judge import ANSWER_TOKENS, END, PATCH, begin, judge_tokens, look, reply
from ..networks.model import TinyAutoencoder
from ..render import render_with_groups
from ..scenes import Scenes
from .phases import Loss, Randomness, mixed_precision

AUTOENCODED_SHARE = 0.1
# Of the pictures that go through the autoencoder.
UNCLEAR_SHARE = 0.05
# The share of a patch that a group must cover for the patch to show it.
LEAST_COVER = 0.3
UNKNOWN = -1

_SIZES = [len(values) for values in ATTRIBUTES.values()]
_NAMES = list(ATTRIBUTES)
_PLACE, _RELATION = _NAMES.index("place"), _NAMES.index("relation")


@dataclass(frozen=True)
class JudgePool:
    """N scenes and their pictures, drawn once.

    Attributes:
        scenes: what was drawn.
        pictures: uint8 (N,3,64,64), the first ones through the autoencoder.
        lost: (N,) bool, pictures that show nothing definite.
        facts: int8 (N, patches, attributes), what each patch shows: indices into ATTRIBUTES' values, or UNKNOWN.
    """

    scenes: Scenes
    pictures: Tensor
    lost: Tensor
    facts: Tensor


@torch.no_grad()
def judge_pool(vae: TinyAutoencoder, scenes: Scenes, seed: int, batch: int = 1000) -> JudgePool:
    """Draw the scenes, on their device, and put AUTOENCODED_SHARE of the pictures through the autoencoder."""
    pictures, facts = [], []
    for start in range(0, len(scenes), batch):
        part = scenes[start : start + batch]
        drawn, groups = render_with_groups(part, seed=seed + start)
        pictures.append((drawn * 255).round().byte())
        facts.append(patch_facts(part, groups))
    pool = JudgePool(scenes, torch.cat(pictures), scenes.groups == 0, torch.cat(facts))
    generator = torch.Generator(scenes.device).manual_seed(seed)
    for rows in torch.arange(math.ceil(AUTOENCODED_SHARE * len(scenes)), device=scenes.device).split(100):
        with mixed_precision(scenes.device):
            pool.pictures[rows], pool.lost[rows] = spoil(vae, pool.pictures[rows], generator)
    pool.facts[pool.lost] = UNKNOWN
    return pool


def patch_facts(scenes: Scenes, groups: Tensor) -> Tensor:
    """For each patch the facts of the group that covers most of it, and the place: int8 (N, patches, attributes).

    `groups` (N, size, size) says which group each pixel shows, -1 for the ground.
    """
    cover = torch.stack([F.avg_pool2d((groups == group).float(), PATCH).flatten(1) for group in (0, 1)], 2)
    most, which = cover.max(2)
    facts = group_facts(scenes)
    facts[..., _RELATION].masked_fill_((scenes.groups == 1)[:, None], UNKNOWN)
    shown = facts.gather(1, which[..., None].expand(-1, -1, facts.shape[2]))
    shown = shown.masked_fill((most < LEAST_COVER)[..., None], UNKNOWN)
    shown[..., _PLACE] = scenes.place[:, None]
    return shown.to(torch.int8)


def spoil(vae: TinyAutoencoder, pictures: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Make pictures look generated: uint8 (N,3,H,W), and which of them (N,) are nothing but decoded noise."""
    device = pictures.device
    latents = vae.encode((pictures.float() / 255).contiguous(memory_format=torch.channels_last)).float()
    strength = 0.15 * torch.rand(len(pictures), 1, 1, 1, device=device, generator=generator)
    noise = torch.randn(latents.shape, device=device, generator=generator)
    lost = torch.rand(len(pictures), device=device, generator=generator) < UNCLEAR_SHARE
    latents = torch.where(lost[:, None, None, None], noise, latents + strength * noise)
    return (vae.decode(latents).float().clamp(0, 1) * 255).round().byte(), lost


def fact_head(width: int) -> nn.Linear:
    """A layer that reads all attributes off a patch's state. It is used in training alone."""
    return nn.Linear(width, sum(_SIZES))


def fact_loss(logits: Tensor, facts: Tensor) -> Tensor:
    """Mean over attributes of the cross-entropy of what the patches show: (N, P, ΣA) logits, (N, P, attributes) facts.

    An attribute that is UNKNOWN in every patch counts as 0.
    """
    losses = [
        F.cross_entropy(part.flatten(0, 1), told.flatten().long(), ignore_index=UNKNOWN, reduction="sum")
        / (told != UNKNOWN).sum().clamp(min=1)
        for part, told in zip(logits.float().split(_SIZES, 2), facts.unbind(2), strict=True)
    ]
    return torch.stack(losses).mean()


def sight_loss(judge: nn.Module, head: nn.Module, pool: JudgePool, batch: int, seed: int) -> Loss:
    """Cross-entropy of what each patch shows, before any question is asked.

    An answer holds one or two bits about a whole picture, its patches some hundred facts. So the judge first learns to
    see what questions will ask for.
    """
    random = Randomness(seed, pool.pictures.device)

    def loss_at(step: int) -> Tensor:
        rows, pictures = _draw(pool, batch, random.at(step))
        with mixed_precision(pictures.device):
            told = head(look(judge, pictures)[:, 1:])
        return fact_loss(told, pool.facts[rows])

    return loss_at


def judge_loss(
    judge: nn.Module,
    head: nn.Module,
    pool: JudgePool,
    batch: int,
    questions_each: int,
    seed: int,
    answer: Callable[[nn.Module, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> Loss:
    """Cross-entropy of the true answers, of the end after them, and again of what each patch shows.

    The answer about lost pictures is "unclear". `answer` replaces `look_and_reply`, by a compiled one for instance.
    """
    device = pool.pictures.device
    random = Randomness(seed, device)
    tokens = judge_tokens().to(device)
    words = torch.tensor(ANSWER_TOKENS, device=device)
    run = answer or look_and_reply

    def loss_at(step: int) -> Tensor:
        rows, pictures = _draw(pool, batch, random.at(step))
        asked, truth = sample_questions(
            pool.scenes[rows], seed=random.seed_of("questions", step), per_scene=questions_each
        )
        spoken = words[torch.where(pool.lost[rows, None], UNCLEAR, truth)].flatten()
        with mixed_precision(device):
            seen, logits = run(judge, pictures, tokens[asked].flatten(0, 1), begin(spoken))
            told = head(seen[:, 1:])
        first, end = logits.float().unbind(1)
        answers = F.cross_entropy(first, spoken) + 0.1 * F.cross_entropy(end, torch.full_like(spoken, END))
        return answers + fact_loss(told, pool.facts[rows])

    return loss_at


def look_and_reply(judge: nn.Module, pictures: Tensor, questions: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
    """What `look` sees, and what `reply` says of it."""
    seen = look(judge, pictures)
    return seen, reply(judge, seen, questions, written)


def _draw(pool: JudgePool, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw rows of the pool and their pictures in 0..1: some softened, all a little brighter or darker, and grainy."""
    device = pool.pictures.device

    def uniform() -> Tensor:
        return torch.rand(batch, 1, 1, 1, device=device, generator=generator)

    rows = torch.randint(len(pool.lost), (batch,), device=device, generator=generator)
    pictures = pool.pictures[rows].float() / 255
    soft = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    pictures = torch.lerp(pictures, soft, (uniform() * 1.4 - 0.7).clamp(min=0))
    grain = torch.randn(pictures.shape, device=device, generator=generator)
    return rows, (pictures * (0.92 + 0.16 * uniform()) + 0.04 * uniform() * grain).clamp(0, 1)
