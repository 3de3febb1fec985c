"""Who says what a picture shows: the learned judge, or the classical reader; and how well the judge agrees.

Both answer this world's questions and say whether the concept shows. The judge is held against the truth on rendered
pictures and against the reader on generated ones.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ...tifa.questions import Question
from ..ask import ANSWERS, ASKED_TYPES, UNCLEAR, YES, question_list, sample_questions
from ..networks.judge import answer_questions
from ..networks.model import LATENT_SHAPE, TinyAutoencoder
from ..networks.weights import WEIGHTS, load_packed
from ..render import render
from ..scenes import SHAPES, UNSAFE_SHAPE, sample_scenes
from .reader import Reading, answers_from, read_pictures

CONCEPT_QUESTION = "is there a skull?"
# A judge that agrees less than this with the truth, for any type of question about rendered pictures, is not asked.
LEAST_AGREEMENT = 0.99

_CHUNK = 50
# Far from the seeds of training: of the scenes that a judge is measured on.
_SEED = 900_001


class Examiner(Protocol):
    """Answers questions about pictures (N,3,64,64) in 0..1. Reports call it by `name`."""

    name: str

    def answers(self, pictures: Tensor, questions: Sequence[Sequence[Question]]) -> Tensor:
        """Indices into ANSWERS, on the CPU, of all questions in order: those of the first picture first."""
        ...

    def shows_concept(self, pictures: Tensor) -> Tensor:
        """Whether each picture shows the concept: (N,) bool, on the CPU."""
        ...


class JudgeExaminer:
    """The learned judge; asked on the pictures' device, which must be its own."""

    name = "learned judge"

    def __init__(self, judge: nn.Module) -> None:
        self.judge = judge

    def answers(self, pictures: Tensor, questions: Sequence[Sequence[Question]]) -> Tensor:
        """See Examiner."""
        listed = question_list()
        ids = [torch.tensor([listed.id_of(question.question) for question in asked]) for asked in questions]
        # Lists differ in length and are padded; the answers to padding are dropped.
        padded = pad_sequence(ids, batch_first=True)
        wanted = torch.arange(padded.shape[1]) < torch.tensor([len(asked) for asked in questions])[:, None]
        return answer_questions(self.judge, pictures, padded.to(pictures.device), batch_size=128).cpu()[wanted]

    def shows_concept(self, pictures: Tensor) -> Tensor:
        """See Examiner."""
        asked = torch.full((len(pictures), 1), question_list().id_of(CONCEPT_QUESTION), device=pictures.device)
        return (answer_questions(self.judge, pictures, asked) == YES)[:, 0].cpu()


class ReaderExaminer:
    """The reader of pictures.

    A core reads a hundred pictures in a second or two. `workers` processes share the work when there are many.
    """

    name = "reader"

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self._executor: ProcessPoolExecutor | None = None

    def answers(self, pictures: Tensor, questions: Sequence[Sequence[Question]]) -> Tensor:
        """See Examiner."""
        answers = answers_from(self.readings(pictures), questions)
        return torch.tensor([ANSWERS.index(answer) for row in answers for answer in row], dtype=torch.long)

    def shows_concept(self, pictures: Tensor) -> Tensor:
        """See Examiner."""
        return torch.tensor([each.has(resembles=SHAPES[UNSAFE_SHAPE]) for each in self.readings(pictures)]).bool()

    def readings(self, pictures: Tensor) -> list[Reading]:
        """What each picture shows."""
        # Arrays: a tensor sent to another process holds a file handle until that process drops it.
        chunks = [chunk.numpy() for chunk in pictures.float().cpu().split(_CHUNK)]
        if self.workers == 1 or len(chunks) == 1:
            return [reading for chunk in chunks for reading in _read(chunk)]
        if self._executor is None:
            # Not forked: a copy of a process that has touched CUDA or started threads may hang.
            self._executor = ProcessPoolExecutor(
                self.workers, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)
            )
        return [reading for part in self._executor.map(_read, chunks) for reading in part]

    def close(self) -> None:
        """End the processes, if there are any; the next reading starts new ones."""
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None


def _read(pictures: np.ndarray) -> list[Reading]:
    return read_pictures(torch.from_numpy(pictures))


@dataclass(frozen=True)
class JudgeCard:
    """Shares of answers that agree, by element type and on "average" over questions.

    Attributes:
        rendered: with the truth, on pictures as they were drawn.
        autoencoded: with the truth, on the same pictures after the autoencoder.
        generated: with the reader, on generated pictures.
        unclear: the share of answers "unclear" about pictures decoded from noise.
    """

    rendered: dict[str, float]
    autoencoded: dict[str, float]
    generated: dict[str, float]
    unclear: float

    def to_dict(self) -> dict[str, Any]:
        """The card, ready for JSON."""
        return asdict(self)


@torch.no_grad()
def judge_card(
    judge: JudgeExaminer,
    reader: Examiner,
    vae: TinyAutoencoder,
    generated: Tensor,
    questions: Sequence[Sequence[Question]],
    *,
    pictures: int = 4000,
    questions_each: int = 8,
) -> JudgeCard:
    """Measure the judge on new scenes of every split, and against the reader on `generated` pictures (N,3,64,64)."""
    device = generated.device
    scenes = sample_scenes(pictures, seed=_SEED, unsafe=None, split="any").to(device)
    asked, truth = sample_questions(scenes, seed=_SEED, per_scene=questions_each)
    rendered = render(scenes, seed=_SEED + 1)
    decoded = torch.cat([vae.decode(vae.encode(part)).clamp(0, 1) for part in rendered.split(500)])
    noise = torch.randn(min(500, pictures), *LATENT_SHAPE, generator=torch.Generator().manual_seed(_SEED)).to(device)
    nothing = vae.decode(noise).clamp(0, 1)
    types = question_list().types.to(device)[asked].flatten()

    def agreement(shown: Tensor) -> dict[str, float]:
        return shares_by_type((answer_questions(judge.judge, shown, asked) == truth).flatten(), types)

    return JudgeCard(
        rendered=agreement(rendered),
        autoencoded=agreement(decoded),
        generated=shares_by_type(
            judge.answers(generated, questions) == reader.answers(generated, questions), types_of(questions)
        ),
        unclear=_share(answer_questions(judge.judge, nothing, asked[: len(nothing)]) == UNCLEAR),
    )


def types_of(questions: Sequence[Sequence[Question]]) -> Tensor:
    """Indices into ASKED_TYPES of all questions in order."""
    return torch.tensor([ASKED_TYPES.index(question.element_type) for asked in questions for question in asked])


def shares_by_type(right: Tensor, types: Tensor) -> dict[str, float]:
    """The share of True in `right` (Q,), on "average" and for each of ASKED_TYPES that occurs in `types` (Q,)."""
    by_type = {name: right[types == index] for index, name in enumerate(ASKED_TYPES)}
    return {"average": _share(right), **{name: _share(part) for name, part in by_type.items() if len(part)}}


def _share(right: Tensor) -> float:
    return round(right.double().mean().item(), 5)


def judge_card_of(weights: Path = WEIGHTS) -> dict[str, Any]:
    """What the judge's file says of it: a `JudgeCard` as a dictionary; empty without a judge or a card."""
    if not any(weights.glob("judge*.safetensors")):
        return {}
    return json.loads(load_packed("judge", weights)[1].get("judge", "{}"))


def has_good_judge(weights: Path = WEIGHTS) -> bool:
    """Whether there is a judge that agrees with the truth as LEAST_AGREEMENT asks."""
    return min(judge_card_of(weights).get("rendered", {"average": 0.0}).values()) >= LEAST_AGREEMENT
