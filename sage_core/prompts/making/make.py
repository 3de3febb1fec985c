"""Makes pairs to train on from the name of a concept, captions, and what the base encoder says of both."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from ...encoders.text_encoder import TextEncoder
from ...encoders.tokens import MAX_PROMPT_TOKENS, count_tokens
from ...errors import PromptError
from ..concepts import Concept, ConceptList
from ..everyday_captions import everyday_captions
from ..minors import mentions_minor
from ..pairs import PromptPairs, PromptReport
from .becoming import what_it_becomes
from .captions import usable
from .holding import Holder
from .made import FoundConcept, FoundName, MadePairs
from .mining import mine
from .reading import read
from .roles import Roles
from .senses import EncoderSenses, Senses
from .settings import Kind, MakingSettings
from .short_forms import ShortForms
from .spelling import check_words
from .swaps import in_turns, quality_group, swaps
from .targets import Name, Target, core_words, find_kind, kind_of, take_apart

# Own captions where the user has none.
_OWN_CAPTIONS = 3000
# A pair moves along the concept if it does so by more than so many standard deviations of a random direction.
_NOISE = 1.0
# More are made than are asked for, since some are left out.
_SPARE = 1.15
_TRIES = 12
_OWN_SHARE = 0.35
_NO_SAFE, _NO_UNSAFE, _LONG = "the safe side names a concept", "the unsafe side names none", "more than 75 tokens"
_MINOR, _STILL = "refers to a minor", "the encoder barely moves"


def make_pairs(
    concepts: str | Concept | ConceptList,
    captions: Sequence[str] | None,
    encoder: TextEncoder | Senses,
    settings: MakingSettings | None = None,
    *,
    on_progress: Callable[[float, str], None] | None = None,
) -> MadePairs:
    """Pairs of safe and unsafe prompts for concepts that are known by name.

    Names are mined with the base encoder; near misses are words of the same place that are no names. A long pair is a
    caption, and the same with the concept in the place of something of its kind; a short one names the concept and a
    near miss with little around them. The same arguments make the same pairs.

    Args:
        concepts: typed text, or a list; `near` of a concept says what must stay.
        captions: harmless captions; None or none for the package's own.
        encoder: the base text encoder.
        settings: how many pairs, the share of short ones, the seed.
        on_progress: called with the share done and what is being done; may raise to stop.

    Raises:
        PromptError: the concept or the captions cannot be used; the message says why and what to do.
    """
    chosen = settings or MakingSettings()
    told = on_progress or (lambda _share, _what: None)
    listed = concepts if isinstance(concepts, ConceptList) else ConceptList.of(*_as_concepts(concepts))
    senses = EncoderSenses(encoder) if isinstance(encoder, TextEncoder) else encoder
    told(0.0, "reading captions")
    notes: list[str] = []
    texts = _captions(captions, listed, chosen, notes)
    roles = Roles(read(texts))
    check_words(listed, senses, roles, chosen.check_spelling)
    targets = []
    for number, concept in enumerate(listed):
        told(0.05 + 0.35 * number / len(listed), f"looking for names of {concept.name}")
        targets.append(_target(concept, listed, senses, roles, chosen))
    holder = Holder(targets)
    safe_texts = [text for text in texts if not holder.holds(text)]
    notes += _note_held(len(texts) - len(safe_texts), len(texts), captions is not None and bool(captions))
    safe_roles = Roles(read(safe_texts))
    parts = []
    for number, target in enumerate(targets):
        told(0.4 + 0.55 * number / len(targets), f"making pairs for {target.concept.name}")
        parts.append(_Maker(target, safe_roles, holder, senses, chosen, number).made(chosen.pairs))
    told(1.0, "pairs are made")
    return _result(parts, targets, listed, notes, len(safe_texts))


@dataclass
class _Part:
    """The pairs of one concept."""

    long: list[tuple[str, str]] = field(default_factory=list)
    short: list[tuple[str, str]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    asked: int = 0


class _Maker:
    """Makes the pairs of one concept, and checks each."""

    def __init__(
        self,
        target: Target,
        roles: Roles,
        holder: Holder,
        senses: Senses,
        settings: MakingSettings,
        number: int,
    ) -> None:
        self.target, self.roles, self.holder, self.senses, self.settings = target, roles, holder, senses, settings
        self._own = Holder([target])
        # The word that a quality becomes is in its place in every pair: a training can lead prompts there.
        becomes = target.concept.becomes
        one_word = target.kind == Kind.QUALITY and len(becomes.split()) == 1
        self._instead = Name(becomes, becomes, given=False) if one_word else None
        self._dice = random.Random(f"{settings.seed} {number} {target.concept.name}")
        self._seen: set[tuple[str, str]] = set()
        self._part = _Part()
        self._turn = 0

    def made(self, count: int) -> _Part:
        """So many pairs, or fewer where no more can be made."""
        part = self._part
        part.asked = count
        short = round(self.settings.short * count)
        part.short = self._checked(self._short(round(_SPARE * short)), short)
        part.long = self._checked(self._long(round(_SPARE * (count - short))), count - short)
        if len(part.long) < count - short:
            # Few captions have a place for it: short prompts make up for them.
            missing = count - short - len(part.long)
            part.short += self._checked(self._short(round(_SPARE * missing)), missing)
        return part

    def _name(self) -> Name:
        """A name: the concept's own more often than each other, the given ones as often as the mined."""
        names = self.target.names
        self._turn += 1
        if len(names) == 1 or self._dice.random() < _OWN_SHARE:
            return names[0]
        return names[1 + self._turn % (len(names) - 1)]

    def _long(self, wanted: int) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        places = in_turns(list(swaps(self.target, self.roles)), self.target, self._dice)
        for _ in range(_TRIES):
            for place in places:
                if len(found) >= wanted:
                    return found
                pair = place.write(self._name(), self._dice)
                if pair is not None and self._instead:
                    other = place.write(self._instead, self._dice)
                    pair = (other[1], pair[1]) if other else None
                if pair is not None and self._fits(*pair):
                    found.append(pair)
        return found

    def _short(self, wanted: int) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        forms = ShortForms(self.target, self.roles, self.holder.holds, self._instead)
        for number in range(_TRIES * wanted):
            if len(found) >= wanted:
                break
            pair = forms.pair(number, self._name(), self._name(), self._dice)
            if pair is not None and self._fits(*pair):
                found.append(pair)
        return found

    def _fits(self, safe: str, unsafe: str) -> bool:
        """Whether a pair keeps its promises, as far as words tell; counts why not."""
        if (safe, unsafe) in self._seen:
            return False
        self._seen.add((safe, unsafe))
        why = ""
        if mentions_minor(safe) or mentions_minor(unsafe):
            why = _MINOR
        elif self.holder.holds(safe):
            why = _NO_SAFE
        elif not self._own.holds(unsafe):
            why = _NO_UNSAFE
        elif max(count_tokens([safe, unsafe])) > MAX_PROMPT_TOKENS:
            why = _LONG
        if why:
            self._part.left_out[why] += 1
        return not why

    def _checked(self, pairs: list[tuple[str, str]], wanted: int) -> list[tuple[str, str]]:
        """Those that move along the concept by more than noise, `wanted` of them."""
        if len(pairs) < 2:
            return pairs[:wanted]
        ends = self.senses.ends([prompt for pair in pairs for prompt in pair])
        moves = ends[1::2] - ends[::2]
        direction = torch.nn.functional.normalize(torch.nn.functional.normalize(moves, dim=1).mean(0), dim=0)
        noise = moves.norm(dim=1) / moves.shape[1] ** 0.5
        moved = (moves @ direction > _NOISE * noise).tolist()
        kept = [pair for pair, far in zip(pairs, moved, strict=True) if far]
        self._part.left_out[_STILL] += len(pairs) - len(kept)
        return kept[:wanted]


