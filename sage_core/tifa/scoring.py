"""From a judge's answers to TIFA: by question, averaged over captions, and by element type.

Hu et al., "TIFA: Accurate and Interpretable Text-to-Image Faithfulness Evaluation with Question Answering", ICCV 2023.
Soft TIFA is from GenEval 2, 2025, whose arithmetic mean is over all questions; here captions weigh alike, as in TIFA.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
        return {name: statistics.fmean(q.score for q in group) for name, group in self._captions.items()}

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
        return {name: statistics.fmean(q.score for q in group) for name, group in self._types.items()}

    @property
    def type_counts(self) -> dict[str, int]:
        """Element type -> number of questions."""
        return {name: len(group) for name, group in self._types.items()}

    @property
    def soft_questions(self) -> int:
        """Number of questions with a probability from the judge; only these count in the soft scores."""
        return sum(q.probability is not None for q in self.questions)

    @property
    def soft_arithmetic(self) -> float | None:
        """Soft TIFA: mean over captions of the arithmetic mean of the right choices' probabilities.

        GenEval 2 takes the arithmetic mean over all questions (its atoms) instead, whatever their captions.
        """
        return _mean([float(np.mean(p)) for p in self._probabilities.values()])

    @property
    def soft_geometric(self) -> float | None:
        """Soft TIFA with the geometric mean, which a single sure mistake pulls down to nothing."""
        return _mean([_geometric_mean(p) for p in self._probabilities.values()])

    @cached_property
    def _captions(self) -> dict[str, list[ScoredQuestion]]:
        groups: dict[str, list[ScoredQuestion]] = {}
        for scored in self.questions:
            groups.setdefault(scored.question.id, []).append(scored)
        return groups

    @cached_property
    def _types(self) -> dict[str, list[ScoredQuestion]]:
        groups: dict[str, list[ScoredQuestion]] = {name: [] for name in ELEMENT_TYPES}
        for scored in self.questions:
            groups[scored.question.element_type].append(scored)
        return {name: group for name, group in groups.items() if group}

    @cached_property
    def _probabilities(self) -> dict[str, list[float]]:
        known = {
            name: [q.probability for q in group if q.probability is not None] for name, group in self._captions.items()
        }
        return {name: values for name, values in known.items() if values}

    def intervals(self, *, confidence: float = 0.95) -> dict[str, Interval]:
        """Score intervals for captions as clusters of questions; see `clustered_proportion`.

        They are for "TIFA", for "soft arithmetic" and "soft geometric" if there are such, and for each element type. A
        number to which fewer than two captions contribute is left out: one caption has no spread between captions.
        """
        columns = list(self._columns().items())
        totals, counts = (
            np.array([[column[name][part] for _, column in columns] for name in self._captions]) for part in (0, 1)
        )
        low, high = clustered_proportion(totals, counts, confidence=confidence)
        return {
            name: Interval(float(bottom), float(top))
            for (name, _), bottom, top in zip(columns, low, high, strict=True)
            if np.isfinite(bottom)
        }

    def _columns(self) -> dict[str, dict[str, tuple[float, float]]]:
        """For each reported number and caption, what the caption adds to the sum and to the count behind it."""
        nothing = (0.0, 0.0)
        columns = {"TIFA": {name: (score, 1.0) for name, score in self.caption_scores.items()}}
        if self._probabilities:
            known = self._probabilities
            columns["soft arithmetic"] = {
                n: (float(np.mean(known[n])), 1.0) if n in known else nothing for n in self._captions
            }
            columns["soft geometric"] = {
                n: (_geometric_mean(known[n]), 1.0) if n in known else nothing for n in self._captions
            }
        for element_type in self._types:
            of_type = {
                name: [q.score for q in group if q.question.element_type == element_type]
                for name, group in self._captions.items()
            }
            columns[element_type] = {name: (float(sum(s)), float(len(s))) for name, s in of_type.items()}
        return columns

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
        for name, label, value, count in self._rows():
            percent = f"{100 * value:.1f}"
            if name == "TIFA" and self.deviation is not None:
                percent += f" ± {100 * self.deviation:.1f}"
            found = intervals.get(name)
            interval = found.percent if found else "–"
            rows.append((label, percent, interval, count))
        judge, matching = table_cell(self.judge), table_cell(self.matching)
        right, asked = sum(each.score for each in self.questions), len(self.questions)
        title = (
            f"**{table_cell(self.name)}**: TIFA {100 * self.average:.1f}%, {right} of {asked} questions answered "
            f"rightly, judged by {judge}, free answers matched by {matching}"
        )
        table = markdown_table(("", "%", "95% interval", "n"), rows)
        return f"{title}\n\n{table}\n\n{self._explanation(intervals)}"

    def _rows(self) -> list[tuple[str, str, float, int]]:
        """Name in `intervals`, label, value and number of captions or questions, in the table's order."""
        rows = [("TIFA", "TIFA (mean over captions)", self.average, len(self.caption_scores))]
        if self.soft_arithmetic is not None and self.soft_geometric is not None:
            soft = {"arithmetic": self.soft_arithmetic, "geometric": self.soft_geometric}
            rows += [
                (f"soft {kind}", f"soft TIFA, {kind} (mean over captions)", value, self.soft_questions)
                for kind, value in soft.items()
            ]
        return rows + [(name, name, score, self.type_counts[name]) for name, score in self.by_type.items()]

    def _explanation(self, intervals: Mapping[str, Interval]) -> str:
        texts = ["±: standard deviation over captions"] if len(self.caption_scores) > 1 else []
        if intervals:
            texts.append(
                "Intervals: Wilson's, with the sample size that remains where questions of one caption agree; captions "
                "without a mistake count once each"
            )
        if len(intervals) < len(self._rows()):
            texts.append("–: fewer than two captions to tell from")
        if self._probabilities:
            texts.append("Soft TIFA: a mean for each caption, then over captions; GenEval 2's is over all questions")
        return ". ".join(texts) + "."


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _geometric_mean(probabilities: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(probabilities)))) if all(probabilities) else 0.0
