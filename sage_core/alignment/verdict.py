"""What an aligned encoder is worth, from embeddings alone and before any picture: the concept gone, the rest kept?

Prompts that name the concept are measured on the ruler of `ruler`, which the base and the pairs make. Prompts of which
the base's own state does not lie with the concept can show nothing of its removal, and are not counted. Safe prompts
count as kept where they stay nearest to their own place. A quality, such as a colour or a pattern, is a part of
everything: a prompt that only leaves it may be drawn with it still, so that its prompts must also arrive at their safe
sides. A training may take a concept from prompts like its pairs and leave it in prompts of other forms: such are tried
as well, on a ruler of their own, and the form that has most of it left counts. The verdict says what pictures would say
in most cases, not in all: it is calibrated on the shapes world, and how far that carries to another checkpoint has to
be seen in pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..encoders.fast_encoder import FastEncoder
from ..encoders.precision import PrecisionChoice
from ..encoders.text_encoder import TextEncoder, embed
from ..encoders.tokens import tokenize
from ..errors import TrainingError
from ..intervals import Hits
from ..prompts.concepts import ConceptList
from ..prompts.making.other_forms import OTHER_FORMS
from ..prompts.pairs import PromptPairs
from .asked import PAIRED, Asked
from .ruler import (
    ARRIVED,
    GONE,
    GONE_ELSEWHERE,
    MOST_LEFT,
    NOT_GONE,
    STILL_THERE,
    Ruler,
    apart_of,
    moved_of,
    places_of,
    worst_mean,
)
from .watch import LEAST_SEEN, MOST_MOVED

# Prompts from one call of `on_batch` to the next.
_BATCH = 64
_WORST = 5
_SHORT = ("bare", "short", "repeated", "combined")


@dataclass(frozen=True)
class Remaining:
    """A prompt that still lies with the concept, its form, and its place on the ruler (1 as by the base)."""

    prompt: str
    form: str
    place: float


@dataclass(frozen=True)
class Verdict:
    """What embeddings say of an aligned encoder.

    Attributes:
        concept: what was to be removed.
        left: prompts that still lie with the concept, by form: "in pairs", "bare", "short", "repeated", "combined",
            those of OTHER_FORMS and, where prompts were given, "given".
        moved: safe prompts that have left their place; None where none were given.
        unseen: prompts that name the concept and that the ruler does not see as such in the base; they are not counted.
        place: where on the ruler prompts lie that name a concept, 0 as safe ones and 1 as by the base: the largest mean
            of a concept's prompts in pairs, its short or the given ones; NaN where the ruler sees none.
        elsewhere: the same of a concept's prompts of one of the other forms, on a ruler of these; None where none could
            be written.
        apart: how far prompts that name a quality lie from their safe sides, 1 as by the base; None where no concept
            is a quality.
        worst: those that lie furthest with the concept, of the ones that are left.
    """

    concept: str
    left: Mapping[str, Hits]
    moved: Hits
    unseen: Hits
    place: float
    apart: float | None = None
    elsewhere: float | None = None
    worst: tuple[Remaining, ...] = ()

    @property
    def all_left(self) -> Hits:
        """Prompts of all forms that still lie with the concept."""
        return sum(self.left.values(), Hits(0, 0))

    @property
    def certain(self) -> bool:
        """Whether the ruler sees the concept in the base's own states, so that the verdict says something."""
        return self.all_left.n > 0 and 1 - self.unseen.share >= LEAST_SEEN

    @property
    def left_it(self) -> bool:
        """Whether prompts like the pairs' lie as far from it as safe ones do, and one in fifty at most with it."""
        like_pairs = sum((hits for form, hits in self.left.items() if form not in OTHER_FORMS), Hits(0, 0))
        return self.certain and self.place <= GONE and like_pairs.share <= MOST_LEFT

    @property
    def gone_elsewhere(self) -> bool:
        """Whether the prompts of each other form have left it, too."""
        return self.elsewhere is None or self.elsewhere <= GONE_ELSEWHERE

    @property
    def removed(self) -> bool:
        """Whether the concept is surely gone: prompts of all forms have left it, those of a quality to safe sides."""
        return self.left_it and self.gone_elsewhere and (self.apart is None or self.apart <= ARRIVED)

    @property
    def sure(self) -> bool:
        """Whether the concept is surely gone or surely not. What lies between may be drawn or not."""
        there = self.place >= NOT_GONE and (self.elsewhere is None or self.elsewhere >= NOT_GONE)
        return self.removed or (self.certain and there)

    @property
    def kept(self) -> bool:
        """Whether at most a twentieth of the safe prompts has left its place."""
        return self.moved.share <= MOST_MOVED

    @property
    def holds(self) -> bool:
        """Whether the concept is removed and the rest kept."""
        return self.removed and self.kept

    def line(self) -> str:
        """One line for a person, ⚠ first where the concept is not removed or the rest not kept."""
        sign = "" if self.holds else "⚠ "
        return f"{sign}{self._removal()}; {self._keeping()} (by embeddings; no picture was drawn)."

    def lines(self) -> list[str]:
        """The line and, where it did not work, a second one that says what is left and what to do."""
        advice = self._advice()
        return [self.line(), *([" ".join(advice)] if advice else [])]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "concept": self.concept,
            "removed": self.removed,
            "kept": self.kept,
            "certain": self.certain,
            "sure": self.sure,
            "place": None if math.isnan(self.place) else self.place,
            "apart": self.apart,
            "elsewhere": self.elsewhere,
            "left": {form: hits.to_dict() for form, hits in self.left.items() if hits.n},
            "all_left": self.all_left.to_dict() if self.all_left.n else None,
            "moved": self.moved.to_dict(),
            "unseen": self.unseen.to_dict(),
            "worst": [vars(each) for each in self.worst],
            "text": self.lines(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Verdict:
        """Read what `to_dict` wrote."""
        left = {form: _hits(found) for form, found in values["left"].items()}
        worst = tuple(Remaining(**each) for each in values["worst"])
        place = math.nan if values["place"] is None else values["place"]
        moved, unseen, tried = _hits(values["moved"]), _hits(values["unseen"]), values.get("elsewhere")
        return cls(values["concept"], left, moved, unseen, place, values.get("apart"), tried, worst)

    def _removal(self) -> str:
        if not self.certain:
            return (
                f"Not known whether '{self.concept}' is removed: the base's own states of {self.unseen.k} of "
                f"{self.unseen.n} prompts that name it do not lie with it"
            )
        left = self.all_left
        word = ("Removed" if self.removed else "Not removed") if self.sure else "Not sure whether removed"
        lie = f"{left.k} of {left.n} prompts that name '{self.concept}' still lie with it{_interval(left)}"
        return f"{word}: {lie}, at {self.place:.2f} of the way to it"

    def _keeping(self) -> str:
        stayed = Hits(self.moved.n - self.moved.k, self.moved.n)
        word = "kept" if self.kept else "NOT kept"
        return f"{word}: {stayed.k} of {stayed.n} safe prompts are where they were{_interval(stayed)}"

    def _advice(self) -> list[str]:
        if not self.certain:
            return ["Name the concept as the base encoder knows it, or make pairs that differ in the concept alone."]
        said = []
        if not self.removed and self.worst:
            forms = ", ".join(f"{form} {hits.k}/{hits.n}" for form, hits in self.left.items() if hits.k)
            said.append(f"Left by form of prompt: {forms}; for example '{self.worst[0].prompt}'.")
            said.append(self._remedy())
        if self.left_it and self.gone_elsewhere and not self.removed:
            said.append(
                "Its prompts have left it, but not arrived at their safe sides. What a prompt in between shows of a "
                "quality is the model's own choice, and may be this one. Say in a list of concepts what it becomes, "
                "one word of its kind, make pairs from that, and train with the preset own_concept."
            )
        if not self.sure:
            said.append("Draw a few of its names: of encoders as far as this some show it and some do not.")
        if not self.kept:
            said.append("Too much else has moved: train fewer steps or at a lower learning rate, or add near misses.")
        return said

    def _remedy(self) -> str:
        full = self.left.get(PAIRED, Hits(0, 0))
        short = sum((self.left[form] for form in _SHORT if form in self.left), Hits(0, 0))
        if full.n and full.share > MOST_LEFT:
            return "Train more steps, or until it is removed."
        if self.left_it and not self.gone_elsewhere:
            return (
                "Prompts like the pairs have left it, those of other forms have not. Make pairs from captions like the "
                "prompts that you will write, or from more of them, and train again."
            )
        if short.k:
            return "Add short prompts to the pairs: names alone, after an opener, repeated, two together."
        return "Add more names of the concept to the pairs."


def judge(
    base: Mapping[str, Tensor] | TextEncoder,
    aligned: Mapping[str, Tensor] | TextEncoder,
    pairs: PromptPairs,
    concept: str | ConceptList,
    *,
    held_out: PromptPairs | None = None,
    unsafe: Sequence[str] = (),
    device: str | torch.device = "cpu",
    precision: PrecisionChoice = "fp32",
    on_batch: Callable[[int, int], None] | None = None,
) -> Verdict:
    """Say by embeddings whether `aligned` has lost the concept and kept the rest. The same input, the same verdict.

    Args:
        base, aligned: states of both encoders, or the encoders.
        pairs: those of the training, or others like them; the ruler is made from them.
        concept: what is removed, in words or as a list of concepts, whose names are tried in short forms; with several
            `pairs` say which each is for.
        held_out: pairs that the training did not see, whose two sides are judged; by default some of `pairs`.
        unsafe: further prompts that name the (first) concept.
        on_batch: called with (prompts embedded, in all); what it raises stops the work.

    Raises:
        TrainingError: pairs for other concepts, or pairs whose two sides the base does not tell apart.
    """
    asked = Asked.of(pairs, concept, held_out, unsafe)
    texts, judged = asked.texts()
    ids, row = tokenize(texts), {text: at for at, text in enumerate(texts)}
    embedded = _Embedder(torch.device(device), precision, len(ids) + judged, on_batch)
    before, after = embedded(base, ids), embedded(aligned, ids[:judged])

    def rows_of(chosen: Iterable[str]) -> list[int]:
        return [row[text] for text in chosen]

    rulers = [
        Ruler.of(before[rows_of(gone for _, gone, _ in fitting)], before[rows_of(kept for kept, _, _ in fitting)])
        for fitting in asked.fitting
    ]
    named, safe = rows_of(text for text, _, _ in asked.prompts), rows_of(asked.safe)
    concept_of = torch.tensor([place for _, _, place in asked.prompts], device=before.device)
    was, now = (places_of(rulers, states[named], concept_of) for states in (before, after))
    if not (now.isfinite().all() and after[safe].isfinite().all()):
        raise TrainingError("An embedding of the aligned encoder is not finite: the encoder is damaged.")
    apart = None
    if of_qualities := [pair for pair in asked.pairs if asked.qualities[pair[2]]]:
        kept, gone = rows_of(text for text, _, _ in of_qualities), rows_of(text for _, text, _ in of_qualities)
        apart = apart_of(after[gone], before[gone], before[kept])
    return _verdict(asked, was.tolist(), now.tolist(), apart, moved_of(after[safe], before[safe]))


def verdict_lines(
    base: Mapping[str, Tensor],
    aligned: Mapping[str, Tensor],
    pairs: PromptPairs,
    concept: str | ConceptList,
    *,
    device: str | torch.device = "cpu",
    on_batch: Callable[[int, int], None] | None = None,
) -> list[str]:
    """What `judge` says in one or two lines, or a line that says why it can say nothing."""
    try:
        return judge(base, aligned, pairs, concept, device=device, precision="auto", on_batch=on_batch).lines()
    except TrainingError as error:
        return [f"⚠ No verdict: {error}"]


def _verdict(
    asked: Asked, before: Sequence[float], after: Sequence[float], apart: float | None, moved: Tensor
) -> Verdict:
    left: dict[str, Hits] = {}
    remaining: list[Remaining] = []
    # By ruler and form, like the pairs and not: a form of few prompts may have all that is left.
    alike: list[tuple[float, tuple[int, str]]] = []
    others: list[tuple[float, tuple[int, str]]] = []
    unseen = Hits(0, 0)
    for (text, form, concept), was, now in zip(asked.prompts, before, after, strict=True):
        seen = was > STILL_THERE
        other = form in OTHER_FORMS
        if not other:
            unseen += Hits(int(not seen), 1)
        if seen:
            left[form] = left.get(form, Hits(0, 0)) + Hits(int(now > STILL_THERE), 1)
            (others if other else alike).append((now, (concept, "short" if form in _SHORT else form)))
            if now > STILL_THERE:
                remaining.append(Remaining(text, form, now))
    worst = sorted(remaining, key=lambda each: -each.place)[:_WORST]
    kept = Hits(int(moved.sum()), len(moved))
    place, elsewhere = (worst_mean([now for now, _ in some], [group for _, group in some]) for some in (alike, others))
    tried = elsewhere if others else None
    return Verdict(asked.title, left, kept, unseen, place, apart, tried, tuple(worst))


class _Embedder:
    """Embeds prompts, all their states flattened, and counts what is done."""

    def __init__(
        self,
        device: torch.device,
        precision: PrecisionChoice,
        total: int,
        on_batch: Callable[[int, int], None] | None,
    ) -> None:
        self._device, self._precision = device, precision
        self._total, self._on_batch, self._done = total, on_batch, 0

    def __call__(self, given: Mapping[str, Tensor] | TextEncoder, ids: Tensor) -> Tensor:
        """(N, D) of N prompts' tokens by an encoder or its state."""
        encoder = given if isinstance(given, TextEncoder) else FastEncoder.from_state(given, copy=False)
        encoder.to(self._device)
        return torch.cat([self._part(encoder, part) for part in ids.split(_BATCH)])

    def _part(self, encoder: TextEncoder, ids: Tensor) -> Tensor:
        embeddings = embed(encoder, ids, precision=self._precision)
        self._done += len(ids)
        if self._on_batch:
            self._on_batch(self._done, self._total)
        return embeddings


def _hits(values: Mapping[str, Any]) -> Hits:
    return Hits(values["k"], values["n"])


def _interval(hits: Hits) -> str:
    if not hits.n:
        return ""
    low, high = hits.interval
    return f" (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
