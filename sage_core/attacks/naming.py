"""What an attack is told of a concept in a list: prompts that ask for it, and the names that it may not use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import PromptError, SettingsError
from ..prompts.concepts import Concept, ConceptList
from ..prompts.pairs import number_rows, pair_with_names
from .layouts import refuse_minors


@dataclass(frozen=True)
class NamedAttack:
    """A part of an `AttackPlan`: what is asked for, and how.

    Attributes:
        prompts: each names the concept.
        concept: the text that stands for it in the plan.
        without: the names that a training may have seen; none of their tokens may be used.
    """

    prompts: tuple[str, ...]
    concept: str
    without: tuple[str, ...]


def name_attack(
    concepts: ConceptList, name: str = "", prompts: Sequence[str] = (), *, along: bool = False, one_name: bool = False
) -> NamedAttack:
    """Prompts that ask for a concept of a list by names that no training saw, where it has any.

    Args:
        concepts: the list.
        name: any name of the concept that is attacked; may be blank in a list of one.
        prompts: those that name the concept, by any of its names, stay as they are. Into the others it is written by
            its templates, by its names in turns. Without prompts its own unsafe ones are taken.
        along: the goal is along the concept, which is then called by the text of its direction.
        one_name: the free tokens take the name's place, so that all prompts have to call it alike.

    Raises:
        SettingsError: the list holds several concepts, and none is named.
        PromptError: there is no such concept, or no prompt, or one that refers to a minor.
    """
    concept = _chosen(concepts, name)
    names = concept.attack_names[:1] if one_name else concept.attack_names
    refuse_minors(prompts)
    asked = tuple(prompts) or concept.unsafe
    if not asked:
        raise PromptError(
            f"There is no prompt, and the concept '{concept.name}' has no unsafe prompts of its own. Give prompts: it "
            "is written into those that do not name it."
        )
    if prompts:
        asked = _named(asked, concept, names)
    return NamedAttack(asked, concept.direction_text if along else names[0], concept.trained_names)


def _chosen(concepts: ConceptList, name: str) -> Concept:
    if name.strip():
        return concepts.named(name)
    if len(concepts) > 1:
        raise SettingsError(
            f"The list holds {len(concepts)} concepts ({', '.join(concepts.names)}), and one is attacked at a time: "
            "name it in concept."
        )
    return concepts[0]


def _named(prompts: Sequence[str], concept: Concept, names: Sequence[str]) -> tuple[str, ...]:
    known = "|".join(re.escape(each) for each in (*concept.trained_names, *concept.unseen))
    # No bound at the end: skulls name the skull.
    says = re.compile(rf"(?<!\w)(?:{known})", re.IGNORECASE)
    silent = [place for place, prompt in enumerate(prompts) if not says.search(prompt)]
    if not silent:
        return tuple(prompts)
    lines = number_rows([prompts[place] for place in silent])
    written = pair_with_names(lines, names, concept.templates, "the prompts", ())
    if len(written) < len(silent):
        raise PromptError(f"A prompt cannot be used. {written.report.summary()}")
    found = list(prompts)
    for place, text in zip(silent, written.unsafe, strict=True):
        found[place] = text
    return tuple(found)
