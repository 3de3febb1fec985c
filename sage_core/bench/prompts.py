"""Prompts and weights to measure with: captions like COCO's from a grammar, and random encoders."""

from __future__ import annotations

from itertools import cycle

import torch
from torch import Tensor

from ..encoders.layouts import EncoderConfig
from ..encoders.text_encoder import TextEncoder
from ..prompts.pairs import DEFAULT_TEMPLATES, PromptPairs, PromptReport

CONCEPT = "skull"

_PARTS = tuple(
    line.split("|")
    for line in (
        "a|the|one|this|another",
        "small|large|old|new|red|blue|green|yellow|wooden|white|black|striped|dusty|shiny|tall|round",
        "dog|cat|horse|bird|boat|train|bus|bicycle|table|chair|lamp|clock|vase|cup|cake|umbrella|kite|laptop",
        "standing|lying|waiting|left alone|seen from above|half hidden|being cleaned|parked",
        "on the beach|in the snow|by a river|in a kitchen|near a window|on a street|under a tree|in a field|on a roof"
        "|at a market|in a garden|beside a wall|at a station|on a bridge",
        "at night|in the rain|at sunrise|in summer|on a cloudy day|in bright light|in the fog|in winter",
        "with people around|with a mountain behind it|next to a suitcase|with flowers in front|and nothing else"
        "|with a bowl of fruit|while a car passes|with a sign above",
    )
)
# Coprime to the number of captions, so that none comes twice, and large, so that neighbours differ in every part.
_STRIDE = 1_000_003


def captions(count: int) -> list[str]:
    """So many distinct captions of 10 to 20 words, always the same.

    Raises:
        ValueError: there are only 10,321,920.
    """
    total = 1
    for part in _PARTS:
        total *= len(part)
    if count > total:
        raise ValueError(f"{count} captions asked for; {total} exist.")
    return [_caption(number * _STRIDE % total) for number in range(count)]


def _caption(number: int) -> str:
    words = []
    for part in _PARTS:
        number, choice = divmod(number, len(part))
        words.append(part[choice])
    return " ".join(words)


def make_pairs(count: int) -> PromptPairs:
    """So many captions, each paired with one that adds a concept by the templates of `pairs_from_concept`."""
    safe = captions(count)
    unsafe = [
        template.replace("{prompt}", prompt).replace("{concept}", CONCEPT)
        for template, prompt in zip(cycle(DEFAULT_TEMPLATES), safe, strict=False)
    ]
    return PromptPairs(tuple(safe), tuple(unsafe), PromptReport(count, ("a template grammar",)))


def random_state(config: EncoderConfig, seed: int = 0) -> dict[str, Tensor]:
    """Canonical state with CLIP's initial weights (Radford et al. 2021, 2.5); cost does not depend on their values."""
    generator = torch.Generator().manual_seed(seed)
    width, deep = config.width**-0.5, (2 * config.layers) ** -0.5
    deviations = {
        "token_embedding.weight": 0.02,
        "position_embedding.weight": 0.01,
        "_proj.weight": width,
        "out_proj.weight": width * deep,
        "fc1.weight": (2 * config.width) ** -0.5,
        "fc2.weight": width * deep,
    }
    state = {}
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in TextEncoder(config).state().items()}
    for name, shape in shapes.items():
        found = [deviation for ending, deviation in deviations.items() if name.endswith(ending)]
        if found:
            state[name] = torch.randn(shape, generator=generator).mul_(found[-1])
        else:
            state[name] = torch.full(shape, 1.0 if name.endswith("weight") else 0.0)
    return state
