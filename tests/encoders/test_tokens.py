"""Tokens equal those of transformers' CLIP tokenizer, whose vocabulary here comes from open_clip's own reader."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest
import torch

from sage_core.encoders.tokens import CONTEXT_LENGTH, END_TOKEN, START_TOKEN, clip_tokenizer, count_tokens, tokenize
from sage_core.errors import PromptError
from tiny_pipelines import tokenizer

CAPTIONS = Path(__file__).parents[2].parent / "shared" / "data" / "coco_prompts.csv"
ODD_TEXTS = [
    "",
    "  ",
    "\n",
    "a  b\t c\n\nd",
    "it's I'm you'll we've he'd don't they're IT'S rock 'n' roll’S",
    "123 4567 3.14 ½ ²",
    "café naïve Ångström ﬁ İstanbul ß Σας cafe\u0301",
    "ＦＵＬＬ　ｗｉｄｔｈ １２",
    "&amp; &lt;b&gt;",
    "😀 👩‍👩‍👧 🇩🇪 skull 💀",
    "中文字符 日本語 한국어 ﷺ",
    "<|endoftext|>",
    "a <|startoftext|> b<|endoftext|>c",
    "\x00 \x07 \u200b \u00a0 \u2028 \ufeff",
    "a,b.c!d? ___ --- ... !!!",
    "x" * 500,
    "word " * 300,
]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    from transformers import CLIPTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer(folder)
    return CLIPTokenizerFast.from_pretrained(folder)


def _check(reference, texts):
    expected = reference(texts, padding="max_length", max_length=CONTEXT_LENGTH, truncation=True, return_tensors="pt")
    different = (tokenize(texts) != expected.input_ids).any(1).nonzero().flatten().tolist()
    assert [texts[row] for row in different] == []
    assert count_tokens(texts) == [len(ids) - 2 for ids in reference(texts).input_ids]


def test_odd_texts_equal_transformers(reference):
    _check(reference, ODD_TEXTS)


def test_the_tokenizer_for_pipelines_equals_transformers(reference):
    own = clip_tokenizer()
    how = {"padding": "max_length", "max_length": CONTEXT_LENGTH, "truncation": True, "return_tensors": "pt"}
    assert torch.equal(own(ODD_TEXTS, **how).input_ids, reference(ODD_TEXTS, **how).input_ids)
    assert own.model_max_length == CONTEXT_LENGTH and len(own) == len(reference)


def test_random_characters_equal_transformers(reference):
    draw = random.Random(0)
    ranges = ((32, 127), (32, 0x2000), (0x2000, 0xD7FF), (0x1F300, 0x1F700))
    _check(
        reference,
        ["".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(draw.randrange(40))) for _ in range(2000)],
    )


@pytest.mark.skipif(not CAPTIONS.is_file(), reason="needs the shared COCO captions")
def test_captions_equal_transformers(reference):
    with open(CAPTIONS, encoding="utf-8", newline="") as file:
        _check(reference, [row["prompt"] for row in csv.DictReader(file)])


def test_known_tokens():
    ids = tokenize(["a photo of a cat"])
    assert ids.dtype == torch.int64
    assert ids[0, :7].tolist() == [START_TOKEN, 320, 1125, 539, 320, 2368, END_TOKEN]
    assert set(ids[0, 7:].tolist()) == {END_TOKEN}


@pytest.mark.parametrize(("words", "ends_at"), [(0, 1), (74, 75), (75, 76), (76, 76), (500, 76)])
def test_long_prompts_are_cut_and_still_end(words, ends_at):
    prompt = "cat " * words
    ids = tokenize([prompt])
    assert ids.shape == (1, CONTEXT_LENGTH)
    assert ids[0, 0] == START_TOKEN
    assert (ids[0] == END_TOKEN).nonzero()[0].item() == ends_at
    assert count_tokens([prompt]) == [words]


def test_no_prompts_and_one_bare_string():
    assert tokenize([]).shape == (0, CONTEXT_LENGTH)
    with pytest.raises(TypeError, match="one string"):
        tokenize("a cat")


@pytest.mark.parametrize("read", [tokenize, count_tokens])
def test_half_a_character_is_named(read):
    with pytest.raises(PromptError, match=r"The text 'a \\ud800 dog' holds half a character"):
        read(["a cat", "a \ud800 dog"])
    with pytest.raises(TypeError):
        read(["a cat", 3])
