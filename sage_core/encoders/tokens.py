"""The tokens of SD 1.x prompts: CLIP's byte-pair encoding, equal to openai/clip-vit-large-patch14's fast tokenizer.

The vocabulary is the file that open_clip bundles, so nothing is downloaded. Encoding runs in the `tokenizers` library:
NFC, white space collapsed, lower case, CLIP's word pattern, bytes as characters, `</w>` at the end of a word.
"""

from __future__ import annotations

import gzip
import importlib.util
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import EncoderError, PromptError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONTEXT_LENGTH = 77
START_TOKEN = 49406
END_TOKEN = 49407
VOCABULARY_SIZE = 49408
MAX_PROMPT_TOKENS = CONTEXT_LENGTH - 2

_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"


def tokenize(prompts: Sequence[str]) -> torch.Tensor:
    """Token ids of each prompt, int64 (N, 77).

    A row is START_TOKEN, at most 75 tokens of the prompt, then END_TOKEN to the end. A longer prompt is cut and still
    ends in END_TOKEN, as in transformers' CLIPTokenizer with truncation and padding to 77. ComfyUI makes the same row
    of a text of up to 75 tokens without weights or embeddings; it splits a longer text instead of cutting it.
    """
    encoded = _encode(prompts)
    ids = np.full((len(encoded), CONTEXT_LENGTH), END_TOKEN, dtype=np.int64)
    ids[:, 0] = START_TOKEN
    for row, encoding in zip(ids, encoded, strict=True):
        words = encoding.ids[:MAX_PROMPT_TOKENS]
        row[1 : 1 + len(words)] = words
    return torch.from_numpy(ids)


def count_tokens(prompts: Sequence[str]) -> list[int]:
    """Tokens of each prompt before any cut, without the start and the end token; 75 fit."""
    return [len(encoding) for encoding in _encode(prompts)]


def require_short(what: str, text: str) -> None:
    """Raise PromptError if a text is longer than an encoder reads; the message calls it `what`."""
    if (count := count_tokens([text])[0]) > MAX_PROMPT_TOKENS:
        raise PromptError(
            f"{what} has {count} tokens, of which an encoder reads {MAX_PROMPT_TOKENS}. Say it in fewer words."
        )


def detokenize(ids: torch.Tensor) -> list[str]:
    """The text of each row of token ids (N, 77): what stands between the start and the first end token.

    Words are parted by one space, and bytes that are no UTF-8 become U+FFFD. `tokenize` gives the same ids again only
    where CLIP's encoding would cut the text into just these pieces.

    Raises:
        EncoderError: a token is not in CLIP's vocabulary.
    """
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < VOCABULARY_SIZE:
        raise EncoderError(f"Tokens {int(ids.min())} to {int(ids.max())} were found; expected 0 to {END_TOKEN}.")
    texts = []
    for row in ids.tolist():
        row = row[1:] if row[:1] == [START_TOKEN] else row
        pieces = row[: row.index(END_TOKEN)] if END_TOKEN in row else row
        texts.append(_tokenizer().decode(pieces, skip_special_tokens=False).strip())
    return texts


@cache
def whole_words() -> dict[str, int]:
    """The words of CLIP's vocabulary that are one token, of small Latin letters, and their numbers: some 32,000."""
    vocabulary: dict[str, int] = _tokenizer().get_vocab()
    words = {name.removesuffix("</w>"): number for name, number in vocabulary.items() if name.endswith("</w>")}
    return {word: words[word] for word in sorted(words, key=words.__getitem__) if re.fullmatch("[a-z]{2,}", word)}


def clip_tokenizer() -> Any:
    """The same tokens as a tokenizer of transformers, as pipelines of diffusers take one; equal to `tokenize`."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    own = Tokenizer.from_str(_tokenizer().to_str())
    special = [(_START, START_TOKEN), (_END, END_TOKEN)]
    own.post_processor = processors.TemplateProcessing(single=f"{_START} $A {_END}", special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=own, bos_token=_START, eos_token=_END, pad_token=_END, unk_token=_END,
        model_max_length=CONTEXT_LENGTH,
    )  # fmt: skip


def _encode(prompts: Sequence[str]) -> list:
    if isinstance(prompts, str):
        raise TypeError("Expected a list of prompts, found one string: pass [prompt].")
    try:
        return _tokenizer().encode_batch_fast(list(prompts), add_special_tokens=False)
    except TypeError:
        for prompt in prompts:
            if isinstance(prompt, str) and any("\ud800" <= letter <= "\udfff" for letter in prompt):
                raise PromptError(f"The text {prompt[:40]!a} holds half a character: type it anew.") from None
        raise


@cache
def _tokenizer() -> Tokenizer:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    merges = _merges()
    letters = _byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge) for merge in merges), _START, _END]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={word: number for number, word in enumerate(words)},
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token=_END,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    # A word's end is read as the stand-in of a space.
    tokenizer.decoder = decoders.Sequence([decoders.Replace("</w>", "Ġ"), decoders.ByteLevel()])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (_START, _END)])
    return tokenizer


def _merges() -> list[tuple[str, str]]:
    # find_spec gives the folder without running open_clip, whose import takes seconds.
    spec = importlib.util.find_spec("open_clip")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder) / _VOCABULARY_FILE
        if path.is_file():
            # Later merges in the file were never used by CLIP, which has 49,408 - 2 x 256 bytes - 2 special tokens.
            lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : VOCABULARY_SIZE - 514 + 1]
            return [(first, second) for first, second in (line.split() for line in lines)]
    raise EncoderError(
        f"CLIP's vocabulary {_VOCABULARY_FILE} was not found in the open_clip package "
        f"({', '.join(folders) or 'not installed'}). Install it with 'pip install open_clip_torch'."
    )


def _byte_letters() -> list[str]:
    """The printable stand-in of each byte, in the order of CLIP's vocabulary: the printable ones of Latin-1 first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(256 - len(printable))]
