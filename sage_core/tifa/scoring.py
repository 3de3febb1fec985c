"""From a judge's answers to TIFA: by question, averaged over captions, and by element type.

Hu et al., "TIFA: Accurate and Interpretable Text-to-Image Faithfulness Evaluation with Question Answering", ICCV 2023.
Soft TIFA is from GenEval 2, 2025, whose arithmetic mean is over all questions; here captions weigh alike, as in TIFA.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from ..errors import JudgeError, QuestionError
from ..intervals import Interval, clustered_proportion
from ..tables import markdown_table, table_cell
from .judges.base import Answer
from .questions import ELEMENT_TYPES, Question
from .sentences import RECOMMENDED, SentenceEncoder

# Answers of a judge that does not see what it is asked about.
DENIALS = frozenset({"none", "nothing", "unclear"})
# What the table calls the numbers that are not of one element type.
_LABELS = {
    "TIFA": "TIFA (mean over captions)",
    "soft arithmetic": "soft TIFA, arithmetic (mean over captions)",
    "soft geometric": "soft TIFA, geometric (mean over captions)",
}


@dataclass(frozen=True)
class ScoredQuestion:
    """One question about one image, with its answer.

    `chosen` is the choice that the free `answer` stands for, or the answer itself if it stands for none. `score` is 1
    if it is right. `probability` is the judge's probability of the right choice, None if the judge cannot tell.
    """

    image: str
    question: Question
    answer: str
    chosen: str
    probability: float | None

    @property
    def score(self) -> int:
        """1 if the chosen answer is right, else 0."""
        return int(self.chosen == self.question.answer)

    def to_dict(self) -> dict[str, Any]:
        """The question's official keys and its answer, fit for JSON."""
        return {
            **self.question.to_row(),
            "image": self.image,
            "free_answer": self.answer,
            "chosen": self.chosen,
            "score": self.score,
            "probability": self.probability,
        }


def score_answers(
    images: Sequence[str],
    questions: Sequence[Question],
    answers: Sequence[Answer],
    sentences: SentenceEncoder | None = None,
) -> list[ScoredQuestion]:
    """Score free answers by TIFA's rule; `images[i]` names the image that `questions[i]` was asked about.

    An answer that is one of the choices, letter for letter, stands. Otherwise the choice with the nearest sentence
    embedding stands for it. Without a sentence encoder it is the judge's most probable choice, which is not TIFA's
    rule. Where the judge sees none of the choices, that one would be right by luck: then an answer in DENIALS, or one
    with no probability for any choice, is wrong.

    Raises:
        JudgeError: there are neither a sentence encoder nor the judge's probabilities.
    """
    free = [row for row, answer in enumerate(answers) if answer.text not in questions[row].choices]
    if sentences is not None:
        nearest = sentences.nearest_choices([answers[r].text for r in free], [questions[r].choices for r in free])
    else:
        free = [row for row in free if not _denies(answers[row])]
        nearest = [_most_probable(answers[row], questions[row]) for row in free]
    chosen = {row: questions[row].choices[index] for row, index in zip(free, nearest, strict=True)}
    return [
        ScoredQuestion(
            image,
            question,
            answer.text,
            chosen.get(row, answer.text),
            None if answer.probabilities is None else answer.probabilities[question.choices.index(question.answer)],
        )
        for row, (image, question, answer) in enumerate(zip(images, questions, answers, strict=True))
    ]


def _denies(answer: Answer) -> bool:
    return answer.text in DENIALS or (answer.probabilities is not None and not any(answer.probabilities))


def _most_probable(answer: Answer, question: Question) -> int:
    if answer.probabilities is None:
        raise JudgeError(
            f"The answer {answer.text!r} to {question.question!r} is none of {list(question.choices)}, and there is no "
            f"sentence encoder to find the nearest. Load one, for instance {RECOMMENDED}."
        )
    return int(np.argmax(answer.probabilities))


