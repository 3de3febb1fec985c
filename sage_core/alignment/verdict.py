"""What an aligned encoder is worth, from embeddings alone and before any picture: the concept gone, the rest kept?

Prompts that name the concept are measured on the ruler of `ruler`, which the base and the pairs make. Prompts of which
the base's own state does not lie with the concept can show nothing of its removal, and are not counted. Safe prompts
count as kept where they stay nearest to their own place. The verdict says what pictures would say in most cases, not in
all: it is calibrated on the shapes world, and how far that carries to another checkpoint has to be seen in pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..encoders.fast_encoder import FastEncoder
from ..encoders.precision import PrecisionChoice
from ..encoders.text_encoder import TextEncoder, embed
from ..encoders.tokens import tokenize, without_padding
from ..errors import TrainingError
from ..intervals import Hits
from ..prompts.concepts import ConceptList
from ..prompts.pairs import PromptPairs
from .concepts import Pair, Removal
from .ruler import STILL_THERE, Ruler, moved_of
from .watch import LEAST_SEEN, MOST_LEFT, MOST_MOVED, fitting_pairs, places_of, short_forms, some_of

# Prompts of full pairs and short prompts that are judged, and prompts from one call of `on_batch` to the next. Of 64
# that all lie elsewhere at most 5.6 % of their like lie with the concept, at 95 %.
MOST_FULL = MOST_SHORT = 64
_BATCH = 64
_WORST = 5
PAIRED, GIVEN = "in pairs", "given"
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
        left: prompts that still lie with the concept, by form: "in pairs", "bare", "short", "repeated", "combined" and,
            where prompts were given, "given".
        moved: safe prompts that have left their place; None where none were given.
        unseen: prompts that name the concept and that the ruler does not see as such in the base; they are not counted.
        worst: those that lie furthest with the concept, of the ones that are left.
    """

    concept: str
    left: Mapping[str, Hits]
    moved: Hits
    unseen: Hits
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
    def removed(self) -> bool:
        """Whether at most one in fifty of the prompts still lies with the concept; False where that is not known."""
        return self.certain and self.all_left.share <= MOST_LEFT

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
        return cls(values["concept"], left, _hits(values["moved"]), _hits(values["unseen"]), worst)

    def _removal(self) -> str:
        if not self.certain:
            return (
                f"Not known whether '{self.concept}' is removed: the base's own states of {self.unseen.k} of "
                f"{self.unseen.n} prompts that name it do not lie with it"
            )
        left = self.all_left
        word = "Removed" if self.removed else "Not removed"
        return f"{word}: {left.k} of {left.n} prompts that name '{self.concept}' still lie with it{_interval(left)}"

    def _keeping(self) -> str:
        stayed = Hits(self.moved.n - self.moved.k, self.moved.n)
        word = "kept" if self.kept else "NOT kept"
        return f"{word}: {stayed.k} of {stayed.n} safe prompts are where they were{_interval(stayed)}"

    def _advice(self) -> list[str]:
        if not self.certain:
            return ["Name the concept as the base encoder knows it, or make pairs that differ in the concept alone."]
        said = []
        if not self.removed:
            forms = ", ".join(f"{form} {hits.k}/{hits.n}" for form, hits in self.left.items() if hits.k)
            said.append(f"Left by form of prompt: {forms}; for example '{self.worst[0].prompt}'.")
            said.append(self._remedy())
        if not self.kept:
            said.append("Too much else has moved: train fewer steps or at a lower learning rate, or add near misses.")
        return said

    def _remedy(self) -> str:
        full = self.left.get(PAIRED, Hits(0, 0))
        short = sum((self.left[form] for form in _SHORT if form in self.left), Hits(0, 0))
        if full.n and full.share > MOST_LEFT:
            return "Train more steps, or until it is removed."
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
    removal = Removal.of(concept, pairs)
    judged = removal if held_out is None else Removal.of(concept, held_out)
    sides = fitting_pairs(removal.tagged(pairs), len(removal))
    # Where none are held out these are the first of those that the rulers are made from.
    each = max(1, MOST_FULL // len(removal))
    rows = [row for some in fitting_pairs(judged.tagged(held_out or pairs), len(removal), each) for row in some]
    prompts = _prompts_of(rows, removal, unsafe)
    named, safe = [text for text, _, _ in prompts], list(dict.fromkeys(text for text, _, _ in rows))
    place = {text: at for at, text in enumerate(dict.fromkeys([*named, *safe]))}
    looked_at = len(place)
    for text in (text for some in sides for row in some for text in row[:2]):
        place.setdefault(text, len(place))
    ids = without_padding(tokenize(list(place)))
    embedded = _Embedder(torch.device(device), precision, len(ids) + looked_at, on_batch)
    before, after = embedded(base, ids), embedded(aligned, ids[:looked_at])

    def at(texts: Iterable[str]) -> list[int]:
        return [place[text] for text in texts]

    rulers = [
        Ruler.of(before[at(unsafe for _, unsafe, _ in some)], before[at(safe for safe, _, _ in some)]) for some in sides
    ]
    concept_of = torch.tensor([concept for _, _, concept in prompts], device=before.device)
    was, now = (places_of(rulers, states[at(named)], concept_of) for states in (before, after))
    if not (now.isfinite().all() and after[at(safe)].isfinite().all()):
        raise TrainingError("An embedding of the aligned encoder is not finite: the encoder is damaged.")
    moved = moved_of(after[at(safe)], before[at(safe)])
    return _verdict(removal.title, prompts, was.tolist(), now.tolist(), moved)


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


# Prompt, its form, and the place of its concept.
_Prompt = tuple[str, str, int]


def _prompts_of(rows: Sequence[Pair], removal: Removal, unsafe: Sequence[str]) -> list[_Prompt]:
    found = [(text, PAIRED, concept) for _, text, concept in rows]
    for concept, names in enumerate(removal.called):
        short = [(text, form, concept) for form, texts in short_forms(names).items() for text in texts]
        found += some_of(short, max(1, MOST_SHORT // len(removal)))
    found += [(text, GIVEN, 0) for text in unsafe]
    # Each text once, in the first of its forms.
    return list({text: (text, form, concept) for text, form, concept in reversed(found)}.values())[::-1]


def _verdict(
    title: str, prompts: Sequence[_Prompt], before: Sequence[float], after: Sequence[float], moved: Tensor
) -> Verdict:
    left: dict[str, Hits] = {}
    remaining: list[Remaining] = []
    unseen = Hits(0, 0)
    for (text, form, _), was, now in zip(prompts, before, after, strict=True):
        seen = was > STILL_THERE
        unseen += Hits(int(not seen), 1)
        if seen:
            left[form] = left.get(form, Hits(0, 0)) + Hits(int(now > STILL_THERE), 1)
            if now > STILL_THERE:
                remaining.append(Remaining(text, form, now))
    worst = sorted(remaining, key=lambda each: -each.place)[:_WORST]
    return Verdict(title, left, Hits(int(moved.sum()), len(moved)), unseen, tuple(worst))


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
