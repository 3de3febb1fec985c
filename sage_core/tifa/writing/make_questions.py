"""Questions for any caption, written by a local language model and checked, or by rules."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...errors import QuestionError
from ..questions import ELEMENT_TYPES, Question, count_types
from .rules import rule_questions

_INSTRUCTION = """\
You write questions that test whether a picture shows what its description says.
First find the elements of the description: objects, animals and people, places, colors, food, materials, attributes, \
counts, shapes, activities, spatial relations. For every element write one question with the choices yes and no, \
and one question with four choices. The description alone must be enough to answer each question, and exactly one \
choice must be right.
Write one JSON object per line and nothing else, with the keys element, element_type, question, choices, answer. \
element is copied from the description. element_type is one of: {types}. answer is one of the choices.

Description: Two brown dogs left of a wooden bench.
{{"element": "dogs", "element_type": "animal/human", "question": "are there dogs?", "choices": ["yes", "no"], \
"answer": "yes"}}
{{"element": "dogs", "element_type": "animal/human", "question": "what animals are in the picture?", "choices": \
["dogs", "cats", "horses", "cows"], "answer": "dogs"}}
{{"element": "two", "element_type": "counting", "question": "how many dogs are there?", "choices": ["1", "2", "3", \
"4"], "answer": "2"}}
{{"element": "brown", "element_type": "color", "question": "are the dogs brown?", "choices": ["yes", "no"], \
"answer": "yes"}}
{{"element": "wooden", "element_type": "material", "question": "what is the bench made of?", "choices": ["wood", \
"metal", "stone", "plastic"], "answer": "wood"}}
{{"element": "left of", "element_type": "spatial", "question": "are the dogs left of the bench?", "choices": \
["yes", "no"], "answer": "yes"}}

