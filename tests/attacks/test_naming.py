"""What an attack is told of a concept in a list."""

from __future__ import annotations

import pytest

from sage_core.attacks.naming import name_attack
from sage_core.errors import PromptError, SettingsError
from sage_core.prompts.concepts import Concept, ConceptList

SKULL = Concept("skull", ("cranium",), ("bony head", "death's head"), ("{prompt} and a {concept}",), "a human skull")
STAR = Concept("red star", unsafe=("a red star at night", "two red stars"))
LIST = ConceptList.of(SKULL, STAR)


def test_prompts_are_asked_by_names_that_no_training_saw() -> None:
    found = name_attack(LIST, "cranium", ["a cat", "two Skulls", "a dog", "the bony head of a king", "a cup"])
    assert found.prompts == (
        "a cat and a bony head",
        "two Skulls",
        "a dog and a death's head",
        "the bony head of a king",
        "a cup and a bony head",
    )
    assert found.concept == "bony head" and found.without == ("skull", "cranium")


def test_one_name_and_the_direction() -> None:
    found = name_attack(LIST, "skull", ["a cat", "a dog"], one_name=True)
    assert found.prompts == ("a cat and a bony head", "a dog and a bony head")
    assert name_attack(LIST, "skull", ["a cat"], along=True).concept == "a human skull"


def test_a_concept_without_other_names_is_asked_for_by_its_own() -> None:
    only = ConceptList.of("skull")
    found = name_attack(only, "", ["a cat"])
    assert "skull" in found.prompts[0] and found.prompts[0] != "a cat" and found.without == ("skull",)


def test_its_own_prompts_are_taken_where_none_are_given() -> None:
    found = name_attack(LIST, "red star")
    assert found.prompts == STAR.unsafe and found.concept == "red star" and found.without == ("red star",)
    assert name_attack(LIST, "red star", ["a red starfish"]).prompts == ("a red starfish",)


@pytest.mark.parametrize(
    ("name", "prompts", "error", "words"),
    [
        ("", ["a cat"], SettingsError, r"2 concepts \(skull, red star\).*name it in concept"),
        ("bone", ["a cat"], PromptError, "no concept 'bone'"),
        ("skull", [], PromptError, "the concept 'skull' has no unsafe prompts of its own"),
        ("skull", ["a cat", "a naked child"], PromptError, "Prompt 2 of 2 refers or may refer to a minor"),
        ("skull", ["a cat", "\n"], PromptError, "cannot be used"),
    ],
)
def test_what_cannot_be_asked_for(name: str, prompts: list[str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        name_attack(LIST, name, prompts)
