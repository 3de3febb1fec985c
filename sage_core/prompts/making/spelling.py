"""Whether an encoder can know the words of a concept, and what a misspelt one may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ...encoders.tokens import whole_words
from ...errors import PromptError
from ...rows import shown
from ..concepts import ConceptList
from . import lexicon
from .roles import Roles, is_content
from .senses import Senses
from .targets import core_words

# Letters that must agree for a word to be taken for another one, misspelt.
_ALIKE = 0.84


def check_words(concepts: ConceptList, senses: Senses, roles: Roles, spelling: bool) -> None:
    """Raise PromptError for a concept of which the encoder knows no word, or whose name is misspelt."""
    for concept in concepts:
        words = [word for word in core_words(concept.name) if is_content(word)] or core_words(concept.name)
        used = {*roles.nouns, *roles.qualities, *roles.places}
        for word in words:
            if spelling and (meant := _meant(word, used)):
                raise PromptError(
                    f"The concept {shown(concept.name)} holds {shown(word)}, which is no word that the text encoder "
                    f"knows as a whole; it knows {shown(meant)}. Write that, or turn the check of spelling off, if "
                    "it is meant as it is."
                )
        if not any(senses.knows(words)):
            raise PromptError(
                f"The text encoder knows no word of {shown(concept.name)}: its tokens were never trained, so that no "
                "prompt can draw it. Give a name that the model draws."
            )


def _meant(word: str, used: Iterable[str]) -> str:
    """The known word that a misspelt one is nearest to; "" if it is a word or like none."""
    known = whole_words()
    if word in known or word in used or not word.isalpha() or lexicon.is_word(word) or len(word) < 4:
        return ""
    near = difflib.get_close_matches(word, [*known], n=6, cutoff=_ALIKE)
    near = [each for each in near if lexicon.is_word(each)]
    return near[0] if near else ""