Description: {caption}
"""
_CHECK = """\
Description: {caption}
Question: {question}
Choices: {choices}
Answer:"""


class Writer(Protocol):
    """What a language model must be able to do, see LanguageModel."""

    name: str

    def complete(self, prompts: Sequence[str], *, tokens: int = 1024, seed: int | None = None) -> list[str]: ...

    def likeliest(self, prompts: Sequence[str], choices: Sequence[Sequence[str]]) -> list[int]: ...


@dataclass(frozen=True)
class DroppedQuestion:
    """A question, or a whole answer of the model, that was not kept."""

    caption_id: str
    text: str
    reason: str


@dataclass(frozen=True)
class MadeQuestions:
    """Questions for captions, and all that did not become one. `without` lists captions left without any."""

    writer: str
    questions: tuple[Question, ...]
    dropped: tuple[DroppedQuestion, ...]
    without: tuple[str, ...]

    def summary(self, most: int = 20) -> str:
        """Counts by type, what was dropped and why, and captions that got no question, as text."""
        captions = len({question.id for question in self.questions})
        lines = [f"{len(self.questions)} questions about {captions} captions by {self.writer}"]
        lines += [f"  {name}: {count}" for name, count in count_types(self.questions).items()]
        if self.dropped:
            lines.append(f"{len(self.dropped)} dropped:")
            lines += [f"  {d.caption_id}: {d.reason}: {d.text}" for d in self.dropped[:most]]
        if len(self.dropped) > most:
            lines.append(f"  … and {len(self.dropped) - most} more")
        if self.without:
            lines.append(f"{len(self.without)} captions without a question: {', '.join(self.without[:most])}")
        return "\n".join(lines)


def make_questions(
    captions: Mapping[str, str],
    writer: Writer,
    *,
    attempts: int = 3,
    seed: int = 0,
    on_caption: Callable[[int, int], None] | None = None,
) -> MadeQuestions:
    """Have a language model write questions for `captions` (id -> caption) and keep the sound ones.

    A question is kept if its row is sound (see Question), its element is in the caption, it is no duplicate, and the
    model picks the same answer again when it sees caption, question and choices only. Captions without a sound
    question are tried again, up to `attempts` times in all, with other random numbers.
    `on_caption(done, total)` is told of progress; what it raises ends the work.
    """
    _refuse_empty(captions)
    kept: dict[str, list[Question]] = {}
    dropped: list[DroppedQuestion] = []
    size = 8
    for attempt in range(attempts):
        left = [name for name in captions if name not in kept]
        for start in range(0, len(left), size):
            names = left[start : start + size]
            prompts = [_INSTRUCTION.format(types=", ".join(ELEMENT_TYPES), caption=captions[n]) for n in names]
            # The first attempt takes the model's own first choice, which is its best and repeats exactly.
            texts = writer.complete(prompts, seed=None if attempt == 0 else seed + attempt)
            for name, text in zip(names, texts, strict=True):
                sound, unsound = _checked(name, captions[name], text, writer)
                dropped += unsound
                if sound:
                    kept[name] = sound
            if on_caption is not None:
                on_caption(len(kept), len(captions))
    questions = tuple(question for name in captions for question in kept.get(name, ()))
    return MadeQuestions(writer.name, questions, tuple(dropped), tuple(n for n in captions if n not in kept))


def make_questions_by_rule(captions: Mapping[str, str]) -> MadeQuestions:
    """Questions without any model, see `rule_questions` for what rules can see and what they cannot."""
    _refuse_empty(captions)
    made = {name: rule_questions(name, caption) for name, caption in captions.items()}
    return MadeQuestions(
        "rules (articles, colors, counts, materials, shapes, sizes, places and spatial relations by word lists)",
        tuple(question for some in made.values() for question in some),
        (),
        tuple(name for name, some in made.items() if not some),
    )


def _refuse_empty(captions: Mapping[str, str]) -> None:
    empty = [name for name, caption in captions.items() if not caption.strip()]
    if empty or not captions:
        raise QuestionError(f"caption {empty[0]!r} is empty" if empty else "there is no caption to ask about")


def _checked(name: str, caption: str, text: str, writer: Writer) -> tuple[list[Question], list[DroppedQuestion]]:
    sound: dict[str, Question] = {}
    dropped = []
    rows = list(_objects(text))
    if not rows:
        dropped.append(DroppedQuestion(name, text[:200], "no JSON object in what the model wrote"))
    for row in rows:
        try:
            question = _sound(name, caption, row)
            if question.question.casefold() in sound:
                raise QuestionError("asked twice")
            sound[question.question.casefold()] = question
        except QuestionError as error:
            dropped.append(DroppedQuestion(name, str(row.get("question", row))[:200], str(error).rstrip(".")))
    questions = list(sound.values())
    prompts = [_CHECK.format(caption=caption, question=q.question, choices=", ".join(q.choices)) for q in questions]
    picked = writer.likeliest(prompts, [q.choices for q in questions]) if questions else []
    kept = []
    for question, index in zip(questions, picked, strict=True):
        if question.choices[index] == question.answer:
            kept.append(question)
        else:
            reason = f"the caption alone is answered with {question.choices[index]!r}, not {question.answer!r}"
            dropped.append(DroppedQuestion(name, question.question, reason))
    return kept, dropped


def _sound(name: str, caption: str, row: Mapping[str, Any]) -> Question:
    question = Question.from_row({**row, "id": name, "caption": caption})
    if question.element.casefold() not in caption.casefold():
        raise QuestionError(f"its element {question.element!r} is not in the caption")
    return question


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Every JSON object in a text that may be a question, whatever stands around it: prose, code fences, a list, an
    object such as {"questions": [...]}, also one that was cut off.
    """
    decoder = json.JSONDecoder()
    position = text.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError:
            end = position + 1
        else:
            yield from _questions_in(value)
        position = text.find("{", end)


def _questions_in(value: Any) -> Iterator[dict[str, Any]]:
    """Objects with a question, or the innermost ones where there is none: these are reported as dropped."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    inside = [row for part in parts for row in _questions_in(part)]
    if isinstance(value, dict) and (isinstance(value.get("question"), str) or not inside):
        yield value
    else:
        yield from inside