def _as_concepts(concepts: str | Concept) -> tuple[str | Concept, ...]:
    """One concept, or several that are typed with commas or lines between them."""
    if isinstance(concepts, Concept):
        return (concepts,)
    parts = [part.strip() for line in concepts.splitlines() for part in line.split(",")]
    return tuple(part for part in parts if part) or (concepts,)


def _captions(
    captions: Sequence[str] | None, concepts: ConceptList, settings: MakingSettings, notes: list[str]
) -> list[str]:
    if captions:
        return usable(captions, concepts, notes)
    names = [name for concept in concepts for name in (*concept.trained_names, *concept.unseen)]
    notes.append("No captions were given: the package's own everyday captions are used.")
    return list(everyday_captions(_OWN_CAPTIONS, seed=settings.seed, leave_out=names))


def _target(concept: Concept, concepts: ConceptList, senses: Senses, roles: Roles, settings: MakingSettings) -> Target:
    kind = Kind(settings.kind) if settings.kind else kind_of(concept, roles)
    if kind is None:
        kind = find_kind(senses, core_words(concept.name)[-1], roles)
    others = [name for other in concepts if other is not concept for name in (*other.trained_names, *other.unseen)]
    taken = {word for text in (*others, *concept.unseen, *concept.near) for word in core_words(text)}
    own = {word for text in concept.trained_names for word in core_words(text)}
    found = mine(senses, roles, take_apart(concept, kind, roles), settings, frozenset(taken - own))
    if kind != Kind.QUALITY or concept.becomes or len(found.main.head.split()) > 1:
        return found
    # What must stay may well be what it becomes; names may not.
    names = (*others, *concept.unseen, *(name.text for name in found.names))
    gone = {word for text in names for word in core_words(text)}
    becomes = what_it_becomes(found.main.head, quality_group(found), found.near, gone, roles, senses)
    return replace(found, concept=replace(concept, becomes=becomes))


