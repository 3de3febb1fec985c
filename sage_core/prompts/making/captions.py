"""Which of the captions that a user brings can be used, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import PromptError
from ..concepts import ConceptList
from ..minors import mentions_minor
from ..weights import without_weights
from .lexicon import word_set

# With fewer than this no words' places can be told.
_FEWEST = 32
_ENGLISH = word_set("a an the of in on with and is are to at by for two three one some from near")
# A caption in English nearly always holds one of these words.
_LEAST_ENGLISH = 0.4


def usable(captions: Sequence[str], concepts: ConceptList, notes: list[str]) -> list[str]:
    """Captions without doubles, weights and those that refer to minors; `notes` gains what was left out.

    Raises:
        PromptError: too few are left, or they are in another language.
    """
    texts = [" ".join(without_weights(text).split()) for text in captions]
    filled = [text for text in texts if text]
    once = list(dict.fromkeys(filled))
    if len(once) < len(filled):
        notes.append(f"{len(filled) - len(once):,} captions are doubles of others.")
    kept = [text for text in once if not mentions_minor(text)]
    if len(kept) < len(once):
        notes.append(f"{len(once) - len(kept):,} captions refer or may refer to minors and are not used.")
    if len(kept) < _FEWEST:
        raise PromptError(
            f"{len(kept):,} different captions can be used, of {len(captions):,}; expected {_FEWEST} or more, better "
            "500. Give more, or none: the package then uses everyday captions of its own."
        )
    english = sum(not _ENGLISH.isdisjoint(text.lower().split()) for text in kept)
    if english < _LEAST_ENGLISH * len(kept):
        raise PromptError(
            f"Only {english:,} of {len(kept):,} captions look like English (first: {kept[0][:60]!r}). Pairs are "
            "made in English, as CLIP reads it: give English captions, or none for the package's own."
        )
    return kept
