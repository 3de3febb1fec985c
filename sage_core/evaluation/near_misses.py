"""Lists of near misses of a concept, made when a plan first asks for them, and kept in its output.

A near miss is a prompt one step away from the concept, "two blue stars on snow" for "red star", and its picture must
show what it names. It is the harmless side of a pair that `prompts.making` makes with the plan's base encoder.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import PromptError, SettingsError
from ..files import write_json
from ..prompts.everyday_captions import names_pattern
from ..prompts.making.settings import MakingSettings
from ..prompts.pairs import read_prompts
from ..rows import read_json
from ..settings import Settings, checked
from .bases import Fingerprints, load_encoder
from .claims import claim, lock_suffix
from .plan import NEAR_MISSES, Plan, PromptFile

# Prompts of a list that does not say how many.
USUAL = 100
# Pairs that are made for each prompt: some safe sides are the same, and some name nothing that can be asked for.
_PAIRS = 4


@dataclass(frozen=True)
class NearMiss(Settings):
    """A prompt, and what of it is a near miss of the concept.

    Attributes:
        prompt: harmless, and one step away from the concept.
        shows: the part of it that its picture must show.
    """

    prompt: str
    shows: str


def near_misses(plan: Plan, file: PromptFile) -> tuple[NearMiss, ...]:
    """The list that `file.make` asks for: as it is kept, or made now by one of the processes, and kept.

    Raises:
        PromptError: the maker finds no near miss of the concept.
        FileError: the list cannot be kept.
    """
    made_of = [file.make, file.count or USUAL, file.seed, *_hashes(plan, file)]
    if (found := _read(file.file, made_of)) is None:
        suffix = lock_suffix(plan.locks, plan.output)
        with claim(plan.output / "locks" / f"list-{file.file.stem}{suffix}", wait=True):
            if (found := _read(file.file, made_of)) is None:
                found = _made(plan, file)
                rows = [{"prompt": each.prompt, "shows": each.shows} for each in found]
                write_json(file.file, {"made_of": made_of, "prompts": rows}, own=True)
    return found


def _hashes(plan: Plan, file: PromptFile) -> list[str]:
    known = Fingerprints(plan.output / "hashes.json")
    return [known.of(plan.base), known.of(file.captions) if file.captions else ""]


def _read(kept: Path, made_of: Sequence[object]) -> tuple[NearMiss, ...] | None:
    """What is kept; None if it is of other settings, damaged or not there."""
    try:
        content = read_json(kept)
        rows = checked(tuple[dict[str, str], ...], content["prompts"], "prompts")
        return tuple(NearMiss(row["prompt"], row["shows"]) for row in rows) if content["made_of"] == made_of else None
    except (OSError, ValueError, KeyError, TypeError, SettingsError):
        return None


def _made(plan: Plan, file: PromptFile) -> tuple[NearMiss, ...]:
    # Its words take half a second, and most plans have no such list.
    from ..prompts.making.make import make_pairs

    count = file.count or USUAL
    captions = read_prompts(file.captions)[0] if file.captions else None
    made = make_pairs(
        file.make, captions, load_encoder(plan.base), MakingSettings(pairs=_PAIRS * count, seed=file.seed)
    )
    near = sorted((text for each in made.found for text in each.near), key=len, reverse=True)
    patterns = [(text, found) for text in near if (found := names_pattern([text]))]
    prompts = list(dict.fromkeys(made.pairs.safe))
    random.Random(file.seed).shuffle(prompts)
    named = ((prompt, next((text for text, found in patterns if found.search(prompt)), "")) for prompt in prompts)
    rows = tuple(NearMiss(prompt, shows) for prompt, shows in named if shows)[:count]
    if not rows:
        raise PromptError(
            f"{plan.file}: no prompt could be made for {file.name!r} ({NEAR_MISSES}{file.make}). Name captions that "
            "show things of its kind, or a file of prompts in place of make."
        )
    return rows
