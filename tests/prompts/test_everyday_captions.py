"""Everyday captions of the package: many, distinct, harmless, and without concepts to be left out."""

from __future__ import annotations

import re

import pytest

from sage_core.encoders.tokens import MAX_PROMPT_TOKENS, count_tokens
from sage_core.prompts.everyday_captions import everyday_captions, names_pattern
from sage_core.prompts.making import lexicon
from sage_core.prompts.making.reading import PLACE_PREPOSITIONS, read
from sage_core.prompts.minors import has_unsafe_words, mentions_minor


@pytest.fixture(scope="module")
def captions() -> tuple[str, ...]:
    return everyday_captions(3000, seed=1)


def test_thousands_are_distinct_and_harmless(captions: tuple[str, ...]) -> None:
    assert len(set(captions)) == len(captions) == 3000
    assert not [caption for caption in captions if mentions_minor(caption) or has_unsafe_words(caption)]
    lengths = sorted(len(caption.split()) for caption in captions)
    assert lengths[0] >= 3 and max(count_tokens(captions)) <= MAX_PROMPT_TOKENS
    # Most are short, and some as long as prompts of people are.
    assert lengths[len(lengths) // 2] <= 11 and 18 <= lengths[len(lengths) * 19 // 20] <= 26


def test_some_things_have_many_qualities_and_many_come_in_numbers(captions: tuple[str, ...]) -> None:
    read_ones = read(captions)
    phrases = [(caption, phrase) for caption in read_ones for phrase in caption.phrases]
    rich = sum(len(caption.modifiers(phrase)) >= 3 for caption, phrase in phrases)
    several = sum(phrase.many for _, phrase in phrases)
    assert rich > 0.08 * len(phrases) and several > 0.15 * len(phrases)
    assert sum(caption.words[0] in PLACE_PREPOSITIONS for caption in read_ones) > 60


def test_articles_agree_with_what_follows(captions: tuple[str, ...]) -> None:
    for caption in captions:
        for article, word in re.findall(r"\b(an?) (\S+)", caption):
            assert article == lexicon.article(word), caption
    plurals = re.compile(r"\b(?:two|three|four|five|six|several) (?:[\w-]+ )*?([\w-]+)(?= (?:in|on|at|near|under)\b)")
    wrong = [caption for caption in captions for noun in plurals.findall(caption) if noun.endswith("man")]
    assert not wrong


def test_every_element_type_of_tifa_is_named(captions: tuple[str, ...]) -> None:
    text = " ".join(captions)
    for word in ("two", "red", "wooden", "round", "small", "to the left of", "in a park", "sitting", "watercolor",
                 "dog", "woman", "pizza", "clock", "shiny"):  # fmt: skip
        assert f" {word}" in text, word


def test_the_same_seed_gives_the_same_captions_and_another_gives_others() -> None:
    assert everyday_captions(50, seed=4) == everyday_captions(50, seed=4)
    assert len(set(everyday_captions(200, seed=4)) & set(everyday_captions(200, seed=5))) < 20


@pytest.mark.parametrize("name", ["umbrella", "red", "hot dog", "sleeping", "in the snow"])
def test_concepts_are_left_out_in_every_form(name: str) -> None:
    pattern = names_pattern([name])
    assert pattern is not None
    assert any(map(pattern.search, everyday_captions(4000, seed=2)))
    assert not any(map(pattern.search, everyday_captions(4000, seed=2, leave_out=[name])))


def test_a_name_is_found_as_a_whole_word_alone() -> None:
    pattern = names_pattern(["red", "knife"])
    assert pattern is not None
    assert pattern.search("two knives") and pattern.search("Red.") and not pattern.search("a bored tailor")
    assert names_pattern([]) is None