@dataclass(frozen=True)
class TifaResult:
    """All scored questions of one run and their averages, as fractions of 1.

    `name` labels the run, and `judge` is the model that answered. `matching` says how free answers became choices:
    "sentence embedding" is TIFA's rule, "likelihood" the rule without a sentence encoder.
    """

    name: str
    judge: str
    matching: str
    questions: tuple[ScoredQuestion, ...]

    def __post_init__(self) -> None:
        if not self.questions:
            raise QuestionError(f"Run {self.name!r} has no scored question, expected one or more.")

    @cached_property
    def caption_scores(self) -> dict[str, float]:
        """Caption id -> share of its questions answered right."""
        return {name: score for name, (score,) in self._columns["TIFA"].items()}

    @property
    def average(self) -> float:
        """TIFA: the mean over captions of the mean over the caption's questions; not the mean over all questions."""
        return statistics.fmean(self.caption_scores.values())

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over captions; None for a single caption."""
        return statistics.stdev(self.caption_scores.values()) if len(self.caption_scores) > 1 else None

    @cached_property
    def by_type(self) -> dict[str, float]:
        """Element type -> mean over all questions of that type, for types that have any."""
        return {name: self._means[name] for name in ELEMENT_TYPES if name in self._means}

    @property
    def type_counts(self) -> dict[str, int]:
        """Element type -> number of questions."""
        return {name: sum(map(len, self._columns[name].values())) for name in self.by_type}

    @property
    def soft_questions(self) -> int:
        """Number of questions with a probability from the judge; only these count in the soft scores."""
        return sum(q.probability is not None for q in self.questions)

    @property
    def soft_arithmetic(self) -> float | None:
        """Soft TIFA: mean over captions of the arithmetic mean of the right choices' probabilities.

        GenEval 2 takes the arithmetic mean over all questions (its atoms) instead, whatever their captions.
        """
        return self._means.get("soft arithmetic")

    @property
    def soft_geometric(self) -> float | None:
        """Soft TIFA with the geometric mean, which a single sure mistake pulls down to nothing."""
        return self._means.get("soft geometric")

    @cached_property
    def _columns(self) -> dict[str, dict[str, list[float]]]:
        """What each reported number is the mean of, by caption: the caption's own mean, or its scores of one type."""
        scores: dict[str, list[float]] = {}
        chances: dict[str, list[float]] = {}
        types: dict[str, dict[str, list[float]]] = {name: {} for name in ELEMENT_TYPES}
        for scored in self.questions:
            caption = scored.question.id
            scores.setdefault(caption, []).append(scored.score)
            types[scored.question.element_type].setdefault(caption, []).append(scored.score)
            if scored.probability is not None:
                chances.setdefault(caption, []).append(scored.probability)
        columns = {
            "TIFA": {name: [statistics.fmean(values)] for name, values in scores.items()},
            "soft arithmetic": {name: [float(np.mean(values))] for name, values in chances.items()},
            "soft geometric": {name: [_geometric_mean(values)] for name, values in chances.items()},
            **types,
        }
        return {name: column for name, column in columns.items() if column}

    @cached_property
    def _means(self) -> dict[str, float]:
        return {name: statistics.fmean(chain(*column.values())) for name, column in self._columns.items()}

    def intervals(self, *, confidence: float = 0.95) -> dict[str, Interval]:
        """Score intervals for captions as clusters of questions; see `clustered_proportion`.

        They are for "TIFA", for "soft arithmetic" and "soft geometric" if there are such, and for each element type. A
        number to which fewer than two captions contribute is left out: one caption has no spread between captions.
        """
        values = [[column.get(name, []) for column in self._columns.values()] for name in self.caption_scores]
        totals, counts = (np.array([[float(of(cell)) for cell in row] for row in values]) for of in (sum, len))
        bounds = zip(*clustered_proportion(totals, counts, confidence=confidence), strict=True)
        return {
            name: Interval(float(low), float(high))
            for name, (low, high) in zip(self._columns, bounds, strict=True)
            if np.isfinite(low)
        }

    def to_dict(self) -> dict[str, Any]:
        """Averages, intervals and every question, fit for JSON."""
        return {
            "name": self.name,
            "judge": self.judge,
            "matching": self.matching,
            "tifa": self.average,
            "tifa_standard_deviation": self.deviation,
            "captions": len(self.caption_scores),
            "accuracy_by_type": self.by_type,
            "questions_by_type": self.type_counts,
            "soft_arithmetic": self.soft_arithmetic,
            "soft_geometric": self.soft_geometric,
            "soft_questions": self.soft_questions,
            "intervals_95": {name: [i.low, i.high] for name, i in self.intervals().items()},
            "caption_scores": self.caption_scores,
            "questions": [scored.to_dict() for scored in self.questions],
        }

    def to_markdown(self) -> str:
        """TIFA in a line, then a table of all averages in per cent with 95% intervals, and an explanation."""
        intervals = self.intervals()
        rows = []
        for name, column in self._columns.items():
            percent = f"{100 * self._means[name]:.1f}"
            if name == "TIFA" and self.deviation is not None:
                percent += f" ± {100 * self.deviation:.1f}"
            count = self.soft_questions if name.startswith("soft") else sum(map(len, column.values()))
            interval = intervals[name].percent if name in intervals else "–"
            rows.append((_LABELS.get(name, name), percent, interval, count))
        judge, matching = table_cell(self.judge), table_cell(self.matching)
        right, asked = sum(each.score for each in self.questions), len(self.questions)
        title = (
            f"**{table_cell(self.name)}**: TIFA {100 * self.average:.1f}%, {right} of {asked} questions answered "
            f"rightly, judged by {judge}, free answers matched by {matching}"
        )
        table = markdown_table(("", "%", "95% interval", "n"), rows)
        return f"{title}\n\n{table}\n\n{self._explanation(intervals)}"

    def _explanation(self, intervals: Mapping[str, Interval]) -> str:
        texts = ["±: standard deviation over captions"] if len(self.caption_scores) > 1 else []
        if intervals:
            texts.append(
                "Intervals: Wilson's, with the sample size that remains where questions of one caption agree; captions "
                "without a mistake count once each"
            )
        if len(intervals) < len(self._columns):
            texts.append("–: fewer than two captions to tell from")
        if self.soft_questions:
            texts.append("Soft TIFA: a mean for each caption, then over captions; GenEval 2's is over all questions")
        return ". ".join(texts) + "."


def _geometric_mean(probabilities: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(probabilities)))) if all(probabilities) else 0.0
