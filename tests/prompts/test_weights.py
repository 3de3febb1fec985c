"""Prompts without ComfyUI's weights: the words of which a graph makes tokens."""

from __future__ import annotations

import random
import time

import pytest

from sage_core.prompts.weights import names_embedding, without_weights

CASES = {
    "a cat": "a cat",
    "a (red:1.2) ball": "a red ball",
    "a (red) ball": "a red ball",
    "((very) red:0.8) ball": "very red ball",
    "((red:1.2):1.3)": "red",
    r"a \(red\) ball": "a (red) ball",
    r"(a \(red\):1.1) ball": "a (red) ball",
    "a (red:blue) ball": "a red:blue ball",
    "(:1.2)": ":1.2",
    "(red: 1.2 )": "red",
    "(red:1e-1)": "red",
    "(a: b:1.2)": "a: b",
    "()": "",
    "a )red( ball": "a )red( ball",
    "a (red ball": "a (red ball",
    "a smile :)": "a smile :)",
    "(red)(ball)": "red ball",
    "(red), ball": "red, ball",
    r"C:\dogs": r"C:\dogs",
    "[red]": "[red]",
}


@pytest.mark.parametrize("text", CASES)
def test_without_weights(text):
    assert without_weights(text) == CASES[text]


def reference(text: str) -> str:
    """Weights of a balanced text, from the inside out: the slow way."""
    while ")" in text:
        end = text.index(")")
        start = text.rindex("(", 0, end)
        inside, colon, number = text[start + 1 : end].rpartition(":")
        weighted = bool(colon and (inside or text[start - 1] == "|") and number.replace(".", "", 1).isdigit())
        text = text[:start] + (inside if weighted else text[start + 1 : end]) + text[end + 1 :]
    return text


def balanced(chance: random.Random, depth: int = 0) -> str:
    words = [chance.choice(["red ", "a dog, ", "b "]) for _ in range(chance.randint(1, 3))]
    if depth < 4 and chance.random() < 0.7:
        words.insert(
            chance.randint(0, len(words)), f"({balanced(chance, depth + 1)}{chance.choice(['', ':1.2', ':3'])})"
        )
    return " ".join(words)


def test_nested_weights_against_a_slow_reference():
    chance = random.Random(3)
    for _ in range(2000):
        text = balanced(chance)
        assert without_weights(text).split() == reference(text).split()


def test_deep_and_long_texts_end():
    start = time.process_time()
    without_weights("(" * 100_000 + ")" * 100_000)
    without_weights("(a:1.2) " * 50_000)
    without_weights(")" * 200_000 + "(" * 200_000)
    # About 1 s.
    assert time.process_time() - start < 10


@pytest.mark.parametrize("text", ["embedding:bones", "a skull, embedding:bones", "a\nembedding:x.pt"])
def test_names_embedding(text):
    assert names_embedding(text)


@pytest.mark.parametrize("text", ["an embedding", "embedding: bones", "my-embedding:bones", "a cat"])
def test_names_no_embedding(text):
    assert not names_embedding(text)
