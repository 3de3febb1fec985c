"""Questions that a larger language model writes by itself, as JSON, and what makes one of them sound."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...errors import QuestionError
from ..questions import ELEMENT_TYPES, Question
from .grammars import question_grammar
from .made import DroppedQuestion

if TYPE_CHECKING:
    from .language_model import LanguageModel

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


def written_questions(
    captions: Mapping[str, str],
    writer: LanguageModel,
    *,
    seed: int | None = None,
    on_token: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[str, list[Question], list[DroppedQuestion]]]:
    """Have the model write about `captions` (id -> caption) in one batch: (id, sound questions, dropped ones) each.

    A question is sound if its row is (see Question), its element is in the caption, it is no duplicate, and the model
    picks the same answer again when it sees caption, question and choices only. `seed` None: the model's own first
    choice, which repeats exactly. Where llguidance is installed, nothing but questions can be written.
    """
    prompts = [_INSTRUCTION.format(types=", ".join(ELEMENT_TYPES), caption=caption) for caption in captions.values()]
    grammars = [question_grammar(caption) for caption in captions.values()] if writer.can_follow_grammars else None
    texts = writer.complete(prompts, seed=seed, grammars=grammars, on_token=on_token)
    for (name, caption), text in zip(captions.items(), texts, strict=True):
        yield name, *_checked(name, caption, text, writer)


def _checked(name: str, caption: str, text: str, writer: LanguageModel) -> tuple[list[Question], list[DroppedQuestion]]:
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
    """Every JSON object in a text that may be a question, also one that was cut off.

    Around it may stand prose, code fences, a list, or an object such as {"questions": [...]}.
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
