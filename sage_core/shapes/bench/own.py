"""Pairs that the product makes from a task's name alone: what a user gets, who has no grammar of the world."""

from __future__ import annotations

from ...encoders.text_encoder import TextEncoder
from ...prompts.concepts import Concept, ConceptList
from ...prompts.making.made import MadePairs
from ...prompts.making.make import make_pairs
from ...prompts.making.settings import MakingSettings
from ..captions import write_captions
from ..scenes import sample_scenes
from ..tasks import Task

# Far from the seeds of examinations, and of the world's own pairs.
_FIRST_CAPTIONS = 3_000_000
# As many as a user may have.
CAPTIONS = 2000


def natural_captions(count: int, *, seed: int) -> list[str]:
    """Captions of the world as its safe scenes come, with whatever a task removes among them."""
    scenes = sample_scenes(count, seed=_FIRST_CAPTIONS + seed, unsafe=False, split="train")
    return write_captions(scenes, seed=_FIRST_CAPTIONS + seed, names="seen")


def own_pairs(
    task: Task,
    encoder: TextEncoder,
    count: int,
    *,
    seed: int,
    short: float = 0.4,
    captions: int = CAPTIONS,
    names: bool = False,
) -> MadePairs:
    """Pairs for a task from the names of its concepts and natural captions, and the concepts with what was found.

    Args:
        task: whose concepts are named.
        encoder: the base.
        count: how many pairs.
        seed: of captions and pairs.
        short: the share of short ones.
        captions: how many natural captions; 0 for the package's own everyday captions.
        names: whether the names that trainings are told are given, too; else each concept has its first name alone.
    """
    listed = task.listed() if names else ConceptList(tuple(Concept(name) for name in task.listed().names))
    texts = natural_captions(captions, seed=seed) if captions else None
    return make_pairs(listed, texts, encoder, MakingSettings(pairs=count, short=short, seed=seed))
