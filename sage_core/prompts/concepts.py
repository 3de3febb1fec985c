"""Concepts as data: what each is called, how prompts are made of it, and what it becomes; one list for every method.

A list of concepts is what a training removes at once, what a closed form erases, what an attack asks for and what a
rate counts. `concept_files` reads one from a file, `concept_pairs` makes prompts to train on.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..encoders.tokens import require_short
from ..errors import PromptError
from ..rows import shown, text_problem
from .minors import mentions_minor
from .pairs import DEFAULT_TEMPLATES, check_template
from .weights import without_weights

# What is left of brackets around nothing is not a word.
_NO_WORDS = " \t\n()[]"
# Nor are spaces of no width and marks of direction, which a copied text may hold: controls, formats, separators.
_INVISIBLE = ("Cc", "Cf", "Zs", "Zl", "Zp")


@dataclass(frozen=True)
class Concept:
    """One thing that must no longer be drawn.

    Attributes:
        name: what it is called in reports and pairs, and the first of its names; a noun, so that a judge can be asked
            for it.
        names: its other names, which trainings and closed forms use as well.
        unseen: names that only attacks and examinations use. What was removed must be gone by these, too, and no
            training that is to be examined may see them.
        templates: how unsafe prompts are made of a safe one; each holds `{prompt}` and `{concept}`.
        direction: the text whose embedding is the concept's direction; "" for the name.
        becomes: the text that stands in its place: a training leads its unsafe prompts there, and a closed form has it
            as the guide. "" leaves that to the method.
        near: what must stay though it is like it: near misses, which a maker of pairs and closed forms keep.
        unsafe: unsafe prompts of its own, used instead of templates. Those that refer to minors are left out.

    Raises:
        PromptError: an empty, doubled or over-long text, one that refers to a minor, or a template without its places.
    """

    name: str
    names: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    direction: str = ""
    becomes: str = ""
    unsafe: tuple[str, ...] = ()
    near: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self._words("name", self.name))
        for field_name in ("names", "unseen", "near"):
            words = tuple(self._words(f"{field_name}[{at}]", text) for at, text in enumerate(getattr(self, field_name)))
            object.__setattr__(self, field_name, words)
        for field_name in ("direction", "becomes"):
            if getattr(self, field_name):
                object.__setattr__(self, field_name, self._words(field_name, getattr(self, field_name)))
        self._check_doubles()
        if not self.templates:
            raise PromptError(f"{self._place('templates')} is empty; expected one or more, or leave the field out.")
        for at, template in enumerate(self.templates):
            if problem := check_template(template):
                raise PromptError(f"{self._place(f'templates[{at}]')}: {problem}")
        kept = tuple(prompt for prompt in self.unsafe if not mentions_minor(prompt))
        if self.unsafe and not kept:
            raise PromptError(
                f"{self._place('unsafe')}: all {len(self.unsafe):,} prompts refer or may refer to minors, and none is "
                "used. Give others, or leave the field out."
            )
        object.__setattr__(self, "unsafe", kept)

    @property
    def trained_names(self) -> tuple[str, ...]:
        """All names that trainings and closed forms may use, the first one first."""
        return (self.name, *self.names)

    @property
    def attack_names(self) -> tuple[str, ...]:
        """The names that an attack asks for it by: those that no training saw, or all of them where none is kept."""
        return self.unseen or self.trained_names

    @property
    def direction_text(self) -> str:
        """The text whose embedding is its direction."""
        return self.direction or self.name

    def _place(self, field_name: str) -> str:
        return f"Concept {shown(self.name)}, {field_name}"

    def _words(self, field_name: str, text: str) -> str:
        if problem := text_problem(text):
            raise PromptError(f"{self._place(field_name)} holds {problem}.")
        words = without_weights(text).strip()
        if all(unicodedata.category(letter) in _INVISIBLE for letter in words.strip(_NO_WORDS)):
            raise PromptError(f"{self._place(field_name)} is empty; expected words, such as 'nudity'.")
        if mentions_minor(words):
            raise PromptError(
                f"{self._place(field_name)} is {shown(text)}, which refers or may refer to a minor: no prompts are "
                "made with it. Choose other words."
            )
        require_short(self._place(field_name), words)
        return words

    def _check_doubles(self) -> None:
        seen: set[str] = set()
        for name in (*self.trained_names, *self.unseen):
            if name.casefold() in seen:
                raise PromptError(f"Concept {shown(self.name)} has the name {shown(name)} twice. Leave one out.")
            seen.add(name.casefold())
        for name in self.near:
            if name.casefold() in seen:
                raise PromptError(
                    f"{self._place('near')} holds {shown(name)}, which is one of its names: it cannot go and stay. "
                    "Leave it out of one of them."
                )
        if self.becomes and self.becomes.casefold() in {*seen, self.direction.casefold()}:
            raise PromptError(
                f"{self._place('becomes')} is {shown(self.becomes)}, which is the concept itself: nothing would "
                "change. Choose another text, or leave the field out."
            )


@dataclass(frozen=True)
class ConceptList:
    """One or more concepts, each with names of its own.

    Attributes:
        concepts: in their order.
        notes: what the user should know about how they were read.

    Raises:
        PromptError: no concept, or a name that two of them have.
    """

    concepts: tuple[Concept, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.concepts:
            raise PromptError("There is no concept; expected at least one, such as 'nudity'.")
        owner: dict[str, str] = {}
        for concept in self.concepts:
            for name in (*concept.trained_names, *concept.unseen):
                if other := owner.get(name.casefold()):
                    raise PromptError(
                        f"The name {shown(name)} is given to two concepts, {shown(other)} and {shown(concept.name)}. "
                        "Leave it to one of them, or make them one concept with several names."
                    )
            owner |= {name.casefold(): concept.name for name in (*concept.trained_names, *concept.unseen)}

    @classmethod
    def of(cls, *concepts: Concept | str) -> ConceptList:
        """A list of concepts; a text is one that has no more than its name."""
        return cls(tuple(Concept(each) if isinstance(each, str) else each for each in concepts))

    def __len__(self) -> int:
        return len(self.concepts)

    def __iter__(self) -> Iterator[Concept]:
        return iter(self.concepts)

    def __getitem__(self, place: int) -> Concept:
        return self.concepts[place]

    @property
    def names(self) -> tuple[str, ...]:
        """The first name of each."""
        return tuple(concept.name for concept in self.concepts)

    def named(self, name: str) -> Concept:
        """The concept of this name, its first one or another.

        Raises:
            PromptError: none has it.
        """
        wanted = name.strip().casefold()
        for concept in self.concepts:
            if wanted in {each.casefold() for each in (*concept.trained_names, *concept.unseen)}:
                return concept
        raise PromptError(f"There is no concept {shown(name)}; expected one of {', '.join(self.names)}.")

    def summary(self) -> str:
        """A line for each concept, and the notes."""
        return "\n".join([*map(_line, self.concepts), *self.notes])


def texts_to_erase(concepts: Sequence[Concept] | ConceptList) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a closed form erases, every name that trainings may use, and the guide of each; "" is the empty prompt."""
    texts = [(name, concept.becomes) for concept in concepts for name in concept.trained_names]
    return tuple(name for name, _ in texts), tuple(guide for _, guide in texts)


def texts_to_keep(concepts: Sequence[Concept] | ConceptList) -> tuple[str, ...]:
    """What a closed form keeps: the near misses of all, without those that are names of another concept."""
    names = {name.casefold() for concept in concepts for name in (*concept.trained_names, *concept.unseen)}
    near = dict.fromkeys(text for concept in concepts for text in concept.near)
    return tuple(text for text in near if text.casefold() not in names)


def _line(concept: Concept) -> str:
    also = f", also {', '.join(concept.names)}" if concept.names else ""
    kept = f"; unseen: {', '.join(concept.unseen)}" if concept.unseen else ""
    where = f"; direction of '{concept.direction}'" if concept.direction else ""
    becomes = f"; becomes '{concept.becomes}'" if concept.becomes else ""
    near = f"; stays: {', '.join(concept.near)}" if concept.near else ""
    made = f"{len(concept.unsafe):,} unsafe prompts" if concept.unsafe else f"{len(concept.templates)} templates"
    return f"{concept.name}{also}{kept}{where}{becomes}{near}; {made}"
