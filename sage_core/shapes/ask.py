"""Exact questions about a scene, in TIFA's format, from a closed list that a tiny judge can learn whole.

A question is about the place, or about one group of equal shapes, found by its shape ("the star") or its colour ("the
red object"). Any scene answers any question: "none" or "no" where what is asked about is absent.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

import torch
from torch import Tensor

from ..errors import ShapesError
from ..tifa.questions import Question
from .scenes import COLORS, MATERIALS, MAX_COUNT, PLACES, SHAPES, SIZES, Scenes
from .words import SHAPE_NAMES

FAMILIES = {
    "round": ("circle", "ring"),
    "angular": ("square", "triangle", "diamond"),
    "branched": ("star", "cross"),
    "organic": ("heart", "skull"),
}
# What can be asked about, and the answers. "checkered" and "medium" are only ever wrong answers.
ATTRIBUTES = {
    "shape": SHAPES,
    "family": tuple(FAMILIES),
    "color": COLORS,
    "count": tuple(str(count + 1) for count in range(MAX_COUNT)),
    "material": (*MATERIALS, "checkered"),
    "size": (*SIZES, "medium"),
    "relation": ("left", "right", "above", "below"),
    "place": PLACES,
}

YES, NO, NONE, UNCLEAR = range(4)
# All answers; answer ids index them. A reader or judge says "unclear" of a picture that shows nothing definite.
ANSWERS = ("yes", "no", "none", "unclear", *(value for values in ATTRIBUTES.values() for value in values))

_NAMES = list(ATTRIBUTES)
_SCENE = len(_NAMES)
_ANYTHING, _WHAT, _EXISTS = -1, -1, -2
_OFFSETS = [len(ANSWERS) - sum(len(ATTRIBUTES[name]) for name in _NAMES[place:]) for place in range(len(_NAMES))]
_SHAPE, _COUNT = _NAMES.index("shape"), _NAMES.index("count")
PLURALS = {name: SHAPE_NAMES[name][0][1] if name in SHAPE_NAMES else f"{name}s" for name in SHAPES}


@dataclass(frozen=True)
class _Form:
    """A kind of question. It has a wording for one shape and one for several; for two groups, all four combinations."""

    element_type: str
    about: str
    by: str | None
    kind: int
    wordings: tuple[str, ...]

    @property
    def ranges(self) -> tuple[int, int, int, int]:
        """How many wordings, subjects, other subjects and asked values the form has."""
        subjects = len(ATTRIBUTES[self.by]) if self.by else 1
        others = len(SHAPES) if self.about == "relation" else 1
        return len(self.wordings), subjects, others, len(ATTRIBUTES[self.about]) if self.kind >= 0 else 1


_IS = 0
_FORMS = (
    _Form("object", "shape", "shape", _EXISTS, ("is there a {one}?",)),
    _Form("object", "shape", "color", _WHAT, ("what is the {one} object?", "what are the {one} objects?")),
    _Form("shape", "family", "color", _IS, ("is the {one} object {value}?", "are the {one} objects {value}?")),
    _Form(
        "shape", "family", "color", _WHAT,
        ("what kind of shape is the {one} object?", "what kind of shape are the {one} objects?"),
    ),
    _Form("color", "color", "shape", _IS, ("is the {one} {value}?", "are the {many} {value}?")),
    _Form("color", "color", "shape", _WHAT, ("what color is the {one}?", "what color are the {many}?")),
    _Form("counting", "count", "shape", _IS, ("is the number of {many} {value}?",)),
    _Form("counting", "count", "shape", _WHAT, ("how many {many} are there?",)),
    _Form("material", "material", "shape", _IS, ("is the {one} {value}?", "are the {many} {value}?")),
    _Form(
        "material", "material", "shape", _WHAT,
        ("what pattern does the {one} have?", "what pattern do the {many} have?"),
    ),
    _Form("attribute", "size", "shape", _IS, ("is the {one} {value}?", "are the {many} {value}?")),
    _Form("attribute", "size", "shape", _WHAT, ("what size is the {one}?", "what size are the {many}?")),
    _Form(
        "spatial", "relation", "shape", _IS,
        (
            "is the {one} {value} the {other}?", "are the {many} {value} the {other}?",
            "is the {one} {value} the {others}?", "are the {many} {value} the {others}?",
        ),
    ),
    _Form(
        "spatial", "relation", "shape", _WHAT,
        (
            "where is the {one} relative to the {other}?", "where are the {many} relative to the {other}?",
            "where is the {one} relative to the {others}?", "where are the {many} relative to the {others}?",
        ),
    ),
    _Form("location", "place", None, _IS, ("is the background {value}?",)),
    _Form("location", "place", None, _WHAT, ("what is the background?",)),
)  # fmt: skip
ASKED_TYPES = tuple(dict.fromkeys(form.element_type for form in _FORMS))
_PROXIMITY = {"left": "left of", "right": "right of"}


@dataclass(frozen=True)
class Asked:
    """What a question asks about a group, or about the whole picture.

    Attributes:
        by, subject: the group is the one whose attribute `by` is `subject`; both are None for the picture.
        other: shape of the other group, in questions about the relation.
        about: the attribute asked about; None asks whether the group exists.
        value: the question is whether the attribute is this; None asks what it is.
    """

    by: str | None
    subject: str | None
    other: str | None
    about: str | None
    value: str | None


@dataclass(frozen=True)
class QuestionList:
    """Every question of this world; question ids index it. A few that ask of a shape and itself are never asked.

    Attributes:
        texts: the Q questions.
        tokens: (Q, L) words, each 1 + its index in QUESTION_WORDS, 0 for padding.
        types: (Q,) indices into ASKED_TYPES.
        meanings: (Q, 5) what `parse` reads: the attribute that finds the group, its value, the other group's shape, the
            attribute asked about and the value asked for, as indices, or one of this module's codes below 0.
    """

    texts: tuple[str, ...]
    tokens: Tensor
    types: Tensor
    meanings: Tensor

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {text: place for place, text in enumerate(self.texts)}

    def id_of(self, text: str) -> int:
        """The id of a question.

        Raises:
            ShapesError: this world does not know the question.
        """
        if text not in self._ids:
            raise ShapesError(
                f"The shapes world does not know the question {text!r}; ask() writes those that it knows."
            )
        return self._ids[text]

    def parse(self, text: str) -> Asked:
        """What a question asks.

        Raises:
            ShapesError: this world does not know the question.
        """
        by, subject, other, about, asked = self.meanings[self.id_of(text)].tolist()
        return Asked(
            by=None if by == _SCENE else _NAMES[by],
            subject=None if by == _SCENE else ATTRIBUTES[_NAMES[by]][subject],
            other=None if other == _ANYTHING else SHAPES[other],
            about=None if asked == _EXISTS else _NAMES[about],
            value=ATTRIBUTES[_NAMES[about]][asked] if asked >= 0 else None,
        )


@lru_cache(maxsize=1)
def question_list() -> QuestionList:
    """The closed list of questions; it is built once."""
    texts: list[str] = []
    columns: list[tuple[int, int, int, int, int]] = []
    types: list[int] = []
    for form in _FORMS:
        by = _NAMES.index(form.by) if form.by else _SCENE
        for wording, subject, other, value in product(*map(range, form.ranges)):
            texts.append(_word(form, wording, subject, other, value))
            types.append(ASKED_TYPES.index(form.element_type))
            spatial = other if form.about == "relation" else _ANYTHING
            asked = value if form.kind == _IS else form.kind
            columns.append((by, subject, spatial, _NAMES.index(form.about), asked))
    words = [text.rstrip("?").split() for text in texts]
    tokens = torch.zeros(len(texts), max(map(len, words)), dtype=torch.long)
    index = {word: place + 1 for place, word in enumerate(QUESTION_WORDS)}
    for row, line in enumerate(words):
        tokens[row, : len(line)] = torch.tensor([index[word] for word in line])
    return QuestionList(tuple(texts), tokens, torch.tensor(types), torch.tensor(columns))


def _word(form: _Form, wording: int, subject: int, other: int, value: int) -> str:
    name = ATTRIBUTES[form.by][subject] if form.by else ""
    asked = ATTRIBUTES[form.about][value]
    return form.wordings[wording].format(
        one=name,
        many=PLURALS.get(name),
        other=SHAPES[other],
        others=PLURALS[SHAPES[other]],
        value=_PROXIMITY.get(asked, asked),
    )


def _question_words() -> tuple[str, ...]:
    words = {word for form in _FORMS for wording in form.wordings for word in wording.rstrip("?").split()}
    words |= {"of", *ANSWERS, *PLURALS.values()}
    return tuple(sorted(word for word in words if "{" not in word))


# Every word of every question (and every answer, so that one vocabulary serves both).
QUESTION_WORDS = _question_words()


def answer_ids(scenes: Scenes, questions: Tensor) -> Tensor:
    """The true answers, (N, Q) indices into ANSWERS, to (N, Q) question ids, row i about scene i; on their device."""
    device = scenes.device
    facts = _facts(scenes)
    by, subject, other, about, asked = question_list().meanings.to(device)[questions].unbind(-1)

    def fact(attribute: Tensor) -> Tensor:
        return facts.gather(2, attribute[:, None].expand(-1, 2, -1))

    other_shape = facts[:, :, _SHAPE].flip(1)[..., None]
    matches = (fact(by) == subject[:, None]) & ((other[:, None] == _ANYTHING) | (other_shape == other[:, None]))
    found = matches.any(1)
    value = fact(about).masked_fill(~matches, -1).amax(1)
    what = torch.where(found, torch.tensor(_OFFSETS, device=device)[about] + value, NONE)
    yes = found & ((asked == _EXISTS) | (value == asked))
    return torch.where(asked == _WHAT, what, torch.where(yes, YES, NO))


def group_facts(scenes: Scenes) -> Tensor:
    """(N, 2, attributes): the index of each group's value in ATTRIBUTES, -1 throughout for a missing group.

    A lone group's relation means nothing.
    """
    return _facts(scenes)[..., :_SCENE]


def _facts(scenes: Scenes) -> Tensor:
    """(N, 2, attributes + 1): the index of each group's value in ATTRIBUTES, -1 throughout for a missing group.

    The last column is 0 for the first group alone: a question about the place is asked of that group.
    """
    families = {name: index for index, names in enumerate(FAMILIES.values()) for name in names}
    family = torch.tensor([families[name] for name in SHAPES], device=scenes.device)[scenes.shape]
    groups = torch.arange(2, device=scenes.device)
    place = scenes.place[:, None].expand(-1, 2)
    relation = scenes.relation[:, None] * 2 + groups
    first = -groups.expand(len(scenes), 2)
    columns = [
        scenes.shape, family, scenes.color, scenes.count - 1, scenes.material, scenes.size, relation, place, first,
    ]  # fmt: skip
    return torch.stack(columns, dim=2).masked_fill(~scenes.present[..., None], -1)


def ask(scenes: Scenes, captions: Sequence[str]) -> list[list[Question]]:
    """Write the questions of each caption, one list a scene; the same for the same caption and scene.

    About each element there is a yes/no question, to which the truth is as often no as yes, and one with four choices.
    One more question asks for a shape that is absent. Captions must be complete (`partial=0` in `write_captions`).

    Raises:
        ShapesError: scenes and captions differ in number.
    """
    if len(scenes) != len(captions):
        raise ShapesError(f"There are {len(captions)} captions for {len(scenes)} scenes; expected one each.")
    return [
        _ask_one(facts, present, caption)
        for facts, present, caption in zip(_facts(scenes).tolist(), scenes.groups.tolist(), captions, strict=True)
    ]


def _ask_one(facts: Sequence[Sequence[int]], groups: int, caption: str) -> list[Question]:
    rng = random.Random(caption)
    identity = f"shapes_{hashlib.sha256(caption.encode()).hexdigest()[:12]}"
    questions = []
    for group in range(groups):
        own, other = facts[group], facts[1 - group]
        for form in _FORMS:
            if (form.about == "relation" and groups == 1) or (form.by is None and group == 1):
                continue
            questions.append(_question(form, own, other, rng, identity, caption))
    absent = rng.choice([shape for shape in range(len(SHAPES)) if shape not in (facts[0][_SHAPE], facts[1][_SHAPE])])
    text = _word(_FORMS[0], 0, absent, 0, 0)
    return [*questions, Question(identity, caption, text, ("yes", "no"), "no", "object", SHAPES[absent])]


def _question(
    form: _Form, own: Sequence[int], other: Sequence[int], rng: random.Random, identity: str, caption: str
) -> Question:
    about = _NAMES.index(form.about)
    values, truth = ATTRIBUTES[form.about], own[about]
    many = (own[_COUNT] > 0) + 2 * (form.about == "relation" and other[_COUNT] > 0)
    asked = truth
    choices: tuple[str, ...] = ("yes", "no")
    answer = "yes"
    if form.kind == _IS and rng.random() < 0.5:
        asked = rng.choice([value for value in range(len(values)) if value != truth])
        answer = "no"
    elif form.kind == _WHAT:
        choices, answer = _choices(values, truth, rng), values[truth]
    text = _word(form, many % len(form.wordings), own[_NAMES.index(form.by)] if form.by else 0, other[_SHAPE], asked)
    return Question(identity, caption, text, choices, answer, form.element_type, values[truth])


def _choices(values: tuple[str, ...], truth: int, rng: random.Random) -> tuple[str, ...]:
    """Four choices with the truth among them; "none" fills up a list of fewer values."""
    if len(values) <= 4:
        return values if len(values) == 4 else (*values, "none")
    wrong = rng.sample([value for value in values if value != values[truth]], 3)
    return tuple(rng.sample([values[truth], *wrong], 4))


def sample_questions(scenes: Scenes, *, seed: int, per_scene: int = 1, absent: float = 0.15) -> tuple[Tensor, Tensor]:
    """Draw random questions and their true answers, to train a judge.

    Element types are equally frequent. A share `absent` of the questions asks about something that is not there; of the
    other yes/no questions half are true. All questions are drawn at once, by tensor operations.

    Returns:
        Question ids and answer ids, each (N, per_scene).
    """
    device, shape = scenes.device, (len(scenes), per_scene)
    generator = torch.Generator(device).manual_seed(seed)

    def chance(*more: int) -> Tensor:
        return torch.rand(*shape, *more, device=device, generator=generator)

    def pick(limit: Tensor | int) -> Tensor:
        return (chance() * limit).long()

    facts = _facts(scenes)
    tables = _form_tables(device)
    form = _draw_forms(scenes, pick, chance, tables)
    by, about, kind, start = tables.columns[form].unbind(-1)
    wordings, subjects, others, values = tables.ranges[form].unbind(-1)
    group = pick(scenes.groups[:, None])
    rows = torch.arange(len(scenes), device=device)[:, None]

    missing = (chance() < absent) & (by != _SCENE)
    limits = torch.arange(len(SHAPES), device=device) >= subjects[..., None]
    there = (torch.arange(len(SHAPES), device=device) == facts[rows, :, by][..., None]).any(2)
    stranger = chance(len(SHAPES)).masked_fill(limits | there, -1.0).argmax(-1)
    subject = torch.where(missing, stranger, facts[rows, group, by].clamp(min=0))
    neighbour = facts[rows, 1 - group, _SHAPE]
    alone = (neighbour < 0) | (missing & (chance() < 0.5))
    neighbour = torch.where(alone, (subject + 1 + pick(len(SHAPES) - 1)) % len(SHAPES), neighbour)
    truth = facts[rows, group, about]
    value = torch.where((chance() < 0.5) & ~missing, truth, pick(values)) * (kind == _IS)
    other = torch.where(others > 1, neighbour, 0)
    question = start + ((pick(wordings) * subjects + subject) * others + other) * values + value
    return question, answer_ids(scenes, question)


@dataclass(frozen=True)
class _FormTables:
    columns: Tensor
    ranges: Tensor
    of_type: Tensor


@lru_cache(maxsize=4)
def _form_tables(device: torch.device) -> _FormTables:
    columns, ranges, start = [], [], 0
    for form in _FORMS:
        by = _NAMES.index(form.by) if form.by else _SCENE
        columns.append((by, _NAMES.index(form.about), form.kind, start))
        ranges.append(form.ranges)
        start += math.prod(form.ranges)
    of_type = [[i for i, form in enumerate(_FORMS) if form.element_type == name] for name in ASKED_TYPES]
    return _FormTables(*(torch.tensor(table, device=device) for table in (columns, ranges, of_type)))


def _draw_forms(
    scenes: Scenes, pick: Callable[[Tensor | int], Tensor], chance: Callable[[], Tensor], tables: _FormTables
) -> Tensor:
    kinds = pick(len(ASKED_TYPES))
    spatial = ASKED_TYPES.index("spatial")
    # A lone group has no relation: a question about it asks for something absent. Few of these are kept.
    pointless = (kinds == spatial) & (scenes.groups == 1)[:, None] & (chance() < 0.8)
    kinds = torch.where(pointless, pick(spatial), kinds)
    return tables.of_type[kinds, pick(tables.of_type.shape[1])]
