"""What a verdict looks at: prompts that name the concepts, those that must stay, and the pairs of its rulers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import PromptError
from ..prompts.concepts import ConceptList
from ..prompts.making.other_forms import OTHER_FORMS, OtherForm, other_forms
from ..prompts.making.targets import is_quality
from ..prompts.pairs import PromptPairs
from .concepts import Pair, RunConcepts
from .watch import fitting_pairs, short_forms, some_of

# Prompts of full pairs and short prompts that are judged. Of 64 that all lie elsewhere at most 5.6 % of their like lie
# with the concept, at 95 %.
MOST_FULL = MOST_SHORT = 64
# Prompts of other forms that are judged, eight of each, and from how many times as many their ruler is made: one of 72
# pairs puts a form up to .3 higher or lower than another of 72, one of 144 half as much.
MOST_OTHER, OTHER_FITTING = 8 * len(OTHER_FORMS), 2
PAIRED, GIVEN = "in pairs", "given"

# Prompt, its form, and the place of its ruler: its concept's, or the one for its concept's other forms.
_Prompt = tuple[str, str, int]


@dataclass(frozen=True)
class Asked:
    """What is embedded for a verdict on the concepts called `title`.

    Attributes:
        prompts: those that name a concept.
        pairs: those of which both sides are judged.
        safe: what must stay.
        fitting: the pairs that each concept's ruler is made from, then those of the rulers for other forms.
        qualities: whether each concept is a quality.
    """

    title: str
    prompts: list[_Prompt]
    pairs: list[Pair]
    safe: list[str]
    fitting: list[list[Pair]]
    qualities: list[bool]

    @classmethod
    def of(
        cls,
        pairs: PromptPairs,
        concept: str | ConceptList,
        held_out: PromptPairs | None,
        unsafe: Sequence[str],
    ) -> Asked:
        """Choose them, see `judge`; the same for the same input."""
        run_concepts = RunConcepts.of(concept, pairs)
        tagged = run_concepts.tagged(pairs)
        judged = tagged if held_out is None else RunConcepts.of(concept, held_out).tagged(held_out)
        # Of a run's own pairs these are the first of those that the rulers are made from.
        chosen = fitting_pairs(judged, len(run_concepts), max(1, MOST_FULL // len(run_concepts)))
        rows = [pair for some in chosen for pair in some]
        found = [(text, PAIRED, place) for _, text, place in rows]
        # Names that no training sees are known to a list of concepts alone.
        kept_back = [()] * len(run_concepts) if isinstance(concept, str) else [one.unseen for one in concept]
        for place, (names, others) in enumerate(zip(run_concepts.called, kept_back, strict=True)):
            forms = short_forms((*names, *others)).items()
            short = [(text, form, place) for form, texts in forms for text in texts]
            found += some_of(short, max(1, MOST_SHORT // len(run_concepts)))
        found += [(text, GIVEN, 0) for text in unsafe]
        safe = list(dict.fromkeys(text for text, _, _ in rows))
        fitting = fitting_pairs(tagged, len(run_concepts))
        for tried in _others(concept, safe):
            found += [(each.unsafe, each.form, len(fitting)) for each in tried[: -(-len(tried) // OTHER_FITTING)]]
            fitting.append([(each.safe, each.unsafe, len(fitting)) for each in tried])
        # Each text once, in the first of its forms.
        prompts = list({prompt[0]: prompt for prompt in reversed(found)}.values())[::-1]
        return cls(run_concepts.title, prompts, rows, safe, fitting, list(map(is_quality, run_concepts.names)))

    def texts(self) -> tuple[list[str], int]:
        """All texts, each once, and how many of them, the first, are judged and not only measured with."""
        judged = dict.fromkeys([*(text for text, _, _ in self.prompts), *self.safe])
        fitting = (text for pairs in self.fitting for pair in pairs for text in pair[:2])
        return list(dict.fromkeys([*judged, *fitting])), len(judged)


def _others(concept: str | ConceptList, captions: Sequence[str]) -> list[list[OtherForm]]:
    """Prompts of other forms for each concept that has some; a text that no list may hold has none."""
    try:
        if isinstance(concept, str):
            concept = ConceptList.of(*(part for part in concept.split(",") if part.strip()))
        most = OTHER_FITTING * max(1, MOST_OTHER // len(concept))
        found = [other_forms(one, captions, most) for one in concept]
    except PromptError:
        return []
    return [others for others in found if others]