def _note_held(held: int, total: int, given: bool) -> list[str]:
    if held == total:
        raise PromptError(
            f"All {total:,} captions hold a concept that is to go: none is left to say what must stay. Give harmless "
            "captions, or none for the package's own."
        )
    if not held or not given:
        return []
    return [f"{held:,} of {total:,} captions name a concept that is to go; they are not used as harmless ones."]


def _result(
    parts: Sequence[_Part], targets: Sequence[Target], concepts: ConceptList, notes: list[str], captions: int
) -> MadePairs:
    warnings = []
    for part, target in zip(parts, targets, strict=True):
        made = len(part.long) + len(part.short)
        if not made:
            raise PromptError(
                f"No pair could be made for '{target.concept.name}': no caption has a place for it, and nothing like "
                "it was found. Give captions that show things of its kind, or name near misses."
            )
        if made < 0.9 * part.asked:
            warnings.append(
                f"{target.concept.name}: {made:,} of {part.asked:,} pairs could be made. More captions of its kind "
                "give more."
            )
        if not part.long:
            warnings.append(f"{target.concept.name}: no caption has a place for it, so that all pairs are short.")
    # In turns for each concept, so that every batch holds all.
    rows = [
        (turn, number, *pair, turn >= len(part.long))
        for number, part in enumerate(parts)
        for turn, pair in enumerate([*part.long, *part.short])
    ]
    rows.sort(key=lambda row: row[:2])
    report = PromptReport(len(rows), (f"{captions:,} captions and what the encoder takes for the concept",), (), ())
    pairs = PromptPairs(
        tuple(row[2] for row in rows),
        tuple(row[3] for row in rows),
        report,
        tuple(targets[row[1]].concept.name for row in rows),
    )
    found = tuple(_found(part, target) for part, target in zip(parts, targets, strict=True))
    return MadePairs(
        pairs,
        ConceptList(tuple(map(_listed, targets)), concepts.notes),
        found,
        tuple(row[4] for row in rows),
        tuple(notes),
        tuple(warnings),
    )


def _found(part: _Part, target: Target) -> FoundConcept:
    mined = tuple(FoundName(name.text, name.cosine, name.distance) for name in target.names if not name.given)
    left_out = {why: count for why, count in part.left_out.items() if count}
    near = _near(target)
    return FoundConcept(target.concept.name, target.kind, mined, near, len(part.long), len(part.short), left_out)


def _near(target: Target) -> tuple[str, ...]:
    """Near misses as they are said: of a concept of two parts one part at a time."""
    main = target.main
    if not main.modifier:
        return tuple(dict.fromkeys((*target.near_phrases, *target.near)))
    heads = [f"{main.modifier} {head}" for head in target.near]
    modifiers = [f"{modifier} {main.head}" for modifier in target.near_modifiers]
    both = [each for pair in zip(heads, modifiers, strict=False) for each in pair]
    rest = [*heads[len(modifiers) :], *modifiers[len(heads) :]]
    return tuple(dict.fromkeys((*target.near_phrases, *both, *rest)))


def _listed(target: Target) -> Concept:
    """The concept with what was found, as a list holds it."""
    mined = tuple(name.text for name in target.names if not name.given)
    names = {name.casefold() for name in (*target.concept.trained_names, *target.concept.unseen, *mined)}
    near = tuple(each for each in _near(target) if each.casefold() not in names)
    return replace(target.concept, names=(*target.concept.names, *mined), near=near[:24])
