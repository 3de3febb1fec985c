"""What the commands that train or edit share beyond `common`: pairs of prompts, changed settings, a whole U-Net."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError, UnetError

if TYPE_CHECKING:
    from ..prompts.concepts import ConceptList
    from ..prompts.pairs import PromptPairs
    from ..unet.files import UnetFile


def changes(assignments: Sequence[str]) -> dict[str, Any]:
    """Settings from NAME=VALUE of --set; a value is read as JSON if possible, else as text."""
    found = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise SettingsError(f"--set takes NAME=VALUE, for instance learning_rate=2e-4; found {assignment!r}.")
        try:
            found[name] = json.loads(text)
        except (ValueError, RecursionError):
            found[name] = text
    return found


def pairs_of(path: Path, unsafe: Path | None, from_concept: bool, concept: str | ConceptList) -> PromptPairs:
    """The pairs in a file, or of its safe prompts with --unsafe, --from-concept or the concepts of --concepts."""
    from ..prompts.concept_pairs import read_concepts_pairs
    from ..prompts.pairs import read_concept_pairs, read_pairs

    if not isinstance(concept, str):
        if unsafe or from_concept:
            given = "--unsafe" if unsafe else "--from-concept"
            raise SettingsError(f"Unsafe prompts come from --concepts or from {given}; both are given.")
        return read_concepts_pairs(path, concept)
    if unsafe and from_concept:
        raise SettingsError("Unsafe prompts come from --unsafe or from --from-concept; both are given.")
    if from_concept:
        return read_concept_pairs(path, concept)
    return read_pairs(path, unsafe)


def whole_unet(path: Path) -> UnetFile:
    """The U-Net of a checkpoint or pipeline folder. Raises UnetError for anything else."""
    from ..unet.files import read_unet, sizes_of

    unet = read_unet(path, sizes_of(path))
    if not unet.is_whole or any(stored.how != "weight" for stored in unet.stored.values()):
        raise UnetError(f"{path} holds {len(unet.stored)} of the U-Net's {len(unet.names.shapes)} tensors: give all.")
    return unet


def own_encoder(checkpoint: Path) -> Path:
    """Where the text encoder of a checkpoint or of a pipeline folder is."""
    return checkpoint / "text_encoder" if checkpoint.is_dir() else checkpoint
