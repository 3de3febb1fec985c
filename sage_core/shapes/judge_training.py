"""What the judge is trained on: a pool of spoilt pictures with their facts, and questions new at every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ask import ATTRIBUTES, UNCLEAR, group_facts, sample_questions
from .judge import PATCH, judge_forward, judge_tokens
from .model import TinyAutoencoder
from .phases import Loss, Randomness, mixed_precision
from .render import render_with_groups
from .scenes import Scenes

UNCLEAR_SHARE = 0.04
LEAST_COVER = 0.3
"""Of a patch, by one group, for the patch to tell of it."""
UNKNOWN = -1

_SIZES = [len(values) for values in ATTRIBUTES.values()]
_NAMES = list(ATTRIBUTES)
_PLACE, _RELATION = _NAMES.index("place"), _NAMES.index("relation")


@dataclass(frozen=True)
class JudgePool:
    """N scenes and their pictures, uint8 (N,3,64,64), drawn and spoilt once.

    `lost` (N,) marks pictures that show nothing definite. `facts` (N, patches, attributes) int8: what each patch shows,
    as indices into ATTRIBUTES' values, UNKNOWN where there is nothing to tell.
    """

    scenes: Scenes
    pictures: Tensor
    lost: Tensor
    facts: Tensor


@torch.no_grad()
def judge_pool(vae: TinyAutoencoder, scenes: Scenes, seed: int, batch: int = 1024) -> JudgePool:
    """Draw and spoil the scenes, on their device."""
    pictures, lost, facts = [], [], []
    generator = torch.Generator(scenes.device).manual_seed(seed)
    for start in range(0, len(scenes), batch):
        part = scenes[start : start + batch]
        drawn, groups = render_with_groups(part, seed=seed + start)
        with mixed_precision(scenes.device):
            spoilt, is_lost = spoil(vae, drawn, generator)
        pictures.append((spoilt * 255).round().byte())
        lost.append(is_lost)
        facts.append(patch_facts(part, groups).masked_fill(is_lost[:, None, None], UNKNOWN))
    return JudgePool(scenes, torch.cat(pictures), torch.cat(lost), torch.cat(facts))


def patch_facts(scenes: Scenes, groups: Tensor) -> Tensor:
    """(N, patches, attributes) int8: for each patch the facts of the group that covers most of it, and the place.

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
    """Pictures as a generator might make them (N,3,H,W), and which of them (N,) show nothing definite any more.

    The first half goes through the autoencoder. Of each half a few are lost: the latents of the first replaced by
    noise, the second blended with their neighbours.
    """
    count, device = len(pictures), pictures.device

    def uniform(rows: int) -> Tensor:
        return torch.rand(rows, 1, 1, 1, device=device, generator=generator)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, device=device, generator=generator)

    drawn, plain = pictures.tensor_split([count // 2])
    lost = uniform(count) < UNCLEAR_SHARE
    noisy, blended = lost.tensor_split([count // 2])
    latents = vae.encode(drawn.contiguous(memory_format=torch.channels_last)).float()
    latents = torch.where(noisy, normal(latents), latents + 0.15 * uniform(len(drawn)) * normal(latents))
    plain = torch.where(blended, torch.lerp(plain, plain.roll(1, 0), 0.5), plain)
    result = torch.cat([vae.decode(latents).float(), plain])
    soft = F.avg_pool2d(F.pad(result, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.lerp(result, soft, (uniform(count) * 1.4 - 0.7).clamp(min=0)).clamp(0, 1), lost.flatten()


def fact_head(width: int) -> nn.Linear:
    """Reads all attributes off one patch's state, for training alone: it is thrown away afterwards."""
    return nn.Linear(width, sum(_SIZES))


def fact_loss(logits: Tensor, facts: Tensor) -> Tensor:
    """Mean over attributes of the cross-entropy of what the patches show: (N, P, ΣA) logits, (N, P, attributes) facts.

    An attribute that no patch tells of counts as 0.
    """
    losses = [
        F.cross_entropy(part.flatten(0, 1), told.flatten().long(), ignore_index=UNKNOWN, reduction="sum")
        / (told != UNKNOWN).sum().clamp(min=1)
        for part, told in zip(logits.float().split(_SIZES, 2), facts.unbind(2), strict=True)
    ]
    return torch.stack(losses).mean()


def judge_loss(
    judge: nn.Module,
    head: nn.Module,
    pool: JudgePool,
    batch: int,
    questions_each: int,
    seed: int,
    forward: Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]] = judge_forward,
) -> Loss:
    """Cross-entropy of the true answers, and of what each patch shows.

    An answer is one bit or two of information about a whole picture; patches tell some hundred facts about it, and
    what a question asks for is then there to be found. Lost pictures are to be called unclear.
    """
    device = pool.pictures.device
    random = Randomness(seed, device)
    tokens = judge_tokens().to(device)

    def loss_at(step: int) -> Tensor:
        generator = random.at(step)

        def uniform() -> Tensor:
            return torch.rand(batch, 1, 1, 1, device=device, generator=generator)

        rows = torch.randint(len(pool.lost), (batch,), device=device, generator=generator)
        asked, truth = sample_questions(
            pool.scenes[rows], seed=random.seed_of("questions", step), per_scene=questions_each
        )
        truth = torch.where(pool.lost[rows, None], UNCLEAR, truth)
        pictures = pool.pictures[rows].float() / 255
        grain = torch.randn(pictures.shape, device=device, generator=generator)
        pictures = (pictures * (0.92 + 0.16 * uniform()) + 0.04 * uniform() * grain).clamp(0, 1)
        with mixed_precision(device):
            logits, patches = forward(judge, pictures, tokens[asked].flatten(0, 1))
            told = head(patches[::questions_each])
        return F.cross_entropy(logits.float(), truth.flatten()) + fact_loss(told, pool.facts[rows])

    return loss_at
