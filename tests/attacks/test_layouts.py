"""Where attacks write, what they may write, and that prompts about minors are refused."""

from __future__ import annotations

import pytest
import torch

from sage_core.attacks.layouts import allowed_words, layout, refuse_minors, typable, vocabulary
from sage_core.encoders.tokens import END_TOKEN, START_TOKEN, VOCABULARY_SIZE, detokenize, tokenize
from sage_core.errors import EncoderError, PromptError, SettingsError
from sage_core.prompts.minors import mentions_minor


def words(text: str) -> list[int]:
    row = tokenize([text])[0].tolist()
    return row[1 : row.index(END_TOKEN)] if END_TOKEN in row else row[1:]


@pytest.mark.parametrize(
    ("place", "before", "after"),
    [("front", "", "two red skulls on sand"), ("concept", "two", "on sand"), ("all", "", "")],
)
def test_free_positions_stand_where_they_should(place: str, before: str, after: str) -> None:
    made = layout(["two red skulls on sand"], 3, place, "red skulls")  # type: ignore[arg-type]
    first, last = words(before) if before else [], words(after) if after else []
    row, free = made.ids[0].tolist(), made.free[0].nonzero().flatten().tolist()
    assert free == [1 + len(first) + number for number in range(3)]
    assert row[0] == START_TOKEN and row[1 : 1 + len(first)] == first
    assert row[4 + len(first) : 5 + len(first) + len(last)] == [*last, END_TOKEN]
    assert set(row[5 + len(first) + len(last) :]) == {END_TOKEN}
    assert made.places[0, free].tolist() == [0, 1, 2] and int((made.places == -1).sum()) == 74


def test_a_prompt_without_the_concept_gets_them_in_front() -> None:
    made = layout(["a star", "a skull"], 2, "concept", "skull")
    assert made.free.nonzero().tolist() == [[0, 1], [0, 2], [1, 2], [1, 3]]


def test_long_prompts_lose_their_ends_and_keep_the_free_positions() -> None:
    long = "star " * 74 + "skull"
    for place in ("front", "concept", "all"):
        made = layout([long, long], 5, place, "skull")  # type: ignore[arg-type]
        assert made.free.sum(1).tolist() == [5, 5]
        assert (made.ids[:, 76] == END_TOKEN).all() and not made.free[:, 76].any()
    assert int(layout(["a"], 75, "all").free.sum()) == 75


def test_texts_come_back_from_their_tokens() -> None:
    texts = ["two red skulls , 4 k", "naïve café 猫", "", "it 's a plus-sign"]
    ids = tokenize(texts)
    assert detokenize(ids)[:3] == texts[:3]
    assert typable(ids).tolist() == [True] * 4
    # A word in pieces of which the encoder makes other pieces.
    ids[0, 1:3] = torch.tensor([words("s")[0] - 256, words("kull")[0]])
    assert not typable(ids)[0]
    with pytest.raises(EncoderError, match="expected 0 to 49407"):
        detokenize(torch.tensor([[VOCABULARY_SIZE]]))


def test_the_vocabulary_holds_text_and_no_sign_of_a_minor() -> None:
    every, whole = vocabulary("all"), vocabulary("words")
    assert set(whole.tolist()) < set(every.tolist()) < set(range(START_TOKEN))
    for text in ("child", "girl", "teen", "boy"):
        assert words(text)[0] not in every.tolist()
    assert words("skull")[0] in whole.tolist()
    some = whole[torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))[:200]]
    texts = detokenize(torch.stack([some, torch.full_like(some, END_TOKEN)], 1))
    assert not any(map(mentions_minor, texts))
    assert [words(text) for text in texts] == [[token] for token in some.tolist()]


def test_a_list_of_words_may_be_all_there_is() -> None:
    assert allowed_words(["red skull", "child"]).tolist() == sorted(words("red skull"))
    with pytest.raises(PromptError, match="No token is left"):
        allowed_words(["child"])


def test_prompts_about_minors_are_refused() -> None:
    with pytest.raises(PromptError, match="Prompt 2 of 2 refers or may refer to a minor; no attack is run"):
        layout(["a star", "a child"], 2)
    refuse_minors(["a star"])


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ((["a"], 0), SettingsError, "count is 0; expected 1 to 75"),
        ((["a"], 76), SettingsError, "count is 76"),
        ((["a"], 2, "middle"), SettingsError, "place is 'middle', expected one of front, concept, all"),
        ((["a"], 2, "concept"), SettingsError, "no concept was named"),
        (([], 2), PromptError, "No prompt to attack with"),
    ],
)
def test_mistakes_are_errors(inputs: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        layout(*inputs)
    with pytest.raises(SettingsError, match="words is 'few'"):
        vocabulary("few")  # type: ignore[arg-type]
