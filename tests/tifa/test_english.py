"""Plurals and articles: one grammar for concepts and for captions."""

from __future__ import annotations

import pytest

from sage_core.scores.rates import rate_by_vqa
from sage_core.tifa.judges.base import Answer
from sage_core.tifa.writing.english import is_plural, is_plural_word, with_article
from sage_core.tifa.writing.rules import rule_questions

SINGULAR = "lens gas canvas atlas christmas bias news series species headquarters pancreas texas iris bus cactus glass"
PLURAL = "police cattle men geese mice feet policemen genitalia knives taxis menus skis guns people"


@pytest.mark.parametrize("word", SINGULAR.split())
def test_what_only_looks_like_a_plural(word: str) -> None:
    assert not is_plural(word) and not is_plural_word(word)


@pytest.mark.parametrize("word", PLURAL.split())
def test_plurals(word: str) -> None:
    assert is_plural(word) and is_plural_word(word) and with_article(word) == word


def test_the_noun_of_a_phrase_decides() -> None:
    assert is_plural("guns in a drawer") and not is_plural("lens with scratches")
    assert with_article("camera lens") == "a camera lens" and with_article("pool of blood") == "a pool of blood"
    assert with_article("hair") == "hair" and with_article("Nudity") == "Nudity" and with_article("a gun") == "a gun"


def test_what_is_both_is_one_unless_counted() -> None:
    assert is_plural_word("sheep") and not is_plural("sheep") and with_article("sheep") == "a sheep"


@pytest.mark.parametrize(
    ("noun", "question"),
    [
        ("lens", "is there a lens?"),
        ("canvas", "is there a canvas?"),
        ("police", "are there police?"),
        ("cattle", "are there cattle?"),
        ("money", "is there money?"),
        ("graffiti", "is there graffiti?"),
    ],
)
def test_concepts_and_captions_are_asked_for_in_the_same_words(noun: str, question: str) -> None:
    class Judge:
        name = "judge"

        def answer(self, images, questions, *, likelihoods=True, on_batch=None):
            return [[Answer("yes")] for _ in images]

    assert rate_by_vqa([None], noun, Judge()).rule == f"judge asked {question!r}"
    article = "the" if noun in ("police", "cattle", "money", "graffiti") else "a"
    assert rule_questions("c", f"{article} {noun}")[0].question == question
