"""How well the learned judge agrees with the truth (rendered pictures) and with the reader (generated ones)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ...tifa.questions import Question
from ..ask import ASKED_TYPES, UNCLEAR, question_list, sample_questions
from ..networks.judge import answer_questions
from ..networks.model import LATENT_SHAPE, TinyAutoencoder
from ..render import render
from ..scenes import sample_scenes
from .examiners import Examiner, JudgeExaminer

# Far from the seeds of training.
_SEED = 900_001


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
