"""What a method is told of concepts, and the rows of states that it reads of texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_unets import last
from torch import Tensor

from sage_core.encoders.text_encoder import TextEncoder
from sage_core.errors import PromptError, SettingsError
from sage_core.methods.concepts import Concepts, TokenStates, split_texts
from sage_core.prompts.everyday import REFERENCE_PROMPTS


@pytest.fixture(scope="module")
def states(encoder: TextEncoder) -> TokenStates:
    return TokenStates(encoder)


def test_concepts_are_checked() -> None:
    with pytest.raises(PromptError, match="No concept"):
        Concepts(())
    for empty in ("", "  "):
        with pytest.raises(PromptError, match="Concept 2 is empty"):
            Concepts(("skull", empty), ("ball",))
    with pytest.raises(PromptError, match="its own guide"):
        Concepts(("Skull",), ("skull ",))
    with pytest.raises(PromptError, match="2 concepts but 3 guides"):
        Concepts(("skull", "bone"), ("a", "b", "c"))
    for texts in (
        {"erase": ("nude child",)},
        {"erase": ("skull",), "guides": ("a 12 year old",)},
        {"erase": ("skull",), "preserve": ("teens",)},
    ):
        with pytest.raises(PromptError, match="minor"):
            Concepts(**texts)
    assert Concepts(("skull",), captions=("a boy", "a dog")).captions == ("a dog",)
    assert split_texts(" nudity; red star ;;\n\nskull") == ("nudity", "red star", "skull")


def test_rows_of_a_text(states: TokenStates) -> None:
    text = "a red skull"
    whole = states.states([text])[0]
    count = last(text)

    def rows(which: Any, text: str = text) -> Tensor:
        return states.rows([text], which)[0]

    assert torch.equal(rows("all"), whole)
    assert torch.equal(rows("last_subject"), whole[count : count + 1])
    assert torch.equal(rows("words"), whole[1 : count + 1])
    assert torch.equal(rows("non_pad"), whole[: count + 2])
    assert torch.equal(rows("eos"), whole[count + 1 : count + 2])
    torch.testing.assert_close(rows("mean"), whole[1 : count + 1].mean(0, keepdim=True))
    empty = states.states([""])[0]
    for which in ("last_subject", "words", "mean"):
        assert torch.equal(rows(which, ""), empty[:1])
    assert torch.equal(rows("eos", ""), empty[1:2])
    long = "word " * 100
    assert torch.equal(rows("last_subject", long), states.states([long])[0][75:76])
    with pytest.raises(SettingsError, match="Rows are 'first'"):
        rows("first")


def test_second_moment(states: TokenStates) -> None:
    texts = [*REFERENCE_PROMPTS] * 5
    rows = np.concatenate([states.states([text])[0].numpy()[: last(text) + 2] for text in texts])
    np.testing.assert_allclose(states.second_moment(texts, "non_pad").numpy(), rows.T @ rows / len(rows), atol=1e-4)


def test_no_more_positions_are_embedded_than_are_asked_for(encoder: TextEncoder, states: TokenStates) -> None:
    texts, lengths = ["a red skull on the snow", "dog", "", "word " * 100], []
    hook = encoder.register_forward_pre_hook(lambda _, inputs: lengths.append(tuple(inputs[0].shape)))
    try:
        short = TokenStates(encoder)
        for which in ("last_subject", "words", "non_pad", "eos", "mean"):
            for found, whole in zip(short.rows(texts[:3], which), states.rows(texts[:3], which), strict=True):
                torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)
        assert lengths[0] == (3, 8) and all(columns == 8 for _, columns in lengths if columns != 77)
        count = len(lengths)
        short.rows(texts[:3], "mean")
        assert len(lengths) == count
        assert len(short.rows(texts, "all")[0]) == 77 and lengths[-1] == (4, 77)
        assert torch.equal(short.rows(texts, "eos")[3], short.states(texts)[3, 76:])
        assert len(lengths) == count + 1
    finally:
        hook.remove()
